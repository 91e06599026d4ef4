"""Bounds: every style's map by itself, and every decided value, whatever is decided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lukhas.modulation import counterexample
from lukhas.modulation.counterexample import Sight
from lukhas.modulation.encode import Term
from lukhas.modulation.ground import CLEAR, Claim, Document, Ground, never
from lukhas.modulation.policy import SAFETY_MODE, ParameterSpec, Rule
from lukhas.modulation.question import Model


class Bounding:
    """The statements about bounds, whole numbers and members."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def claims(self) -> Iterator[Claim]:
        """Yield a statement per style map of a number, and one per parameter."""
        yield from self._range_claims()
        yield from self._bounds_claims()

    def _range_claims(self) -> Iterator[Claim]:
        for rule in self.ground.policy.rules.values():
            spec = self.ground.policy.parameters[rule.parameter]
            if self.ground.policy.signals[rule.signal].role == "style" and spec.kind in ("number", "integer"):
                name = f"{rule.signal}.{rule.parameter}"
                text = f"maps.{name} stays inside [{spec.low:g}, {spec.high:g}] by itself"
                yield Claim(f"range:{name}", text, lambda rule=rule: self._check_range(rule))

    def _check_range(self, rule: Rule) -> Document | None:
        ground, at = self.ground, self.ground.steps.inputs
        # Where nothing hides the map, else wherever its signal is present: what is hidden now may not stay so.
        for there in (ground.effective(rule, at), [at.present[rule.signal]]):
            facts = [*ground.steps.ranges(at), *there]
            found: tuple[Term, Model] | None = None
            for current, more in ground.currents(rule, at):
                value = ground.applied(rule, current, at, facts)
                model = ground.questioner.ask([*facts, *more, ground.outside(rule, value)])
                found = None if model is None else (value, model)
                if found is None:
                    break
            if found is not None:
                return self._show(rule, *found, facts)
        return None

    def _show(self, rule: Rule, value: Term, model: Model, facts: Sequence[Term]) -> Document:
        """Return the counterexample, clear and with the map's signal alone if there is such a point."""
        ground, at = self.ground, self.ground.steps.inputs
        alone = [ground.z3.Not(present) for name, present in at.present.items() if name != rule.signal]
        clear = ground.outside(rule, value, CLEAR)
        for clearer in ([*alone, clear], alone, [clear]):
            found = ground.ask_again([*facts, ground.outside(rule, value), *clearer])
            if found is not None:
                model = found
                break
        spec = ground.policy.parameters[rule.parameter]
        replay = counterexample.replay_range(ground.dispatcher, rule) if ground.dispatcher else never

        def make(model: Model) -> Document:
            number = model.number(value)
            sight = Sight("value", number, min(max(number, spec.low), spec.high))
            return ground.document(rule.parameter, model, sight, replay)

        return ground.show([*facts, ground.outside(rule, value)], model, make, [at.level[rule.signal]])

    def _bounds_claims(self) -> Iterator[Claim]:
        for spec in self.ground.policy.parameters.values():
            if spec.kind == "tools":
                continue
            what = f"is one of {', '.join(spec.values)}"
            if spec.kind != "enum":
                what = f"lies inside [{spec.low:g}, {spec.high:g}]" + " and is whole" * (spec.kind == "integer")
            text = f"whatever is decided, {spec.name} {what}"
            yield Claim(f"bounds:{spec.name}", text, lambda spec=spec: self._check_bounds(spec))

    def _check_bounds(self, spec: ParameterSpec) -> Document | None:
        steps, z3 = self.ground.steps, self.ground.z3
        wish, facts = steps.wish(spec.name)
        base, inside = self.ground.free(spec)
        cap, capped = self.ground.free(spec)
        has_cap, is_strictest = z3.Bool("has_cap"), z3.Bool("is_strictest")
        outcome = steps.finish(spec, base, has_cap, cap, steps.inputs, wish, is_strictest)
        low, high = z3.RealVal(0), z3.RealVal(len(spec.values) - 1)
        if spec.kind != "enum":
            low, high = steps.encoder.number(spec.low), steps.encoder.number(spec.high)
        facts += [*inside, *capped] + [z3.Not(wish.has_caller)] * (spec.name != SAFETY_MODE)
        model = self.ground.questioner.ask([*facts, z3.Or(outcome.value < low, outcome.value > high)])
        if model is None and spec.kind != "number":
            model = self.ground.questioner.ask([*facts, z3.Not(steps.encoder.is_whole(outcome.value))])
        if model is None:
            return None
        return self.ground.document(spec.name, model, Sight("value", model.number(outcome.value), None), never, wish)
