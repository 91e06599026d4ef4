"""Playing decisions again: what is checked, what is compared, what is counted apart."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from lukhas.audit.record import AuditRecord, encode_record, splice_tail
from lukhas.modulation.decision import Step
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy, parse_policy, read_packaged_text
from lukhas.replay.likeness import find_differing_signals
from lukhas.replay.player import Player
from lukhas.replay.recorded import Envelope, Row
from lukhas.replay.tally import Tally, make_tally, merge

PACKAGED = read_packaged_text()


def change(before: str, after: str) -> Policy:
    """Return the packaged policy with one thing changed."""
    assert before in PACKAGED
    return parse_policy(PACKAGED.replace(before, after), "candidate")


def row(
    levels: Mapping[str, float], policy: Policy | None = None, *, index: int = 0, kind: Any = None, **more: Any
) -> Row:
    """Return a decision as the log has it; `kind` changes the body before it is written."""
    policy = policy or load_policy()
    caller, tools = more.get("caller", {}), more.get("tools", [])
    decision = Dispatcher(policy).decide(levels, caller=caller, nudges=more.get("nudges"))
    inputs = {"levels": decision.levels, "caller": caller, "tools": tools}
    if "nudges" in more:
        inputs["nudges"] = more["nudges"]
    body = {
        "policy": decision.policy,
        "inputs": inputs,
        "parameters": decision.parameters,
        "style": decision.style,
        "touched": decision.touched,
        "trace": [*decision.trace, *more.get("steps", [])],
        **more.get("body", {}),
    }
    if kind is not None:
        kind(body)
    record = AuditRecord("decision", f"aud_{index}", "default", "key_1", None, 1_000, None, None, body)
    data = splice_tail(encode_record(record).head, index, index)
    try:
        found: Any = msgspec.json.decode(data, type=Envelope).body
    except msgspec.MsgspecError:
        found = None
    return Row(index, f"aud_{index}", True, found)


def play(rows: list[Row], candidate: Policy | None = None, revisions: list[Policy] | None = None) -> Tally:
    """Play rows under the packaged policy's revision, unless others are given."""
    policies = [load_policy()] if revisions is None else revisions
    return Player(candidate or load_policy(), {policy.id: policy for policy in policies}).play(rows)


def test_play_same_policy_changes_nothing() -> None:
    """A candidate that is the policy in force is one by which no call is another."""
    rows = [row({"stress": 0.8}), row({}), row({"alignment_risk": 0.9}, caller={"temperature": 0.9})]
    tally = play(rows)
    assert (tally.read, tally.checked, tally.simulated, tally.changed) == (3, 3, 3, 0)
    assert tally.mismatch_count == 0


def test_play_gateway_steps_are_no_difference() -> None:
    """What the gateway adds to a trace after the dispatcher is not the dispatcher's to reproduce."""
    steps = [
        Step("tools", "tools", ["a"], [], rule="allowlist []"),
        Step("top_p", "capability", 0.9, "left out", rule="the model does not take it"),
    ]
    tally = play([row({"stress": 0.8}, steps=steps), row({}, steps=steps)])
    assert tally.mismatch_count == 0


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(Step("top_p", "style", 0.9, 0.1), id="another-step-of-the-dispatcher"),
        pytest.param(Step("top_p", "guard", 0.9, 0.1, signal="tools"), id="a-name-is-no-kind"),
    ],
)
def test_play_added_step_is_a_difference(step: Step) -> None:
    """Nobody can add a step to a trace that the dispatcher might have made."""
    tally = play([row({"stress": 0.8}, steps=[step])])
    assert tally.mismatches == [(0, "aud_0", ["trace"])]


def test_play_nudges_and_callers_values_are_played_too() -> None:
    """All inputs of a decision are its own: the same levels with others decide otherwise."""
    rows = [
        row({"stress": 0.5}, nudges={"temperature": -0.1}),
        row({"stress": 0.5}, caller={"temperature": 0.01}),
        row({"stress": 0.5}, nudges={"temperature": 0.2}, caller={"temperature": 1.9, "max_output_tokens": 10**12}),
    ]
    assert play(rows).checked == 3
    assert play(rows).mismatch_count == 0


def test_play_integer_beyond_64_bits_is_no_difference() -> None:
    """A record keeps such a number as digits; it still is the number that was decided by."""
    tally = play([row({"stress": 0.5}, caller={"max_output_tokens": 10**60, "frequency_penalty": -(10**30)})])
    assert (tally.checked, tally.mismatch_count) == (1, 0)


def test_play_equal_inputs_are_counted_each() -> None:
    """A cache must not show: a thousand calls are a thousand."""
    tally = play([row({"stress": 0.5}, index=i) for i in range(1000)], change("0.7 - 0.6 * x", "0.6 - 0.6 * x"))
    found = tally.changes["temperature"]
    assert (tally.changed, found.calls, found.tighter, found.looser) == (1000, 1000, 1000, 0)
    assert found.total / found.calls == pytest.approx(0.1)
    assert found.largest == pytest.approx(0.1)
    assert sum(found.spread.before) == sum(found.spread.after) == 1000


