"""Invariant I1: raising a guard never loosens a parameter, end to end, nor what a caller may keep of it.

A question about the exact steps of a large policy takes minutes. So it is first asked in two: whether each guard's own
cap keeps its order, and whether all steps after the caps keep any caps' order. Where a question leaves out what a style
makes of a parameter, any value inside the bounds stands for it, which is sound since no style map can name a guard.
Only what fails there is asked of the exact steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lukhas.modulation import counterexample
from lukhas.modulation.encode import Term
from lukhas.modulation.expression import Level, walk
from lukhas.modulation.ground import CLEAR, Claim, Document, Ground, never
from lukhas.modulation.policy import SAFETY_MODE, ParameterSpec, Rule
from lukhas.modulation.question import Model
from lukhas.modulation.symbolic import Inputs, Outcome, Wish


class Tightening:
    """The statements that raising a guard loosens nothing."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        # Guards of which it is proved that raising them keeps the strictest mode.
        self._kept_modes: set[str] = set()

    def claims(self) -> Iterator[Claim]:
        """Yield a statement per guard's map, and one per guard and parameter with a direction, the mode first."""
        yield from self._map_claims()
        yield from self._raise_claims()

    def _map_claims(self) -> Iterator[Claim]:
        policy = self.ground.policy
        for rule in policy.rules.values():
            if policy.signals[rule.signal].role == "guard":
                name = f"{rule.signal}.{rule.parameter}"
                text = f"maps.{name} by itself never loosens as a guard rises"
                yield Claim(f"map:{name}", text, lambda rule=rule: self._check_map(rule))

    def _check_map(self, rule: Rule) -> Document | None:
        """Check one cap alone: a map that rises is wrong even where something else hides it now.

        What reads `current` is judged by what it makes of a value, since its cap follows that value.
        """
        ground, steps = self.ground, self.ground.steps
        spec = ground.policy.parameters[rule.parameter]
        before = steps.inputs
        for guard in self._guards_of(rule):
            after, facts = steps.raised(guard)
            facts = [*steps.ranges(before), *facts, before.present[rule.signal]]
            steps.sane.clear()
            base, inside = ground.free(spec) if rule.uses_current else (steps.default(spec), [])
            caps = (steps.bounded(rule, base, before), steps.bounded(rule, base, after))
            if rule.uses_current:
                caps = (steps.tighter(spec, base, caps[0]), steps.tighter(spec, base, caps[1]))
            conditions = [*facts, *inside, *steps.sane]
            model = ground.questioner.ask([*conditions, steps.loosened(spec, *caps)])
            if model is None:
                continue
            if spec.kind in ("number", "integer"):
                model = ground.ask_again([*conditions, steps.loosened(spec, *caps, CLEAR)]) or model

            def make(model: Model, guard: str = guard, base: Term = base) -> Document:
                current = ground.value_of(spec, base, model)
                replay = counterexample.replay_map(ground.policy, rule, current)
                return ground.document(spec.name, model, None, replay, guard=guard, current=current)

            terms = (before.level[guard], after.level[guard])
            return ground.show([*conditions, steps.loosened(spec, *caps)], model, make, terms)
        return None

    def _guards_of(self, rule: Rule) -> list[str]:
        named = {node.signal for node in walk(rule.node) if isinstance(node, Level)}
        return [rule.signal, *sorted((named & self.ground.policy.guards) - {rule.signal})]

    def _raise_claims(self) -> Iterator[Claim]:
        specs = [spec for spec in self.ground.policy.parameters.values() if spec.tighter is not None]
        for guard in sorted(self.ground.policy.guards):
            for spec in specs:
                text = f"raising {guard} never loosens {spec.name}, nor what a caller may keep of it"
                check = lambda guard=guard, spec=spec: self._check_raise(guard, spec)  # noqa: E731
                yield Claim(f"tighten:{guard}:{spec.name}", text, check)

    def _check_raise(self, guard: str, spec: ParameterSpec) -> Document | None:
        steps = self.ground.steps
        before = steps.inputs
        after, facts = steps.raised(guard)
        wish, more = steps.wish(spec.name)
        facts = [*steps.ranges(before), *facts, *more]
        if self._tightens_each(guard, spec, before, after, wish, facts):
            return self._keep(guard, spec)
        steps.sane.clear()
        base = steps.styled(spec.name, before)
        strict = self._modes(before, after, wish)
        first = steps.decide(spec.name, base, before, wish, strict[0])
        then = steps.decide(spec.name, base, after, wish, strict[1])
        conditions = [*facts, *steps.sane]
        model = self.ground.questioner.ask([*conditions, self._is_loosened(spec, first, then)])
        if model is None:
            return self._keep(guard, spec)
        if spec.kind in ("number", "integer"):
            model = self.ground.ask_again([*conditions, self._is_loosened(spec, first, then, CLEAR)]) or model
        dispatcher = self.ground.dispatcher
        replay = counterexample.replay_raise(dispatcher, spec.name) if dispatcher else never

        def make(model: Model) -> Document:
            return self.ground.document(spec.name, model, None, replay, wish, guard=guard)

        terms = (before.level[guard], after.level[guard])
        return self.ground.show([*conditions, self._is_loosened(spec, first, then)], model, make, terms)

    def _tightens_each(
        self, guard: str, spec: ParameterSpec, before: Inputs, after: Inputs, wish: Wish, facts: Sequence[Term]
    ) -> bool:
        """Prove it in two small questions: no guard's own cap loosens, and what follows keeps any caps' order.

        The tightest of several caps is never looser where none of them is and no guard is gone.
        """
        steps = self.ground.steps
        steps.sane.clear()
        base, inside = self._any_base(spec, before)
        for rule in steps.rules_of(spec.name, "guard"):
            if guard not in self._guards_of(rule):
                continue
            caps = (steps.bounded(rule, base, before), steps.bounded(rule, base, after))
            there = before.present[rule.signal]
            if self.ground.ask_some([*facts, *inside, *steps.sane, there, steps.loosened(spec, *caps)]):
                return False
        first, ordered = self.ground.free(spec)
        then, more = self.ground.free(spec)
        ordered += more
        has_cap, has_cap_then = (steps.has_cap(spec.name, at) for at in (before, after))
        ordered += [self.ground.z3.Not(steps.loosened(spec, first, then)), *self._uncapped(spec, has_cap, first)]
        ordered += self._uncapped(spec, has_cap_then, then)
        strict, kept = self._any_mode(guard, before, after, wish)
        decided = steps.finish(spec, base, has_cap, first, before, wish, strict[0])
        raised = steps.finish(spec, base, has_cap_then, then, after, wish, strict[1])
        conditions = [*facts, *inside, *kept, *ordered, *steps.sane]
        return not self.ground.ask_some([*conditions, self._is_loosened(spec, decided, raised)])

    def _uncapped(self, spec: ParameterSpec, has_cap: Term, cap: Term) -> list[Term]:
        """Return that where no guard is present, the cap is the loosest value."""
        loosest = self.ground.steps.loosest(spec)
        pairs = zip(cap, loosest, strict=True) if spec.kind == "tools" else [(cap, loosest)]
        return [self.ground.z3.Implies(self.ground.z3.Not(has_cap), a == b) for a, b in pairs]

    def _keep(self, guard: str, spec: ParameterSpec) -> None:
        if spec.name == SAFETY_MODE:
            self._kept_modes.add(guard)

    def _is_loosened(self, spec: ParameterSpec, before: Outcome, after: Outcome, by: float = 0.0) -> Term:
        z3, steps = self.ground.z3, self.ground.steps
        unlimited = z3.Not(after.has_limit)
        limit = z3.Or(unlimited, steps.loosened(spec, before.limit, after.limit, by))
        return z3.Or(steps.loosened(spec, before.value, after.value, by), z3.And(before.has_limit, limit))

    def _any_base(self, spec: ParameterSpec, at: Inputs) -> tuple[Term, list[Term]]:
        """Return any value that the style signals can give a parameter: the default where none is present."""
        rules = self.ground.steps.rules_of(spec.name, "style")
        if not rules or spec.kind == "tools":
            return self.ground.steps.styled(spec.name, at), []
        base, facts = self.ground.free(spec)
        styled = self.ground.steps.any([at.present[rule.signal] for rule in rules])
        return base, [*facts, self.ground.z3.Or(styled, base == self.ground.steps.default(spec))]

    def _any_mode(self, guard: str, before: Inputs, after: Inputs, wish: Wish) -> tuple[tuple[Term, Term], list[Term]]:
        """Return whether the mode is the strictest before and after; where that is proved, all that matters of it."""
        if wish.delta is None or guard not in self._kept_modes:
            return self._modes(before, after, wish), []
        strict = (self.ground.z3.Bool("strict!before"), self.ground.z3.Bool("strict!after"))
        return strict, [self.ground.z3.Implies(*strict)]

    def _modes(self, before: Inputs, after: Inputs, wish: Wish) -> tuple[Term, Term]:
        if wish.delta is None:
            return self.ground.z3.BoolVal(False), self.ground.z3.BoolVal(False)
        return self.ground.steps.mode(before, wish) == 0, self.ground.steps.mode(after, wish) == 0
