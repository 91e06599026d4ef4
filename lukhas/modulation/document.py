"""Reads fields of a YAML document one by one and collects every mistake instead of stopping at the first."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Final, cast

from lukhas.modulation.yaml_source import Item, Mistake, Place

# A file with more is another kind of file; listing 80,000 unknown keys takes seconds and helps nobody.
MAX_MISTAKES: Final = 100


class MistakeList:
    """The mistakes found so far in one document, at most 100."""

    def __init__(self) -> None:
        self.found: list[Mistake] = []

    @property
    def is_full(self) -> bool:
        """Whether no further mistake is taken."""
        return len(self.found) >= MAX_MISTAKES

    def add(self, item: Item, message: str, *, at: Place | None = None, key: bool = False) -> None:
        """Note a mistake at an item, at its key, or at a place inside it."""
        if self.is_full:
            return
        self.found.append(Mistake(at or (item.key_place if key else item.place), item.path, message))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return '; did you mean ...?' for the nearest known name, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{near[0]}'?" if near else ""


class Table:
    """One mapping of the document, read field by field; `close` reports what was not read."""

    def __init__(self, item: Item, mistakes: MistakeList) -> None:
        self.item = item
        self.mistakes = mistakes
        self._known: list[str] = []
        if isinstance(item.value, dict):
            self.entries: Mapping[str, Item] = item.value
        else:
            self.entries = {}
            mistakes.add(item, "must be a table (key: value)")

    def close(self) -> None:
        """Report every key that nothing has asked for."""
        for key, item in self.entries.items():
            if self.mistakes.is_full:
                return
            if key not in self._known:
                self.mistakes.add(item, f"unknown key '{key[:64]}'{nearest(key[:64], self._known)}", key=True)

    def get(self, key: str, *, required: bool = False) -> Item | None:
        """Return the item under a key; report it missing where it is required."""
        self._known.append(key)
        item = self.entries.get(key)
        if item is None and required and isinstance(self.item.value, dict):
            self.mistakes.add(self.item, f"'{key}' is missing")
        return item

    def table(self, key: str, *, required: bool = False) -> Table | None:
        """Return the table under a key."""
        item = self.get(key, required=required)
        return None if item is None else Table(item, self.mistakes)

    def word(self, key: str, allowed: Iterable[str] | None = None, *, default: str | None = None) -> str:
        """Return a text, one of `allowed` where given; required where there is no default."""
        item = self.get(key, required=default is None)
        if item is None:
            return default or ""
        options = list(allowed) if allowed is not None else None
        value = item.value
        if not isinstance(value, str):
            self.mistakes.add(item, f"must be {'one of ' + ', '.join(options) if options else 'a text'}")
        elif options is not None and value not in options:
            self.mistakes.add(item, f"must be one of {', '.join(options)}{nearest(value, options)}")
        else:
            return value
        return default or ""

    def number(self, key: str, low: float, high: float, *, default: float | None = None) -> float:
        """Return a number inside [low, high]."""
        item = self.get(key, required=default is None)
        fallback = low if default is None else default
        if item is None:
            return fallback
        value = item.value
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            self.mistakes.add(item, f"must be a number from {low:g} to {high:g}")
            return fallback
        return float(value)

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """Return a whole number inside [low, high]."""
        item = self.get(key, required=default is None)
        fallback = low if default is None else default
        if item is None:
            return fallback
        value = item.value
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            self.mistakes.add(item, f"must be a whole number from {low} to {high}")
            return fallback
        return value

    def words(self, key: str, *, required: bool = False, most: int = 256) -> list[tuple[str, Item]]:
        """Return a list of distinct texts, each with its place."""
        item = self.get(key, required=required)
        if item is None:
            return []
        if not isinstance(item.value, list):
            self.mistakes.add(item, "must be a list such as [a, b]")
            return []
        if len(item.value) > most:
            self.mistakes.add(item, f"must have at most {most} entries")
        found: dict[str, Item] = {}
        for entry in item.value[:most]:
            value = cast(object, entry.value)
            if not isinstance(value, str) or not value:
                self.mistakes.add(entry, "must be a text")
            elif value in found:
                self.mistakes.add(entry, f"'{value}' stands twice")
            else:
                found[value] = entry
        return list(found.items())
