"""The encoder against the interpreter and the compiled function, on random expressions and at random points."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from fractions import Fraction
from random import Random
from typing import Any

import pytest
from test_compile_agreement import DOMAIN, SIGNALS, condition, number

from lukhas.modulation.compile import compile_map, round_value
from lukhas.modulation.expression import (
    Arithmetic,
    Both,
    Call,
    Choice,
    Compare,
    Member,
    Mode,
    Negate,
    Node,
    Not,
    Number,
    Scope,
    Tools,
    children,
    parse_expression,
    walk,
)
from lukhas.modulation.interpret import Point, evaluate
from lukhas.modulation.interval import NotTotal, bounds_of

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

from lukhas.modulation.encode import Encoder, Names, Sighting

EXPRESSIONS = 10_000
# Nearer than this to where a comparison or a rounding turns, floats may fall on the other side.
TIE = 1e-6
GRID = [Fraction(repr(value)) for value in (0.05, 0.1, 0.25, 0.3, 0.37, 0.5, 0.7, 0.9, 1.0)]


def exact(node: Node) -> Node:
    """Return the same tree with its numbers as the decimals that they show."""
    match node:
        case Number(value):
            return Number(Fraction(repr(value)))  # type: ignore[arg-type]
        case Negate(operand) | Not(operand):
            return replace(node, operand=exact(operand))
        case Arithmetic(_, left, right) | Compare(_, left, right):
            return replace(node, left=exact(left), right=exact(right))
        case Call("round", parts):  # an int, and two of them would divide to a float
            return Arithmetic("+", replace(node, arguments=tuple(map(exact, parts))), exact(Number(0)))
        case Call(_, parts):
            return replace(node, arguments=tuple(map(exact, parts)))
        case Both(_, parts):
            return replace(node, operands=tuple(map(exact, parts)))
        case Choice(test, then, otherwise):
            return Choice(exact(test), exact(then), exact(otherwise))
        case _:
            return node


def is_near_a_tie(node: Node, at: Point) -> bool:
    """Say whether some comparison or rounding in the tree is about to turn at a point."""
    for part in walk(node):
        if isinstance(part, Compare):
            left, right = (evaluate(side, at) for side in children(part))
            scale = max(1, abs(left), abs(right))  # type: ignore[arg-type]
            if abs(left - right) < TIE * scale:  # type: ignore[operator]
                return True
        elif isinstance(part, Call) and part.function == "round":
            value: Any = evaluate(part.arguments[0], at)
            if abs((value - Fraction(1, 2)) - round(value - Fraction(1, 2))) < TIE * max(1, abs(value)):
                return True
    return False


def draw(random: Random) -> Point:
    """Draw a point of decimals, often one at which the expressions' own numbers stand."""

    def one(low: float, high: float) -> Any:
        return random.choice(GRID) if random.random() < 0.3 else Fraction(repr(round(random.uniform(low, high), 6)))

    return Point(one(0.05, 1), one(-2, 3), {name: one(0, 1) for name in SIGNALS})


def in_floats(at: Point) -> Point:
    return Point(float(at.own), float(at.current), {n: float(v) for n, v in at.levels.items()})  # type: ignore[arg-type]


def encoded_at(encoder: Encoder, node: Node, at: Point) -> Any:
    """Encode over variables, as the proof does, then put the point in."""
    z3 = encoder.z3
    own, current = z3.Reals("own current")
    levels = {name: z3.Real(name) for name in SIGNALS}
    term = encoder.encode(node, Names(own, current, levels))
    values = [(own, at.own), (current, at.current), *((levels[name], at.levels[name]) for name in SIGNALS)]
    return z3.simplify(z3.substitute(term, *((name, z3.RealVal(value)) for name, value in values)))


