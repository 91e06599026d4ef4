"""What one key or tenant has used of its limits, in this process."""

from __future__ import annotations

from typing import Final, NamedTuple

from lukhas.access.limit import Holder, HolderKind, Limits
from lukhas.access.usage import DAY_MS
from lukhas.access.window import SPAN_MS, Window

_WINDOWS_S: Final = {
    "requests_per_minute": SPAN_MS // 1000,
    "tokens_per_minute": SPAN_MS // 1000,
    "requests_per_day": DAY_MS // 1000,
    "tokens_per_day": DAY_MS // 1000,
}


class Standing(NamedTuple):
    """How far one limit is used.

    Attributes:
        name: a field of `Limits`.
        limit, used: `used` holds what calls in flight have reserved, and may be larger than the limit.
        reset_ms: when nothing of it is used any more, if nobody calls meanwhile; 0 for calls at once.
        kind: whose limit it is, 'key' or 'tenant'.
    """

    name: str
    limit: int
    used: int
    reset_ms: int
    kind: HolderKind

    @property
    def remaining(self) -> int:
        """What is left, 0 at least."""
        return max(0, self.limit - self.used)


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
        policy: the limits in the form of the `RateLimit-Policy` header; calls at once are not in it.
    """

    __slots__ = ("calls", "holder", "limits", "name", "policy", "requests", "today", "tokens")

    def __init__(self, holder: Holder, limits: Limits) -> None:
        self.holder = holder
        self.name = holder.text
        self.requests = Window()
        self.tokens = Window()
        self.calls = 0
        self.today: DayCount | None = None
        self.adopt(limits)

    def adopt(self, limits: Limits) -> None:
        """Take other limits; what was counted stays."""
        self.limits = limits
        self.policy = ", ".join(
            f"{policy_name(self.holder.kind, name)};q={limit};w={window_s}"
            for name, window_s in _WINDOWS_S.items()
            if (limit := getattr(limits, name)) is not None
        )
        if not limits.has_daily:
            self.today = None

    def expire(self, now_ms: int) -> None:
        """Let go of what is older than a minute, on the monotonic clock."""
        self.requests.expire(now_ms)
        self.tokens.expire(now_ms)

    def standings(self, now_ms: int, until_tomorrow_ms: int) -> list[Standing]:
        """Return how far each limit that is set is used."""
        self.expire(now_ms)
        limits, today, kind = self.limits, self.today, self.holder.kind
        found: list[Standing] = []
        limit = limits.requests_per_minute
        if limit is not None:
            found.append(
                Standing("requests_per_minute", limit, self.requests.used, self.requests.reset_ms(now_ms), kind)
            )
        limit = limits.tokens_per_minute
        if limit is not None:
            found.append(Standing("tokens_per_minute", limit, self.tokens.used, self.tokens.reset_ms(now_ms), kind))
        limit = limits.concurrent_calls
        if limit is not None:
            found.append(Standing("concurrent_calls", limit, self.calls, 0, kind))
        if today is None:
            return found
        limit = limits.requests_per_day
        if limit is not None:
            reset_ms = until_tomorrow_ms if today.requests > 0 else 0
            found.append(Standing("requests_per_day", limit, today.requests, reset_ms, kind))
        limit = limits.tokens_per_day
        if limit is not None:
            reset_ms = until_tomorrow_ms if today.tokens > 0 else 0
            found.append(Standing("tokens_per_day", limit, today.tokens, reset_ms, kind))
        return found


def policy_name(kind: HolderKind, limit: str) -> str:
    """Return a limit's name in the `RateLimit` headers: `"key-tokens-per-day"`, quotes included."""
    return f'"{kind}-{limit.replace("_", "-")}"'
