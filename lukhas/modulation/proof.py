"""What is proved about a policy, statement by statement (docs/explanation/verification.md).

Each statement is refuted by a point; the solver is asked for one. Where it can, the question leaves out what a style
makes of a parameter, since no style map can name a guard: any value inside the bounds stands for it. That is quick, and
only what fails there is asked again of the exact steps, so nothing sound is refuted and nothing unsound is proved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lukhas.modulation import counterexample
from lukhas.modulation.certificate import Result, Statement
from lukhas.modulation.counterexample import Replay, Sight
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.encode import Encoder, Names, Sighting, Term
from lukhas.modulation.expression import Level, Node, walk
from lukhas.modulation.interval import LARGEST, Domain, NotTotal, check_total
from lukhas.modulation.policy import SAFETY_MODE, ParameterSpec, Policy, Rule
from lukhas.modulation.question import Model, Questioner, Undecided
from lukhas.modulation.symbolic import Inputs, Outcome, SymbolicDispatcher, Wish

# Looked for first: a failure that every float shows.
CLEAR: Final = 1e-6
# What a statement gets at first; what is left of the whole time goes to those that need more.
FIRST_S: Final = 3.0

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """A statement before its proof; `check` returns None, or the counterexample."""

    id: str
    text: str
    check: Callable[[], Document | None]


class Proof:
    """The proof of one policy; the solver runs in this process and may take long."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.steps = SymbolicDispatcher(policy)
        self.z3 = self.steps.z3
        self.questioner = Questioner()
        self.dispatcher = _dispatcher(policy)
        self.steps.partial = {rule for rule in policy.rules.values() if not self._is_plainly_total(rule)}
        self._kept_modes: set[str] = set()

    def claims(self) -> list[Claim]:
        """Return every statement, the modes' first, since others build on them."""
        return [*self._total_claims(), *self._range_claims(), *self._bounds_claims(), *self._raise_claims()]

    def run(self, end: float) -> Iterator[Statement]:
        """Check every statement, each at first for a short time; yield each as it is settled.

        Args:
            end: the monotonic time, in seconds, at which what is left is not proved.
        """
        open_claims: list[tuple[Claim, float]] = []
        for claim in self.claims():
            statement = self.check(claim, min(end, time.monotonic() + FIRST_S))
            if statement.result == "not proved":
                open_claims.append((claim, statement.seconds))
            else:
                yield statement
        for position, (claim, spent) in enumerate(open_claims):
            now = time.monotonic()
            share = max(0.0, end - now) / (len(open_claims) - position)
            yield self.check(claim, now + share, spent)

    def check(self, claim: Claim, end: float, spent: float = 0.0) -> Statement:
        """Settle one statement until `end`, or return it as not proved."""
        started = time.monotonic()
        self.questioner.end = end
        found: Document | None = None
        try:
            found = claim.check()
            result: Result = "refuted" if found else "proved"
        except Undecided:
            result = "not proved"
        seconds = round(spent + time.monotonic() - started, 3)
        return Statement(claim.id, claim.text, result, found, seconds)

    # Totality

    def _total_claims(self) -> Iterator[Claim]:
        for rule in self.policy.rules.values():
            name = f"{rule.signal}.{rule.parameter}"
            text = f"maps.{name} has a value at every point: no division by zero, no unknown name"
            yield Claim(f"total:{name}", text, lambda rule=rule: self._check_total(rule))
        for position, rule in enumerate(self.policy.style_rules):
            if rule.node is not None:
                text = f"style_rules[{position}] ({rule.style}) holds or not at every point: no division by zero"
                yield Claim(f"total:style_rules[{position}]", text, lambda at=position: self._check_condition(at))

    def _is_plainly_total(self, rule: Rule) -> bool:
        spec = self.policy.parameters[rule.parameter]
        bounds = (spec.low, spec.high) if spec.kind in ("number", "integer") else (0.0, 0.0)
        return _is_total(rule.node, Domain(own=(self.policy.signals[rule.signal].min_level, 1.0), current=bounds))

    def _check_total(self, rule: Rule) -> Document | None:
        if rule not in self.steps.partial:
            return None
        at = self.steps.inputs
        facts = [*self.steps.ranges(at), *self.effective(rule, at)]
        model = None
        for current, more in self.currents(rule, at):
            seen = Sighting()
            self.steps.apply(rule, current, at, seen)
            model = self._ask_total(seen, [*facts, *more])
            if model is None:
                return None
        assert model is not None, "there is always a current value to ask about"
        replay = counterexample.replay_division(self.policy)
        return self.document(rule.parameter, model, Sight("division", None, None), replay)

    def _check_condition(self, position: int) -> Document | None:
        node = self.policy.style_rules[position].node
        assert node is not None
        if _is_total(node, Domain()):
            return None
        at, modes, facts = self.choosing()
        seen = Sighting()
        for rule in self.policy.style_rules[:position]:
            if rule.node is not None:
                facts.append(self.z3.Not(self.condition(rule.node, at, modes)))
        self.condition(node, at, modes, seen)
        model = self._ask_total(seen, facts)
        if model is None:
            return None
        replay = counterexample.replay_division(self.policy)
        return self.document(f"style_rules[{position}]", model, Sight("division", None, None), replay)

    def _ask_total(self, seen: Sighting, facts: list[Term]) -> Model | None:
        z3 = self.z3
        by_zero = self.steps.any([z3.And(path, divisor == 0) for path, divisor in seen.divisors])
        model = self.questioner.ask([*facts, by_zero])
        if model is not None:
            return model
        sane = [z3.Implies(path, divisor != 0) for path, divisor in seen.divisors]
        most = self.steps.encoder.number(LARGEST)
        grown = [z3.And(path, z3.Or(value > most, value < -most)) for path, value in seen.values]
        return self.questioner.ask([*facts, *sane, self.steps.any(grown)])

    # Bounds

    def _range_claims(self) -> Iterator[Claim]:
        for rule in self.policy.rules.values():
            spec = self.policy.parameters[rule.parameter]
            if self.policy.signals[rule.signal].role == "style" and spec.kind in ("number", "integer"):
                name = f"{rule.signal}.{rule.parameter}"
                text = f"maps.{name} stays inside [{spec.low:g}, {spec.high:g}] by itself"
                yield Claim(f"range:{name}", text, lambda rule=rule: self._check_range(rule))

    def _check_range(self, rule: Rule) -> Document | None:
        at = self.steps.inputs
        facts = [*self.steps.ranges(at), *self.effective(rule, at)]
        value = model = None
        for current, more in self.currents(rule, at):
            value = self.applied(rule, current, at, facts)
            model = self.questioner.ask([*facts, *more, self.outside(rule, value)])
            if model is None:
                return None
        assert model is not None, "there is always a current value to ask about"
        alone = [self.z3.Not(present) for name, present in at.present.items() if name != rule.signal]
        for clearer in ([*alone, self.outside(rule, value, CLEAR)], alone, [self.outside(rule, value, CLEAR)]):
            found = self._ask_again([*facts, self.outside(rule, value), *clearer])
            if found is not None:
                model = found
                break
        number = model.number(value)
        spec = self.policy.parameters[rule.parameter]
        sight = Sight("value", number, min(max(number, spec.low), spec.high))
        replay = counterexample.replay_range(self.dispatcher, rule) if self.dispatcher else _never
        return self.document(rule.parameter, model, sight, replay)

    def outside(self, rule: Rule, value: Term, by: float = 0.0) -> Term:
        """Return that a value is outside a parameter's bounds, by more than `by`."""
        spec, number = self.policy.parameters[rule.parameter], self.steps.encoder.number
        return self.z3.Or(value < number(spec.low) - number(by), value > number(spec.high) + number(by))

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

    def _bounds_claims(self) -> Iterator[Claim]:
        for spec in self.policy.parameters.values():
            if spec.kind == "tools":
                continue
            what = f"is one of {', '.join(spec.values)}"
            if spec.kind != "enum":
                what = f"lies inside [{spec.low:g}, {spec.high:g}]" + " and is whole" * (spec.kind == "integer")
            text = f"whatever is decided, {spec.name} {what}"
            yield Claim(f"bounds:{spec.name}", text, lambda spec=spec: self._check_bounds(spec))

    def _check_bounds(self, spec: ParameterSpec) -> Document | None:
        steps, z3 = self.steps, self.z3
        wish, facts = steps.wish(spec.name)
        base, inside = self.free(spec)
        cap, capped = self.free(spec)
        has_cap, is_strictest = z3.Bool("has_cap"), z3.Bool("is_strictest")
        outcome = steps.finish(spec, base, has_cap, cap, steps.inputs, wish, is_strictest)
        low, high = z3.RealVal(0), z3.RealVal(len(spec.values) - 1)
        if spec.kind != "enum":
            low, high = steps.encoder.number(spec.low), steps.encoder.number(spec.high)
        facts += [*inside, *capped] + [z3.Not(wish.has_caller)] * (spec.name != SAFETY_MODE)
        model = self.questioner.ask([*facts, z3.Or(outcome.value < low, outcome.value > high)])
        if model is None and spec.kind != "number":
            model = self.questioner.ask([*facts, z3.Not(steps.encoder.is_whole(outcome.value))])
        if model is None:
            return None
        return self.document(spec.name, model, Sight("value", model.number(outcome.value), None), _never, wish)

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

    # I1

    def _raise_claims(self) -> Iterator[Claim]:
        specs = [spec for spec in self.policy.parameters.values() if spec.tighter is not None]
        for guard in sorted(self.policy.guards):
            for spec in specs:
                text = f"raising {guard} never loosens {spec.name}, nor what a caller may keep of it"
                check = lambda guard=guard, spec=spec: self._check_raise(guard, spec)  # noqa: E731
                yield Claim(f"tighten:{guard}:{spec.name}", text, check)

    def _check_raise(self, guard: str, spec: ParameterSpec) -> Document | None:
        steps = self.steps
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
        model = self.questioner.ask([*conditions, self._is_loosened(spec, first, then)])
        if model is None:
            return self._keep(guard, spec)
        if spec.kind in ("number", "integer"):
            model = self._ask_again([*conditions, self._is_loosened(spec, first, then, CLEAR)]) or model
        replay = counterexample.replay_raise(self.dispatcher, spec.name) if self.dispatcher else _never
        return self.document(spec.name, model, None, replay, wish, guard=guard)

    def _tightens_each(
        self, guard: str, spec: ParameterSpec, before: Inputs, after: Inputs, wish: Wish, facts: Sequence[Term]
    ) -> bool:
        """Prove it in two small questions: no guard's own cap loosens, and what follows keeps any caps' order.

        The tightest of several caps is never looser where none of them is and no guard is gone.
        """
        steps = self.steps
        steps.sane.clear()
        base, inside = self._any_base(spec, before)
        for rule in steps.rules_of(spec.name, "guard"):
            if rule.signal != guard and Level(guard) not in walk(rule.node):
                continue
            caps = (steps.bounded(rule, base, before), steps.bounded(rule, base, after))
            there = before.present[rule.signal]
            if self._ask_some([*facts, *inside, *steps.sane, there, steps.loosened(spec, *caps)]):
                return False
        first, ordered = self.free(spec)
        then, more = self.free(spec)
        ordered += more
        has_cap, has_cap_then = (steps.has_cap(spec.name, at) for at in (before, after))
        ordered += [self.z3.Not(steps.loosened(spec, first, then)), *self._uncapped(spec, has_cap, first)]
        ordered += self._uncapped(spec, has_cap_then, then)
        strict, kept = self._any_mode(guard, before, after, wish)
        decided = steps.finish(spec, base, has_cap, first, before, wish, strict[0])
        raised = steps.finish(spec, base, has_cap_then, then, after, wish, strict[1])
        conditions = [*facts, *inside, *kept, *ordered, *steps.sane]
        return not self._ask_some([*conditions, self._is_loosened(spec, decided, raised)])

    def _uncapped(self, spec: ParameterSpec, has_cap: Term, cap: Term) -> list[Term]:
        """Return that where no guard is present, the cap is the loosest value."""
        loosest = self.steps.loosest(spec)
        pairs = zip(cap, loosest, strict=True) if spec.kind == "tools" else [(cap, loosest)]
        return [self.z3.Implies(self.z3.Not(has_cap), a == b) for a, b in pairs]

    def _ask_some(self, conditions: Sequence[Term]) -> bool:
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

    def _keep(self, guard: str, spec: ParameterSpec) -> None:
        if spec.name == SAFETY_MODE:
            self._kept_modes.add(guard)

    def _is_loosened(self, spec: ParameterSpec, before: Outcome, after: Outcome, by: float = 0.0) -> Term:
        z3, steps = self.z3, self.steps
        unlimited = z3.Not(after.has_limit)
        limit = z3.Or(unlimited, steps.loosened(spec, before.limit, after.limit, by))
        return z3.Or(steps.loosened(spec, before.value, after.value, by), z3.And(before.has_limit, limit))

    def _any_base(self, spec: ParameterSpec, at: Inputs) -> tuple[Term, list[Term]]:
        """Return any value that the style signals can give a parameter: the default where none is present."""
        rules = self.steps.rules_of(spec.name, "style")
        if not rules or spec.kind == "tools":
            return self.steps.styled(spec.name, at), []
        base, facts = self.free(spec)
        styled = self.steps.any([at.present[rule.signal] for rule in rules])
        return base, [*facts, self.z3.Or(styled, base == self.steps.default(spec))]

    def _any_mode(self, guard: str, before: Inputs, after: Inputs, wish: Wish) -> tuple[tuple[Term, Term], list[Term]]:
        """Return whether the mode is the strictest before and after; where that is proved, all that matters of it."""
        if wish.delta is None or guard not in self._kept_modes:
            return self._modes(before, after, wish), []
        strict = (self.z3.Bool("strict!before"), self.z3.Bool("strict!after"))
        return strict, [self.z3.Implies(*strict)]

    def _modes(self, before: Inputs, after: Inputs, wish: Wish) -> tuple[Term, Term]:
        if wish.delta is None:
            return self.z3.BoolVal(False), self.z3.BoolVal(False)
        return self.steps.mode(before, wish) == 0, self.steps.mode(after, wish) == 0

    # Style rules

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
        encoder: Encoder = self.steps.encoder
        return encoder.encode(node, Names(levels=at.full, modes=modes), seen)

    # Counterexamples

    def document(
        self,
        parameter: str,
        model: Model,
        sight: Sight | None,
        replay: Replay,
        wish: Wish | None = None,
        guard: str = "",
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
        return counterexample.describe(parameter, found, sight, replay)

    def _ask_again(self, conditions: Sequence[Term]) -> Model | None:
        """Ask for a clearer point; without one in time, the first will do."""
        try:
            return self.questioner.ask(conditions)
        except Undecided:
            return None


def _is_total(node: Node, domain: Domain) -> bool:
    try:
        check_total(node, domain)
    except NotTotal:
        return False
    return True


def _dispatcher(policy: Policy) -> Dispatcher | None:
    try:
        return Dispatcher(policy)
    except (ZeroDivisionError, OverflowError):  # a style rule of this draft that divides by zero without any signal
        return None


def _never(at: counterexample.Inputs) -> Sight | None:
    return None
