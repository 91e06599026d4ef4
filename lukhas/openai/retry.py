"""Whether a failed attempt is tried again, and after which pause. Pure: no clock, no dice, no I/O.

An attempt is repeated when it was surely not sent, on 429 and on 5xx, with exponential backoff and full jitter
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), within the call's own deadline. A call that
may have reached the model is never repeated: it would be paid, and acted upon, twice.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import msgspec

BACKOFF_BASE_S: Final = 0.25
BACKOFF_CAP_S: Final = 8.0
RETRY_AFTER_CAP_S: Final = 10.0
# What no repetition can change: the upstream does not know the method, or the HTTP version.
_FINAL_STATUSES: Final = frozenset({501, 505})


class Attempt(msgspec.Struct, frozen=True):
    """How one attempt ended, when it did not end well.

    Attributes:
        number: 1 for the first attempt.
        status: the HTTP status of the answer; None when no answer came.
        surely_not_sent: no byte of the call can have reached the upstream.
        retry_after_s: the pause the upstream asks for, in s.
        should_retry: what the upstream's `x-should-retry` says; None when it says nothing.
    """

    number: int
    status: int | None = None
    surely_not_sent: bool = False
    retry_after_s: float | None = None
    should_retry: bool | None = None


def choose_pause(attempt: Attempt, *, max_retries: int, remaining_s: float, draw: float) -> float | None:
    """Return how long to wait before the next attempt, in s; None hands the attempt's end to the caller.

    Args:
        attempt: how the last attempt ended.
        max_retries: attempts allowed after the first.
        remaining_s: time left until the call's deadline.
        draw: a random number in [0, 1).
    """
    if attempt.number > max_retries or not _is_repeatable(attempt):
        return None
    asked = attempt.retry_after_s
    if asked is not None:
        # Coming back earlier than asked only adds to the upstream's load, so a long request is the caller's to decide.
        if asked > RETRY_AFTER_CAP_S or asked >= remaining_s:
            return None
        return asked
    ceiling = min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0 ** min(attempt.number - 1, 30))
    pause = draw * ceiling
    return pause if pause < remaining_s else None


def _is_repeatable(attempt: Attempt) -> bool:
    status = attempt.status
    if status is None:
        return attempt.surely_not_sent
    if attempt.should_retry is not None:
        return attempt.should_retry and status >= 400
    return status == 429 or (status >= 500 and status not in _FINAL_STATUSES)


def read_retry_after(headers: Mapping[str, str], *, now_s: float | None = None) -> float | None:
    """Return the pause that an answer asks for, in s; None where it asks for none or cannot be understood.

    `retry-after-ms` goes before `retry-after`, which is seconds or an HTTP date (RFC 9110, section 10.2.3).

    Args:
        headers: by lower-case name.
        now_s: wall-clock time in s since the epoch, for dates; the machine's when None.
    """
    millis = _read_number(headers.get("retry-after-ms"))
    if millis is not None:
        return millis / 1000.0
    text = headers.get("retry-after")
    seconds = _read_number(text)
    if seconds is not None or text is None:
        return seconds
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
    return max(0.0, moment - (time.time() if now_s is None else now_s))


def read_should_retry(headers: Mapping[str, str]) -> bool | None:
    """Return what `x-should-retry` says; None where it is absent or neither true nor false."""
    return {"true": True, "false": False}.get(headers.get("x-should-retry", "").strip().lower())


def _read_number(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
