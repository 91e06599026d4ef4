"""Interval arithmetic: which expressions are total, and between which bounds they stay."""

from __future__ import annotations

import pytest

from lukhas.modulation.expression import Member, Scope, parse_expression
from lukhas.modulation.interval import Domain, NotTotal, bounds_of, check_total

SCOPE = Scope("number", frozenset({"stress"}))
DOMAIN = Domain(own=(0.2, 1.0), current=(-2.0, 3.0))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", (0.2, 1.0)),
        ("stress", (0.0, 1.0)),
        ("current", (-2.0, 3.0)),
        ("1 - x", (0.0, 0.8)),
        ("-current", (-3.0, 2.0)),
        ("current * current", (-6.0, 9.0)),
        ("1 / x", (1.0, 5.0)),
        ("current / x", (-10.0, 15.0)),
        ("abs(current)", (0.0, 3.0)),
        ("abs(x - 2)", (1.0, 1.8)),
        ("min(x, stress, 0.5)", (0.0, 0.5)),
        ("max(x, stress, 0.5)", (0.5, 1.0)),
        ("round(current)", (-2.0, 3.0)),
        ("clamp(current, 0, 1)", (0.0, 1.0)),
        ("5 if x > stress else current", (-2.0, 5.0)),
        ("1 / max(0.1, stress)", (1.0, 10.0)),
    ],
)
def test_bounds_are_as_expected(text: str, expected: tuple[float, float]) -> None:
    """Bounds follow from the ranges of the names."""
    assert bounds_of(parse_expression(text, SCOPE), DOMAIN) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / stress", "divisor can be zero"),
        ("1 / current", "from -2 to 3"),
        ("1 / (x - 0.2)", "divisor can be zero"),
        ("1 / 0", "divisor can be zero"),
        ("1 if 1 / stress > 2 else 3", "divisor can be zero"),
        ("1 if not (x > 0 and 1 / stress > 2) else 3", "divisor can be zero"),
        ("min(1, 1 / stress)", "divisor can be zero"),
        ("-(1 / stress)", "divisor can be zero"),
        ("1000000 * 1000000 * 1000000", "beyond 1e15"),
        ("x / 1e-300", "beyond 1e15"),
        ("1 / (1e-200 * 1e-200)", "divisor can be zero"),
        ("1 / 1e-300 - 1 / 1e-300", "beyond 1e15"),
    ],
)
def test_partial_expression_is_refused(text: str, says: str) -> None:
    """A division by a possible zero, or a growth past what floats hold, is found before it can happen."""
    with pytest.raises(NotTotal, match=says):
        check_total(parse_expression(text, SCOPE), DOMAIN)


def test_expressions_of_other_kinds_are_checked_in_their_numbers() -> None:
    """Members and lists are total by themselves; their conditions are checked."""
    scope = Scope("tools", frozenset({"stress"}))
    check_total(parse_expression("[a] if stress > 0.5 else current", scope), DOMAIN)
    with pytest.raises(NotTotal):
        check_total(parse_expression("[a] if 1 / stress > 2 else []", scope), DOMAIN)
    with pytest.raises(AssertionError):
        bounds_of(Member("a"), DOMAIN)
