"""Importing policies of the two older formats: what goes over, and what is said of the rest."""

from __future__ import annotations

import pytest

from lukhas.errors import Conflict, PolicyError
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.importer import Imported, import_policy
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text

WEIGHT = """
signals:
  - {name: stress, weight: 0.9, cooldown_ms: 800}
  - {name: alignment_risk, weight: 1.0, cooldown_ms: 0}
  - {name: trust, weight: 0.4, cooldown_ms: 500}
  - {name: fatigue, weight: 0.3, cooldown_ms: 250}
bounds:
  temperature: [0.0, 1.0]
  max_output_tokens: [256, 2048]
  planner_beam: [1, 6]
  safety_mode: [creative, strict, balanced]
  tool_allowlist: [lookup, browser, retrieval]
maps:
  alignment_risk:
    temperature: "1 - 0.85*x"
    safety_mode: "'strict' if x>0.3 else 'balanced'"
    tool_allowlist: "['retrieval'] if x>0.7 else ['retrieval', 'browser']"
  stress:
    temperature: "max(0.1, 0.7 - 0.6*x)"
    max_output_tokens: "round(1400 - 600*x)"
  trust:
    safety_mode: "balanced if x>0.6 and alignment_risk<0.2 else current"
  fatigue: {planner_beam: 2, tool_allowlist: [lookup]}
prompt_styles:
  strict: {system_preamble: "Take care: größe, \\U0001F9E0.", moderation_preset: high, stop_sequences: ["\\nUnsafe:"]}
  balanced: {system_preamble: "Help."}
"""

PRIORITY = """
signals:
  stress: {priority: 2, decay_rate: 0.1, max_level: 0.9, sources: [a, b], description: "load: high\\n# or not"}
  novelty: {priority: 4, decay_rate: 0.05, max_level: 1.0}
  alignment_risk: {priority: 1, decay_rate: 0.02, max_level: 1.0}
  urgency: {priority: 3, decay_rate: 0.15, max_level: 0.8}
  ambiguity: {priority: 3, decay_rate: 0, max_level: 0.5}
bounds:
  temperature: [0.0, 1.0]
  max_tokens: [50, 4000]
  reasoning_depth: [1, 5]
  memory_write: [0.0, 1.0]
available_tools: [search, code_exec, retrieval]
maps:
  alignment_risk:
    temperature: "0.8 - (level * 0.6)"
    max_tokens: "4000 - (level * 3500)"
    reasoning_depth: "max(1, 3 - level * 2)"
    memory_write: "0.3 + (level * 0.4)"
  stress: {temperature: "0.7 - (level * 0.4)"}
  novelty: {temperature: "0.5 + math.exp(level) * 0.1", max_tokens: "2000 + level ** 2 * 2000"}
prompt_styles:
  strict: {system_preamble: "Precise.", user_prefix: "[STRICT] "}
  creative: {system_preamble: "Free."}
  exploratory: {system_preamble: "Wide."}
  pirate: {system_preamble: "Arr."}
tool_gates:
  high_risk: {alignment_risk: 0.7, allowed_tools: [search]}
  higher: {alignment_risk: 0.4, allowed_tools: [search, retrieval]}
  stressed: {stress: 0.8, allowed_tools: [search, retrieval]}
  never: {urgency: 0.9, allowed_tools: [search]}
feedback_config:
  learning_rate: 0.05
  style_adjustment_bounds: {temperature_delta: [-0.2, 0.2], memory_write_boost: [0.0, 0.9], verbosity_bias: [-0.3, 0.3]}
"""


def load(found: Imported) -> Policy:
    """Return the imported policy, which loads."""
    assert found.mistakes == ()
    return parse_policy(found.text, "imported")


def reasons(found: Imported) -> dict[str, str]:
    """Return why each thing was left out, by its path."""
    return {remark.path: remark.reason for remark in found.left_out}


def value(policy: Policy, parameter: str, **levels: float) -> object:
    """Return what a policy decides."""
    return Dispatcher(policy).decide(levels).parameters[parameter]


