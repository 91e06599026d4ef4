"""Rules that only report: they hold nothing back, so they look at a stream's text in batches."""

from __future__ import annotations

from typing import Final

from lukhas.moderation.watch import Alive, Match, Watches

# Wherever the text was cut, batches end at multiples of this, so that cuts make no difference.
_BATCH_CHARS: Final = 1024


class Notes:
    """Follows the rules that only report through one run. Places are in characters of the run."""

    __slots__ = ("_alive", "_base", "_held", "_waiting", "_waiting_chars", "_watches")

    def __init__(self, watches: Watches) -> None:
        self._watches = watches
        self._held = ""
        self._base = 0
        self._alive: Alive = watches.alive
        self._waiting: list[str] = []
        self._waiting_chars = 0

    def take(self, text: str) -> list[Match]:
        """Take the next text of the run and return matches that are sure by now.

        Raises:
            SearchTimeout: a rule took too long.
        """
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if self._waiting_chars < _BATCH_CHARS:
            return []
        waiting = "".join(self._waiting)
        whole = len(waiting) - len(waiting) % _BATCH_CHARS
        found: list[Match] = []
        # Where much has come at once, most rules need not look at each batch of it.
        absent = self._watches.list_absent(self._held + waiting) if whole > _BATCH_CHARS else frozenset[int]()
        for place in range(0, whole, _BATCH_CHARS):
            found += self._look(waiting[place : place + _BATCH_CHARS], absent)
        self._waiting = [waiting[whole:]]
        self._waiting_chars = len(waiting) - whole
        return found

    def finish(self, text: str) -> list[Match]:
        """Take the last text of the run and return all matches that are left.

        Raises:
            SearchTimeout: a rule took too long.
        """
        found = self.take(text)
        found += self._look("".join(self._waiting))
        left = self._watches.finish(self._held, self._alive)
        return found + [match.shift(self._base) for match in left]

    def _look(self, batch: str, absent: frozenset[int] = frozenset()) -> list[Match]:
        text = self._held + batch
        alive, found = self._watches.advance_late(text, len(self._held), self._alive, absent)
        matches = [match.shift(self._base) for match in found]
        low = min((start for start, _ in alive.values()), default=len(text)) - self._watches.context_chars
        low = max(0, low)
        self._held, self._base = text[low:], self._base + low
        self._alive = {number: (start - low, told) for number, (start, told) in alive.items()}
        return matches
