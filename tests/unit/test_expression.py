"""The expression language: what it reads, and where and how it refuses."""

from __future__ import annotations

import pytest

from lukhas.errors import ExpressionError
from lukhas.modulation.expression import (
    MAX_DEPTH,
    MAX_LENGTH,
    Arithmetic,
    Call,
    Choice,
    Compare,
    Kind,
    Level,
    Member,
    Negate,
    Number,
    Own,
    Scope,
    Tools,
    parse_expression,
    uses_current,
    walk,
)
from lukhas.modulation.interpret import Point, Value, evaluate

NUMBER = Scope("number", frozenset({"stress", "trust"}), hidden={"alignment_risk": "a style's map"})
ENUM = Scope("enum", frozenset({"stress"}), members=("strict", "balanced"))
TOOLS = Scope("tools", frozenset({"stress"}))
RULE = Scope("condition", frozenset({"stress"}), modes={"safety_mode": ("strict", "balanced")}, has_own=False)
POINT = Point(own=0.5, current=4, levels={"stress": 0.25}, modes={"safety_mode": "strict"})


@pytest.mark.parametrize(
    ("text", "scope", "expected"),
    [
        pytest.param("1", NUMBER, 1, id="integer"),
        pytest.param(".5", NUMBER, 0.5, id="leading-point"),
        pytest.param("5.", NUMBER, 5.0, id="trailing-point"),
        pytest.param("2.5e-1", NUMBER, 0.25, id="exponent"),
        pytest.param("x", NUMBER, 0.5, id="own"),
        pytest.param("current", NUMBER, 4, id="current"),
        pytest.param("stress + trust", NUMBER, 0.25, id="absent-signal-is-zero"),
        pytest.param("1 - 2 - 3", NUMBER, -4, id="left-associative"),
        pytest.param("1 + 2 * 3", NUMBER, 7, id="precedence"),
        pytest.param("-x * -(2)", NUMBER, 1.0, id="unary-minus"),
        pytest.param("8 / 2 / 2", NUMBER, 2.0, id="division"),
        pytest.param("min(3, 1, 2)", NUMBER, 1, id="min"),
        pytest.param("max(1, current, 2)", NUMBER, 4, id="max"),
        pytest.param("round(2.5) + round(3.5)", NUMBER, 6, id="round-half-to-even"),
        pytest.param("abs(x - 1)", NUMBER, 0.5, id="abs"),
        pytest.param("clamp(9, 0, 1)", NUMBER, 1, id="clamp-high"),
        pytest.param("clamp(-9, 0, 1)", NUMBER, 0, id="clamp-low"),
        pytest.param("1 if x > 0.4 else 2", NUMBER, 1, id="choice"),
        pytest.param("1 if 0.1 < x < 0.4 else 2", NUMBER, 2, id="chain"),
        pytest.param("1 if x > 0.9 or not stress > 0.3 and x == 0.5 else 2", NUMBER, 1, id="logic"),
        pytest.param("1 if x != 0.5 else 2", NUMBER, 2, id="not-equal"),
        pytest.param("1 if x <= 0.5 and x >= 0.5 else 2", NUMBER, 1, id="inclusive"),
        pytest.param("1 +\n  x", NUMBER, 1.5, id="line-break"),
        pytest.param("\t( x )\n", NUMBER, 0.5, id="white-space"),
        pytest.param("strict if x > 0.3 else balanced", ENUM, "strict", id="enum"),
        pytest.param("'strict'", ENUM, "strict", id="quoted-member"),
        pytest.param("[]", TOOLS, (), id="no-tools"),
        pytest.param(
            "[retrieval, 'open_url', \"a.b-c\", retrieval]", TOOLS, ("retrieval", "open_url", "a.b-c"), id="tools"
        ),
        pytest.param("[a] if stress > 0.7 else [b]", TOOLS, ("b",), id="tools-choice"),
        pytest.param("safety_mode == strict", RULE, True, id="mode"),
        pytest.param("safety_mode != 'strict' or stress > 0.7", RULE, False, id="mode-not"),
    ],
)
def test_expression_of_the_language_has_its_value(text: str, scope: Scope, expected: Value) -> None:
    """Every construct of the documented grammar is read, with Python's precedence."""
    assert evaluate(parse_expression(text, scope), POINT) == expected


