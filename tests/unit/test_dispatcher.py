"""Decisions of the packaged policy, figure by figure, and of small policies that show one rule each."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_policy_mistake import GOOD

from lukhas import Decision, Modulator, Signal
from lukhas.errors import InvalidRequest, PolicyError, SignalError, UnknownSignal
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import load_policy, parse_policy
from lukhas.testing import FrozenClock

POLICY = load_policy()
MODULATOR = Modulator(policy=POLICY)
DEFAULTS: dict[str, Any] = {
    "temperature": 0.6,
    "top_p": 0.9,
    "max_output_tokens": 900,
    "reasoning_effort": 0.5,
    "retrieval_k": 6,
    "planner_beam": 2,
    "memory_write": 0.4,
    "verbosity": 0.5,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "safety_mode": "balanced",
    "tools": ["retrieval", "browser"],
}


def combine(levels: dict[str, float], **options: Any) -> Decision:
    return MODULATOR.combine([Signal(name, level) for name, level in levels.items()], **options)


@pytest.mark.parametrize(
    ("levels", "changed", "style"),
    [
        pytest.param({}, {}, "balanced", id="none"),
        pytest.param(
            {"alignment_risk": 0.8},
            {
                **{"temperature": 0.32, "top_p": 0.36, "reasoning_effort": 0.88, "memory_write": 0.28},
                **{"safety_mode": "strict", "tools": ["retrieval"]},
            },
            "strict",
            id="alignment-risk-0.8",
        ),
        pytest.param(
            {"alignment_risk": 1.0},
            {
                **{"temperature": 0.15, "top_p": 0.2, "reasoning_effort": 1.0, "memory_write": 0.1},
                **{"safety_mode": "strict", "tools": ["retrieval"]},
            },
            "strict",
            id="alignment-risk-1",
        ),
        pytest.param(
            {"alignment_risk": 0.3}, {"reasoning_effort": 0.58, "top_p": 0.76}, "balanced", id="alignment-risk-0.3"
        ),
        pytest.param({"alignment_risk": 0.049}, {}, "balanced", id="alignment-risk-below-minimum"),
        pytest.param(
            {"stress": 0.7},
            {"temperature": 0.28, "top_p": 0.55, "max_output_tokens": 980, "retrieval_k": 7},
            "balanced",
            id="stress-0.7",
        ),
        pytest.param(
            {"stress": 1.0},
            {"temperature": 0.1, "top_p": 0.4, "max_output_tokens": 800, "retrieval_k": 8},
            "focused",
            id="stress-1",
        ),
        pytest.param(
            {"ambiguity": 0.8},
            {"reasoning_effort": 0.86, "retrieval_k": 8, "planner_beam": 4},
            "exploratory",
            id="ambiguity",
        ),
        pytest.param(
            {"urgency": 0.6},
            {"max_output_tokens": 600, "reasoning_effort": 0.44, "tools": ["retrieval"]},
            "balanced",
            id="urgency-0.6",
        ),
        pytest.param({"urgency": 0.5}, {"max_output_tokens": 650}, "balanced", id="urgency-0.5"),
        pytest.param({"urgency": 0.05}, {}, "balanced", id="urgency-below-minimum"),
        pytest.param({"urgency": 0.1999}, {}, "balanced", id="urgency-just-below-minimum"),
        pytest.param(
            {"novelty": 0.9},
            {"temperature": 1.0, "top_p": 0.97, "planner_beam": 6, "memory_write": 0.93},
            "creative",
            id="novelty",
        ),
        pytest.param({"trust": 1.0}, {"temperature": 0.9, "memory_write": 1.0}, "balanced", id="trust"),
        pytest.param(
            {"stress": 0.7, "novelty": 0.9},
            {
                **{"temperature": 0.28, "top_p": 0.55, "max_output_tokens": 980, "retrieval_k": 7},
                **{"planner_beam": 6, "memory_write": 0.93},
            },
            "creative",
            id="stress-before-novelty",
        ),
    ],
)
def test_packaged_policy_gives_the_recommended_figures(
    levels: dict[str, float], changed: dict[str, Any], style: str
) -> None:
    """Each signal alone gives the figures of the table, exactly; the rest stays at its default."""
    decision = combine(levels)
    assert decision.parameters == DEFAULTS | changed
    assert decision.style == style


def test_no_signals_touch_nothing() -> None:
    """Without signals there is no touched parameter, no limit and no trace."""
    decision = combine({})
    assert (decision.touched, decision.limits, decision.levels, decision.trace) == ([], {}, {}, [])


def test_only_mapped_parameters_are_touched() -> None:
    """Touched is what an active signal maps, changed or not."""
    assert combine({"stress": 0.7}).touched == ["temperature", "top_p", "max_output_tokens", "retrieval_k"]
    assert combine({"trust": 0.25}).touched == ["temperature", "memory_write"]
    assert combine({"trust": 0.25}).parameters["temperature"] == 0.6


def test_full_risk_is_as_tight_with_any_other_signal() -> None:
    """alignment_risk 1 with novelty 1 and trust 1 is as tight as alignment_risk 1 alone."""
    alone = combine({"alignment_risk": 1})
    crowd = combine({"alignment_risk": 1, "novelty": 1, "trust": 1})
    for name, spec in POLICY.parameters.items():
        if spec.tighter == "lower":
            assert crowd.parameters[name] <= alone.parameters[name] or name == "planner_beam"
        elif spec.tighter == "higher":
            assert crowd.parameters[name] >= alone.parameters[name]
    assert crowd.parameters["planner_beam"] == alone.parameters["planner_beam"] == 2
    assert (crowd.tools, crowd.safety_mode, crowd.style) == (["retrieval"], "strict", "strict")


@pytest.mark.parametrize("others", [{}, {"novelty": 1.0}, {"trust": 1.0}, {"ambiguity": 1.0}, {"stress": 0.2}])
@pytest.mark.parametrize("level", [0.05, 0.1, 0.2, 0.3])
def test_low_risk_never_raises(others: dict[str, float], level: float) -> None:
    """alignment_risk 0.1 never raises temperature or planner_beam above what they are without it."""
    without, with_risk = combine(others), combine({**others, "alignment_risk": level})
    for name in ("temperature", "planner_beam", "top_p", "memory_write"):
        assert with_risk.parameters[name] <= without.parameters[name]


@pytest.mark.parametrize("present", range(64))
def test_every_subset_of_signals_gives_a_bounded_decision(present: int) -> None:
    """All 64 subsets at several levels: no crash, everything in bounds, plain JSON."""
    names = [name for i, name in enumerate(POLICY.signals) if present >> i & 1]
    for levels in itertools.product((0.2, 0.55, 1.0), repeat=min(len(names), 3)):
        level = dict(zip(names, itertools.cycle(levels), strict=False)) if names else {}
        decision = combine(level)
        assert set(decision.levels) == set(names)
        for name, spec in POLICY.parameters.items():
            value = decision.parameters[name]
            if spec.kind in ("number", "integer"):
                assert spec.low <= value <= spec.high
        assert set(decision.tools) <= {"retrieval", "browser"}
        assert json.loads(json.dumps(decision.to_dict()))["policy"] == POLICY.id


@pytest.mark.parametrize(
    ("levels", "caller", "expected"),
    [
        pytest.param(
            {"alignment_risk": 0.3}, {"temperature": 2.0}, {"temperature": 0.745}, id="loose-caller-is-capped"
        ),
        pytest.param(
            {"alignment_risk": 0.3}, {"temperature": 0.7}, {"temperature": 0.7}, id="guard-alone-holds-to-its-cap"
        ),
        pytest.param({"alignment_risk": 0.3}, {"temperature": 0.1}, {"temperature": 0.1}, id="tight-caller-stays"),
        pytest.param({"alignment_risk": 0.3}, {"temperature": None}, {"temperature": 0.6}, id="none-is-absent"),
        pytest.param(
            {"stress": 0.7}, {"max_output_tokens": 100}, {"max_output_tokens": 100}, id="tight-caller-outside-bounds"
        ),
        pytest.param(
            {"stress": 0.7}, {"max_output_tokens": 99_999}, {"max_output_tokens": 980}, id="loose-caller-tokens"
        ),
        pytest.param({"stress": 0.7}, {"temperature": 0.1}, {"temperature": 0.1}, id="stress-tight-caller"),
        pytest.param({"stress": 0.7}, {"temperature": 1.5}, {"temperature": 0.28}, id="stress-loose-caller"),
        pytest.param({"stress": 0.7}, {"retrieval_k": 50}, {"retrieval_k": 50}, id="no-direction-keeps-the-caller-s"),
        pytest.param({"ambiguity": 0.8}, {"reasoning_effort": 0.1}, {"reasoning_effort": 0.86}, id="higher-is-tighter"),
        pytest.param(
            {"ambiguity": 0.8}, {"reasoning_effort": 0.9}, {"reasoning_effort": 0.9}, id="higher-caller-stays"
        ),
        pytest.param({}, {"temperature": 2.0}, {"temperature": 2.0}, id="untouched-is-the-caller-s"),
        pytest.param({}, {"safety_mode": "creative"}, {"safety_mode": "balanced"}, id="mode-never-looser"),
        pytest.param({}, {"safety_mode": "strict"}, {"safety_mode": "strict"}, id="mode-may-be-stricter"),
        pytest.param(
            {}, {"tools": ["exec_code"]}, {"tools": ["retrieval", "browser"]}, id="tools-are-not-the-caller-s"
        ),
    ],
)
def test_caller_may_only_be_tighter(levels: dict[str, float], caller: dict[str, Any], expected: dict[str, Any]) -> None:
    """A caller's value stands where it is tighter than the decision, and is held to the limit where it is not."""
    parameters = combine(levels, caller=caller).parameters
    assert {name: parameters[name] for name in expected} == expected