def test_import_weight_format_goes_over() -> None:
    """Weights, cooldowns, bounds, maps, styles and the tools of the first format."""
    found = import_policy(WEIGHT)
    policy = load(found)
    assert found.format == "weight"
    assert [(s.name, s.role, s.weight, s.cooldown_ms) for s in policy.signals.values()] == [
        ("alignment_risk", "guard", 1.0, 0),
        ("stress", "style", 0.9, 800),
        ("trust", "style", 0.4, 500),
        ("fatigue", "style", 0.3, 250),
    ]
    assert policy.parameters["max_output_tokens"].high == 2048
    assert policy.parameters["safety_mode"].values == ("strict", "balanced", "creative")
    assert policy.parameters["tools"].default == ("retrieval", "browser")
    assert value(policy, "temperature", stress=0.5) == pytest.approx(0.4)
    assert value(policy, "temperature", alignment_risk=0.8) == pytest.approx(0.32)
    assert value(policy, "tools", alignment_risk=0.8) == ["retrieval"]
    assert value(policy, "tools", fatigue=0.5) == ["lookup"]
    assert value(policy, "planner_beam", fatigue=0.5) == 2
    assert value(policy, "safety_mode", alignment_risk=0.31) == "strict"
    assert policy.styles["strict"].preamble == "Take care: größe, \U0001f9e0."
    assert policy.styles["strict"].stop == ("\nUnsafe:",)
    assert policy.styles["strict"].moderation == "high"
    assert Dispatcher(policy).decide({"alignment_risk": 0.9}).style == "strict"
    assert policy.tool_classes["lookup"].functions == ("lookup",)


def test_import_style_that_names_a_guard_is_left_out_with_place_and_reason() -> None:
    """What the current schema refuses is not in the policy, and not lost from sight either."""
    found = import_policy(WEIGHT)
    assert list(reasons(found)) == ["maps.trust.safety_mode"]
    assert "cannot depend on a guard" in reasons(found)["maps.trust.safety_mode"]
    assert WEIGHT.splitlines()[found.left_out[0].place.line - 1].startswith('    safety_mode: "balanced if x')
    assert "# trust.safety_mode: balanced if x > 0.6 and alignment_risk < 0.2 else current" in found.text


def test_import_priority_format_goes_over() -> None:
    """Priorities, decay, ceilings, gates, styles and feedback of the second format."""
    found = import_policy(PRIORITY)
    policy = load(found)
    assert found.format == "priority"
    assert list(policy.signals) == ["alignment_risk", "stress", "urgency", "ambiguity", "novelty"]
    # ln 2 / 0.1 per second.
    assert policy.signals["stress"].half_life_ms == 6931
    assert policy.signals["ambiguity"].half_life_ms is None
    assert value(policy, "temperature", stress=0.5) == pytest.approx(0.5)
    assert value(policy, "temperature", stress=1.0) == value(policy, "temperature", stress=0.9) == pytest.approx(0.34)
    assert value(policy, "max_output_tokens", novelty=0.5) == 2500
    assert value(policy, "max_output_tokens", alignment_risk=1.0) == 500
    assert policy.parameters["reasoning_depth"].tighter == "lower"
    assert value(policy, "reasoning_depth", alignment_risk=0.9) == 1
    assert policy.parameters["temperature"].default == 0.7
    assert policy.knobs["memory_write"].high == 0.2
    assert Dispatcher(policy).decide({"novelty": 0.7}).style == "creative"
    assert Dispatcher(policy).decide({"alignment_risk": 0.7}).style == "strict"
    assert Dispatcher(policy).decide({"stress": 0.9}).style == "balanced"


def test_import_gates_take_tools_away() -> None:
    """The first gate that held counted, and a threshold counts from its own level on."""
    policy = load(import_policy(PRIORITY))
    assert value(policy, "tools") == ["search", "code_exec", "retrieval"]
    assert value(policy, "tools", stress=0.8) == ["search", "retrieval"]
    assert value(policy, "tools", stress=0.79) == ["search", "code_exec", "retrieval"]
    assert value(policy, "tools", alignment_risk=0.4) == ["search", "retrieval"]
    assert value(policy, "tools", alignment_risk=0.7) == ["search"]


