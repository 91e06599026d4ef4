"""What would have changed, counted: per parameter, style and safety mode, with distributions before and after.

A tally of one part of the log adds to that of another, so that parts can be counted apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import msgspec

from lukhas.modulation.policy import ParameterSpec, Policy

BINS: Final = 24
MOST_LABELS: Final = 64
MOST_EXAMPLES: Final = 10
OTHERS: Final = "(others)"


class Spread(msgspec.Struct):
    """How the values of one parameter are distributed, before and after.

    Attributes:
        edges: bin i holds edges[i] <= value < edges[i + 1], the last bin its upper edge too; empty for words.
        before, after: calls by bin; two more entries count what lies below and above all bins.
        words_before, words_after: calls by value, for enums and lists of tools.
    """

    edges: list[float] = []
    before: list[int] = []
    after: list[int] = []
    words_before: dict[str, int] = {}
    words_after: dict[str, int] = {}

    def add(self, before: Any, after: Any, count: int) -> None:
        """Count one value before and one after."""
        if not self.edges:
            _count_word(self.words_before, before, count)
            _count_word(self.words_after, after, count)
            return
        place = self._bin(before)
        self.before[place] += count
        self.after[place if before == after else self._bin(after)] += count

    def _bin(self, value: Any) -> int:
        edges = self.edges
        bins = len(edges) - 1
        low, high = edges[0], edges[-1]
        if not isinstance(value, (int, float)) or value < low:
            return bins
        if value > high:
            return bins + 1
        found = int((value - low) / (high - low) * bins)
        return found if found < bins else bins - 1


class Change(msgspec.Struct):
    """What changed of one parameter.

    Attributes:
        calls: in how many calls its value would have been another.
        tighter, looser: of these, in which direction; zero for a parameter without direction.
        raised, lowered: of these, which way a number moved.
        total, largest: sum and maximum of the absolute changes of numbers.
        newly_set, no_longer_set: calls in which only the candidate, or only the old policy, touches it.
    """

    tighter_is: str | None
    spread: Spread
    calls: int = 0
    tighter: int = 0
    looser: int = 0
    raised: int = 0
    lowered: int = 0
    total: float = 0.0
    largest: float = 0.0
    newly_set: int = 0
    no_longer_set: int = 0


class Example(msgspec.Struct, frozen=True):
    """One call that would have changed, to be looked at."""

    audit_id: str
    parts: list[str]


class Tally(msgspec.Struct):
    """Counts over some decisions.

    Attributes:
        read: decisions that were read.
        checked: of these, compared with what their own revision decides.
        simulated: of these, decided by the candidate.
        changed: of these, with any other parameter, style, touched parameter or tool.
        refused: calls that the candidate cannot decide, by reason.
        cut: records that were too long to be kept whole.
        unreadable: records that are no decision of a form that this program knows.
        unknown: records of a revision whose text is not at hand, by policy id.
        undeclared: calls with a signal that the candidate does not declare, by signal.
        mismatches: index, audit id and the differing parts of each record that is not what its revision decides.
        mismatch_count: how many there are; the list is bounded.
    """

    changes: dict[str, Change]
    read: int = 0
    checked: int = 0
    simulated: int = 0
    changed: int = 0
    refused: dict[str, int] = {}
    cut: int = 0
    unreadable: int = 0
    unknown: dict[str, int] = {}
    undeclared: dict[str, int] = {}
    styles: dict[tuple[str, str], int] = {}
    modes: dict[tuple[str, str], int] = {}
    tools_blocked: dict[str, int] = {}
    tools_allowed: dict[str, int] = {}
    calls_with_tools: int = 0
    examples: list[Example] = []
    mismatches: list[tuple[int, str, list[str]]] = []
    mismatch_count: int = 0


def make_tally(candidate: Policy, revisions: Iterable[Policy]) -> Tally:
    """Return an empty tally whose distributions span the bounds of all these policies."""
    policies = [candidate, *revisions]
    changes: dict[str, Change] = {}
    for name, spec in candidate.parameters.items():
        others = [policy.parameters[name] for policy in policies if name in policy.parameters]
        changes[name] = Change(spec.tighter, _make_spread(spec, others))
    return Tally(changes)


def add_change(tally: Tally, spec: ParameterSpec, before: Any, after: Any, count: int) -> bool:
    """Count one parameter's values before and after, for `count` calls; return whether they differ."""
    change = tally.changes[spec.name]
    change.spread.add(before, after, count)
    if before == after:
        return False
    change.calls += count
    if _is_number(before) and _is_number(after):
        delta = after - before
        change.total += abs(delta) * count
        change.largest = max(change.largest, abs(delta))
        change.raised += count * (delta > 0)
        change.lowered += count * (delta < 0)
    tighter, looser = _direct(spec, before, after)
    change.tighter += count * tighter
    change.looser += count * looser
    return True


