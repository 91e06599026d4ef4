"""The dispatcher's steps as formulas: what one decision is, over all signal levels at once.

Each function here mirrors one of `dispatcher`, step by step. Enum members are their index from the tightest on, lists
of tools one truth per tool. Two decisions that differ in one guard are compared by `proof`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple, cast

from lukhas.modulation.compile import is_integral
from lukhas.modulation.encode import Encoder, Names, Sighting, Term
from lukhas.modulation.expression import Tools, walk
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, UNKNOWN_CLASS, ParameterSpec, Policy, Rule


@dataclass(frozen=True, slots=True)
class Inputs:
    """What one decision is made of: per signal whether it is present, its level, and 0 in its place if it is not."""

    present: Mapping[str, Term]
    level: Mapping[str, Term]
    full: Mapping[str, Term]


@dataclass(frozen=True, slots=True)
class Wish:
    """What comes from outside the policy, the same in both decisions that are compared.

    Attributes:
        has_caller, caller: whether the caller sends a value, and which.
        has_mode, mode: whether the caller sends a safety mode, and which.
        delta: what feedback adds; 0 for nothing.
    """

    has_caller: Term
    caller: Term
    has_mode: Term
    mode: Term
    delta: Term


class Outcome(NamedTuple):
    """The value in force, and the loosest that the caller may keep, if there is a limit."""

    value: Term
    has_limit: Term
    limit: Term


class SymbolicDispatcher:
    """Mirrors `Dispatcher` for one policy."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.tools = _distinct_tools(policy)
        enums = {name: spec.values for name, spec in policy.parameters.items() if spec.kind == "enum"}
        self.encoder = Encoder(enums, [admitting for _, admitting in self.tools])
        self.z3 = self.encoder.z3
        # Rules that may divide by zero, and that those encoded so far do not: what they would yield is nothing.
        self.partial: set[Rule] = set()
        self.sane: list[Term] = []

    @cached_property
    def inputs(self) -> Inputs:
        """Free levels for every signal."""
        z3 = self.z3
        present = {name: z3.Bool(f"present!{name}") for name in self.policy.signals}
        level = {name: z3.Real(f"level!{name}") for name in self.policy.signals}
        return self._complete(present, level)

    def _complete(self, present: Mapping[str, Term], level: Mapping[str, Term]) -> Inputs:
        full = {name: self.z3.If(present[name], level[name], 0) for name in present}
        return Inputs(present, level, full)

    def ranges(self, at: Inputs, names: Sequence[str] | None = None) -> list[Term]:
        """Return that the levels are ones that a present signal can have."""
        z3 = self.z3
        signals = self.policy.signals
        found: list[Term] = []
        for name in signals if names is None else names:
            least = self.encoder.number(signals[name].min_level)
            found.append(z3.And(at.level[name] >= least, at.level[name] <= 1))
        return found

    def raised(self, guard: str) -> tuple[Inputs, list[Term]]:
        """Return inputs that differ in one guard, which is present there and not lower, and what says so."""
        z3, before = self.z3, self.inputs
        level = z3.Real(f"raised!{guard}")
        present = {**before.present, guard: z3.BoolVal(True)}
        after = self._complete(present, {**before.level, guard: level})
        return after, [
            level <= 1,
            *self.ranges(after, [guard]),
            z3.Implies(before.present[guard], level >= before.level[guard]),
        ]

    def wish(self, name: str) -> tuple[Wish, list[Term]]:
        """Return a free wish about one parameter, and what says that it is one."""
        z3, spec = self.z3, self.policy.parameters[name]
        knob = self.policy.knobs.get(name)
        has_caller, caller = z3.Bool(f"has_caller!{name}"), z3.Real(f"caller!{name}")
        wish = Wish(has_caller, caller, z3.Bool("has_mode"), z3.Real("mode"), z3.Real("delta"))
        rules: list[Term] = [self.member(wish.mode, self.policy.parameters[SAFETY_MODE])]
        if spec.kind == "enum":
            rules.append(self.member(wish.caller, spec))
        if knob is None:
            return replace(wish, delta=None), rules
        rules += [wish.delta >= self.encoder.number(knob.low), wish.delta <= self.encoder.number(knob.high)]
        return wish, rules

    def any(self, conditions: Sequence[Term]) -> Term:
        """Return that one of some conditions holds; of none, none does."""
        return self.z3.Or(self.z3.BoolVal(False), *conditions)

    def member(self, index: Term, spec: ParameterSpec) -> Term:
        """Return that a term is the index of a member."""
        return self.any([index == i for i in range(len(spec.values))])

    def rules_of(self, name: str, role: str) -> list[Rule]:
        """Return the rules that map a parameter, lowest precedence first."""
        policy = self.policy
        return [
            policy.rules[signal, name]
            for signal in reversed(list(policy.signals))
            if (signal, name) in policy.rules and policy.signals[signal].role == role
        ]

    def apply(self, rule: Rule, current: Term, at: Inputs, seen: Sighting | None = None) -> Term:
        """Return what a rule yields, before any bounds."""
        spec = self.policy.parameters[rule.parameter]
        names = Names(own=at.full[rule.signal], current=current, levels=at.full, members=spec.values)
        if seen is None and rule in self.partial:
            seen = Sighting()
            value = self.encoder.encode(rule.node, names, seen)
            there = at.present[rule.signal]
            self.sane += [self.z3.Implies(self.z3.And(there, path), divisor != 0) for path, divisor in seen.divisors]
        else:
            value = self.encoder.encode(rule.node, names, seen)
        if spec.kind == "integer" and not is_integral(rule.node):
            return self._whole(spec, value)
        return value

    def default(self, spec: ParameterSpec) -> Term:
        """Return a parameter's default."""
        if spec.kind == "enum":
            return self.z3.RealVal(spec.values.index(cast(str, spec.default)))
        if spec.kind == "tools":
            return self.encoder.list_tools(cast("tuple[str, ...]", spec.default))
        return self.encoder.number(cast(float, spec.default))

    def styled(self, name: str, at: Inputs, below: Rule | None = None) -> Term:
        """Return the value after the style signals, or what the rule `below` reads as `current`."""
        spec = self.policy.parameters[name]
        rules = self.rules_of(name, "style")
        value = self.default(spec)
        if self.is_blended(spec):
            return value if below is not None else self._blend(spec, rules, at)
        for rule in rules:
            if rule is below:
                break
            after = self.bounded(rule, value, at)
            value = self.encoder.choose(at.present[rule.signal], after, value)
        return value

    def is_blended(self, spec: ParameterSpec) -> bool:
        """Return whether several style signals are blended for a parameter."""
        return self.policy.blend and spec.kind in ("number", "integer")

    def _blend(self, spec: ParameterSpec, rules: Sequence[Rule], at: Inputs) -> Term:
        z3, encoder = self.z3, self.encoder
        value = self.default(spec)
        if not rules:
            return value
        values = [self.apply(rule, value, at) for rule in rules]
        weights = [encoder.number(self.policy.signals[rule.signal].weight) for rule in rules]
        present = [at.present[rule.signal] for rule in rules]
        by_level = [z3.If(p, w * at.full[r.signal], 0) for p, w, r in zip(present, weights, rules, strict=True)]
        by_weight = [z3.If(p, w, 0) for p, w in zip(present, weights, strict=True)]
        total = z3.Sum(by_level)
        mean = z3.If(total > 0, self._mean(by_level, values), self._mean(by_weight, values))
        return z3.If(self.any(present), self._within(spec, self._settle(spec, mean)), value)

    def _mean(self, shares: Sequence[Term], values: Sequence[Term]) -> Term:
        z3 = self.z3
        return z3.Sum([share * value for share, value in zip(shares, values, strict=True)]) / z3.Sum(list(shares))

    def has_cap(self, name: str, at: Inputs) -> Term:
        """Return whether a guard is present that maps a parameter."""
        return self.any([at.present[rule.signal] for rule in self.rules_of(name, "guard")])

    def bounded(self, rule: Rule, current: Term, at: Inputs) -> Term:
        """Return what a rule yields, inside its parameter's bounds."""
        return self._within(self.policy.parameters[rule.parameter], self.apply(rule, current, at))

    def cap(self, name: str, base: Term, at: Inputs) -> Term:
        """Return the tightest cap of the guards that are present; where none is, the loosest value."""
        spec = self.policy.parameters[name]
        cap = self.loosest(spec)
        for rule in self.rules_of(name, "guard"):
            tightened = self.tighter(spec, cap, self.bounded(rule, base, at))
            cap = self.encoder.choose(at.present[rule.signal], tightened, cap)
        return cap

    def decide(self, name: str, base: Term, at: Inputs, wish: Wish, is_strictest: Term) -> Outcome:
        """Return what becomes of a parameter after its styles gave it `base`."""
        spec = self.policy.parameters[name]
        return self.finish(spec, base, self.has_cap(name, at), self.cap(name, base, at), at, wish, is_strictest)

    def finish(
        self, spec: ParameterSpec, base: Term, has_cap: Term, cap: Term, at: Inputs, wish: Wish, is_strictest: Term
    ) -> Outcome:
        """Return what becomes of a value under a cap: nudge, caller, limits."""
        z3, encoder, name = self.z3, self.encoder, spec.name
        value = base if spec.tighter is None else self.tighter(spec, base, cap)
        if spec.kind == "tools":
            return Outcome(value, z3.BoolVal(True), value)
        if name == SAFETY_MODE:
            held = z3.If(wish.has_mode, self.tighter(spec, value, wish.mode), value)
            return Outcome(held, z3.BoolVal(True), held)
        touched = z3.BoolVal(self.policy.touch_all)
        styled = touched
        for signal in self.policy.signals:
            if (signal, name) in self.policy.rules:
                touched = z3.Or(touched, at.present[signal])
                if self.policy.signals[signal].role == "style":
                    styled = z3.Or(styled, at.present[signal])
        own = wish.caller
        if wish.delta is not None:
            low, high = encoder.number(spec.low), encoder.number(spec.high)
            moves = z3.And(wish.delta != 0, z3.Not(z3.And(is_strictest, self._loosens(spec, wish.delta))))
            value = z3.If(moves, self._nudge(spec, value, wish.delta, low, high, has_cap, cap), value)
            low, high = encoder.least(low, own), encoder.greatest(high, own)
            nudged = self._nudge(spec, own, wish.delta, low, high, z3.BoolVal(False), own)
            own = z3.If(z3.And(moves, z3.Not(styled)), nudged, own)
        limit = z3.If(z3.And(z3.Not(styled), has_cap), cap, value)
        has_limit = touched if spec.tighter is not None else z3.BoolVal(False)
        held = own if spec.tighter is None else z3.If(has_limit, self.tighter(spec, own, limit), own)
        return Outcome(z3.If(wish.has_caller, held, value), has_limit, limit)

    def mode(self, at: Inputs, wish: Wish) -> Term:
        """Return the index of the safety mode in force."""
        base = self.styled(SAFETY_MODE, at)
        return self.decide(SAFETY_MODE, base, at, wish, self.z3.BoolVal(False)).value

    def loosened(self, spec: ParameterSpec, before: Term, after: Term, by: float = 0.0) -> Term:
        """Return that a value is looser than one before, by more than `by`."""
        z3, margin = self.z3, self.encoder.number(by)
        if spec.kind == "tools":
            return self.any([z3.And(b, z3.Not(a)) for a, b in zip(before, after, strict=True)])
        if spec.tighter == "higher":
            return after < before - margin
        return after > before + (margin if spec.kind != "enum" else 0)

    def tighter(self, spec: ParameterSpec, a: Term, b: Term) -> Term:
        """Return the tighter of two values."""
        if spec.kind == "tools":
            return tuple(self.z3.And(x, y) for x, y in zip(a, b, strict=True))
        return self.encoder.greatest(a, b) if spec.tighter == "higher" else self.encoder.least(a, b)

    def loosest(self, spec: ParameterSpec) -> Term:
        """Return the loosest value that a parameter's cap can have."""
        if spec.kind == "tools":
            return tuple(self.z3.BoolVal(True) for _ in self.tools)
        if spec.kind == "enum":
            return self.z3.RealVal(len(spec.values) - 1)
        return self.encoder.number(spec.low if spec.tighter == "higher" else spec.high)

    def _loosens(self, spec: ParameterSpec, delta: Term) -> Term:
        if spec.tighter is None:
            return self.z3.BoolVal(False)
        return delta > 0 if spec.tighter == "lower" else delta < 0

    def _within(self, spec: ParameterSpec, value: Term) -> Term:
        if spec.kind not in ("number", "integer"):
            return value
        low, high = self.encoder.number(spec.low), self.encoder.number(spec.high)
        return self.z3.If(value < low, low, self.z3.If(value > high, high, value))

    def _whole(self, spec: ParameterSpec, value: Term) -> Term:
        encoder = self.encoder
        rounds = {"lower": encoder.floor, "higher": encoder.ceil, None: encoder.round}
        return rounds[cast("str | None", spec.tighter)](value)

    def _settle(self, spec: ParameterSpec, value: Term) -> Term:
        return self._whole(spec, value) if spec.kind == "integer" else value

    def _nudge(
        self, spec: ParameterSpec, value: Term, delta: Term, low: Term, high: Term, has_cap: Term, cap: Term
    ) -> Term:
        z3, encoder = self.z3, self.encoder
        after = encoder.least(encoder.greatest(self._settle(spec, value + delta), low), high)
        turns = z3.If(delta > 0, after < value, after > value)
        after = z3.If(turns, value, after)
        if spec.tighter is None:
            return after
        return z3.If(z3.And(has_cap, self.loosened(spec, cap, after)), cap, after)


def _distinct_tools(policy: Policy) -> list[tuple[str, frozenset[str]]]:
    """Return tools such that two lists of the policy differ only where they differ about one of these.

    Each has a name and the entries of which any one admits it: a class as a whole, or one listed function.
    """
    entries = set(cast("tuple[str, ...]", policy.parameters[TOOLS].default))
    for rule in policy.rules.values():
        for node in walk(rule.node):
            if isinstance(node, Tools):
                entries.update(node.names)
    found: dict[frozenset[str], str] = {}
    for entry in sorted(entries):
        is_class = entry in policy.tool_classes or entry == UNKNOWN_CLASS
        admitting = frozenset({entry} if is_class else {entry, policy.classify_tool(entry)})
        found.setdefault(admitting, entry)
    return [(name, admitting) for admitting, name in found.items()]
