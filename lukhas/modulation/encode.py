"""From an expression's tree to a formula over exact reals, for the proof.

The formula follows the tree node by node, as `interpret` does: numbers are the decimals that the file shows, `round` is
half to even, an enum's member is its index from the tightest on, and a list of tools is one truth per tool. What a
float rounds away (to 9 decimals, docs/explanation/verification.md) is not in it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, cast

from lukhas.modulation.expression import (
    Arithmetic,
    Both,
    Call,
    Choice,
    Compare,
    Current,
    Level,
    Member,
    Mode,
    Negate,
    Node,
    Not,
    Number,
    Own,
    Tools,
)

# A z3 expression; for tools, a tuple of one boolean expression per tool. The solver's package has no usable types.
Term = Any


def load_solver() -> Any:
    """Return the solver's module, which comes with the extra `verify`.

    Raises:
        ImportError: it is not installed.
    """
    return importlib.import_module("z3")


@dataclass(frozen=True, slots=True)
class Names:
    """What the names of an expression stand for.

    Attributes:
        own: `x`.
        current: the parameter's value without this signal.
        levels: each signal's level, 0 where it is absent.
        modes: the decided index of each enum parameter.
        members: the members of the enum that the expression yields, tightest first.
    """

    own: Term = None
    current: Term = None
    levels: Mapping[str, Term] = field(default_factory=dict[str, Term])
    modes: Mapping[str, Term] = field(default_factory=dict[str, Term])
    members: Sequence[str] = ()


@dataclass(slots=True)
class Sighting:
    """What was met while an expression was encoded, each with the condition under which it is evaluated."""

    divisors: list[tuple[Term, Term]] = field(default_factory=list[tuple[Term, Term]])
    values: list[tuple[Term, Term]] = field(default_factory=list[tuple[Term, Term]])
    choices: list[tuple[Term, Term]] = field(default_factory=list[tuple[Term, Term]])
    lists: list[tuple[Term, Tools]] = field(default_factory=list[tuple[Term, Tools]])


class Encoder:
    """Encodes expressions of one policy.

    Args:
        enums: the members of each enum parameter, tightest first.
        admits: for each tool, the entries of an allowlist of which any one admits it.
    """

    def __init__(self, enums: Mapping[str, Sequence[str]] | None = None, admits: Sequence[frozenset[str]] = ()) -> None:
        self.z3 = load_solver()
        self.enums = enums or {}
        self.admits = admits

    def number(self, value: float | Fraction) -> Term:
        """Return a number as the exact decimal that it shows."""
        exact = value if isinstance(value, Fraction) else Fraction(repr(value))
        return self.z3.RealVal(exact)

    def list_tools(self, names: Sequence[str]) -> tuple[Term, ...]:
        """Return which tools an allowlist admits."""
        return tuple(self.z3.BoolVal(not admitting.isdisjoint(names)) for admitting in self.admits)

    def choose(self, condition: Term, then: Term, otherwise: Term) -> Term:
        """Return a term, or a tuple of them, chosen by a condition."""
        if isinstance(then, tuple):
            pairs = zip(cast("tuple[Term, ...]", then), otherwise, strict=True)
            return tuple(self.z3.If(condition, a, b) for a, b in pairs)
        return self.z3.If(condition, then, otherwise)

    def least(self, a: Term, b: Term) -> Term:
        """Return the lower of two numbers."""
        return self.z3.If(a <= b, a, b)

    def greatest(self, a: Term, b: Term) -> Term:
        """Return the higher of two numbers."""
        return self.z3.If(a >= b, a, b)

    def floor(self, value: Term) -> Term:
        """Return the highest whole number that is not above a number."""
        return self.z3.ToReal(self.z3.ToInt(value))

    def ceil(self, value: Term) -> Term:
        """Return the lowest whole number that is not below a number."""
        return -self.floor(-value)

    def round(self, value: Term) -> Term:
        """Round half to even, as Python does."""
        z3 = self.z3
        half = z3.Q(1, 2)
        nearest = z3.ToInt(value + half)
        is_tie = z3.ToReal(nearest) == value + half
        return z3.ToReal(z3.If(z3.And(is_tie, nearest % 2 == 1), nearest - 1, nearest))

    def is_whole(self, value: Term) -> Term:
        """Return that a number is whole; case by case, since the solver would try each whole number in turn."""
        z3 = self.z3
        match value.decl().kind():
            case z3.Z3_OP_ITE:
                condition, then, otherwise = value.children()
                return z3.If(condition, self.is_whole(then), self.is_whole(otherwise))
            case z3.Z3_OP_TO_REAL:
                return z3.BoolVal(True)
            case z3.Z3_OP_ANUM:
                return z3.BoolVal(value.as_fraction().denominator == 1)
            case _:
                return z3.IsInt(value)

    def encode(self, node: Node, names: Names, seen: Sighting | None = None) -> Term:
        """Return the formula of an expression; note in `seen` what it divides by, chooses and lists."""
        return _Walk(self, names, seen).visit(node, self.z3.BoolVal(True))


class _Walk:
    def __init__(self, encoder: Encoder, names: Names, seen: Sighting | None) -> None:
        self.encoder = encoder
        self.z3 = encoder.z3
        self.names = names
        self.seen = seen

    def visit(self, node: Node, path: Term) -> Term:
        z3, names = self.z3, self.names
        match node:
            case Number(value):
                return self.encoder.number(value)
            case Own():
                return names.own
            case Current():
                return names.current
            case Level(signal):
                return names.levels[signal]
            case Mode(parameter):
                return names.modes[parameter]
            case Member(value):
                return z3.RealVal(names.members.index(value))
            case Tools(entries):
                if self.seen is not None:
                    self.seen.lists.append((path, node))
                return self.encoder.list_tools(entries)
            case Negate(operand):
                return -self.visit(operand, path)
            case Arithmetic(op, left, right):
                return self.arithmetic(op, self.visit(left, path), self.visit(right, path), path)
            case Call(function, arguments):
                return self.call(function, [self.visit(argument, path) for argument in arguments])
            case Compare(op, Mode(parameter) as mode, Member(value)):
                is_equal = self.visit(mode, path) == self.encoder.enums[parameter].index(value)
                return is_equal if op == "==" else z3.Not(is_equal)
            case Compare(op, left, right):
                return self.compare(op, self.visit(left, path), self.visit(right, path))
            case Both(is_and, operands):
                return self.join(is_and, operands, path)
            case Not(operand):
                return z3.Not(self.visit(operand, path))
            case Choice(condition, then, otherwise):
                test = self.visit(condition, path)
                if self.seen is not None:
                    self.seen.choices.append((path, test))
                taken = self.visit(then, z3.And(path, test))
                return self.encoder.choose(test, taken, self.visit(otherwise, z3.And(path, z3.Not(test))))

    def arithmetic(self, op: str, a: Term, b: Term, path: Term) -> Term:
        if op == "/" and self.seen is not None:
            self.seen.divisors.append((path, b))
        value = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
        if op in "*/" and self.seen is not None:
            self.seen.values.append((path, value))
        return value

    def call(self, function: str, values: list[Term]) -> Term:
        encoder = self.encoder
        if function == "abs":
            return self.z3.If(values[0] < 0, -values[0], values[0])
        if function == "round":
            return encoder.round(values[0])
        if function == "clamp":
            value, low, high = values
            return encoder.greatest(low, encoder.least(high, value))
        pick = encoder.least if function == "min" else encoder.greatest
        result = values[0]
        for value in values[1:]:
            result = pick(result, value)
        return result

    def compare(self, op: str, a: Term, b: Term) -> Term:
        match op:
            case "<":
                return a < b
            case "<=":
                return a <= b
            case ">":
                return a > b
            case ">=":
                return a >= b
            case "==":
                return a == b
            case _:
                return a != b

    def join(self, is_and: bool, operands: Sequence[Node], path: Term) -> Term:
        """Join conditions; a later one is evaluated only where the earlier ones leave the answer open."""
        z3 = self.z3
        found: list[Term] = []
        for operand in operands:
            test = self.visit(operand, path)
            found.append(test)
            path = z3.And(path, test if is_and else z3.Not(test))
        return z3.And(*found) if is_and else z3.Or(*found)
