"""Fuzzing the expression language: no crash, no hang over 100 ms, no disagreement of its three evaluators.

The nightly run feeds the same judge from atheris (tests/fuzz/expression.py).
"""

from __future__ import annotations

import time
from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lukhas.errors import ExpressionError
from lukhas.modulation.compile import compile_condition, compile_map, round_value
from lukhas.modulation.expression import Kind, Node, Scope, parse_expression
from lukhas.modulation.interpret import Point, evaluate
from lukhas.modulation.interval import Domain, NotTotal, check_total

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

from test_encode import encoded_at, exact, in_floats, is_near_a_tie

from lukhas.modulation.encode import Encoder, Names

HANG_S = 0.1
SIGNALS = frozenset({"stress", "trust"})
MODES = {"safety_mode": ("strict", "balanced")}
SCOPES: dict[Kind, Scope] = {
    "number": Scope("number", SIGNALS),
    "condition": Scope("condition", SIGNALS, modes=MODES, has_own=False),
    "enum": Scope("enum", SIGNALS, members=MODES["safety_mode"]),
    "tools": Scope("tools", SIGNALS),
}
DOMAIN = Domain(own=(0.05, 1.0), current=(-2.0, 3.0))
POINTS = [
    Point(Fraction(o), Fraction(c), {"stress": Fraction(s), "trust": Fraction(t)}, {"safety_mode": "strict"})  # type: ignore[arg-type]
    for o, c, s, t in (("0.05", "-2", "0", "1"), ("0.37", "0.6", "0.3", "0.8"), ("1", "3", "1", "0"))
]
ENCODER = Encoder(MODES, [frozenset({"retrieval"}), frozenset({"f", "browser"})])


def judge(text: str) -> Counter[str]:
    """Parse under every scope and compare every evaluator; return what was seen.

    Raises:
        AssertionError: a crash, a hang or a disagreement.
    """
    seen: Counter[str] = Counter()
    for kind, scope in SCOPES.items():
        node, seconds = parse_in_time(text, scope)
        if seconds > HANG_S:  # a pause of the machine is not the expression's
            seconds = min(parse_in_time(text, scope)[1] for _ in range(3))
        assert seconds <= HANG_S, (kind, seconds, text)
        if node is None:
            seen["refused"] += 1
            continue
        seen[kind] += 1
        compare(kind, node, seen)
    return seen


def parse_in_time(text: str, scope: Scope) -> tuple[Node | None, float]:
    """Return the tree of a text that is total, and the processor's seconds that it took to say so."""
    started = time.process_time()
    node = None
    try:
        node = parse_expression(text, scope)
        check_total(node, DOMAIN)
    except ExpressionError as refused:
        assert refused.line >= 1
        assert refused.column >= 1
    except NotTotal:
        node = None
    return node, time.process_time() - started


def compare(kind: Kind, node: Node, seen: Counter[str]) -> None:
    """Compare interpreter, compiled function and encoder at each point."""
    function: Any = compile_condition(node) if kind == "condition" else compile_map(node, kind)
    for at in POINTS:
        near = in_floats(at)
        if kind == "number":
            wanted = evaluate(exact(node), at)
            assert encoded_at(ENCODER, node, at).as_fraction() == wanted, (node, at)
            value: Any = evaluate(node, near)
            assert function(near.own, near.current, near.levels) == round_value(value), (node, at)
            if is_near_a_tie(exact(node), at):
                seen["ties"] += 1
                continue
            assert abs(value - float(wanted)) <= 1e-9 * max(1.0, abs(value)), (node, at)  # type: ignore[arg-type]
        elif kind == "condition":
            assert function(near.levels, at.modes) is evaluate(node, Point(levels=near.levels, modes=at.modes))
        else:
            current: Any = "balanced" if kind == "enum" else ("browser",)
            choice = evaluate(node, Point(near.own, current, near.levels))
            assert function(near.own, current, near.levels) == choice, (node, at)
            if not is_near_a_tie(exact(node), at):
                assert encode_choice(kind, node, at) == [str(term) for term in in_terms(kind, choice)], (node, at)
        seen["points"] += 1