def test_caller_strict_mode_brings_the_strict_style_and_stops_loosening() -> None:
    """A mode that the caller tightens counts for the style and for feedback as the policy's own does."""
    decision = combine({"stress": 0.7}, caller={"safety_mode": "strict"}, nudges={"temperature": 0.2})
    assert (decision.style, decision.parameters["temperature"]) == ("strict", 0.28)


@pytest.mark.parametrize(
    "caller",
    [
        {"temperature": "hot"},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"temperature": True},
        {"temperature": 10**400},
        {"temperature": [0.5]},
        {"safety_mode": "lax"},
        {"safety_mode": 1},
    ],
)
def test_caller_wrong_value_is_refused(caller: dict[str, Any]) -> None:
    """What cannot be compared with a limit is an error that names the parameter, with or without signals."""
    for levels in ({}, {"alignment_risk": 0.5}):
        with pytest.raises(InvalidRequest) as caught:
            combine(levels, caller=caller)
        assert caught.value.param in caller


def test_limit_holds_every_further_spelling() -> None:
    """Each spelling of a parameter is limited by itself; a wrong one is an error, an untouched one is left alone."""
    dispatcher = MODULATOR.dispatcher
    decision = combine({"alignment_risk": 0.3}, caller={"temperature": 0.2})
    assert dispatcher.limit(decision, "temperature", 2) == 0.745
    assert dispatcher.limit(decision, "temperature", 0.7) == 0.7
    assert dispatcher.limit(decision, "verbosity", 7) == 7
    assert dispatcher.limit(decision, "no_such_parameter", "x") == "x"
    assert dispatcher.limit(combine({}), "safety_mode", "creative") == "balanced"
    assert dispatcher.limit(combine({}), "tools", ["code_exec", "retrieve_knowledge"]) == ["retrieve_knowledge"]
    for wrong in (math.nan, "1", True):
        with pytest.raises(InvalidRequest):
            dispatcher.limit(decision, "temperature", wrong)
    with pytest.raises(InvalidRequest):
        dispatcher.limit(decision, "tools", "retrieval")


