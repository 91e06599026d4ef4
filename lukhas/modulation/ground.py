"""What every statement's proof stands on: the policy, its steps as formulas, the solver, the real dispatcher."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lukhas.modulation import counterexample
from lukhas.modulation.counterexample import Replay, Sight
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.encode import Names, Sighting, Term
from lukhas.modulation.expression import Node
from lukhas.modulation.interval import Domain, NotTotal, check_total
from lukhas.modulation.policy import SAFETY_MODE, ParameterSpec, Policy, Rule, Value
from lukhas.modulation.question import Model, Questioner, Undecided
from lukhas.modulation.symbolic import Inputs, SymbolicDispatcher, Wish

# Looked for first: a failure that every float shows.
CLEAR: Final = 1e-6
_TRIES: Final = 6

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement before its proof; `check` returns None, or the counterexample."""

    id: str
    text: str
    check: Callable[[], Document | None]


class Ground:
    """One policy, ready to be asked about."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.steps = SymbolicDispatcher(policy)
        self.z3 = self.steps.z3
        self.questioner = Questioner()
        self.dispatcher = _dispatcher(policy)
        self.steps.partial = {rule for rule in policy.rules.values() if not self._is_plainly_total(rule)}

    def _is_plainly_total(self, rule: Rule) -> bool:
        spec = self.policy.parameters[rule.parameter]
        bounds = (spec.low, spec.high) if spec.kind in ("number", "integer") else (0.0, 0.0)
        return is_total(rule.node, Domain(own=(self.policy.signals[rule.signal].min_level, 1.0), current=bounds))

    def effective(self, rule: Rule, at: Inputs) -> list[Term]:
        """Return that a rule is applied: its signal is present, and no higher style signal hides it."""
        policy = self.policy
        present = [at.present[rule.signal]]
        spec = policy.parameters[rule.parameter]
        if policy.signals[rule.signal].role == "guard" or self.steps.is_blended(spec):
            return present
        rules = self.steps.rules_of(rule.parameter, "style")
        hiding = [other for other in rules[rules.index(rule) + 1 :] if not other.uses_current]
        return present + [self.z3.Not(at.present[other.signal]) for other in hiding]

    def currents(self, rule: Rule, at: Inputs) -> Iterator[tuple[Term, list[Term]]]:
        """Yield what the rule reads as `current`: any value inside the bounds, then, if it matters, the exact one."""
        spec = self.policy.parameters[rule.parameter]
        if rule.uses_current and spec.kind in ("number", "integer"):
            yield self.free(spec)
        is_guard = self.policy.signals[rule.signal].role == "guard"
        yield self.steps.styled(rule.parameter, at, None if is_guard else rule), []

    def applied(self, rule: Rule, current: Term, at: Inputs, facts: list[Term]) -> Term:
        """Return what a rule yields; what its divisions need is added to `facts`."""
        self.steps.sane.clear()
        value = self.steps.apply(rule, current, at)
        facts += self.steps.sane
        return value

    def outside(self, rule: Rule, value: Term, by: float = 0.0) -> Term:
        """Return that a value is outside a parameter's bounds, by more than `by`."""
        spec, number = self.policy.parameters[rule.parameter], self.steps.encoder.number
        return self.z3.Or(value < number(spec.low) - number(by), value > number(spec.high) + number(by))

    def free(self, spec: ParameterSpec) -> tuple[Term, list[Term]]:
        """Return any value that a parameter can have after its bounds, and what says so."""
        z3 = self.z3
        if spec.kind == "tools":
            return tuple(z3.FreshBool(spec.name) for _ in self.steps.tools), []
        if spec.kind == "enum":
            index = z3.FreshReal(spec.name)
            return index, [self.steps.member(index, spec)]
        value = z3.FreshReal(spec.name) if spec.kind == "number" else z3.ToReal(z3.FreshInt(spec.name))
        number = self.steps.encoder.number
        return value, [value >= number(spec.low), value <= number(spec.high)]

    def value_of(self, spec: ParameterSpec, term: Term, model: Model) -> Value:
        """Return a parameter's value at a point."""
        if spec.kind == "tools":
            return tuple(name for (name, _), is_in in zip(self.steps.tools, term, strict=True) if model.holds(is_in))
        number = model.number(term)
        return spec.values[int(number)] if spec.kind == "enum" else number

    def choosing(self) -> tuple[Inputs, dict[str, Term], list[Term]]:
        """Return what the style rules read: levels, each enum as it is in force, and the facts about both."""
        steps = self.steps
        at = steps.inputs
        facts = steps.ranges(at)
        modes: dict[str, Term] = {}
        for name, spec in self.policy.parameters.items():
            if spec.kind == "enum":
                wish, more = steps.wish(name)
                facts += more
                base = steps.styled(name, at)
                modes[name] = steps.decide(name, base, at, wish, self.z3.BoolVal(False)).value
        return at, modes, [*facts]

    def condition(self, node: Node, at: Inputs, modes: dict[str, Term], seen: Sighting | None = None) -> Term:
        """Return the formula of a style rule's condition."""
        return self.steps.encoder.encode(node, Names(levels=at.full, modes=modes), seen)

    def document(
        self,
        parameter: str,
        model: Model,
        sight: Sight | None,
        replay: Replay,
        wish: Wish | None = None,
        guard: str = "",
        current: Value | None = None,
    ) -> Document:
        """Return a counterexample at a model's point, replayed."""
        at, policy = self.steps.inputs, self.policy
        levels = {name: model.number(at.level[name]) for name in policy.signals if model.holds(at.present[name])}
        raised = {guard: model.number(self.z3.Real(f"raised!{guard}"))} if guard else {}
        caller: dict[str, Any] = {}
        nudges: dict[str, float] = {}
        if wish is not None:
            spec = policy.parameters[parameter]
            if model.holds(wish.has_mode):
                caller[SAFETY_MODE] = policy.parameters[SAFETY_MODE].values[int(model.number(wish.mode))]
            if model.holds(wish.has_caller) and spec.kind != "tools" and parameter != SAFETY_MODE:
                value = model.number(wish.caller)
                caller[parameter] = spec.values[int(value)] if spec.kind == "enum" else value
            if wish.delta is not None and (delta := model.number(wish.delta)):
                nudges[parameter] = delta
        found = counterexample.Inputs(levels, raised, caller, nudges)
        return counterexample.describe(parameter, found, sight, replay, current)

    def show(
        self, conditions: Sequence[Term], model: Model, make: Callable[[Model], Document], terms: Sequence[Term]
    ) -> Document:
        """Return a counterexample that the real dispatcher confirms, if one is found in a few tries.

        A point exactly at a border of the reals may lie on its other side in floats, so `terms` move off it.
        """
        first = document = make(model)
        conditions = list(conditions)
        margin = self.steps.encoder.number(CLEAR)
        for _ in range(_TRIES):
            if document["confirmed"]:
                return document
            for term in terms:
                at = self.steps.encoder.number(model.number(term))
                conditions.append(self.z3.Or(term <= at - margin, term >= at + margin))
            found = self.ask_again(conditions)
            if found is None:
                break
            model, document = found, make(found)
        return document if document["confirmed"] else first

    def ask_again(self, conditions: Sequence[Term]) -> Model | None:
        """Ask for a clearer point; without one in time, the first will do."""
        try:
            return self.questioner.ask(conditions)
        except Undecided:
            return None

    def ask_some(self, conditions: Sequence[Term]) -> bool:
        """Return whether the conditions may hold together; what is not answered in a part of the time may."""
        end = self.questioner.end
        now = time.monotonic()
        self.questioner.end = now + (end - now) / 3
        try:
            return self.questioner.ask(conditions) is not None
        except Undecided:
            return True
        finally:
            self.questioner.end = end


def is_total(node: Node, domain: Domain) -> bool:
    """Return whether an expression is seen to be total without a solver."""
    try:
        check_total(node, domain)
    except NotTotal:
        return False
    return True


def _dispatcher(policy: Policy) -> Dispatcher | None:
    try:
        return Dispatcher(policy)
    except (
        ZeroDivisionError,
        OverflowError,
        ValueError,
    ):  # a style rule of this draft that divides by zero without any signal
        return None


def never(at: counterexample.Inputs) -> Sight | None:
    """Return that nothing is shown: the replay where there is nothing to replay with."""
    return None
