"""Random expressions: interpreter and generated function agree, and the interval holds every value."""

from __future__ import annotations

import ast
from random import Random

import pytest

from lukhas.modulation.compile import compile_condition, compile_map, is_integral, round_value, write_source
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
    Scope,
    Tools,
    parse_expression,
)
from lukhas.modulation.interpret import Point, evaluate
from lukhas.modulation.interval import Domain, NotTotal, bounds_of, check_total

SIGNALS = ("stress", "trust")
DOMAIN = Domain(own=(0.05, 1.0), current=(-2.0, 3.0))
SCOPE = Scope("number", frozenset(SIGNALS))
TREES = 12_000


def number(random: Random, depth: int) -> Node:
    if depth <= 0 or random.random() < 0.15:
        values: list[float | int] = [0, 1, 2, 0.5, 0.3, 1e-9, 1000, 1_000_000, round(random.random(), 3)]
        return random.choice([Number(random.choice(values)), Own(), Current(), Level(random.choice(SIGNALS))])
    one = lambda: number(random, depth - 1)  # noqa: E731 - each call draws anew
    match random.randrange(9):
        case 0 | 1 | 2:
            return Arithmetic(random.choice(("+", "-", "*", "/")), one(), one())
        case 3:
            return Negate(one())
        case 4:
            return Call(random.choice(("min", "max")), tuple(one() for _ in range(random.randint(2, 4))))
        case 5:
            return Call("clamp", (one(), one(), one()))
        case 6:
            return Call("round", (one(),))
        case 7:
            return Call("abs", (one(),))
        case _:
            return Choice(condition(random, depth - 1), one(), one())


def condition(random: Random, depth: int) -> Node:
    match random.randrange(4) if depth > 0 else 0:
        case 1:
            return Both(random.random() < 0.5, tuple(condition(random, depth - 1) for _ in range(random.randint(2, 3))))
        case 2:
            return Not(condition(random, depth - 1))
        case _:
            op = random.choice(("<", "<=", ">", ">=", "==", "!="))
            return Compare(op, number(random, depth - 1), number(random, depth - 1))


def points(random: Random) -> list[Point]:
    own = [0.05, 1.0, 0.5, random.uniform(0.05, 1)]
    current = [-2.0, 3.0, 0.0, random.uniform(-2, 3)]
    level = [0.0, 1.0, 0.3, random.random()]
    return [
        Point(random.choice(own), random.choice(current), {name: random.choice(level) for name in SIGNALS})
        for _ in range(4)
    ]


def test_random_trees_agree_and_stay_inside_their_interval() -> None:
    """On every total tree both evaluators give one value at each point, and it lies inside the interval."""
    random = Random(11)
    total = refused = 0
    while total < TREES:
        node = number(random, random.randint(1, 4))
        try:
            low, high = bounds_of(node, DOMAIN)
        except NotTotal:
            refused += 1
            continue
        total += 1
        plain = eval(f"lambda x, current, levels: {write_source(node)}")
        rounded = compile_map(node, "number")
        whole = [compile_map(node, "number", integer=way) for way in ("floor", "ceil", "round")]
        for at in points(random):
            value = evaluate(node, at)
            assert plain(at.own, at.current, at.levels) == value
            assert low <= float(value) <= high
            made = rounded(at.own, at.current, at.levels)
            assert made == round_value(float(value))
            assert abs(made - float(value)) <= max(1e-9, abs(float(value)) * 1e-15)
            floor, ceil, nearest = (function(at.own, at.current, at.levels) for function in whole)
            assert all(isinstance(n, int) for n in (floor, ceil, nearest))
            assert floor <= nearest <= ceil <= floor + 1
    assert refused > 1000


def test_random_conditions_agree() -> None:
    """The condition of a style rule has one truth in both evaluators."""
    random = Random(12)
    seen = {True: 0, False: 0}
    for _ in range(3000):
        node = condition(random, 3)
        try:
            check_total(node, DOMAIN)
        except NotTotal:
            continue
        function = eval(f"lambda x, current, levels: {write_source(node)}")
        for at in points(random):
            expected = evaluate(node, at)
            assert function(at.own, at.current, at.levels) is expected
            seen[bool(expected)] += 1
    assert min(seen.values()) > 1000


def test_random_trees_survive_writing_and_parsing() -> None:
    """What a tree writes parses back to a tree of the same value."""
    random = Random(13)
    for _ in range(2000):
        node = number(random, 3)
        text = write_source(node).replace("levels['stress']", "stress").replace("levels['trust']", "trust")
        if len(text) > 500 or not is_readable(text):
            continue
        again = parse_expression(text, SCOPE)
        try:
            bounds_of(node, DOMAIN)
        except NotTotal:
            continue
        for at in points(random):
            assert evaluate(again, at) == evaluate(node, at)


def is_readable(text: str) -> bool:
    return ast.parse(text, mode="eval") is not None and "(not " not in text


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        pytest.param(Choice(Compare("==", Mode("m"), Member("a")), Number(1), Number(2)), 1, id="mode"),
        pytest.param(Choice(Compare("!=", Mode("m"), Member("a")), Tools(("t",)), Tools(())), (), id="tools"),
    ],
)
def test_modes_and_tools_agree(node: Node, expected: object) -> None:
    """The parts that no number has are evaluated alike too."""
    at = Point(modes={"m": "a"})
    assert evaluate(node, at) == expected
    assert eval(write_source(node), {"modes": {"m": "a"}}) == expected


def test_condition_function_reads_levels_and_modes() -> None:
    """A compiled rule takes the levels and the decided enums."""
    node = Both(True, (Compare("==", Mode("m"), Member("a")), Compare(">", Level("stress"), Number(0.5))))
    function = compile_condition(node)
    assert function({"stress": 0.6}, {"m": "a"})
    assert not function({"stress": 0.6}, {"m": "b"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("3", True),
        ("3.0", False),
        ("round(x) + 1", True),
        ("-min(1, round(2 * x))", True),
        ("round(x) / 2", False),
        ("1 if x > 0.5 else 2", True),
        ("1 if x > 0.5 else x", False),
        ("current", False),
        ("stress", False),
    ],
)
def test_is_integral_says_what_needs_no_rounding(text: str, expected: bool) -> None:
    """Only what yields an int by construction is left unrounded."""
    assert is_integral(parse_expression(text, SCOPE)) is expected


def test_rounding_never_falls_and_reads_as_the_decimal() -> None:
    """Rounding is monotone over neighbours, and 1 - 0.85 * 0.8 reads 0.32."""
    random = Random(14)
    values = sorted(random.uniform(-3, 3) for _ in range(20_000))
    rounded = [round_value(value) for value in values]
    assert rounded == sorted(rounded)
    assert repr(round_value(1 - 0.85 * 0.8)) == "0.32"
    assert repr(round_value(-0.0)) == "0.0"
    for _ in range(20_000):
        whole = random.randint(-(10**9), 10**9)
        assert round_value(whole / 1000) == whole / 1000
