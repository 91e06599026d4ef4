"""What changes between two policies, in words."""

from __future__ import annotations

import msgspec
import pytest

from lukhas.modulation.difference import Difference, compare_policies
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text
from lukhas.modulation.sweep import make_grid, sweep

PACKAGED = read_packaged_text()
BASE = parse_policy(PACKAGED)


def change(*pairs: tuple[str, str]) -> Difference:
    text = PACKAGED
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return compare_policies(BASE, parse_policy(text))


def texts(found: Difference) -> list[str]:
    return [one.text for one in found.changes]


def test_difference_same_text_is_none() -> None:
    """A policy does not differ from itself."""
    found = compare_policies(BASE, BASE)
    assert found.same and found.changes == ()


def test_difference_comments_alone_change_nothing() -> None:
    """Another id, and nothing else to say."""
    found = compare_policies(BASE, parse_policy(PACKAGED + "\n# a word\n"))
    assert not found.same and found.a != found.b and found.changes == ()


def test_difference_spelling_of_a_map_changes_nothing() -> None:
    """Spaces in an expression are no change."""
    assert change(("max(0.1, 0.7 - 0.6 * x)", "max( 0.1,0.7-0.6*x )")).changes == ()


def test_difference_map_says_parameter_range_and_amount() -> None:
    """From where to where, by how much, and an example."""
    found = change(("max(0.1, 0.7 - 0.6 * x)", "max(0.1, 0.7 - 0.6 * x) if x < 0.4 else max(0.1, 0.7 - 0.8 * x)"))
    assert "temperature: for stress 0.40-1.00 lower by up to 0.15 (0.25 -> 0.1 at 0.75)" in texts(found)
    (one,) = [c for c in found.changes if c.area == "decision" and c.name == "temperature"]
    assert (one.signal, one.low, one.high) == ("stress", 0.4, 1.0)
    assert one.before == pytest.approx(0.25) and one.after == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        pytest.param(
            "min(1, 0.6 + 0.6 * x)",
            "min(1, 0.6 + 0.6 * x) - (0.1 if x == 0.37 else 0)",
            "temperature: for novelty 0.37 lower by 0.1 (0.822 -> 0.722 at 0.37)",
            id="at-one-point-only",
        ),
        pytest.param(
            "strict if x > 0.3 else balanced",
            "strict if x > 0.2 else balanced",
            "safety_mode: for alignment_risk 0.20-0.30 strict instead of balanced",
            id="enum",
        ),
        pytest.param(
            '"[retrieval] if x > 0.5 else current"',
            '"[retrieval] if x > 0.4 else current"',
            "tools: for urgency 0.40-0.50 without browser",
            id="tools-fewer",
        ),
        pytest.param(
            '"[retrieval] if x > 0.5 else current"',
            '"[retrieval] if x > 0.6 else current"',
            "tools: for urgency 0.50-0.60 with browser too",
            id="tools-more",
        ),
        pytest.param(
            "temperature: 1 - 0.85 * x",
            "temperature: 1 - 0.9 * x",
            "temperature: for alignment_risk 0.05-1.00 the limit is lower by up to 0.05 (0.15 -> 0.1 at 1.00)",
            id="guard-limit-below-the-default",
        ),
        pytest.param(
            "round(1400 - 600 * x)",
            "round(1300 - 600 * x)",
            "max_output_tokens: for stress 0.20-1.00 lower by 100 (1040 -> 940 at 0.60)",
            id="even",
        ),
        pytest.param(
            "stress > 0.7", "stress > 0.6", "style: for stress 0.60-0.70 focused instead of balanced", id="style"
        ),
        pytest.param("stress > 0.7", "stress > 0.6", "style rule removed: focused when stress > 0.7", id="style-rule"),
        pytest.param(
            "half_life_ms: 120000",
            "half_life_ms: 60000",
            "signal alignment_risk: half-life 120 s -> 60 s",
            id="half-life",
        ),
        pytest.param(
            "role: style, precedence: 50",
            "role: style, precedence: 15",
            "signal stress: precedence 50 -> 15",
            id="precedence",
        ),
        pytest.param(
            "top_p: {type: number, default: 0.9, min: 0.1",
            "top_p: {type: number, default: 0.8, min: 0.2",
            "parameter top_p: bounds 0.1 to 1 -> 0.2 to 1",
            id="bounds",
        ),
        pytest.param(
            "top_p: {type: number, default: 0.9",
            "top_p: {type: number, default: 0.8",
            "parameter top_p: default 0.9 -> 0.8",
            id="default",
        ),
        pytest.param(
            "functions: [retrieve_knowledge]",
            "functions: [retrieve_knowledge, look_up]",
            "tool retrieval: functions [retrieve_knowledge] -> [retrieve_knowledge, look_up]",
            id="tool",
        ),
        pytest.param("  mcp: {hosted: [mcp], risk: high}\n", "", "tool mcp: removed", id="tool-removed"),
        pytest.param(
            "verbosity: {min: -0.3", "verbosity: {min: -0.2", "feedback verbosity: low -0.3 -> -0.2", id="feedback"
        ),
        pytest.param("apply: touched", "apply: all", "apply: touched -> all", id="apply"),
        pytest.param("combine: precedence", "combine: blend", "combine: precedence -> blend", id="combine"),
        pytest.param("name: lukhas-recommended", "name: mine", "name: lukhas-recommended -> mine", id="name"),
        pytest.param(
            "Be brief.",
            "Be very brief.",
            "style focused: preamble Be brief. Answer the question first and leave out what it does not need."
            " -> Be very brief. Answer the question first and leave out what it does not need.",
            id="preamble",
        ),
    ],
)
def test_difference_each_kind_of_change_is_in_words(old: str, new: str, expected: str) -> None:
    """One planted change, one sentence that says it."""
    assert expected in texts(change((old, new)))


