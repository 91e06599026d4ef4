"""The literal prefilter: one pass over a text says which rules can match at all, and near which places.

Aho-Corasick over the folded text. A rule whose pattern holds no literal is always a candidate, everywhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import ahocorasick_rs

from lukhas.moderation.fold import count_characters, fold

# A table for every state: fastest by far, and at this size still small.
_MAX_DFA_BYTES: Final = 20_000
# Past this many hits of a rule, looking at each costs more than looking at the whole text.
_MAX_HITS: Final = 2_000

Stretch = tuple[int, int]


class Prefilter:
    """Finds the needles of many rules in one pass."""

    def __init__(self, needs: Mapping[int, Sequence[bytes]]) -> None:
        """Build it.

        Args:
            needs: folded needles by the rule's number; a rule without needles does not belong here.
        """
        owners: dict[bytes, list[int]] = {}
        for number, needles in needs.items():
            for needle in needles:
                owners.setdefault(needle, []).append(number)
        needles = sorted(owners)
        self._owners = [tuple(owners[needle]) for needle in needles]
        size = sum(map(len, needles))
        kinds = ahocorasick_rs.Implementation
        self._search = (
            ahocorasick_rs.BytesAhoCorasick(
                needles, implementation=kinds.DFA if size <= _MAX_DFA_BYTES else kinds.ContiguousNFA
            ).find_matches_as_indexes
            if needles
            else None
        )

    def find(self, text: str) -> dict[int, list[Stretch]] | None:
        """Return where needles stand in a text, by rule, each list in order of its starts; None where none does.

        An empty list says that there are too many places to tell: look everywhere.
        """
        if self._search is None:
            return None
        folded = fold(text)
        hits = self._search(folded, overlapping=True)
        if not hits:
            return None
        found: dict[int, list[Stretch]] = {}
        if len(hits) > _MAX_HITS:
            return {number: [] for needle, _, _ in hits for number in self._owners[needle]}
        if len(folded) != len(text):
            hits = _in_characters(folded, hits)
        for needle, start, end in hits:
            for number in self._owners[needle]:
                found.setdefault(number, []).append((start, end))
        return found


def _in_characters(folded: bytes, hits: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    marks = sorted({place for _, start, end in hits for place in (start, end)})
    places: dict[int, int] = {}
    before, count = 0, 0
    for mark in marks:
        count += count_characters(folded, before, mark)
        places[mark] = count
        before = mark
    return [(needle, places[start], places[end]) for needle, start, end in hits]


def make_windows(stretches: Sequence[Stretch], reach: int, length: int) -> list[Stretch]:
    """Return the stretches of a text in which every match that holds one of these stretches lies, merged.

    Args:
        stretches: where needles stand.
        reach: most characters of one match.
        length: of the text.
    """
    windows: list[Stretch] = []
    for start, end in sorted(stretches):
        low, high = max(0, end - reach), min(length, start + reach)
        if windows and low <= windows[-1][1]:
            windows[-1] = (windows[-1][0], max(high, windows[-1][1]))
        else:
            windows.append((low, high))
    return windows