@pytest.mark.parametrize(
    ("text", "scope", "line", "column", "says", "allows"),
    [
        pytest.param("", NUMBER, 1, 1, "empty", "numbers", id="empty"),
        pytest.param(" \n ", NUMBER, 1, 1, "empty", "numbers", id="blank"),
        pytest.param("1 + y", NUMBER, 1, 5, "'y'", "x, current, stress, trust", id="unknown-name"),
        pytest.param("1 +\n 2 * y", NUMBER, 2, 6, "'y'", "clamp", id="second-line"),
        pytest.param("alignment_risk", NUMBER, 1, 1, "a style's map", "stress", id="hidden-name"),
        pytest.param("x ** 2", NUMBER, 1, 1, "operator", "+ - * /", id="power"),
        pytest.param("2 + pow(2, 3)", NUMBER, 1, 5, "'pow'", "min, max, round, abs, clamp", id="unknown-function"),
        pytest.param("min(1)", NUMBER, 1, 1, "2 to 8", "min", id="too-few-arguments"),
        pytest.param("clamp(x, 1)", NUMBER, 1, 1, "takes 3", "clamp", id="clamp-arity"),
        pytest.param("round(x, 2)", NUMBER, 1, 1, "takes 1 ", "round", id="round-arity"),
        pytest.param("1, 2", NUMBER, 1, 1, "tuple", "numbers", id="tuple"),
        pytest.param("x +", NUMBER, 1, 3, "understood", "numbers", id="unfinished"),
        pytest.param("(x", NUMBER, 1, 1, "bracket", "numbers", id="bracket-not-closed"),
        pytest.param("x)", NUMBER, 1, 2, "bracket", "numbers", id="bracket-not-opened"),
        pytest.param("x) + (x", NUMBER, 1, 2, "bracket", "numbers", id="brackets-the-wrong-way-round"),
        pytest.param("(x]", NUMBER, 1, 3, "bracket", "numbers", id="brackets-mixed"),
        pytest.param("1 + 2 # why", NUMBER, 1, 7, "comment", "numbers", id="comment"),
        pytest.param("1 + \\\n 2", NUMBER, 1, 5, "U+005C", "numbers", id="line-continuation"),
        pytest.param("1 + \u00b2", NUMBER, 1, 5, "U+00B2", "numbers", id="not-ascii"),
        pytest.param("1 +\n\x00", NUMBER, 2, 1, "U+0000", "numbers", id="null-byte"),
        pytest.param("1_000", NUMBER, 1, 1, "decimal", "numbers", id="underscore-in-number"),
        pytest.param("0x10 + 1", NUMBER, 1, 1, "decimal", "numbers", id="hexadecimal"),
        pytest.param("1if x > 0 else 2", NUMBER, 1, 1, "decimal", "numbers", id="number-touches-word"),
        pytest.param("2000000", NUMBER, 1, 1, "1,000,000", "numbers", id="number-too-large"),
        pytest.param("1e999", NUMBER, 1, 1, "1,000,000", "numbers", id="number-infinite"),
        pytest.param("True", NUMBER, 1, 1, "True", "numbers", id="constant"),
        pytest.param("x > 0.5", NUMBER, 1, 1, "comparison", "a if condition else b", id="condition-as-number"),
        pytest.param("1 if x else 2", NUMBER, 1, 6, "'x'", "joined by and, or, not", id="number-as-condition"),
        pytest.param("1 if x in stress else 2", NUMBER, 1, 6, "comparison", "< <= > >= == !=", id="in"),
        pytest.param("creative", ENUM, 1, 1, "strict, balanced", "strict, balanced", id="unknown-member"),
        pytest.param(
            "strict + balanced", ENUM, 1, 1, "operator", "one of strict, balanced", id="arithmetic-on-members"
        ),
        pytest.param("[a b]", TOOLS, 1, 2, "understood", "a list of tool names", id="tools-without-comma"),
        pytest.param("['a' 'b']", TOOLS, 1, 6, "text", "a list of tool names", id="texts-side-by-side"),
        pytest.param("[u'a']", TOOLS, 1, 2, "text", "a list of tool names", id="text-with-prefix"),
        pytest.param("['''a''']", TOOLS, 1, 4, "text", "a list of tool names", id="triple-quotes"),
        pytest.param("['a b']", TOOLS, 1, 2, "1 to 64", "a list of tool names", id="tool-name-with-space"),
        pytest.param("[[a]]", TOOLS, 1, 2, "list", "a list of tool names", id="list-in-list"),
        pytest.param("retrieval", TOOLS, 1, 1, "'retrieval'", "[retrieval]", id="tools-without-brackets"),
        pytest.param("safety_mode > strict", RULE, 1, 1, "== or !=", "safety_mode", id="mode-by-order"),
        pytest.param("safety_mode == lax", RULE, 1, 16, "'lax'", "strict, balanced", id="mode-of-unknown-member"),
        pytest.param("safety_mode == 1", RULE, 1, 1, "== or !=", "safety_mode", id="mode-with-number"),
        pytest.param("x > 0.5", RULE, 1, 1, "'x'", "stress", id="x-in-rule"),
        pytest.param("stress > 0.5 if stress > 1 else stress > 2", RULE, 1, 1, "'if'", "and, or, not", id="if-in-rule"),
    ],
)
def test_expression_refused_names_place_and_what_is_allowed(
    text: str, scope: Scope, line: int, column: int, says: str, allows: str
) -> None:
    """A refusal points at the part that is wrong and says what would be right there."""
    with pytest.raises(ExpressionError) as caught:
        parse_expression(text, scope)
    assert (caught.value.line, caught.value.column) == (line, column)
    assert says in caught.value.message
    assert allows in caught.value.allowed
    assert f"line {line}, column {column}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("1 + " * 200 + "1", "longer than", id="length"),
        pytest.param("\n" * 499 + "x + 1", "longer than", id="length-over-lines"),
        pytest.param("-" * (MAX_DEPTH + 5) + "x", "nested deeper", id="depth-unary"),
        pytest.param("+".join("x" * (MAX_DEPTH + 5)), "nested deeper", id="depth-sum"),
        pytest.param("abs(" * 60 + "x" + ")" * 60, "nested deeper", id="depth-calls"),
        pytest.param("(" * 240 + "x" + ")" * 240, "understood", id="depth-brackets"),
        pytest.param(",".join(["max(x,x,x,x,x,x,x,x)"] * 8).join(["max(", ")"]), None, id="within"),
        pytest.param(
            "min("
            + ",".join([f"max({','.join(['-x'] * 8)})"] * 8)
            + ")+x-x*x+x+min("
            + ",".join(["-x"] * 8)
            + ")" * 1
            + "+-x" * 15,
            "parts",
            id="parts",
        ),
    ],
)
def test_expression_size_is_bounded(text: str, says: str | None) -> None:
    """Length, depth and number of parts have limits that hold before anything is compiled."""
    if says is None:
        assert len(walk(parse_expression(text, NUMBER))) == 73
        return
    with pytest.raises(ExpressionError, match=says) as caught:
        parse_expression(text, NUMBER)
    lines = text.split("\n")
    assert 1 <= caught.value.line <= len(lines)
    assert 1 <= caught.value.column <= max(1, len(lines[caught.value.line - 1]))


def test_expression_longest_is_read() -> None:
    """The limit of length is itself inside."""
    text = "x" + " " * (MAX_LENGTH - 1)
    assert parse_expression(text, NUMBER) == Own()


def test_expression_tree_has_the_documented_shape() -> None:
    """Other parts (the proof, the interval check) rely on this tree."""
    node = parse_expression("max(1, -x) if stress < 0.5 else current / 2", NUMBER)
    assert isinstance(node, Choice)
    assert node.condition == Compare("<", Level("stress"), Number(0.5))
    assert node.then == Call("max", (Number(1), Negate(Own())))
    assert isinstance(node.otherwise, Arithmetic)
    assert uses_current(node)
    assert not uses_current(node.then)


@pytest.mark.parametrize(("kind", "text"), [("enum", "strict"), ("tools", "[a]")])
def test_expression_leaf_of_kind(kind: Kind, text: str) -> None:
    """Members and tool lists become leaves of their own."""
    node = parse_expression(text, ENUM if kind == "enum" else TOOLS)
    assert node in (Member("strict"), Tools(("a",)))
