"""The rate-limit headers: OpenAI's, which its clients read, and the IETF draft's.

Sources: OpenAI's API reference, "Rate limits in headers"; draft-ietf-httpapi-ratelimit-headers-10.
"""

from __future__ import annotations

from collections.abc import Sequence

from lukhas.access.account import Account, Standing

Headers = list[tuple[bytes, bytes]]


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
    found = [
        (account.holder.kind, standing)
        for account in accounts
        for standing in account.standings(now_ms, until_tomorrow_ms)
        if standing.window_s
    ]
    headers: Headers = []
    tightest: list[tuple[str, Standing]] = []
    for unit in ("requests", "tokens"):
        of_unit = [(kind, one) for kind, one in found if one.name.startswith(unit)]
        if of_unit:
            kind, one = min(of_unit, key=lambda pair: (pair[1].remaining, -pair[1].reset_ms))
            tightest.append((kind, one))
            for name, value in (
                ("limit", str(one.limit)),
                ("remaining", str(one.remaining)),
                ("reset", format_duration(one.reset_ms)),
            ):
                headers.append((f"x-ratelimit-{name}-{unit}".encode(), value.encode()))
    if found:
        policy = ", ".join(f"{_name(kind, one)};q={one.limit};w={one.window_s}" for kind, one in found)
        left = ", ".join(f"{_name(kind, one)};r={one.remaining};t={-(-one.reset_ms // 1000)}" for kind, one in tightest)
        headers += [(b"ratelimit-policy", policy.encode()), (b"ratelimit", left.encode())]
    return headers


def _name(kind: str, standing: Standing) -> str:
    return f'"{kind}-{standing.name.replace("_", "-")}"'
