"""What one key or tenant has used of its limits, in this process."""

from __future__ import annotations

from typing import Final, NamedTuple

from lukhas.access.limit import Holder, Limits
from lukhas.access.window import SPAN_MS, Window

DAY_S: Final = 86_400


class Standing(NamedTuple):
    """How far one limit is used.

    Attributes:
        name: a field of `Limits`.
        limit, used: `used` holds what calls in flight have reserved, and may be larger than the limit.
        reset_ms: when nothing of it is used any more, if nobody calls meanwhile; 0 for calls at once.
    """

    name: str
    limit: int
    used: int
    reset_ms: int

    @property
    def remaining(self) -> int:
        """What is left, 0 at least."""
        return max(0, self.limit - self.used)

    @property
    def window_s(self) -> int:
        """How long a span the limit holds for; 0 for calls at once."""
        return 0 if self.name == "concurrent_calls" else DAY_S if self.name.endswith("_day") else SPAN_MS // 1000


class DayCount:
    """What a holder used on one day.

    Attributes:
        day: whole days since the epoch, UTC.
        held: the part of `tokens` that calls in flight have reserved.
    """

    __slots__ = ("day", "held", "requests", "tokens")

    def __init__(self, day: int, tokens: int = 0, requests: int = 0) -> None:
        self.day = day
        self.tokens = tokens
        self.requests = requests
        self.held = 0


class Account:
    """The counters of one holder.

    Attributes:
        name: the holder's text, as usage is stored under it.
        calls: calls in flight.
        today: set where a daily limit is.
    """

    __slots__ = ("calls", "holder", "limits", "name", "requests", "today", "tokens")

    def __init__(self, holder: Holder, limits: Limits) -> None:
        self.holder = holder
        self.name = holder.text
        self.limits = limits
        self.requests = Window()
        self.tokens = Window()
        self.calls = 0
        self.today: DayCount | None = None

    def expire(self, now_ms: int) -> None:
        """Let go of what is older than a minute, on the monotonic clock."""
        self.requests.expire(now_ms)
        self.tokens.expire(now_ms)

    def standings(self, now_ms: int, until_tomorrow_ms: int) -> list[Standing]:
        """Return how far each limit that is set is used."""
        self.expire(now_ms)
        limits, today = self.limits, self.today
        found: list[Standing] = []
        if limits.requests_per_minute is not None:
            window = self.requests
            found.append(
                Standing("requests_per_minute", limits.requests_per_minute, window.used, window.reset_ms(now_ms))
            )
        if limits.tokens_per_minute is not None:
            window = self.tokens
            found.append(Standing("tokens_per_minute", limits.tokens_per_minute, window.used, window.reset_ms(now_ms)))
        if limits.concurrent_calls is not None:
            found.append(Standing("concurrent_calls", limits.concurrent_calls, self.calls, 0))
        if today is not None and limits.requests_per_day is not None:
            used = today.requests
            found.append(
                Standing("requests_per_day", limits.requests_per_day, used, until_tomorrow_ms if used > 0 else 0)
            )
        if today is not None and limits.tokens_per_day is not None:
            used = today.tokens
            found.append(Standing("tokens_per_day", limits.tokens_per_day, used, until_tomorrow_ms if used > 0 else 0))
        return found