def test_difference_map_added_and_removed_are_named() -> None:
    """A map that comes or goes is a change even where it yields the default."""
    added = change(("    retrieval_k: min(10, 4 + round(4 * x))\n", "    verbosity: 0.5\n"))
    assert "map stress -> verbosity: new, 0.5" in texts(added)
    assert "map stress -> retrieval_k: removed, min(10, 4 + round(4 * x))" in texts(added)


def test_difference_signal_added_has_its_limits() -> None:
    """A new guard limits what was not limited."""
    found = change(
        ("signals:\n", "signals:\n  outage: {role: guard, precedence: 70, ttl_ms: 300000}\n"),
        ("maps:\n", "maps:\n  outage:\n    max_output_tokens: round(1200 - 800 * x)\n"),
    )
    assert any(text.startswith("signal outage: new (role guard") for text in texts(found))
    assert "map outage -> max_output_tokens: new, round(1200 - 800 * x)" in texts(found)
    assert any(text.startswith("max_output_tokens: for outage ") for text in texts(found))


def test_difference_map_that_reads_another_signal_is_looked_at_with_it() -> None:
    """What changes only beside another signal is found there."""
    found = change(("max(0.1, 0.7 - 0.6 * x)", "max(0.1, 0.7 - 0.6 * x) if trust < 0.5 else 0.1"))
    assert "temperature: for stress 0.20-1.00 and trust at 1 lower by up to 0.48 (0.58 -> 0.1 at 0.20)" in texts(found)


def test_difference_all_signals_together_are_looked_at() -> None:
    """A change of precedence shows where several signals meet."""
    found = change(("role: style, precedence: 10, weight: 0.4", "role: style, precedence: 55, weight: 0.4"))
    assert "signal trust: precedence 10 -> 55" in texts(found)
    assert "temperature: with every signal at 1 0.1 -> 0.15" in texts(found)


def test_difference_is_plain_json() -> None:
    """What the API and --json give can be encoded."""
    found = change(('"[retrieval] if x > 0.5 else current"', '"[] if x > 0.5 else current"'))
    document = msgspec.json.decode(msgspec.json.encode(found))
    assert document["same"] is False and all(one["text"] for one in document["changes"])


@pytest.mark.parametrize("x", [0.0, 0.2, 0.25, 0.4, 0.5, 0.61, 0.75, 0.99, 1.0])
def test_difference_ranges_agree_with_the_dispatcher(x: float) -> None:
    """A level lies inside a reported range exactly where the two policies decide differently."""
    other = parse_policy(
        PACKAGED.replace("max(0.1, 0.7 - 0.6 * x)", "max(0.1, 0.7 - 0.6 * x) - (0.05 if x > 0.6 else 0)")
    )
    before = Dispatcher(BASE).decide({"stress": x}).parameters["temperature"]
    after = Dispatcher(other).decide({"stress": x}).parameters["temperature"]
    spans = [
        c
        for c in compare_policies(BASE, other).changes
        if c.area == "decision" and c.name == "temperature" and c.signal
    ]
    inside = any((c.low or 0) - 1e-5 <= x <= (c.high or 0) + 1e-5 for c in spans)
    assert inside is (abs(before - after) > 1e-9)


def test_sweep_edges_are_searched_out_between_grid_points() -> None:
    """A range's end is found to a millionth, wherever it lies."""
    (span,) = sweep(lambda x: 0, lambda x: int(0.12345 < x < 0.6789), make_grid())
    assert span.low == pytest.approx(0.12345, abs=1e-6) and span.high == pytest.approx(0.6789, abs=1e-6)
    assert span.is_even


def test_sweep_direction_that_turns_is_two_ranges() -> None:
    """Higher and lower are never put into one range."""
    spans = sweep(lambda x: 0.5, lambda x: x, make_grid())
    assert [(span.before < span.after) for span in spans] == [False, True]
    assert spans[0].low == 0 and spans[1].high == 1