def test_import_everything_left_out_is_named() -> None:
    """Each thing without a counterpart has its path and reason."""
    found = reasons(import_policy(PRIORITY))
    assert set(found) == {
        "signals.stress.sources",
        "maps.alignment_risk.memory_write",
        "maps.novelty.temperature",
        "prompt_styles.exploratory",
        "prompt_styles.pirate",
        "tool_gates.never",
        "feedback_config.learning_rate",
        "feedback_config.style_adjustment_bounds.verbosity_bias",
    }
    assert "loosens" in found["maps.alignment_risk.memory_write"]
    assert "'math.exp' does not exist here" in found["maps.novelty.temperature"]
    assert "never reached" in found["tool_gates.never"]


def test_import_changes_are_named() -> None:
    """What went over as something else says what it became."""
    changed = {remark.path: remark.reason for remark in import_policy(PRIORITY).changed}
    assert changed["signals.stress.decay_rate"] == "0.1 per second is a half-life of 6931 ms"
    assert "min(x, 0.9)" in changed["maps.stress.temperature"]
    assert "max_output_tokens" in changed["maps.novelty.max_tokens"]
    assert "urgency" in changed["signals.ambiguity.priority"]
    assert "tighter: lower" in changed["bounds.reasoning_depth"]


def test_import_text_says_where_things_come_from() -> None:
    """A comment per line; what a description says cannot break out of its comment."""
    text = import_policy(PRIORITY, "/somewhere/old.yaml").text
    line = next(line for line in text.splitlines() if line.startswith("  stress: {role"))
    assert line.endswith("# line 3; load: high # or not")
    assert "from old.yaml," in text
    assert "/somewhere" not in text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(read_packaged_text(), id="packaged"),
        pytest.param(import_policy(PRIORITY).text, id="imported-before"),
        pytest.param(import_policy(WEIGHT).text, id="imported-before-too"),
        pytest.param(read_packaged_text().replace("weight: 1.0", "weight: 7"), id="current-with-a-mistake"),
    ],
)
def test_import_current_schema_is_refused(text: str) -> None:
    """An import that runs twice changes nothing."""
    with pytest.raises(Conflict, match="already of the current schema"):
        import_policy(text, "own.yaml")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("signals: [stress, alignment_risk]\nmaps: {stress: {temperature: '0.7 - 0.4*x'}}", id="words"),
        pytest.param("signals: {stress: {}}\nmaps: {temperature: {stress: '0.7 - 0.4*x'}}", id="by-parameter"),
        pytest.param("signals: [{stress: {weight: 1, maps: {temperature: '0.7 - 0.4*x'}}}]", id="inside-the-signal"),
        pytest.param(
            "signals: [{id: Stress, weight: '1', modulation: {temperature: {expr: '0.7 - 0.4*x'}}}]", id="expr"
        ),
        pytest.param(
            "modulation: {signals: {stress: {weight: 1}}, maps: {stress: {temperature: '0.7 - 0.4*x'}}}", id="wrapped"
        ),
        pytest.param(
            "signals: [{name: stress, weight: 1}]\n"
            "maps: [{signal: stress, parameter: temperature, expression: '0.7 - 0.4*x'}]",
            id="list-of-maps",
        ),
        pytest.param("signals: {stress: {max_level: 1.0, effects: {temperature: '0.7 - 0.4*level'}}}", id="level"),
        pytest.param(
            "signals: {stress: {weight: 1}}\nparameters: {temperature: {min: 0, max: 1, default: 0.3}}\n"
            "effects: {stress: {temperature: '0.7 - 0.4*stress'}}",
            id="own-name-and-parameters",
        ),
    ],
)
def test_import_shapes_are_taken_as_they_come(text: str) -> None:
    """Nobody held these formats to a shape: each of these says the same."""
    policy = load(import_policy(text))
    assert value(policy, "temperature", stress=0.5) == pytest.approx(0.5)
    assert policy.signals["alignment_risk"].role == "guard"