def test_play_looser_and_tighter_are_told_apart() -> None:
    """Direction is the parameter's own: for reasoning_effort higher is tighter."""
    tally = play([row({"ambiguity": 0.5})], change("min(1, 0.3 + 0.7 * x)", "min(1, 0.2 + 0.7 * x)"))
    found = tally.changes["reasoning_effort"]
    assert (found.lowered, found.looser, found.tighter) == (1, 1, 0)


def test_play_safety_mode_and_style_are_transitions() -> None:
    """A threshold that falls makes calls strict that were not."""
    tally = play([row({"alignment_risk": 0.27})], change("strict if x > 0.3", "strict if x > 0.25"))
    assert tally.modes == {("balanced", "strict"): 1}
    assert tally.styles == {("balanced", "strict"): 1}
    assert tally.changes["safety_mode"].tighter == 1


def test_play_newly_mapped_parameter_is_newly_set() -> None:
    """A map that is added writes a parameter that was left alone, even where its value is the default."""
    candidate = change("  trust:\n    temperature", "  trust:\n    verbosity: current\n    temperature")
    found = play([row({"trust": 0.5})], candidate)
    assert (found.changes["verbosity"].newly_set, found.changes["verbosity"].calls, found.changed) == (1, 0, 1)


def test_play_unknown_revision_is_compared_and_counted_apart() -> None:
    """Without its text a decision cannot be checked, but what was recorded can be compared."""
    other = change("0.7 - 0.6 * x", "0.5 - 0.4 * x")
    rows = [row({"stress": 0.5}, other, index=0), row({"stress": 0.5}, index=1)]
    tally = play(rows)
    assert tally.unknown == {other.id: 1}
    assert (tally.checked, tally.simulated, tally.changes["temperature"].calls) == (1, 2, 1)


def test_play_undeclared_signal_is_said() -> None:
    """A candidate without a signal decides without it, and the report says so."""
    text = "\n".join(line for line in PACKAGED.splitlines() if not line.startswith("  trust: {role"))
    head, _, rest = text.partition("  trust:\n")
    text = head + "\n\nstyles:" + rest.partition("\nstyles:")[2]
    tally = play([row({"trust": 0.9, "stress": 0.4})], parse_policy(text, "candidate"))
    assert tally.undeclared == {"trust": 1}
    assert tally.simulated == 1


def test_play_call_that_the_candidate_cannot_decide_is_refused() -> None:
    """A caller's value of a type that the candidate does not have is a call that it would refuse."""
    frequency = "frequency_penalty: {type: number, default: 0, min: -2, max: 2}"
    candidate = change(frequency, "frequency_penalty: {type: enum, values: [low, high], default: low}")
    tally = play([row({"stress": 0.5}, caller={"frequency_penalty": 1.5})], candidate)
    assert list(tally.refused.values()) == [1]
    assert (tally.checked, tally.simulated) == (1, 0)


def test_play_tools_that_change_are_named() -> None:
    """Blocked and allowed are told by class, for functions and for tools that the provider runs."""
    candidate = change("default: [retrieval, browser], tighter", "default: [retrieval, web_search], tighter")
    offered = ["open_url", "web_search", "retrieve_knowledge", "web_search"]
    rows = [
        row({}, tools=offered, body={"stripped": ["web_search"]}),
        row({}, tools=["open_url"]),
    ]
    tally = play(rows, candidate)
    assert tally.tools_blocked == {"open_url": 2}
    assert tally.tools_allowed == {"web_search": 1}
    assert tally.calls_with_tools == 2
    assert tally.examples[1].parts[-1] == "tool calls"


def test_play_function_that_bears_a_hosted_name_is_a_function() -> None:
    """What was done tells which of the two readings of a name is right."""
    policy = change("default: [retrieval, browser], tighter", "default: [retrieval, web_search], tighter")
    # Under this revision a hosted web_search is kept, so what was stripped is a function of that name.
    tally = play([row({}, policy, tools=["web_search"], body={"stripped": ["web_search"]})], policy, [policy])
    assert tally.tools_allowed == tally.tools_blocked == {}


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda body: body["inputs"].update(levels={"stress": "high"}), id="level-is-a-text"),
        pytest.param(lambda body: body["inputs"].update(levels=[1]), id="levels-are-a-list"),
        pytest.param(lambda body: body["inputs"].update(levels={"none_such": 0.5}), id="undeclared-signal"),
        pytest.param(lambda body: body["inputs"].update(caller={"temperature": [1]}), id="caller-of-a-wrong-type"),
        pytest.param(lambda body: body.update(touched=["top_p"]), id="touched"),
        pytest.param(lambda body: body.update(touched="top_p"), id="touched-is-a-text"),
        pytest.param(lambda body: body.update(parameters={}), id="no-parameters"),
    ],
)
def test_play_inputs_that_decide_nothing_are_a_mismatch(spoil: Any) -> None:
    """Of a known revision, whatever does not give the recorded decision is listed, and nothing breaks."""
    tally = play([row({"stress": 0.5}, kind=spoil), row({"stress": 0.5}, index=1)])
    assert tally.mismatch_count == 1
    assert tally.mismatches[0][1] == "aud_0"
    assert tally.read == 2


