"""Learns, and remembers, which rules a match of which could begin with some characters.

Most places of most texts begin nothing. So the engine is asked once for each few characters with the one before them,
and the answer is kept: rules are ruled out, never in. A rule that is not ruled out is looked for by its probe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lukhas.moderation.probe import Pattern

# Answers are kept for so many character sequences, a few MB in all; past it they are forgotten and learnt again.
MAX_KEPT: Final = 32_768
# The character before a place, and so many from it on.
_MAX_CHARS: Final = 6

Rules = tuple[int, ...]
_NONE: Final[Rules] = ()


class StartTable:
    """Which rules may begin at a place, by the characters around it. Shared by all streams of a plan.

    Attributes:
        known: rules by the character before a place and the one at it; what is missing is learnt by `find`.
    """

    __slots__ = ("_by_character", "_classes", "_first", "_patterns", "_rules", "known")

    def __init__(self, entries: Sequence[tuple[int, Pattern | None, str | None]]) -> None:
        """Take rules.

        Args:
            entries: a rule's number; its probe's pattern, None where more than one character before a match counts; a
                `re` pattern of one character with which every match begins, None where that is not known.
        """
        self._rules: Rules = tuple(number for number, _, _ in entries)
        self._patterns = {number: pattern for number, pattern, _ in entries if pattern is not None}
        self._classes = {number: re.compile(starts).match for number, _, starts in entries if starts is not None}
        self._by_character: dict[str, Rules] = {}
        self.known: dict[str, Rules] = {}
        self._first: dict[str, Rules] = {}

    def find(self, text: str, place: int) -> Rules:
        """Return the rules of which a match could begin at a place, going by the few characters there."""
        table, before, low = (self.known, 1, place - 1) if place else (self._first, 0, 0)
        found: Rules = self._rules
        for end in range(place + 1, min(place + _MAX_CHARS, len(text) + 1)):
            key = text[low:end]
            kept = table.get(key)
            if kept is None:
                kept = self._learn(key, before, found)
                if not kept and len(key) <= before + 1 and not self._by_character[key[-1]]:
                    # Told by one character alone: not worth a place in the table.
                    return _NONE
                if len(table) >= MAX_KEPT:
                    table.clear()
                table[key] = kept
            if not kept:
                return _NONE
            found = kept
        return found

    def _learn(self, key: str, place: int, candidates: Rules) -> Rules:
        if len(key) == place + 1:
            candidates = self._learn_character(key[-1])
        patterns = self._patterns
        kept: list[int] = []
        for number in candidates:
            pattern = patterns.get(number)
            if pattern is None or pattern.match(key, place, partial=True, concurrent=False) is not None:
                kept.append(number)
        return tuple(kept)

    def _learn_character(self, character: str) -> Rules:
        found = self._by_character.get(character)
        if found is None:
            classes = self._classes
            found = tuple(
                number for number in self._rules if number not in classes or classes[number](character) is not None
            )
            if len(self._by_character) >= MAX_KEPT:
                self._by_character.clear()
            self._by_character[character] = found
        return found
