"""The dispatcher's steps as formulas against the dispatcher itself, on random policies, levels, callers, nudges."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from test_modulation_properties import KNOBS, random_policies

from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import SAFETY_MODE, Policy

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

from lukhas.modulation.symbolic import SymbolicDispatcher

POLICIES = 25
VECTORS = 4


def draw(policy: Policy, random: Random) -> tuple[dict[str, float], dict[str, Any], dict[str, float]]:
    """Draw levels, the caller's values and feedback, all short decimals."""
    levels = {n: round(random.random(), 3) for n in policy.signals if random.random() < 0.7}
    caller: dict[str, Any] = {}
    for name, spec in policy.parameters.items():
        if spec.kind != "tools" and random.random() < 0.5:
            caller[name] = random.choice(spec.values) if spec.kind == "enum" else round(random.uniform(-4, 6), 2)
    nudges = {name: round(random.uniform(-most, most), 2) for name, most in KNOBS.items() if random.random() < 0.6}
    return (
        levels,
        caller,
        {name: max(delta, 0.0) if name == "memory_write" else delta for name, delta in nudges.items()},
    )


class Evaluator:
    """The formulas of one policy, with a point put in."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.steps = SymbolicDispatcher(policy)
        self.z3 = self.steps.z3

    def outcome(self, name: str, levels: dict[str, float], caller: dict[str, Any], nudges: dict[str, float]) -> Any:
        z3, steps, spec = self.z3, self.steps, self.policy.parameters[name]
        at = steps.inputs
        wish, _ = steps.wish(name)
        found = steps.decide(name, steps.styled(name, at), at, wish, steps.mode(at, wish) == 0)
        values: list[tuple[Any, Any]] = []
        for signal, spec_ in self.policy.signals.items():
            is_present = signal in levels and levels[signal] >= spec_.min_level
            values.append((at.present[signal], z3.BoolVal(is_present)))
            values.append((at.level[signal], self.real(levels.get(signal, 0.0))))
        mode = caller.get(SAFETY_MODE)
        values.append((wish.has_mode, z3.BoolVal(mode is not None)))
        values.append((wish.mode, self.index(SAFETY_MODE, mode) if mode else self.real(0)))
        own = caller.get(name)
        values.append((wish.has_caller, z3.BoolVal(own is not None)))
        number = self.real(0) if own is None else self.index(name, own) if spec.kind == "enum" else self.real(own)
        values.append((wish.caller, number))
        if wish.delta is not None:
            values.append((wish.delta, self.real(nudges.get(name, 0.0))))

        def put(term: Any) -> Any:
            if isinstance(term, tuple):
                return tuple(put(part) for part in term)
            done = z3.simplify(z3.substitute(term, *values))
            return str(done) == "True" if z3.is_bool(done) else done.as_fraction()

        return put(found.value), put(found.has_limit), put(found.limit)

    def real(self, value: float) -> Any:
        return self.z3.RealVal(Fraction(repr(value)))

    def index(self, name: str, member: str) -> Any:
        return self.z3.RealVal(self.policy.parameters[name].values.index(member))

    def as_symbolic(self, name: str, value: Any) -> Any:
        """Return a decided value as the formulas have it."""
        spec = self.policy.parameters[name]
        if spec.kind == "enum":
            return spec.values.index(value)
        if spec.kind == "tools":
            return tuple(not admitting.isdisjoint(value) for _, admitting in self.steps.tools)
        return value


def agree(a: Any, b: Any) -> bool:
    if isinstance(a, tuple):
        return a == b
    return math.isclose(float(a), float(b), rel_tol=1e-9, abs_tol=2e-9)


def test_symbolic_dispatcher_decides_as_the_real_one() -> None:
    """Value, limit and whether there is one agree, but at the few points where a rounding or a comparison ties."""
    random = Random(31)
    seen: Counter[str] = Counter()
    for policy in random_policies()[:POLICIES]:
        evaluator, dispatcher = Evaluator(policy), Dispatcher(policy)
        for _ in range(VECTORS):
            levels, caller, nudges = draw(policy, random)
            decision = dispatcher.decide(levels, caller=caller, nudges=nudges)
            for name, spec in policy.parameters.items():
                value, has_limit, limit = evaluator.outcome(name, levels, caller, nudges)
                wanted = evaluator.as_symbolic(name, decision.parameters[name])
                is_same = agree(value, wanted)
                if name not in (SAFETY_MODE, "tools") and spec.tighter is not None:
                    assert has_limit == (name in decision.limits), (name, policy.text)
                    if has_limit:
                        is_same = is_same and agree(limit, evaluator.as_symbolic(name, decision.limits[name]))
                seen["same" if is_same else "other"] += 1
                seen[spec.kind] += is_same
                if not is_same:
                    print(name, value, wanted, limit, decision.limits.get(name), levels, caller, nudges, policy.text)
    assert seen["same"] > 700
    assert seen["other"] <= 1, seen
    assert min(seen[kind] for kind in ("number", "integer", "enum", "tools")) > 20
