"""A sliding window of one minute: no 60 seconds, wherever they begin, hold more than was let in.

A bucket that refills lets twice its size through within a minute, and so does a counter that starts anew each minute;
here what was counted leaves exactly 60 seconds later, so the time until something fits is known to the millisecond.
What comes within a quarter of a second is kept as one entry, which bounds an account to 240 of them.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SPAN_MS: Final = 60_000
_TOGETHER_MS: Final = 250


class Entry:
    """What was counted within a quarter of a second.

    Attributes:
        first_ms, last_ms: when, on the monotonic clock; it leaves the window one span after `last_ms`.
        amount: what counts of it.
        held: the part of `amount` that is only reserved, by calls in flight.
        is_past: it has left the window, so that nothing can be given back to it.
    """

    __slots__ = ("amount", "first_ms", "held", "is_past", "last_ms")

    def __init__(self, now_ms: int) -> None:
        self.first_ms = now_ms
        self.last_ms = now_ms
        self.amount = 0
        self.held = 0
        self.is_past = False


class Window:
    """How much was counted in the last 60 seconds.

    Attributes:
        used: the sum, after `expire`.
        held: the part of it that is only reserved.
    """

    __slots__ = ("_entries", "held", "used")

    def __init__(self) -> None:
        self.used = 0
        self.held = 0
        self._entries: deque[Entry] = deque()

    def expire(self, now_ms: int) -> None:
        """Let go of what is 60 seconds old. To be called before anything is read."""
        entries = self._entries
        while entries and now_ms - entries[0].last_ms >= SPAN_MS:
            entry = entries.popleft()
            entry.is_past = True
            self.used -= entry.amount
            self.held -= entry.held

    def hold(self, now_ms: int, amount: int) -> Entry:
        """Count an amount as reserved, and return the entry for `settle`."""
        entry = self._enter(now_ms)
        entry.amount += amount
        entry.held += amount
        self.used += amount
        self.held += amount
        return entry

    def settle(self, entry: Entry, reserved: int, actual: int, now_ms: int) -> None:
        """Turn what was reserved into what was used; what goes beyond the reservation counts from now on."""
        self.expire(now_ms)
        if not entry.is_past:
            entry.held -= reserved
            self.held -= reserved
            if actual < reserved:
                entry.amount -= reserved - actual
                self.used -= reserved - actual
        if actual > reserved:
            late = self._enter(now_ms)
            late.amount += actual - reserved
            self.used += actual - reserved

    def wait_ms(self, now_ms: int, most: int) -> int:
        """Return how long it takes until no more than `most` is used, if nothing else is counted; at most one span."""
        excess = self.used - most
        for entry in self._entries:
            if excess <= 0:
                break
            excess -= entry.amount
            if excess <= 0:
                return max(0, entry.last_ms + SPAN_MS - now_ms)
        return 0 if excess <= 0 else SPAN_MS

    def reset_ms(self, now_ms: int) -> int:
        """Return how long it takes until nothing is used, if nothing else is counted."""
        return self.wait_ms(now_ms, 0) if self.used > 0 else 0

    def _enter(self, now_ms: int) -> Entry:
        entries = self._entries
        if entries and now_ms - entries[-1].first_ms < _TOGETHER_MS:
            entry = entries[-1]
            entry.last_ms = now_ms
        else:
            entry = Entry(now_ms)
            entries.append(entry)
        return entry
