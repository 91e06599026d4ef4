"""Planted faults: each is found, refuted by a point that the real dispatcher fails at, or warned of."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pytest

from lukhas.modulation import counterexample
from lukhas.modulation.certificate import Statement
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text
from lukhas.modulation.proof import Proof
from lukhas.modulation.reachability import find_warnings

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

PACKAGED = read_packaged_text()
RISK = "  alignment_risk:\n    temperature: 1 - 0.85 * x\n"
LEAK = "  leak: {role: guard}\n"
SECOND_GUARD = ("signals:\n", "signals:\n" + LEAK)


def change(*pairs: tuple[str, str]) -> str:
    """Return the packaged policy with texts replaced, each of which must be there."""
    text = PACKAGED
    for old, new in pairs:
        assert text.count(old) >= 1, old
        text = text.replace(old, new, 1)
    return text


def risk(parameter: str, old: str, new: str, *more: tuple[str, str]) -> str:
    """Return the packaged policy with another map of alignment_risk."""
    return change((f"    {parameter}: {old}", f"    {parameter}: {new}"), *more)


def leak(*lines: str) -> tuple[str, str]:
    """Return the change that gives the second guard its maps."""
    return "maps:\n", "maps:\n  leak:\n" + "".join(f"    {line}\n" for line in lines)


def small(maps: str, *, head: str = "", temperature: str = "", feedback: str = "{}", rules: str = "") -> str:
    """Return a small policy of its own."""
    return f"""version: 1
{head}
signals:
  alignment_risk: {{role: guard}}
  leak: {{role: guard, min_level: 0.1}}
  stress: {{role: style, precedence: 2}}
  trust: {{role: style, precedence: 1, weight: 0.5}}
parameters:
  temperature: {{type: number, default: 0.5, min: 0, max: 1{temperature or ", tighter: lower"}}}
  beam: {{type: integer, default: 3, min: 1, max: 6, tighter: lower}}
  safety_mode: {{type: enum, values: [strict, balanced], default: balanced, tighter: first}}
  tools: {{type: tools, default: [a, b], tighter: subset}}
maps:
{maps}
styles: {{one: {{}}, two: {{}}}}
style_rules:
{rules or "  - {style: one, when: stress > 0.5}"}
  - {{style: two}}
