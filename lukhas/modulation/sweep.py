"""Where two functions of one level differ: sampled on a fine grid, with the ends of each range searched out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

STEPS: Final = 200
# Where a condition holds from a number on, the grid must stand on both sides of it.
_BESIDE: Final = 1e-6
_HALVINGS: Final = 18
_SAME: Final = 1e-9

Reading = Callable[[float], Any]


class Span(msgspec.Struct, frozen=True):
    """A range of levels over which two readings differ in one way.

    Attributes:
        low, high: the range, ratios in [0, 1].
        at: where the difference is largest; for what is no number, the range's low end.
        before, after: both readings there.
        is_even: whether numbers differ by the same everywhere in the range.
    """

    low: float
    high: float
    at: float
    before: Any
    after: Any
    is_even: bool = False


def make_grid(landmarks: Iterable[float] = ()) -> list[float]:
    """Return 201 levels from 0 to 1, with each landmark inside and a point on both sides of it."""
    points = {step / STEPS for step in range(STEPS + 1)}
    for mark in landmarks:
        points |= {mark - _BESIDE, mark, mark + _BESIDE}
    return sorted(point for point in points if 0.0 <= point <= 1.0)


def sweep(before: Reading, after: Reading, grid: list[float]) -> list[Span]:
    """Return the ranges over which the readings differ; neighbouring points that differ in the same way are one."""
    spans: list[Span] = []
    run: list[tuple[float, Any, Any]] = []
    way: object = None
    last: float | None = None
    for x in grid:
        a, b = before(x), after(x)
        now = _way(a, b)
        if now != way:
            edge = None if last is None else _find_edge(before, after, last, x, way)
            if run:
                spans.append(_close(run, edge))
            run = []
            if now is not None and edge is not None and edge[1] < x:
                run.append((edge[1], before(edge[1]), after(edge[1])))
        if now is not None:
            run.append((x, a, b))
        way, last = now, x
    if run:
        spans.append(_close(run, None))
    return spans


def _way(a: Any, b: Any) -> object:
    """Return in which way two readings differ; None where they do not."""
    if _is_number(a) and _is_number(b):
        return None if abs(b - a) <= _SAME else "lower" if b < a else "higher"
    if a is None or b is None:
        return None if a is b else "new" if a is None else "gone"
    return None if a == b else (repr(a), repr(b))


def _find_edge(before: Reading, after: Reading, low: float, high: float, way: object) -> tuple[float, float]:
    """Return the last level found that differs in the old way, and the first that does not."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _way(before(middle), after(middle)) == way:
            low = middle
        else:
            high = middle
    return low, high


def _close(run: list[tuple[float, Any, Any]], edge: tuple[float, float] | None) -> Span:
    low = run[0][0]
    high = run[-1][0] if edge is None else max(edge[0], run[-1][0])
    if not (_is_number(run[0][1]) and _is_number(run[0][2])):
        at, a, b = run[-1] if run[0][1] is None or run[0][2] is None else run[0]
        return Span(low, high, at, a, b)
    sizes = [abs(b - a) for _, a, b in run]
    largest = max(sizes)
    # Of equally large differences the roundest place, near the middle: a range's end is the least telling.
    places = [place for place, size in enumerate(sizes) if largest - size <= _SAME]
    places = [place for place in places if 0 < place < len(run) - 1] or places
    middle = places[len(places) // 2]
    at, a, b = run[min(places, key=lambda place: (len(f"{run[place][0]:g}"), abs(place - middle)))]
    return Span(low, high, at, a, b, is_even=largest - min(sizes) <= _SAME)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