def test_import_without_the_guard_gets_it_added() -> None:
    """Violations raise alignment_risk, so a policy has it, and the report says so."""
    found = import_policy("signals: {stress: {weight: 1}}\nmaps: {stress: {temperature: '0.7 - 0.4*x'}}")
    assert any("signal alignment_risk" in what for what in found.added)
    assert value(load(found), "temperature", alignment_risk=1.0) == pytest.approx(0.15)


def test_import_name_that_sounds_of_risk_is_a_guard_that_may_only_tighten() -> None:
    """A risk's map that would loosen is left out, one that tightens is a cap."""
    text = """
signals: {privacy_risk: {priority: 1}, alignment_risk: {priority: 2}}
maps: {privacy_risk: {temperature: "0.9 - level * 0.5", top_p: "0.5 + level * 0.4"}}
"""
    found = import_policy(text)
    policy = load(found)
    assert policy.signals["privacy_risk"].role == "guard"
    assert value(policy, "temperature", privacy_risk=1.0) == pytest.approx(0.4)
    assert list(reasons(found)) == ["maps.privacy_risk.top_p"]


def test_import_largest_priority_is_first_where_the_guard_has_it() -> None:
    """The older file itself says which end of its numbers is the important one."""
    text = "signals: {a: {priority: 1}, b: {priority: 5}, alignment_risk: {priority: 10}}\nmaps: {a: {top_p: 0.5}}"
    found = import_policy(text)
    assert list(load(found).signals) == ["alignment_risk", "b", "a"]
    assert any("largest priority" in remark.reason for remark in found.changed)


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        pytest.param("{alignment_risk: 0.7}", "names signals with their thresholds", id="no-list"),
        pytest.param("{allowed_tools: [search]}", "names signals with their thresholds", id="no-signal"),
        pytest.param("{alignment_risk: 7, allowed_tools: [search]}", "from 0 to 1", id="threshold-too-high"),
        pytest.param("'level < 0.5'", "names signals with their thresholds", id="text"),
        pytest.param("null", "names signals with their thresholds", id="nothing"),
    ],
)
def test_import_gate_of_another_form_is_left_out(gate: str, reason: str) -> None:
    """A gate that is not understood is never guessed at."""
    found = import_policy(f"signals: {{alignment_risk: {{priority: 1}}}}\ntool_gates: {{odd: {gate}}}")
    load(found)
    assert any(reason in remark.reason for remark in found.left_out if remark.path.startswith("tool_gates.odd"))


def test_import_gate_with_blocked_tools_leaves_the_others() -> None:
    """A gate may say what it takes away instead of what it leaves."""
    text = """
signals: {alignment_risk: {priority: 1}}
available_tools: [search, code_exec]
tool_gates: [{signal: alignment_risk, threshold: 0.5, blocked_tools: [code_exec]}]
"""
    policy = load(import_policy(text))
    assert value(policy, "tools", alignment_risk=0.5) == ["search"]
    assert value(policy, "tools", alignment_risk=0.4) == ["search", "code_exec"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("", "empty", id="empty"),
        pytest.param("[1, 2]", "not a policy of an older format", id="list"),
        pytest.param("42", "not a policy of an older format", id="number"),
        pytest.param("signals: {}", "not a policy of an older format", id="no-signals"),
        pytest.param("signals: 5", "not a policy of an older format", id="signals-number"),
        pytest.param("name: x\nmaps: {}", "not a policy of an older format", id="other-yaml"),
        pytest.param("signals: {a: {}}", "not a policy of an older format", id="nothing-tells-the-format"),
        pytest.param("a: [", "not valid YAML", id="broken"),
        pytest.param("a: &x 1\nb: *x", "anchors", id="anchors"),
        pytest.param("signals: {a: {weight: 1}, a: {weight: 1}}", "stands twice", id="duplicate"),
        pytest.param('maps:\n  stress:\n    max_output_tokens:"round(1)"\n', ":", id="no-space-after-a-colon"),
        pytest.param("x" * 1_100_000, "larger than", id="huge"),
    ],
)
def test_import_no_policy_is_refused_with_a_place(text: str, says: str) -> None:
    """Whatever the file is, the answer is a message with a place."""
    with pytest.raises(PolicyError, match=says) as refused:
        import_policy(text, "old.yaml")
    assert str(refused.value).startswith("old.yaml:")


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        pytest.param("weight: 0", "weight", id="weight-of-nothing"),
        pytest.param("weight: 1.5", "weight", id="weight-above-one"),
        pytest.param("weight: heavy", "weight", id="weight-word"),
        pytest.param("weight: true", "weight", id="weight-true"),
        pytest.param("weight: .nan", "weight", id="weight-nan"),
        pytest.param("weight: 1, cooldown_ms: -5", "cooldown_ms", id="negative-cooldown"),
        pytest.param("weight: 1, cooldown: 5", "cooldown", id="cooldown-without-unit"),
        pytest.param("decay_rate: -1", "decay_rate", id="negative-decay"),
        pytest.param("decay_rate: 1e9", "decay_rate", id="decay-at-once"),
        pytest.param("decay_rate: fast", "decay_rate", id="decay-word"),
        pytest.param("priority: high", "priority", id="priority-word"),
        pytest.param("max_level: -0.5", "max_level", id="negative-ceiling"),
        pytest.param("weight: 1, role: queen", "role", id="role"),
        pytest.param("weight: 1, colour: red", "colour", id="unknown-key"),
    ],
)
def test_import_odd_field_is_left_out_and_the_rest_goes_over(fields: str, path: str) -> None:
    """One wrong value costs that value, with its path and reason."""
    found = import_policy(f"signals: {{stress: {{{fields}}}}}\nmaps: {{stress: {{temperature: '0.5 * x'}}}}")
    assert f"signals.stress.{path}" in reasons(found)
    assert value(load(found), "temperature", stress=0.5) == pytest.approx(0.25)


