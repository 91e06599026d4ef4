"""Injected time: every part that asks for the time takes a Clock."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What time it is. Both readings are whole milliseconds."""

    def now_ms(self) -> int:
        """Return wall-clock time in ms since the Unix epoch; may step back."""
        ...

    def monotonic_ms(self) -> int:
        """Return ms since an arbitrary start; never steps back."""
        ...


class SystemClock:
    """The machine's own clocks."""

    __slots__ = ()

    def now_ms(self) -> int:
        """Return wall-clock time in ms since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_ms(self) -> int:
        """Return ms since an arbitrary start."""
        return time.monotonic_ns() // 1_000_000


def format_utc(ms: int) -> str:
    """Format ms since the epoch as RFC 3339 in UTC with milliseconds: `2026-01-02T03:04:05.678Z`."""
    seconds, millis = divmod(ms, 1000)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{stamp}.{millis:03d}Z"