tools: {{a: {{functions: [a_1]}}, b: {{patterns: ['b_*']}}, c: {{}}}}
feedback: {feedback}
"""


HUGE = "*".join(["(" + "*".join(["1e6"] * 8) + ")"] * 7)

FAULTS = {
    "guard-map-rises": (risk("temperature", "1 - 0.85 * x", "0.15 + 0.85 * x"), "tighten:alignment_risk:temperature"),
    "rises-in-a-tiny-interval": (
        risk("temperature", "1 - 0.85 * x", "1 - 0.85 * x + (0.5 if 0.6180 < x < 0.61801 else 0)"),
        "tighten:alignment_risk:temperature",
    ),
    "rises-between-grid-points": (
        risk("top_p", "max(0.2, 1 - 0.8 * x)", "max(0.2, 1 - 0.8 * x) if abs(x - 0.44141) > 0.0001 else 1"),
        "tighten:alignment_risk:top_p",
    ),
    "higher-parameter-falls": (
        risk("reasoning_effort", "min(1, 0.4 + 0.6 * x)", "max(0.1, 0.9 - 0.6 * x)"),
        "tighten:alignment_risk:reasoning_effort",
    ),
    "curve-rises-at-its-end": (
        risk("memory_write", "1 - 0.9 * x", "1 - 2 * x + 1.4 * x * x"),
        "tighten:alignment_risk:memory_write",
    ),
    "rounding-rises": (
        risk("planner_beam", "max(1, round(6 - 4 * x))", "max(1, round(6 - 4 * x) + round(3 * x) - 1)"),
        "tighten:alignment_risk:planner_beam",
    ),
    "rounding-tie-rises": (
        risk("planner_beam", "max(1, round(6 - 4 * x))", "2 + round(0.5 + 2 * x) - round(2 * x)"),
        "tighten:alignment_risk:planner_beam",
    ),
    "mode-loosens": (
        risk("safety_mode", "strict if x > 0.3 else balanced", "balanced if x > 0.3 else strict"),
        "tighten:alignment_risk:safety_mode",
    ),
    "mode-loosens-in-a-window": (
        risk("safety_mode", "strict if x > 0.3 else balanced", "strict if x > 0.3 and x < 0.9 else balanced"),
        "tighten:alignment_risk:safety_mode",
    ),
    "enum-order-reversed": (
        change(("values: [strict, balanced, creative]", "values: [creative, balanced, strict]")),
        "map:alignment_risk.safety_mode",
    ),
    "enum-order-reversed-under-a-loose-default": (
        change(
            ("values: [strict, balanced, creative], default: balanced", "values: [balanced, strict], default: strict")
        ),
        "tighten:alignment_risk:safety_mode",
    ),
    "tools-added-as-risk-rises": (
        risk("tools", '"[retrieval] if x > 0.7 else current"', '"[retrieval] if x < 0.7 else [retrieval, browser]"'),
        "tighten:alignment_risk:tools",
    ),
    "function-admitted-by-name": (
        risk("tools", '"[retrieval] if x > 0.7 else current"', '"[retrieval] if x < 0.4 else [retrieval, open_url]"'),
        "tighten:alignment_risk:tools",
    ),
    "current-loosens-through-another-map": (
        risk("temperature", "1 - 0.85 * x", "min(1, current * (0.5 + x))"),
        "tighten:alignment_risk:temperature",
    ),
    "loosens-by-another-guards-name": (
        change(SECOND_GUARD, leak("temperature: 0.2 + 0.5 * alignment_risk"), (RISK, "  alignment_risk:\n")),
        "tighten:alignment_risk:temperature",
    ),
    "loosens-by-a-guards-name-at-one-style-level": (
        change(
            SECOND_GUARD,
            leak('memory_write: "0.3 + max(0, stress - 0.9) * alignment_risk"'),
            ("    memory_write: 1 - 0.9 * x\n", ""),
        ),
        "tighten:alignment_risk:memory_write",
    ),
    "rises-times-a-styles-level": (
        risk("temperature", "1 - 0.85 * x", "0.9 - 0.85 * x + stress * trust * x"),
        "map:alignment_risk.temperature",
    ),
    "two-guards-loosen-only-together": (
        change(
            SECOND_GUARD,
            leak("max_output_tokens: 600 + 200 * max(0, x + alignment_risk - 1.5)"),
        ),
        "tighten:leak:max_output_tokens",
    ),
    "absent-guard-is-tighter": (
        change(SECOND_GUARD, leak('top_p: "0.4 if alignment_risk < 0.02 else 0.8"')),
        "tighten:alignment_risk:top_p",
    ),
    "cap-above-current-loosened-by-a-nudge": (
        small(
            '  leak:\n    temperature: "current if x < 0.5 else 0.5"\n  stress:\n    temperature: 0.3 * x',
            feedback="{temperature: {min: -0.2, max: 0.2}}",
        ),
        "tighten:leak:temperature",
    ),
    "apply-all-loosens": (
        small('  leak:\n    beam: "2 if x < 0.5 else 4"', head="apply: all"),
        "tighten:leak:beam",
    ),
    "blend-under-a-rising-guard": (
        small(
            "  leak:\n    temperature: min(1, current * (0.4 + x))\n"
            "  stress:\n    temperature: 0.2 + 0.5 * x\n  trust:\n    temperature: 0.9 * x",
            head="combine: blend",
        ),
        "tighten:leak:temperature",
    ),
    "limit-of-the-caller-loosens": (
        small('  leak:\n    temperature: "0.6 if x < 0.5 else 0.8"'),
        "tighten:leak:temperature",
    ),
    "style-map-leaves-bounds-at-one-point": (
        change(("    temperature: min(1, 0.5 + 0.4 * x)", "    temperature: 1.5 if x == 0.37 else 0.5")),
        "range:trust.temperature",
    ),
    "style-map-leaves-bounds-at-its-end": (
        change(("    max_output_tokens: round(900 - 500 * x)", "    max_output_tokens: round(900 - 700 * x)")),
        "range:urgency.max_output_tokens",
    ),
    "style-map-leaves-bounds-under-another-level": (
        change(("    top_p: min(1, 0.7 + 0.3 * x)", "    top_p: 0.7 + 0.3 * x + (0.1 if ambiguity > 0.99 else 0)")),
        "range:novelty.top_p",
    ),
    "style-map-leaves-bounds-through-current": (
        small("  stress:\n    temperature: current + 0.3\n  trust:\n    temperature: x"),
        "range:stress.temperature",
    ),
    "division-by-one-minus-x": (
        change(("    temperature: max(0.1, 0.7 - 0.6 * x)", "    temperature: min(1, 0.1 / (1 - x))")),
        "total:stress.temperature",
    ),
    "division-by-a-difference-of-levels": (
        change(("    temperature: min(1, 0.5 + 0.4 * x)", "    temperature: clamp(0.1 / (x - novelty), 0, 1)")),
        "total:trust.temperature",
    ),
    "division-in-a-guards-branch": (
        risk("memory_write", "1 - 0.9 * x", "min(1, 0.1 / (x - 0.5)) if x > 0.9 or x == 0.5 else 1"),
        "total:alignment_risk.memory_write",
    ),
    "division-in-a-style-rule": (
        change(("when: stress > 0.7", "when: stress / (0.5 - trust) > 3")),
        "total:style_rules[1]",
    ),
    "value-grows-beyond-any-float": (
        small(f"  stress:\n    temperature: min(1, 0 * x * ({HUGE}))"),
        "total:stress.temperature",
    ),
    "value-grows-beyond-any-number": (
        small("  stress:\n    temperature: min(1, x * 1000000 * 1000000 * 1000000)"),
        "total:stress.temperature",
    ),
}

WARNINGS = {
    "style-never-reached": (
        change(("when: stress > 0.7", "when: stress > 0.7 and stress < 0.6")),
        "no levels reach the style 'focused'",
    ),
    "style-behind-another": (
        change(("when: novelty > 0.6", "when: stress > 0.8")),
        "no levels reach the style 'creative'",
    ),
    "style-of-a-mode-that-is-never-decided": (
        change(
            ("default: balanced, tighter: first", "default: strict, tighter: first"),
            ("when: stress > 0.7", "when: safety_mode == creative"),
        ),
        "no levels reach the style 'focused'",
    ),
    "style-without-a-rule": (change(("  balanced: {}", "  balanced: {}\n  idle: {}")), "styles.idle: no levels reach"),
    "branch-below-the-least-level": (
        change(("[retrieval] if x > 0.5 else current", "[retrieval] if x > 0.1 else current")),
        "always holds",
    ),
    "branch-inside-a-branch": (
        change(("temperature: min(1, 0.5 + 0.4 * x)", "temperature: 0.5 if x > 0.7 else 0.4 if x > 0.8 else 0.3")),
        "condition number 2 never holds",
    ),
    "tool-that-a-guard-cannot-give": (
        risk("tools", '"[retrieval] if x > 0.7 else current"', '"[retrieval, code_exec] if x > 0.7 else current"'),
        "no levels ever allow 'code_exec'",
    ),
    "guard-that-never-tightens": (
        change(
            ("values: [strict, balanced, creative]", "values: [creative, balanced, strict]"),
            ("strict if x > 0.3 else balanced", "strict if x > 0.3 else current"),
        ),
        "never tightens anything",
    ),
    "cap-outside-its-bounds": (
        risk("temperature", "1 - 0.85 * x", "1 - 1.2 * x"),
        "the cap leaves [0, 1]",
    ),
}


@dataclass(frozen=True)
class Proved:
    """A proof in this process."""

    policy: Policy
    statements: dict[str, Statement]
    warnings: list[str]

    @property
    def refuted(self) -> list[str]:
        return [s.id for s in self.statements.values() if s.result == "refuted"]


def prove_here(text: str) -> Proved:
    """Prove without a worker process, which costs half a second each."""
    policy = parse_policy(text, is_draft=True)
    proof = Proof(policy)
    end = time.monotonic() + 30
    statements = {statement.id: statement for statement in proof.run(end)}
    return Proved(policy, statements, list(find_warnings(proof.ground, end + 10)))


def replay(policy: Policy, statement: Statement) -> counterexample.Sight | None:
    """Replay a counterexample's document through a new dispatcher, or, for a map alone, its compiled function."""
    document = statement.counterexample
    assert document is not None
    kind, _, name = statement.id.partition(":")
    rule = policy.rules.get(tuple(name.split(".")))  # type: ignore[arg-type]
    if kind == "tighten":
        again = counterexample.replay_raise(Dispatcher(policy), document["parameter"])
    elif kind == "range":
        again = counterexample.replay_range(Dispatcher(policy), rule)
    elif kind == "map":
        again = counterexample.replay_map(policy, rule, document["current"])
    else:
        again = counterexample.replay_total(policy, rule, document["current"])
    return again(counterexample.inputs_of(document))


