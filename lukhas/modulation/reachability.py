"""What a policy says and no levels ever reach: warnings, since it is useless and not wrong."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Final

from lukhas.modulation.encode import Sighting, Term
from lukhas.modulation.ground import Ground
from lukhas.modulation.policy import TOOLS, Rule
from lukhas.modulation.question import Undecided

# For each question; a warning that takes longer to find is not given.
_EACH_S: Final = 1.0


def find_warnings(ground: Ground, end: float) -> Iterator[str]:
    """Yield each style, branch and tool that no levels reach, and each guard's map that leaves its bounds.

    Args:
        ground: of the policy.
        end: the monotonic time, in seconds, at which to stop.
    """
    search = _Search(ground, end)
    yield from search.styles()
    for rule in ground.policy.rules.values():
        yield from search.branches(rule)
        yield from search.caps(rule)
        yield from search.effects(rule)
        if rule.parameter == TOOLS:
            yield from search.tools(rule)
    if search.undecided:
        yield f"whether all is reachable could not be decided in time at {search.undecided} places"


class _Search:
    def __init__(self, ground: Ground, end: float) -> None:
        self.ground = ground
        self.policy = ground.policy
        self.z3 = ground.z3
        self.end = end
        self.undecided = 0

    def is_dead(self, conditions: Sequence[Term]) -> bool:
        self.ground.questioner.end = min(self.end, time.monotonic() + _EACH_S)
        try:
            return self.ground.questioner.ask(conditions) is None
        except Undecided:
            self.undecided += 1
            return False

    def styles(self) -> Iterator[str]:
        z3, ground = self.z3, self.ground
        at, modes, facts = ground.choosing()
        reached: set[str] = set()
        dead: list[str] = []
        for rule in self.policy.style_rules:
            test = z3.BoolVal(True) if rule.node is None else ground.condition(rule.node, at, modes)
            if self.is_dead([*facts, test]):
                dead.append(f"style_rules, line {rule.place.line}: no levels reach the style '{rule.style}' here")
            else:
                reached.add(rule.style)
            facts.append(z3.Not(test))
        yield from dead
        for name in self.policy.styles:
            if name not in reached:
                yield f"styles.{name}: no levels reach this style"

    def branches(self, rule: Rule) -> Iterator[str]:
        z3 = self.z3
        seen, facts = self._see(rule)
        for number, (path, test) in enumerate(seen.choices, start=1):
            which = f"the {'condition' if len(seen.choices) == 1 else f'condition number {number}'}"
            where = f"maps.{rule.signal}.{rule.parameter}, line {rule.place.line}"
            if self.is_dead([*facts, path]):
                continue  # the outer condition's warning says it already
            if self.is_dead([*facts, path, test]):
                yield f"{where}: {which} never holds in '{rule.text}'"
            elif self.is_dead([*facts, path, z3.Not(test)]):
                yield f"{where}: {which} always holds in '{rule.text}'"

    def caps(self, rule: Rule) -> Iterator[str]:
        ground, spec = self.ground, self.policy.parameters[rule.parameter]
        if self.policy.signals[rule.signal].role != "guard" or spec.kind not in ("number", "integer"):
            return
        at = ground.steps.inputs
        facts = [*ground.steps.ranges(at), *ground.effective(rule, at)]
        for current, more in ground.currents(rule, at):
            value = ground.applied(rule, current, at, facts)
            if self.is_dead([*facts, *more, ground.outside(rule, value)]):
                return
        yield (
            f"maps.{rule.signal}.{rule.parameter}, line {rule.place.line}: the cap leaves [{spec.low:g}, {spec.high:g}]"
            " at some levels, where the bounds hold instead"
        )

    def effects(self, rule: Rule) -> Iterator[str]:
        steps, spec = self.ground.steps, self.policy.parameters[rule.parameter]
        if self.policy.signals[rule.signal].role != "guard" or spec.kind in ("number", "integer"):
            return
        at = steps.inputs
        base = steps.styled(spec.name, at)
        held = steps.tighter(spec, base, steps.bounded(rule, base, at))
        if self.is_dead([*steps.ranges(at), at.present[rule.signal], steps.loosened(spec, held, base)]):
            where = f"maps.{rule.signal}.{rule.parameter}, line {rule.place.line}"
            yield f"{where}: '{rule.text}' never tightens anything"

    def tools(self, rule: Rule) -> Iterator[str]:
        ground = self.ground
        steps, at = ground.steps, ground.steps.inputs
        spec = self.policy.parameters[TOOLS]
        base = steps.styled(TOOLS, at)
        final = steps.tighter(spec, base, steps.cap(TOOLS, base, at))
        seen, facts = self._see(rule)
        for path, node in seen.lists:
            for entry in node.names:
                admitted = final[self._position(entry)]
                if self.is_dead([*facts, path, admitted]):
                    where = f"maps.{rule.signal}.{TOOLS}, line {rule.place.line}"
                    yield f"{where}: no levels ever allow '{entry}' by this list"

    def _position(self, entry: str) -> int:
        classes = [admitting for _, admitting in self.ground.steps.tools]
        own = frozenset({entry})
        return classes.index(own if own in classes else own | {self.policy.classify_tool(entry)})

    def _see(self, rule: Rule) -> tuple[Sighting, list[Term]]:
        """Return what a rule chooses and lists, and the facts where it is applied."""
        ground = self.ground
        at = ground.steps.inputs
        seen = Sighting()
        *_, (current, more) = ground.currents(rule, at)
        ground.steps.apply(rule, current, at, seen)
        facts = [*ground.steps.ranges(at), *ground.effective(rule, at), *more]
        facts += [self.z3.Implies(path, divisor != 0) for path, divisor in seen.divisors]
        return seen, facts
