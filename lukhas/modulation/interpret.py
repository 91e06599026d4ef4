"""The meaning of an expression: evaluation of the tree, one node at a time.

This is the reference that the generated functions (`compile`) and the proof's encoder are tested against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

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

Value = float | int | str | bool | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """Where an expression is evaluated."""

    own: float = 0.0
    current: Value = 0.0
    levels: Mapping[str, float] = field(default_factory=dict[str, float])
    modes: Mapping[str, str] = field(default_factory=dict[str, str])


def evaluate(node: Node, at: Point) -> Value:
    """Return the expression's value at a point; `round` is half to even, as Python's.

    Raises:
        ZeroDivisionError: only for a tree that `interval.check_total` would refuse.
    """
    match node:
        case Number(value) | Member(value):
            return value
        case Tools(names):
            return names
        case Own():
            return at.own
        case Current():
            return at.current
        case Level(signal):
            return at.levels.get(signal, 0.0)
        case Mode(parameter):
            return at.modes[parameter]
        case Negate(operand):
            return -_number(operand, at)
        case Arithmetic(op, left, right):
            a, b = _number(left, at), _number(right, at)
            return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b
        case Call(function, arguments):
            return _call(function, [_number(argument, at) for argument in arguments])
        case Compare(op, left, right):
            return _compare(op, evaluate(left, at), evaluate(right, at))
        case Both(is_and, operands):
            results = (bool(evaluate(operand, at)) for operand in operands)
            return all(results) if is_and else any(results)
        case Not(operand):
            return not evaluate(operand, at)
        case Choice(condition, then, otherwise):
            return evaluate(then if evaluate(condition, at) else otherwise, at)


def _number(node: Node, at: Point) -> float:
    return cast(float, evaluate(node, at))


def _call(function: str, values: list[float]) -> float:
    if function == "min":
        return min(values)
    if function == "max":
        return max(values)
    if function == "abs":
        return abs(values[0])
    if function == "round":
        return round(values[0])
    value, low, high = values
    return max(low, min(high, value))


def _compare(op: str, a: Value, b: Value) -> bool:
    if op == "==":
        return a == b
    if op == "!=":
        return a != b
    left, right = cast(float, a), cast(float, b)
    return left < right if op == "<" else left <= right if op == "<=" else left > right if op == ">" else left >= right