@pytest.mark.parametrize(("text", "expected"), [pytest.param(*fault, id=name) for name, fault in FAULTS.items()])
def test_fault_planted_is_refuted_and_its_counterexample_replays(text: str, expected: str) -> None:
    """The statement that the fault breaks is refuted, by a point at which the real dispatcher breaks it too."""
    found = prove_here(text)
    assert expected in found.refuted, (found.refuted, found.warnings)
    for name in found.refuted:
        statement = found.statements[name]
        document = statement.counterexample
        assert document is not None
        assert document["confirmed"] is True, document
        sight = replay(found.policy, statement)
        assert sight is not None
        before = list(sight.before) if isinstance(sight.before, (list, tuple)) else sight.before
        assert (document["what"], document["before"]) == (sight.what, before)
        assert counterexample.in_words(document).startswith("with ")


@pytest.mark.parametrize(("text", "expected"), [pytest.param(*fault, id=name) for name, fault in WARNINGS.items()])
def test_fault_that_is_only_useless_is_warned_of(text: str, expected: str) -> None:
    """What nothing reaches is named with its place, and refutes nothing."""
    found = prove_here(text)
    assert found.refuted == []
    assert [warning for warning in found.warnings if expected in warning], found.warnings


def test_faults_planted_are_thirty_and_more() -> None:
    """The list is as long as promised, and no two faults are the same text."""
    texts: list[Any] = [text for text, _ in (*FAULTS.values(), *WARNINGS.values())]
    assert len(set(texts)) == len(texts) >= 30