@pytest.mark.parametrize(
    ("levels", "caller", "nudge", "value", "touched"),
    [
        pytest.param({}, {}, 0.1, 0.7, False, id="untouched-without-caller-is-not-written"),
        pytest.param({}, {"temperature": 1.2}, -0.1, 1.1, True, id="added-to-the-caller-s"),
        pytest.param({}, {"temperature": 1.2}, 0.1, 1.2, False, id="no-further-outside-the-bounds"),
        pytest.param({}, {"temperature": 0.95}, 0.2, 1.0, True, id="up-to-the-bound"),
        pytest.param({"stress": 0.7}, {}, 0.2, 0.48, True, id="on-the-decision"),
        pytest.param({"stress": 0.7}, {"temperature": 1.5}, 0.2, 0.48, True, id="limit-moves-with-it"),
        pytest.param({"alignment_risk": 0.3}, {}, 0.2, 0.745, True, id="not-past-the-cap"),
        pytest.param({"alignment_risk": 0.3}, {"temperature": 0.7}, 0.2, 0.745, True, id="caller-not-past-the-cap"),
        pytest.param({"alignment_risk": 0.8}, {}, 0.2, 0.32, True, id="no-loosening-in-strict-mode"),
        pytest.param({"alignment_risk": 0.8}, {}, -0.2, 0.12, True, id="tightening-in-strict-mode"),
        pytest.param({}, {"temperature": 0.5}, 5.0, 0.7, True, id="held-to-the-table"),
        pytest.param({}, {"temperature": 0.5}, math.nan, 0.5, False, id="nan-is-no-nudge"),
    ],
)
def test_feedback_nudges_inside_its_box(
    levels: dict[str, float], caller: dict[str, Any], nudge: float, value: float, touched: bool
) -> None:
    """A nudge moves the decision or the caller's own value, inside bounds, caps and table."""
    decision = combine(levels, caller=caller, nudges={"temperature": nudge})
    assert decision.parameters["temperature"] == value
    assert ("temperature" in decision.touched) is touched