def in_terms(kind: Kind, value: Any) -> tuple[Any, ...]:
    """Return a member or a list of tools as the encoder has it."""
    if kind == "enum":
        return (ENCODER.z3.RealVal(MODES["safety_mode"].index(value)),)
    return ENCODER.list_tools(value)


def encode_choice(kind: Kind, node: Node, at: Point) -> list[str]:
    current = in_terms(kind, "balanced" if kind == "enum" else ("browser",))
    levels = {name: ENCODER.z3.RealVal(level) for name, level in at.levels.items()}
    names = Names(
        own=ENCODER.z3.RealVal(at.own),
        current=current[0] if kind == "enum" else current,
        levels=levels,
        members=MODES["safety_mode"],
    )
    found = ENCODER.encode(node, names)
    return [str(ENCODER.z3.simplify(term)) for term in (found if isinstance(found, tuple) else (found,))]


WORDS = [
    *("x", "current", "stress", "trust", "min", "max", "round", "abs", "clamp", "strict", "safety_mode", "retrieval"),
    *("if", "else", "and", "or", "not", "(", ")", "[", "]", ",", "+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="),
    *("0", "1", "2", "0.5", "0.37", "1e-9", "1000000", "1e999", "'strict'", ".", ":", "=", "#", "\n", "\\", "lambda"),
]


def combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.tuples(inner, inner)
    test = st.builds("{0[0]} {1} {0[1]}".format, pair, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]))
    tests = st.one_of(test, st.builds("not {}".format, test), st.builds("({} and {} or {})".format, test, test, test))
    return st.one_of(
        st.builds("({0[0]} {1} {0[1]})".format, pair, st.sampled_from("+-*/")),
        st.builds("-{}".format, inner),
        st.builds("{1}({0[0]}, {0[1]})".format, pair, st.sampled_from(["min", "max"])),
        st.builds("{1}({0})".format, inner, st.sampled_from(["round", "abs"])),
        st.builds("clamp({}, {}, {})".format, inner, inner, inner),
        st.builds("({} if {} else {})".format, inner, tests, inner),
    )


LEAVES = st.one_of(
    st.sampled_from(["x", "current", "stress", "trust", "0.5", "0.3", "1", "2", "10", "0", "1e-9", "1000000"]),
    st.floats(0, 1000, allow_nan=False).map(repr),
)
EXPRESSIONS = st.recursive(LEAVES, combine, max_leaves=25)
FUZZ = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@FUZZ
@given(EXPRESSIONS)
def test_fuzz_expression_of_the_grammar_is_judged_alike(text: str) -> None:
    """Whatever the grammar can write is refused or evaluated alike three times."""
    judge(text)


@FUZZ
@given(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join))
@example("(" * 300)
@example("-" * 499 + "x")
@example("not " * 120 + "x > 1")
@example("x if " * 90)
@example("[" + "a," * 240 + "]")
@example("min(" * 100 + "x" + ")" * 100)
@example("1" * 500)
@example("9" * 499 + ".")
@example("1e" + "9" * 490)
def test_fuzz_words_in_any_order_crash_nothing(text: str) -> None:
    """Words of the language in an order that means nothing are refused in time."""
    judge(text)


@FUZZ
@given(st.one_of(st.text(max_size=600), st.binary(max_size=300).map(lambda raw: raw.decode("utf-8", "replace"))))
def test_fuzz_any_text_crashes_nothing(text: str) -> None:
    """Any text at all is refused in time, or is an expression."""
    judge(text)


def test_fuzz_judge_sees_each_kind() -> None:
    """The judge is not blind: each kind is parsed, compared and counted."""
    assert judge("min(1, x + 0.25)")["points"] == 3
    assert judge("stress > 0.5 and safety_mode == strict")["condition"] == 1
    assert judge("strict if x > 0.5 else current")["enum"] == 1
    assert judge("[retrieval, f] if x > 0.5 else current")["tools"] == 1
    assert judge("1 / x * 0 + round(2.5)")["number"] == 1
    assert judge("1 / (x - 0.5)")["refused"] >= 3
    assert judge("")["refused"] == 4