def merge(tally: Tally, other: Tally) -> None:
    """Add another tally of the same policies to this one."""
    for name, change in other.changes.items():
        _merge_change(tally.changes[name], change)
    for field in ("read", "checked", "simulated", "changed", "cut", "unreadable", "calls_with_tools", "mismatch_count"):
        setattr(tally, field, getattr(tally, field) + getattr(other, field))
    for field in ("refused", "unknown", "undeclared", "styles", "modes", "tools_blocked", "tools_allowed"):
        mine: dict[Any, int] = getattr(tally, field)
        for key, count in getattr(other, field).items():
            add_count(mine, key, count)
    tally.examples = (tally.examples + other.examples)[:MOST_EXAMPLES]
    tally.mismatches = sorted(tally.mismatches + other.mismatches)[:MOST_LABELS]


def add_count(counts: dict[Any, int], key: Any, count: int) -> None:
    """Add to a count; past the most labels a new one counts among the others."""
    if key not in counts and len(counts) >= MOST_LABELS:
        key = (OTHERS, OTHERS) if isinstance(key, tuple) else OTHERS
    counts[key] = counts.get(key, 0) + count


def _merge_change(mine: Change, other: Change) -> None:
    for field in ("calls", "tighter", "looser", "raised", "lowered", "total", "newly_set", "no_longer_set"):
        setattr(mine, field, getattr(mine, field) + getattr(other, field))
    mine.largest = max(mine.largest, other.largest)
    spread, theirs = mine.spread, other.spread
    spread.before = [a + b for a, b in zip(spread.before, theirs.before, strict=True)]
    spread.after = [a + b for a, b in zip(spread.after, theirs.after, strict=True)]
    for word, count in theirs.words_before.items():
        add_count(spread.words_before, word, count)
    for word, count in theirs.words_after.items():
        add_count(spread.words_after, word, count)


def _make_spread(spec: ParameterSpec, others: list[ParameterSpec]) -> Spread:
    if spec.kind not in ("number", "integer"):
        return Spread()
    numeric = [other for other in others if other.kind in ("number", "integer")]
    low, high = min(other.low for other in numeric), max(other.high for other in numeric)
    span = high - low
    if spec.kind == "integer" and span < BINS:
        count = int(span) + 1
        edges = [low - 0.5 + step for step in range(count + 1)]
    else:
        count = BINS
        span = span or 1.0
        edges = [low + span * step / count for step in range(count + 1)]
    return Spread(edges, [0] * (count + 2), [0] * (count + 2))


def _count_word(words: dict[str, int], value: Any, count: int) -> None:
    word = ", ".join(map(str, cast("list[object]", value))) or "(none)" if isinstance(value, list) else str(value)
    add_count(words, word, count)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _direct(spec: ParameterSpec, before: Any, after: Any) -> tuple[bool, bool]:
    """Return whether a change tightens and whether it loosens; a list of tools can do both."""
    if spec.tighter in ("lower", "higher"):
        if not (_is_number(before) and _is_number(after)):
            return False, False
        is_tighter = (after < before) == (spec.tighter == "lower")
        return is_tighter, not is_tighter
    if spec.tighter == "first":
        order: Mapping[Any, int] = {value: place for place, value in enumerate(spec.values)}
        if before not in order or after not in order:
            return False, False
        return order[after] < order[before], order[after] > order[before]
    if spec.tighter == "subset":
        old, new = Counter(cast("list[str]", before)), Counter(cast("list[str]", after))
        return bool(old - new), bool(new - old)
    return False, False