def test_play_other_record_is_unreadable() -> None:
    """A decision of a form that this program does not know is counted and said."""
    tally = play([row({}, kind=lambda body: body.pop("policy")), row({})])
    assert (tally.unreadable, tally.checked) == (1, 1)


def test_play_cut_record_is_counted_apart() -> None:
    """A record that was too long to be kept whole cannot compare, and is no mismatch."""

    def cut(body: dict[str, Any]) -> None:
        body["parameters"] = {"temperature": 0.6, "_cut": {"count": 11, "sha256": "0" * 64}}

    tally = play([row({"stress": 0.5}, kind=cut)])
    assert (tally.cut, tally.mismatch_count) == (1, 0)


def test_play_broken_hash_is_a_mismatch() -> None:
    """Bytes that are not those of the leaf hash are not decided by at all."""
    good = row({"stress": 0.5})
    tally = play([Row(7, "aud_7", False, good.body)])
    assert tally.mismatches == [(7, "aud_7", ["hash"])]
    assert tally.simulated == 0


def test_merge_parts_equal_the_whole() -> None:
    """Counting in parts and adding them up is counting."""
    candidate = change("0.7 - 0.6 * x", "0.6 - 0.6 * x")
    rows = [row({"stress": n / 20, "alignment_risk": n / 25}, index=n, tools=["open_url"]) for n in range(20)]
    whole = play(rows, candidate)
    total = make_tally(candidate, [load_policy()])
    for part in (rows[:7], rows[7:8], [], rows[8:]):
        merge(total, play(part, candidate))
    for name, found in total.changes.items():
        assert found.total == pytest.approx(whole.changes[name].total)
        found.total = whole.changes[name].total
    assert total == whole


def test_play_tampered_first_record_does_not_stain_its_likes() -> None:
    """Records of equal inputs are compared with what the revision decides, not with the first of them."""

    def tamper(body: dict[str, Any]) -> None:
        body["parameters"] = {**body["parameters"], "temperature": 0.99}

    tally = play([row({"stress": 0.5}, kind=tamper), *(row({"stress": 0.5}, index=n) for n in range(1, 5))])
    assert tally.mismatch_count == 1
    assert (tally.changed, tally.changes["temperature"].calls) == (1, 1)


@pytest.mark.parametrize(
    ("before", "after", "differing"),
    [
        pytest.param("0.7 - 0.6 * x", "0.6 - 0.6 * x", {"stress"}, id="map"),
        pytest.param('    tools: "[retrieval] if x > 0.5 else current"\n', "", {"urgency"}, id="map-gone"),
        pytest.param("role: style, precedence: 30", "role: style, precedence: 55", {"urgency"}, id="precedence"),
        pytest.param("half_life_ms: 300000, min_level: 0.2", "min_level: 0.3", {"trust"}, id="signal"),
        pytest.param("stress > 0.7", "stress > 0.6", None, id="style-rule"),
        pytest.param("default: 0.6, min", "default: 0.5, min", None, id="default"),
        pytest.param("combine: precedence", "combine: blend", None, id="blend"),
        pytest.param("apply: touched", "apply: all", None, id="apply"),
        pytest.param("functions: [open_url]", "functions: [open_page]", None, id="tool-class"),
        pytest.param("{min: -0.3, max: 0.3, rating: 0}", "{min: -0.1, max: 0.1, rating: 0}", None, id="feedback"),
        pytest.param("name: lukhas-recommended", "name: another", set(), id="name"),
    ],
)
def test_find_differing_signals_is_sound(before: str, after: str, differing: set[str] | None) -> None:
    """Where two policies are said to decide alike, they do, at random levels with callers' values and nudges."""
    candidate, packaged = change(before, after), load_policy()
    found = find_differing_signals(packaged, candidate)
    assert found == differing
    mine, theirs = Dispatcher(packaged), Dispatcher(candidate)
    draw = random.Random(3)
    for _ in range(300):
        names = [name for name in packaged.signals if name not in (found or ())]
        levels = {name: draw.random() for name in names if draw.random() < 0.5} if found is not None else {}
        options: dict[str, Any] = {
            "caller": draw.choice([{}, {"temperature": draw.random(), "max_output_tokens": 300}]),
            "nudges": draw.choice([None, {"temperature": 0.1, "verbosity": -0.2}]),
        }
        a, b = mine.decide(levels, **options), theirs.decide(levels, **options)
        if found is not None:
            assert (a.parameters, a.style, a.touched) == (b.parameters, b.style, b.touched)
