"""Totality: every map and every style rule has a value at every point."""

from __future__ import annotations

from collections.abc import Iterator

from lukhas.modulation import counterexample
from lukhas.modulation.counterexample import Sight
from lukhas.modulation.encode import Sighting, Term
from lukhas.modulation.ground import Claim, Document, Ground, is_total
from lukhas.modulation.interval import LARGEST, Domain
from lukhas.modulation.policy import Rule
from lukhas.modulation.question import Model


class Totality:
    """The statements that nothing divides by zero or grows beyond a number."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground

    def claims(self) -> Iterator[Claim]:
        """Yield a statement per map, and one per style rule with a condition."""
        for rule in self.ground.policy.rules.values():
            name = f"{rule.signal}.{rule.parameter}"
            text = f"maps.{name} has a value at every point: no division by zero, no unknown name"
            yield Claim(f"total:{name}", text, lambda rule=rule: self._check_total(rule))
        for position, rule in enumerate(self.ground.policy.style_rules):
            if rule.node is not None:
                text = f"style_rules[{position}] ({rule.style}) holds or not at every point: no division by zero"
                yield Claim(f"total:style_rules[{position}]", text, lambda at=position: self._check_condition(at))

    def _check_total(self, rule: Rule) -> Document | None:
        if rule not in self.ground.steps.partial:
            return None
        ground, steps = self.ground, self.ground.steps
        at = steps.inputs
        ranges = steps.ranges(at)
        spec = ground.policy.parameters[rule.parameter]
        # Where nothing hides the rule, else wherever its signal is present: what is hidden now may not stay so.
        for facts in (ground.effective(rule, at), [at.present[rule.signal]]):
            found: tuple[Term, Model] | None = None
            for current, more in ground.currents(rule, at):
                seen = Sighting()
                steps.apply(rule, current, at, seen)
                model = self._ask_total(seen, [*ranges, *facts, *more])
                found = None if model is None else (current, model)
                if found is None:
                    break
            if found is not None:
                at_point = ground.value_of(spec, *found)
                replay = counterexample.replay_total(ground.policy, rule, at_point)
                sight = Sight("division", None, None)
                return ground.document(rule.parameter, found[1], sight, replay, current=at_point)
        return None

    def _check_condition(self, position: int) -> Document | None:
        node = self.ground.policy.style_rules[position].node
        assert node is not None
        if is_total(node, Domain()):
            return None
        at, modes, facts = self.ground.choosing()
        seen = Sighting()
        for rule in self.ground.policy.style_rules[:position]:
            if rule.node is not None:
                facts.append(self.ground.z3.Not(self.ground.condition(rule.node, at, modes)))
        self.ground.condition(node, at, modes, seen)
        model = self._ask_total(seen, facts)
        if model is None:
            return None
        replay = counterexample.replay_total(self.ground.policy, None)
        return self.ground.document(f"style_rules[{position}]", model, Sight("division", None, None), replay)

    def _ask_total(self, seen: Sighting, facts: list[Term]) -> Model | None:
        z3 = self.ground.z3
        by_zero = self.ground.steps.any([z3.And(path, divisor == 0) for path, divisor in seen.divisors])
        model = self.ground.questioner.ask([*facts, by_zero])
        if model is not None:
            return model
        sane = [z3.Implies(path, divisor != 0) for path, divisor in seen.divisors]
        most = self.ground.steps.encoder.number(LARGEST)
        grown = [z3.And(path, z3.Or(value > most, value < -most)) for path, value in seen.values]
        return self.ground.questioner.ask([*facts, *sane, self.ground.steps.any(grown)])