def test_encoder_interpreter_and_compiled_function_agree_on_random_expressions() -> None:
    """10,000 expressions: exactly the exact interpreter's value, and the float ones' to 1e-9 but at ties."""
    random = Random(20260101)
    encoder = Encoder()
    seen: Counter[str] = Counter()
    while seen["total"] < EXPRESSIONS:
        node = number(random, random.randint(1, 4))
        try:
            low, high = bounds_of(node, DOMAIN)
        except NotTotal:
            continue
        seen["total"] += 1
        at = draw(random)
        precise = exact(node)
        wanted = evaluate(precise, at)
        assert encoded_at(encoder, node, at).as_fraction() == wanted, (node, at)
        if is_near_a_tie(precise, at):
            seen["ties"] += 1
            continue
        near = in_floats(at)
        plain = evaluate(node, near)
        compiled = compile_map(node, "number")(near.own, near.current, near.levels)
        scale = max(1.0, abs(low), abs(high)) if max(abs(low), abs(high)) > 1e5 else 1.0
        assert abs(float(plain) - float(wanted)) <= 1e-9 * scale, (node, at)  # type: ignore[arg-type]
        assert compiled == round_value(float(plain))  # type: ignore[arg-type]
    assert 100 < seen["ties"] < EXPRESSIONS / 2


def test_encoder_and_interpreter_agree_on_random_conditions() -> None:
    """The truth of a condition is exactly the exact interpreter's, at ties too."""
    random = Random(7)
    encoder = Encoder()
    seen: Counter[bool] = Counter()
    while seen.total() < 1500:
        node, at = condition(random, 3), draw(random)
        try:
            wanted = evaluate(exact(node), at)
        except ZeroDivisionError:
            continue
        try:
            bounds_of(Choice(node, Number(0), Number(1)), DOMAIN)
        except NotTotal:
            continue
        assert str(encoded_at(encoder, node, at)) == str(wanted)
        seen[bool(wanted)] += 1
    assert min(seen.values()) > 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [(v, round(Fraction(v))) for v in ("-2.5", "-1.5", "-0.5", "0.5", "1.5", "2.5", "2.500001", "-0.499999", "7", "0")],
)
def test_encoder_rounds_half_to_even(value: str, expected: int) -> None:
    """Ties go to the even neighbour, on both sides of zero, as Python's round sends them."""
    encoder = Encoder()
    term = encoder.z3.simplify(encoder.round(encoder.z3.RealVal(value)))
    assert term.as_fraction() == expected


@pytest.mark.parametrize("value", [0.1, 0.85, 1e-9, 1e-05, 1_000_000, 3, 0.30000000000000004])
def test_encoder_number_is_the_decimal_that_the_file_shows(value: float) -> None:
    """0.1 is a tenth, not the float beside it; exponents are read too."""
    assert Encoder().number(value).as_fraction() == Fraction(repr(value))


def test_encoder_enum_member_is_its_index_from_the_tightest() -> None:
    """Members compare by tightness, and modes by index."""
    encoder = Encoder({"safety_mode": ("strict", "balanced")})
    names = Names(members=("strict", "balanced"), modes={"safety_mode": encoder.number(1)})
    assert encoder.encode(Member("balanced"), names).as_fraction() == 1
    is_mode = encoder.encode(Compare("==", Mode("safety_mode"), Member("balanced")), names)
    is_not = encoder.encode(Compare("!=", Mode("safety_mode"), Member("balanced")), names)
    assert (str(encoder.z3.simplify(is_mode)), str(encoder.z3.simplify(is_not))) == ("True", "False")


def test_encoder_tools_are_one_truth_each() -> None:
    """A tool is admitted by its own name or by its class."""
    encoder = Encoder(admits=[frozenset({"a"}), frozenset({"f", "a"}), frozenset({"b"})])
    assert [str(term) for term in encoder.encode(Tools(("a",)), Names())] == ["True", "True", "False"]
    assert [str(term) for term in encoder.encode(Tools(("f",)), Names())] == ["False", "True", "False"]
    chosen = Choice(Compare(">", Number(1), Number(0)), Tools(("b",)), Tools(()))
    assert [str(encoder.z3.simplify(t)) for t in encoder.encode(chosen, Names())] == ["False", "False", "True"]


def test_encoder_notes_what_is_evaluated_only_under_a_condition() -> None:
    """A divisor counts only where its branch, and what stands before it in the condition, is reached."""
    encoder = Encoder()
    z3 = encoder.z3
    own = z3.Real("own")
    scope = Scope("number", frozenset())
    seen = Sighting()
    encoder.encode(parse_expression("1 / (x - 0.5) if x != 0.5 and 1 / x > 1 else 2", scope), Names(own), seen)
    assert len(seen.divisors) == 2
    for path, divisor in seen.divisors[1:]:
        solver = z3.Solver()
        solver.add(path, divisor == 0, own > 0)
        assert solver.check() == z3.unsat
    assert len(seen.choices) == 1
