"""The literal prefilter: one pass over a text says which rules can match at all, and near which places.

Aho-Corasick over the folded text. A rule whose pattern spells out no literal does not belong here: it runs everywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, cast

import ahocorasick

from lukhas.moderation.fold import count_characters, fold
from lukhas.moderation.need import Clause

# Past this many hits, looking at each costs more than looking at the whole text.
_MAX_HITS: Final = 4_000
# The search keeps the interpreter's lock; so many characters take a few milliseconds.
_STRETCH_CHARS: Final = 65_536

Stretch = tuple[int, int]
Hit = tuple[int, int, int]
_Search = Callable[[str], Iterable[tuple[int, tuple[int, int]]]]


class Prefilter:
    """Finds the needles of many rules in one pass."""

    def __init__(self, rules: Mapping[int, tuple[Sequence[Clause], int]]) -> None:
        """Build it.

        Args:
            rules: by the rule's number, its clauses and the most characters of a match, 0 where that is not bounded.
        """
        self._rule: list[int] = []
        self._reach: list[int] = []
        self._full: list[int] = []
        owners: dict[bytes, list[tuple[int, int]]] = {}
        for number, (clauses, reach) in rules.items():
            for clause in clauses:
                position = len(self._rule)
                self._rule.append(number)
                self._reach.append(reach)
                self._full.append((1 << len(clause)) - 1)
                for bit, needles in enumerate(clause):
                    for needle in needles:
                        owners.setdefault(needle, []).append((position, 1 << bit))
        needles = sorted(owners)
        # By needle: the clauses it counts for, each with the bit of its set.
        self._owners = [tuple(owners[needle]) for needle in needles]
        # It keeps the interpreter's lock: letting it go for the few microseconds of a short text would cost up to a
        # switch interval to get it back from the thread that writes records.
        # Its stubs leave types out.
        automaton: Any = cast("Any", ahocorasick).Automaton()
        for number, needle in enumerate(needles):
            automaton.add_word(needle.decode("latin-1"), (number, len(needle)))
        automaton.make_automaton()
        self._search: _Search | None = automaton.iter if needles else None
        self._longest = max(map(len, needles), default=0)

    def find(self, text: str) -> dict[int, list[Stretch]] | None:
        """Return the rules that can match in a text, each with places of which every match holds one.

        None where no rule can; an empty list of places says to look everywhere.
        """
        if self._search is None:
            return None
        folded = fold(text)
        letters = folded.decode("latin-1")
        search = self._search
        if len(letters) <= _STRETCH_CHARS:
            hits: list[Hit] = [(needle, last + 1 - size, last + 1) for last, (needle, size) in search(letters)]
        else:
            hits = self._find_hits(letters)
        if not hits:
            return None
        owners = self._owners
        seen: dict[int, int] = {}
        for needle in {hit[0] for hit in hits}:
            for clause, bit in owners[needle]:
                seen[clause] = seen.get(clause, 0) | bit
        full = self._full
        live = {clause for clause, bits in seen.items() if bits == full[clause]}
        if not live:
            return None
        if len(hits) > _MAX_HITS:
            return {self._rule[clause]: [] for clause in live}
        return self._place(folded, hits, live, is_wide=len(folded) != len(text)) or None

    def _find_hits(self, letters: str) -> list[Hit]:
        """Search a long text stretch by stretch: other threads get the interpreter's lock in between."""
        search, longest = self._search, self._longest
        hits: list[Hit] = []
        if search is None:
            return hits
        for begin in range(0, len(letters), _STRETCH_CHARS):
            # A needle over a seam ends in the later stretch, and only those that end there count.
            low = max(0, begin - longest + 1)
            for end, (needle, size) in search(letters[low : begin + _STRETCH_CHARS]):
                last = low + end
                if last >= begin:
                    hits.append((needle, last + 1 - size, last + 1))
        return hits

    def _place(self, folded: bytes, hits: Sequence[Hit], live: set[int], *, is_wide: bool) -> dict[int, list[Stretch]]:
        """Keep the places near which every set of a clause has a needle; bytes are taken for characters at least."""
        places: dict[int, dict[int, list[Stretch]]] = {clause: {} for clause in live}
        for needle, start, end in hits:
            for clause, bit in self._owners[needle]:
                if clause in live:
                    places[clause].setdefault(bit, []).append((start, end))
        found: dict[int, list[Stretch]] = {}
        everywhere: set[int] = set()
        for clause, by_set in places.items():
            number = self._rule[clause]
            # A character has at most four bytes.
            reach = self._reach[clause] * (4 if is_wide else 1)
            anchors, *others = sorted(by_set.values(), key=len)
            if not reach:
                everywhere.add(number)
                found.setdefault(number, [])
                continue
            for other in others:
                starts = [start for start, _ in other]
                starts.sort()
                anchors = [anchor for anchor in anchors if _is_near(starts, anchor, reach)]
            if anchors:
                found.setdefault(number, []).extend(anchors)
        for number in everywhere:
            found[number] = []
        return _in_characters(folded, found) if is_wide else found


def _is_near(starts: Sequence[int], anchor: Stretch, reach: int) -> bool:
    position = bisect_left(starts, anchor[1] - reach)
    return position < len(starts) and starts[position] < anchor[0] + reach


def _in_characters(folded: bytes, found: Mapping[int, Sequence[Stretch]]) -> dict[int, list[Stretch]]:
    marks = sorted({place for stretches in found.values() for stretch in stretches for place in stretch})
    places: dict[int, int] = {}
    before, count = 0, 0
    for mark in marks:
        count += count_characters(folded, before, mark)
        places[mark] = count
        before = mark
    return {number: [(places[start], places[end]) for start, end in stretches] for number, stretches in found.items()}


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