def test_trace_names_each_step_with_its_rule_and_place() -> None:
    """Every step that changed something says from what to what, by which signal and rule, and where that stands."""
    decision = combine({"alignment_risk": 0.8, "novelty": 0.9}, caller={"temperature": 0.5, "top_p": 0.1})
    steps = [
        (step.step, step.before, step.after, step.signal) for step in decision.trace if step.parameter == "temperature"
    ]
    assert steps == [
        ("style", 0.6, 1.0, "novelty"),
        ("guard", 1.0, 0.32, "alignment_risk"),
        ("caller", 0.5, 0.32, ""),
    ]
    guard = next(step for step in decision.trace if step.step == "guard" and step.parameter == "temperature")
    assert (guard.rule, guard.level) == ("1 - 0.85 * x", 0.8)
    line = int(guard.place.split(",")[0].removeprefix("line "))
    assert "temperature: 1 - 0.85 * x" in POLICY.text.split("\n")[line - 1]
    kept = next(step for step in decision.trace if step.step == "caller" and step.parameter == "top_p")
    assert (kept.after, kept.rule) == (0.1, "the caller's 0.1 is kept")
    chosen = decision.trace[-1]
    assert (chosen.step, chosen.before, chosen.after, chosen.rule) == (
        "choose",
        "balanced",
        "strict",
        "safety_mode == strict",
    )
    assert all(step.before != step.after for step in decision.trace)


def test_to_dict_is_plain_json_with_the_documented_keys() -> None:
    """The JSON of a decision has parameters, style, tools, trace and policy, and no missing level of -1."""
    plain = combine({"stress": 0.9}).to_dict()
    assert {"parameters", "style", "tools", "trace", "policy"} <= set(plain)
    assert plain == json.loads(json.dumps(plain))
    assert all(step.get("level", 0) >= 0 for step in plain["trace"])


def test_combine_takes_duplicates_by_role() -> None:
    """Of one guard's emissions the highest counts, of one style's the latest."""
    clock = FrozenClock()
    now_s = clock.now_ms() / 1000
    modulator = Modulator(policy=POLICY, clock=clock)
    guard = modulator.combine(
        [Signal("alignment_risk", 0.3), Signal("alignment_risk", 0.8), Signal("alignment_risk", 0.1)]
    )
    assert guard.levels == {"alignment_risk": 0.8}
    style = modulator.combine([Signal("stress", 0.9, ts=now_s - 2), Signal("stress", 0.5, ts=now_s - 1)])
    assert style.levels == {"stress": 0.5 * 2 ** (-1000 / 30_000)}
    assert modulator.combine([Signal("stress", 0.9, ts=now_s), Signal("stress", 0.5)]).levels == {"stress": 0.5}


