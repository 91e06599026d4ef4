"""From an expression's tree to one Python function.

The source text is written from the tree alone, with names of our own making, so nothing of what an operator typed is
ever evaluated. A generated function costs a sixth of a walk over the tree; `interpret` says what it must yield.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from lukhas.modulation.expression import (
    Arithmetic,
    Both,
    Call,
    Choice,
    Compare,
    Current,
    Kind,
    Level,
    Member,
    Mode,
    Negate,
    Node,
    Not,
    Number,
    Own,
    Tools,
    children,
)

# Values are rounded to this many decimals, far inside what any model can tell apart, so that 1 - 0.85 * 0.8 reads
# 0.32 everywhere. Rounding never decreases where its argument does not, so it cannot break I1. Scaling, rounding to a
# whole number and dividing costs a fifth of round(value, 9) and also gives the float nearest to the decimal.
DECIMALS: Final = 9

MapFunction = Callable[[float, Any, Mapping[str, float]], Any]
ConditionFunction = Callable[[Mapping[str, float], Mapping[str, Any]], bool]

_NAMESPACE: Final[dict[str, Any]] = {
    "__builtins__": {},
    "min": min,
    "max": max,
    "round": round,
    "abs": abs,
    "floor": math.floor,
    "ceil": math.ceil,
}


def round_value(value: float) -> float:
    """Round to 9 decimals, as the generated functions do."""
    return round(value * 1e9) / 1e9


def compile_map(node: Node, kind: Kind, *, integer: str | None = None) -> MapFunction:
    """Compile a map's expression to `f(x, current, levels) -> value`.

    Args:
        node: the expression's tree; `levels` holds a value for each signal that it names.
        kind: what it yields.
        integer: None for a real number, else how to make it whole: 'floor', 'ceil' or 'round'.
    """
    source = write_source(node)
    if kind == "number" and integer is None:
        source = f"round({source} * 1e{DECIMALS}) / 1e{DECIMALS}"
    elif kind == "number" and not is_integral(node):
        source = f"{integer}(round({source} * 1e{DECIMALS}) / 1e{DECIMALS})"
    return cast(MapFunction, _make("x, current, levels", source))


def compile_condition(node: Node) -> ConditionFunction:
    """Compile a style rule's condition to `f(levels, modes) -> bool`."""
    return cast(ConditionFunction, _make("levels, modes", write_source(node)))


def is_integral(node: Node) -> bool:
    """Return whether the expression yields an int by construction."""
    match node:
        case Number(value):
            return isinstance(value, int)
        case Call("round", _):
            return True
        case Arithmetic("/", _, _) | Own() | Level() | Current():
            return False
        case Choice(_, then, otherwise):
            return is_integral(then) and is_integral(otherwise)
        case _:
            return all(is_integral(part) for part in children(node))


def _make(parameters: str, source: str) -> object:
    code = compile(f"lambda {parameters}: {source}", "<policy expression>", "eval")
    return eval(code, dict(_NAMESPACE))  # noqa: S307 - the source is written by write_source from a checked tree


def write_source(node: Node) -> str:
    """Write the tree as fully parenthesised Python over x, current, levels and modes."""
    match node:
        case Number(value) | Member(value):
            return repr(value)
        case Tools(names):
            return repr(names)
        case Own():
            return "x"
        case Current():
            return "current"
        case Level(signal):
            return f"levels[{signal!r}]"
        case Mode(parameter):
            return f"modes[{parameter!r}]"
        case Negate(operand):
            return f"(-{write_source(operand)})"
        case Arithmetic(op, left, right) | Compare(op, left, right):
            return f"({write_source(left)} {op} {write_source(right)})"
        case Call("clamp", (value, low, high)):
            return f"max({write_source(low)}, min({write_source(high)}, {write_source(value)}))"
        case Call(function, arguments):
            return f"{function}({', '.join(map(write_source, arguments))})"
        case Both(is_and, operands):
            return "(" + (" and " if is_and else " or ").join(map(write_source, operands)) + ")"
        case Not(operand):
            return f"(not {write_source(operand)})"
        case Choice(condition, then, otherwise):
            return f"({write_source(then)} if {write_source(condition)} else {write_source(otherwise)})"
