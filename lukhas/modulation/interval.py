"""Interval arithmetic over expressions: shows at load that no division by zero and no overflow can happen.

The bounds are sound and not tight: what this file accepts is total; what it refuses may merely be hard to see, and
can be rewritten with max(...) around the divisor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lukhas.modulation.expression import (
    Arithmetic,
    Call,
    Choice,
    Compare,
    Current,
    Level,
    Negate,
    Node,
    Number,
    Own,
    children,
)

LARGEST: Final = 1e15

Interval = tuple[float, float]


class NotTotal(Exception):
    """The expression may divide by zero, or grow beyond what a float holds exactly."""


@dataclass(frozen=True, slots=True)
class Domain:
    """The ranges that an expression's names can take."""

    own: Interval = (0.0, 1.0)
    current: Interval = (0.0, 0.0)
    levels: Mapping[str, Interval] | None = None


def check_total(node: Node, domain: Domain) -> None:
    """Check every numeric part of an expression of any kind.

    Raises:
        NotTotal: a divisor's range contains zero, or a value's exceeds 1e15.
    """
    if isinstance(node, (Number, Own, Current, Level, Negate, Arithmetic, Call)):
        bounds_of(node, domain)
        return
    if isinstance(node, Compare):
        for side in (node.left, node.right):
            check_total(side, domain)
        return
    for part in children(node):
        check_total(part, domain)


def bounds_of(node: Node, domain: Domain) -> Interval:
    """Return (low, high) between which a numeric expression stays over the whole domain.

    Raises:
        NotTotal: see `check_total`.
    """
    low, high = _bounds(node, domain)
    if not (low >= -LARGEST and high <= LARGEST) or math.isnan(low) or math.isnan(high):
        raise NotTotal("its value can grow beyond 1e15")
    return low, high


def _bounds(node: Node, domain: Domain) -> Interval:
    match node:
        case Number(value):
            return float(value), float(value)
        case Own():
            return domain.own
        case Current():
            return domain.current
        case Level(signal):
            return (domain.levels or {}).get(signal, (0.0, 1.0))
        case Negate(operand):
            low, high = bounds_of(operand, domain)
            return -high, -low
        case Arithmetic(op, left, right):
            return _arithmetic(op, bounds_of(left, domain), bounds_of(right, domain))
        case Call(function, arguments):
            return _call(function, [bounds_of(argument, domain) for argument in arguments])
        case Choice(condition, then, otherwise):
            check_total(condition, domain)
            a, b = bounds_of(then, domain), bounds_of(otherwise, domain)
            return min(a[0], b[0]), max(a[1], b[1])
        case _:
            raise AssertionError("only numeric expressions have bounds")


def _arithmetic(op: str, a: Interval, b: Interval) -> Interval:
    if op == "+":
        return a[0] + b[0], a[1] + b[1]
    if op == "-":
        return a[0] - b[1], a[1] - b[0]
    if op == "/":
        if b[0] <= 0.0 <= b[1]:
            raise NotTotal(f"its divisor can be zero (it ranges from {b[0]:g} to {b[1]:g})")
        products = [x / y for x in a for y in b]
    else:
        products = [x * y for x in a for y in b]
    return min(products), max(products)


def _call(function: str, parts: list[Interval]) -> Interval:
    lows = [low for low, _ in parts]
    highs = [high for _, high in parts]
    if function == "min":
        return min(lows), min(highs)
    if function == "max":
        return max(lows), max(highs)
    low, high = parts[0]
    if function == "round":
        return float(round(low)), float(round(high))
    if function == "abs":
        nearest = 0.0 if low <= 0.0 <= high else min(abs(low), abs(high))
        return nearest, max(abs(low), abs(high))
    return max(lows[1], min(lows[2], low)), max(highs[1], min(highs[2], high))