def test_combine_decays_and_drops_by_ts_and_ttl() -> None:
    """Signals with a moment decay from it and end after their ttl, to the millisecond."""
    clock = FrozenClock()
    modulator = Modulator(policy=POLICY, clock=clock)
    signal = Signal("alignment_risk", 0.8, ttl_ms=240_000, ts=clock.now_ms() / 1000)
    clock.advance(120_000)
    assert modulator.combine([signal]).levels == {"alignment_risk": 0.4}
    clock.advance(119_999)
    assert modulator.combine([signal]).levels
    clock.advance(1)
    assert modulator.combine([signal]).levels == {}
    clock.step_back(10_000_000)
    assert modulator.combine([signal]).levels == {"alignment_risk": 0.8}


def test_unknown_or_wrong_input_is_refused() -> None:
    """A name that the policy lacks, and a level that is none, are clear errors."""
    with pytest.raises(UnknownSignal, match="alignment_risk, stress"):
        combine({"joy": 0.5})
    with pytest.raises(UnknownSignal):
        MODULATOR.decide({"stress": 0.5, "joy": 0.5})
    for level in (2, math.nan, "0.5", True):
        with pytest.raises(SignalError):
            MODULATOR.decide({"stress": level})  # type: ignore[dict-item]
    assert MODULATOR.decide({"stress": 0.7}).parameters["temperature"] == 0.28


def test_modulator_reads_a_file_and_refuses_a_broken_one(tmp_path: Path) -> None:
    """Modulator(path) loads a policy file; a broken one raises and yields nothing."""
    path = tmp_path / "policy.yaml"
    path.write_text(GOOD, "utf-8")
    assert Modulator(path).combine([Signal("stress", 1.0)]).parameters["temperature"] == 0.2
    assert Modulator(str(path)).policy.source == str(path)
    path.write_text(GOOD.replace("0.7 - 0.5 * x", "0.7 - 0.5 * y"), "utf-8")
    with pytest.raises(PolicyError):
        Modulator(path)


def small(before: str, after: str, *more: tuple[str, str]) -> Dispatcher:
    text = GOOD
    for old, new in ((before, after), *more):
        assert old in text
        text = text.replace(old, new, 1)
    return Dispatcher(parse_policy(text))


def test_blend_takes_the_mean_by_weight_and_level() -> None:
    """combine: blend weighs the active style maps by weight * level; guards still cap the mean."""
    dispatcher = small(
        "name: small",
        "combine: blend",
        ("precedence: 1}", "precedence: 1, weight: 0.5}"),
        (
            "    temperature: 0.7 - 0.5 * x\n",
            "    temperature: 0.2\n    beam: 5\n  trust:\n    temperature: 0.8\n    beam: 2\n",
        ),
    )
    both = dispatcher.decide({"stress": 0.5, "trust": 1.0})
    assert both.parameters["temperature"] == 0.5
    assert both.parameters["beam"] == 3
    assert dispatcher.decide({"trust": 1.0}).parameters["temperature"] == 0.8
    assert dispatcher.decide({"stress": 0.5, "trust": 1.0, "alignment_risk": 1.0}).parameters["temperature"] == 0.2
    assert "blend of stress 0.5, trust 1" in [step.rule for step in both.trace]


def test_blend_of_levels_of_zero_is_the_mean_by_weight() -> None:
    """With a minimum level of 0 a signal may be present at 0; the mean then goes by weight alone."""
    dispatcher = small(
        "name: small",
        "combine: blend",
        ("precedence: 2}", "precedence: 2, min_level: 0}"),
        ("precedence: 1}", "precedence: 1, min_level: 0}"),
        ("    temperature: 0.7 - 0.5 * x\n", "    temperature: 0.2\n  trust:\n    temperature: 0.8\n"),
    )
    assert dispatcher.decide({"stress": 0.0, "trust": 0.0}).parameters["temperature"] == 0.5


