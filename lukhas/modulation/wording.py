"""How differences between policies are put into words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec

from lukhas.modulation.sweep import Span


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One change.

    Attributes:
        area: policy, signal, parameter, map, decision, style, style_rule, tool, feedback or violations.
        name: what changes: a parameter for `map` and `decision`, else the thing's own name.
        text: the change in words.
        signal: for `map` and `decision`, whose.
        low, high: for `decision`, the range of that signal's level.
        at: where in the range the difference is largest.
        before, after: the values, for `decision` those at `at`.
    """

    area: str
    name: str
    text: str
    signal: str = ""
    low: float | None = None
    high: float | None = None
    at: float | None = None
    before: Any = None
    after: Any = None


def say_span(parameter: str, signal: str, span: Span, *, is_limit: bool, context: str = "") -> Change:
    """Put into words how one signal's effect on one parameter changes over a range of its level.

    Args:
        is_limit: the readings are a guard's limit, which the value may not be looser than.
        context: what else holds, such as 'and trust at 1'.
    """
    where = f"for {show_text(signal)} {show_range(span.low, span.high)}{context and f' {context}'}"
    text = f"{show_text(parameter)}: {where} {_say_values(span, is_limit=is_limit)}"
    return Change(
        "decision",
        parameter,
        text,
        signal=signal,
        low=round(span.low, 6),
        high=round(span.high, 6),
        at=round(span.at, 6),
        before=span.before,
        after=span.after,
    )


def say_corner(parameter: str, before: Any, after: Any) -> Change:
    """Put into words what changes where every signal is at its highest."""
    text = f"{show_text(parameter)}: with every signal at 1 {show_value(before)} -> {show_value(after)}"
    return Change("decision", parameter, text, before=before, after=after)


def show_range(low: float, high: float) -> str:
    """Return a range of levels, or one level."""
    shown, last = _show_level(low), _show_level(high)
    return f"{shown}-{last}" if shown != last else shown


def show_value(value: Any) -> str:
    """Return a number, a word or a list of names as people read it."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, (int, float)):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return show_list(cast("Sequence[str]", value))
    return show_text(str(value))


def show_list(names: Sequence[str]) -> str:
    """Return names in brackets."""
    return f"[{', '.join(show_text(name) for name in names)}]"


def show_span_ms(ms: int | None) -> str:
    """Return a time."""
    if ms is None:
        return "none"
    return f"{ms // 1000} s" if ms and ms % 1000 == 0 else f"{ms} ms"


def show_text(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split()) if text.strip() else repr(text)


def _show_level(level: float) -> str:
    short = f"{level:.2f}"
    return short if abs(float(short) - level) < 5e-5 else f"{level:.4f}".rstrip("0")


def _say_values(span: Span, *, is_limit: bool) -> str:
    before, after, at = span.before, span.after, _show_level(span.at)
    subject = "the limit is " if is_limit else ""
    if before is None:
        return f"it is limited now ({show_value(after)} at {at})"
    if after is None:
        return f"it is no longer limited ({show_value(before)} at {at} before)"
    if isinstance(before, (list, tuple)) and isinstance(after, (list, tuple)):
        return _say_names(cast("Sequence[str]", before), cast("Sequence[str]", after))
    if isinstance(before, (int, float)) and isinstance(after, (int, float)):
        way = "lower" if after < before else "higher"
        by = f"{'' if span.is_even else 'up to '}{abs(after - before):.4g}"
        return f"{subject}{way} by {by} ({show_value(before)} -> {show_value(after)} at {at})"
    return f"{subject}{show_value(after)} instead of {show_value(before)}"


def _say_names(before: Sequence[str], after: Sequence[str]) -> str:
    gone = [name for name in before if name not in after]
    new = [name for name in after if name not in before]
    if gone and new:
        return f"{show_list(after)} instead of {show_list(before)}"
    if not gone and not new:
        return f"{show_list(after)}, in another order"
    return f"without {', '.join(gone)}" if gone else f"with {', '.join(new)} too"
