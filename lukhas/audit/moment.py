"""Moments as people write them: an age, or a time of ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from lukhas.errors import InvalidRequest

_AGE: Final = re.compile(r"(\d{1,6})([smhdw])\Z", re.ASCII)
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}


def parse_moment(text: str, now_ms: int, param: str) -> int:
    """Return ms since the epoch for an age or a moment; a moment without a zone is UTC.

    Args:
        text: such as `24h`, `7d`, `2026-12-31` or `2026-12-31T08:00:00Z`.
        now_ms: what an age is counted back from.
        param: the option or field, for the error.

    Raises:
        InvalidRequest: neither.
    """
    text = text.strip()
    age = _AGE.match(text)
    if age:
        return now_ms - int(age[1]) * _UNITS_MS[age[2]]
    try:
        found = datetime.fromisoformat(text)
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"'{text[:40]}' is no time.",
            hint="Write an age such as 24h or 7d, or a time such as 2026-12-31T08:00:00Z.",
            param=param,
        ) from None
