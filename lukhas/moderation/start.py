"""Learns, and remembers, which rules a match of which could begin with some characters.

Most places of most texts begin nothing. So the engine is asked once for each few characters with the one before them,
and the answer is kept: rules are ruled out, never in. A rule that is not ruled out is looked for by its probe.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from lukhas.moderation.fold import fold
from lukhas.moderation.probe import Probe
from lukhas.moderation.ruleset import CompiledRule

# Answers are kept for so many character sequences, a few MB in all; past it they are forgotten and learnt again.
MAX_KEPT: Final = 32_768
# The character before a place, and so many from it on.
MAX_CHARS: Final = 6

Rules = tuple[int, ...]
_NONE: Final[Rules] = ()


class StartTable:
    """Which rules may begin at a place, by the characters around it. Shared by all streams of a plan.

    Attributes:
        known: rules by the character before a place and the one at it; what is missing is learnt by `find`.
    """

    __slots__ = ("_befores", "_begun", "_by_character", "_classes", "_first", "_heads", "_probes", "_rules", "known")

    def __init__(self, entries: Sequence[tuple[int, Probe, CompiledRule]]) -> None:
        """Take rules, each with its number and its probe."""
        self._rules: Rules = tuple(number for number, *_ in entries)
        self._probes = {number: probe for number, probe, _ in entries}
        # Of the first character, of the one before it, and of the first few, what is known without asking a probe.
        self._classes = {number: re.compile(rule.starts).match for number, _, rule in entries if rule.starts}
        self._befores = {number: re.compile(rule.follows).match for number, _, rule in entries if rule.follows}
        self._heads = {number: rule.heads for number, _, rule in entries if rule.heads}
        self._begun: dict[int, frozenset[str]] = {}
        self._by_character: dict[str, Rules] = {}
        self.known: dict[str, Rules] = {}
        self._first: dict[str, Rules] = {}

    def find(self, text: str, place: int) -> Rules:
        """Return the rules of which a match could begin at a place, going by the few characters there."""
        table, before, low = (self.known, 1, place - 1) if place else (self._first, 0, 0)
        found: Rules = self._rules
        for end in range(place + 1, min(place + MAX_CHARS, len(text) + 1)):
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

    def begins_none(self, character: str) -> bool:
        """Whether no match begins with a character, whatever stands around it."""
        return not self._learn_character(character)

    def _learn(self, key: str, place: int, candidates: Rules) -> Rules:
        if len(key) == place + 1:
            candidates = self._learn_character(key[-1])
        probes, befores, heads = self._probes, self._befores, self._heads
        begins = fold(key[place:]).decode("utf-8", "surrogatepass")
        kept: list[int] = []
        for number in candidates:
            if number in befores and not (place and befores[number](key)):
                continue
            if number in heads and not self._can_begin(number, begins):
                continue
            begin = probes[number].begin
            if begin is None or begin.match(key, place, partial=True, concurrent=False) is not None:
                kept.append(number)
        return tuple(kept)

    def _can_begin(self, number: int, begins: str) -> bool:
        begun = self._begun.get(number)
        if begun is None:
            begun = frozenset(head[:size] for head in self._heads[number] for size in range(1, MAX_CHARS))
            self._begun[number] = begun
        return begins in begun or any(begins[:size] in self._heads[number] for size in range(1, len(begins)))

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
