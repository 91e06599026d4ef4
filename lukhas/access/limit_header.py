"""The rate-limit headers: OpenAI's, which its clients read, and the IETF draft's.

Sources: OpenAI's API reference, "Rate limits in headers"; draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lukhas.access.account import Account, Standing, policy_name

Headers = list[tuple[bytes, bytes]]
_UNITS: Final = {
    "requests_per_minute": "requests",
    "requests_per_day": "requests",
    "tokens_per_minute": "tokens",
    "tokens_per_day": "tokens",
}
_NAMES: Final = {
    unit: tuple(f"x-ratelimit-{what}-{unit}".encode() for what in ("limit", "remaining", "reset"))
    for unit in ("requests", "tokens")
}


def format_duration(ms: int) -> str:
    """Format a time as OpenAI does: `120ms`, `1s`, `1.5s`, `6m0s`, `7h12m0s`."""
    if ms <= 0:
        return "0s"
    if ms < 1000:
        return f"{ms}ms"
    minutes, rest = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    seconds = f"{rest / 1000:.3f}".rstrip("0").rstrip(".")
    if hours:
        return f"{hours}h{minutes}m{seconds}s"
    return f"{minutes}m{seconds}s" if minutes else f"{seconds}s"


def limit_headers(accounts: Sequence[Account], now_ms: int, until_tomorrow_ms: int) -> Headers:
    """Return the headers that say what is left, of whatever will stop the caller first.

    Args:
        accounts: those of the call's key and tenant that have limits.
        now_ms: the monotonic clock's reading.
        until_tomorrow_ms: until the next day's budget.
    """
    tightest: dict[str, Standing] = {}
    for account in accounts:
        for one in account.standings(now_ms, until_tomorrow_ms):
            unit = _UNITS.get(one.name)
            if unit is not None:
                known = tightest.get(unit)
                if known is None or (one.remaining, -one.reset_ms) < (known.remaining, -known.reset_ms):
                    tightest[unit] = one
    headers: Headers = []
    left: list[str] = []
    for unit, one in tightest.items():
        remaining = one.remaining
        limit_name, remaining_name, reset_name = _NAMES[unit]
        headers.append((limit_name, b"%d" % one.limit))
        headers.append((remaining_name, b"%d" % remaining))
        headers.append((reset_name, format_duration(one.reset_ms).encode()))
        left.append(f"{policy_name(one.kind, one.name)};r={remaining};t={-(-one.reset_ms // 1000)}")
    if headers:
        policy = ", ".join([account.policy for account in accounts if account.policy])
        headers.append((b"ratelimit-policy", policy.encode()))
        headers.append((b"ratelimit", ", ".join(left).encode()))
    return headers