def test_import_odd_bounds_are_left_out() -> None:
    """Bounds the wrong way round, of words, or of one number are the packaged ones instead, and said."""
    text = """
signals: {stress: {weight: 1}}
bounds: {temperature: [1, 0], top_p: 5, retrieval_k: [a], max_tokens: {min: 10, max: 20}, mystery: [0]}
maps: {stress: {temperature: "x", mystery: "x"}}
"""
    found = import_policy(text)
    policy = load(found)
    assert policy.parameters["temperature"].high == 1
    assert policy.parameters["max_output_tokens"].default == 20
    assert {"bounds.temperature", "bounds.top_p", "bounds.mystery", "maps.stress.mystery"} <= set(reasons(found))


@pytest.mark.parametrize("section", ["bounds", "defaults", "prompt_styles", "feedback_config", "tool_gates", "tools"])
@pytest.mark.parametrize("odd", ["5", "word", "true"])
def test_import_section_of_another_kind_is_left_out(section: str, odd: str) -> None:
    """A whole section that is no table is named too."""
    found = import_policy(f"signals: {{stress: {{weight: 1}}}}\nmaps: {{stress: {{top_p: x}}}}\n{section}: {odd}")
    load(found)
    assert "it must be a" in reasons(found)[section]


def test_import_style_of_another_kind_is_left_out() -> None:
    """A style that is neither a text nor a table has nothing to say."""
    found = import_policy("signals: {stress: {weight: 1}}\nmaps: {stress: {top_p: x}}\nprompt_styles: {strict: [1]}")
    assert reasons(found) == {"prompt_styles.strict": "a style is a table, or its preamble"}


def test_import_unicode_names_are_left_out_with_their_maps() -> None:
    """A name that cannot be one here is said, and nothing of it slips through."""
    found = import_policy("signals: {größe: {weight: 1}, stress: {weight: 1}}\nmaps: {größe: {top_p: 'x'}}")
    load(found)
    assert {"signals.größe", "maps.größe.top_p"} == set(reasons(found))


def test_import_huge_policy_is_refused_by_its_mistakes() -> None:
    """More signals than a policy may have: the result does not load, and says why."""
    signals = ", ".join(f"s{n}: {{weight: 1}}" for n in range(500))
    found = import_policy(f"signals: {{{signals}}}\nmaps: {{s1: {{top_p: 'x'}}}}")
    assert found.mistakes
    assert "more than 64 entries" in found.mistakes[0].message