def test_current_is_the_value_without_this_signal_and_inside_bounds() -> None:
    """A chain of style maps over `current` runs from the lowest precedence up, inside the bounds at each step."""
    dispatcher = small(
        "    temperature: 0.7 - 0.5 * x\n", "    temperature: 1 / (1.5 - current)\n  trust:\n    temperature: 1.4\n"
    )
    decision = dispatcher.decide({"stress": 1.0, "trust": 1.0})
    steps = [(step.step, step.before, step.after) for step in decision.trace]
    assert steps == [("style", 0.6, 1.4), ("bounds", 1.4, 1), ("style", 1, 2.0), ("bounds", 2.0, 1)]


def test_guard_reads_a_current_inside_the_bounds() -> None:
    """A guard's map never sees a value that its totality was not checked for."""
    dispatcher = small("0.7 - 0.5 * x", "0.5 + x", ("1 - 0.8 * x", "min(1, 1 / (1.5 - current)) - 0.8 * x"))
    assert dispatcher.decide({"stress": 1.0, "alignment_risk": 0.5}).parameters["temperature"] == 0.6


def test_apply_all_touches_and_limits_every_parameter() -> None:
    """apply: all writes every parameter, and holds the caller to the decision instead of a guard's cap alone."""
    dispatcher = small("name: small", "apply: all")
    calm = dispatcher.decide({}, caller={"temperature": 0.9, "beam": 1})
    assert calm.touched == ["safety_mode", "temperature", "verbosity", "beam", "tools"]
    assert (calm.parameters["temperature"], calm.parameters["beam"]) == (0.6, 1)
    guarded = dispatcher.decide({"alignment_risk": 0.1}, caller={"temperature": 0.9})
    assert guarded.parameters["temperature"] == 0.6


def test_enum_that_only_guards_touch_holds_the_caller_to_the_cap() -> None:
    """An enum of one's own is limited like a number: by the cap, not by the default under it."""
    dispatcher = small(
        "  tools: {type: tools",
        "  manner: {type: enum, values: [m0, m1, m2], default: m0, tighter: first}\n  tools: {type: tools",
        ("    temperature: 1 - 0.8 * x\n", "    manner: m1\n"),
    )
    decision = dispatcher.decide({"alignment_risk": 0.5}, caller={"manner": "m2"})
    assert decision.parameters["manner"] == "m1"
    assert dispatcher.decide({"alignment_risk": 0.5}).parameters["manner"] == "m0"


def test_integers_round_in_the_tighter_direction() -> None:
    """A fraction for an integer parameter goes down where lower is tighter."""
    dispatcher = small("    temperature: 0.7 - 0.5 * x\n", "    beam: 1 + 3.5 * x\n")
    assert dispatcher.decide({"stress": 1.0}).parameters["beam"] == 4


def test_many_signals_have_more_sets_than_plans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the decisions stay the same."""
    monkeypatch.setattr(Dispatcher, "MAX_PLANS", 2)
    dispatcher = Dispatcher(POLICY)
    for name in [*POLICY.signals, *POLICY.signals]:
        assert dispatcher.decide({name: 0.9}) == MODULATOR.decide({name: 0.9})


def test_tools_are_classified_by_name_then_pattern() -> None:
    """A function's class comes from its exact name, then a pattern; a class's own name admits nothing more."""
    assert POLICY.classify_tool("retrieve_knowledge") == "retrieval"
    assert POLICY.classify_tool("retrieve_secrets") == "retrieval"
    assert POLICY.classify_tool("rm_rf") == "unknown"
    assert POLICY.classify_hosted("code_interpreter") == "code_exec"
    assert POLICY.classify_hosted("other") == "unknown"
    assert POLICY.allows_tool(["retrieval"], "retrieve_docs")
    assert not POLICY.allows_tool(["retrieval"], "retrieval")
    assert not POLICY.allows_tool(["browser"], "unknown")
    assert POLICY.allows_tool(["open_url"], "open_url")
    assert not POLICY.allows_tool([], "open_url")
    assert POLICY.allows_hosted(["web_search"], "web_search_preview")
    assert not POLICY.allows_hosted(["unknown"], "brand_new_tool")
