"""Sound policies: all proved, no false alarm; and where a proof and a search disagree, the proof would be wrong."""

from __future__ import annotations

import time
from random import Random

import pytest
from test_modulation_properties import write_policy as write_random_policy
from test_proof_fault import PACKAGED, SECOND_GUARD, change, leak, prove_here, risk, small

from lukhas.errors import PolicyError
from lukhas.modulation.policy_reader import parse_policy
from lukhas.modulation.proof import Proof

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

KNOB = "{temperature: {min: -0.2, max: 0.2}}"

SOUND = {
    "packaged": PACKAGED,
    "packaged-apply-all": change(("apply: touched", "apply: all")),
    "packaged-blended": change(("combine: precedence", "combine: blend")),
    "guard-steps-down": risk("temperature", "1 - 0.85 * x", "1 if x < 0.3 else 0.6 if x < 0.7 else 0.15"),
    "guard-curve": risk("memory_write", "1 - 0.9 * x", "1 - 0.9 * x * x"),
    "guard-product": risk("top_p", "max(0.2, 1 - 0.8 * x)", "max(0.2, (1 - x) * (1 - 0.5 * x))"),
    "guard-divides": risk("top_p", "max(0.2, 1 - 0.8 * x)", "0.2 / (0.2 + x)"),
    "guard-rounds": risk("planner_beam", "max(1, round(6 - 4 * x))", "clamp(round(5.5 - 4 * x), 1, 6)"),
    "guard-floors": risk("planner_beam", "max(1, round(6 - 4 * x))", "max(1, 6 - 4.7 * x)"),
    "guard-of-current": risk("temperature", "1 - 0.85 * x", "current * (1 - 0.5 * x)"),
    "guard-caps-current": risk("temperature", "1 - 0.85 * x", "min(current, 0.3) if x > 0.5 else 1"),
    "guard-in-a-window-of-noise": risk("temperature", "1 - 0.85 * x", "max(0.1, 1 - x - 0.01 * round(3 * x))"),
    "guard-names-a-style": risk("temperature", "1 - 0.85 * x", "1 - 0.5 * x - 0.3 * stress"),
    "guard-looser-for-a-style-tighter-for-itself": risk("temperature", "1 - 0.85 * x", "0.6 - 0.5 * x + 0.3 * trust"),
    "guard-names-another-guard": change(
        SECOND_GUARD, leak("temperature: 1 - 0.3 * x - 0.3 * alignment_risk", "tools: '[] if x > 0.9 else current'")
    ),
    "two-guards-of-one-parameter": change(SECOND_GUARD, leak("temperature: 1 - 0.5 * x", "planner_beam: 6 - 5 * x")),
    "mode-in-three-steps": risk(
        "safety_mode", "strict if x > 0.3 else balanced", "strict if x > 0.6 else balanced if x > 0.2 else current"
    ),
    "tools-in-three-steps": risk(
        "tools", '"[retrieval] if x > 0.7 else current"', '"[] if x > 0.9 else [browser] if x > 0.5 else current"'
    ),
    "style-point-inside-the-bounds": change(
        ("    temperature: min(1, 0.5 + 0.4 * x)", "    temperature: 0.9 if x == 0.37 else 0.5")
    ),
    "style-of-current": change(
        ("    temperature: min(1, 0.5 + 0.4 * x)", "    temperature: min(1, current + 0.1 * x)")
    ),
    "style-chain-of-current": small("  stress:\n    temperature: current * 0.5\n  trust:\n    temperature: x"),
    "style-abs-and-round": change(
        ("    memory_write: min(1, 0.5 + 0.5 * x)", "    memory_write: 0.1 + abs(0.5 - x) + round(x) / 10")
    ),
    "style-chooses-by-another": change(
        ("    top_p: min(1, 0.7 + 0.3 * x)", "    top_p: 0.9 if stress > 0.5 and not trust < 0.3 else 0.4")
    ),
    "small-with-feedback": small(
        "  leak:\n    temperature: 1 - x\n  stress:\n    temperature: 0.3 + 0.5 * x", feedback=KNOB
    ),
    "small-with-feedback-upwards": small(
        "  leak:\n    temperature: 0.2 + 0.8 * x", feedback=KNOB, temperature=", tighter: higher"
    ),
    "small-without-direction": small("  stress:\n    temperature: 1 - x", feedback=KNOB, temperature=""),
    "small-blended-with-feedback": small(
        "  leak:\n    temperature: 0.9 - 0.5 * x\n  stress:\n    temperature: x\n  trust:\n    temperature: 1 - x",
        head="combine: blend\napply: all",
        feedback=KNOB,
    ),
    "small-blended-whole-numbers": small(
        "  leak:\n    beam: max(1, 6 - 5 * x)\n"
        "  stress:\n    beam: 1 + round(5 * x)\n  trust:\n    beam: 6 - round(4 * x)",
        head="combine: blend",
    ),
    "small-without-maps": small("  leak: {}"),
    "small-rule-divides-safely": small(
        "  stress:\n    temperature: x", rules="  - {style: one, when: 1 / (1 + stress) < 0.6}"
    ),
    "small-mode-strict-by-default": small("  leak:\n    safety_mode: strict").replace(
        "default: balanced", "default: strict"
    ),
}


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in SOUND.items()])
def test_sound_policy_is_proved(text: str) -> None:
    """Nothing is refuted, nothing is left open, and the loader takes it too."""
    parse_policy(text)
    found = prove_here(text)
    assert {name: s.result for name, s in found.statements.items() if s.result != "proved"} == {}


def test_sound_policies_are_thirty() -> None:
    """As many as promised, all different."""
    assert len(set(SOUND.values())) == len(SOUND) >= 30


def test_packaged_policy_has_no_warning() -> None:
    """Everything that it says is reached."""
    assert prove_here(PACKAGED).warnings == []


def test_random_policies_are_judged_as_the_dispatcher_behaves() -> None:
    """Of 30 random policies with monotone guards, I1 is proved; what is refuted otherwise is confirmed."""
    random = Random(5)
    judged = refuted = 0
    while judged < 30:
        text = write_random_policy(random)
        try:
            policy = parse_policy(text)
        except PolicyError:
            continue
        judged += 1
        for statement in Proof(policy).run(time.monotonic() + 30):
            if statement.id.startswith("range:"):
                refuted += statement.result == "refuted"
                example = statement.counterexample
                assert statement.result == "proved" or (example is not None and example["confirmed"]), (text, statement)
            else:
                assert statement.result == "proved", (text, statement)
    assert refuted > 10
