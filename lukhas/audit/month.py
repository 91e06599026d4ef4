"""Months in UTC, as segments of the log are named: '2026-05'."""

from __future__ import annotations

from calendar import timegm
from time import gmtime


def month_of(time_ms: int) -> str:
    """Return the month that a moment lies in."""
    moment = gmtime(time_ms / 1000)
    return f"{moment.tm_year:04d}-{moment.tm_mon:02d}"


def count_months(name: str) -> int:
    """Return a month as a number of months, so that two can be subtracted."""
    year, month = name.split("-")
    return int(year) * 12 + int(month) - 1


def name_month(count: int) -> str:
    """Return the month of a `count_months`."""
    return f"{count // 12:04d}-{count % 12 + 1:02d}"


def start_of_month(name: str) -> int:
    """Return a month's first moment, in ms since the epoch."""
    year, month = name.split("-")
    return timegm((int(year), int(month), 1, 0, 0, 0)) * 1000


def end_of_month(name: str) -> int:
    """Return the first moment after a month, in ms since the epoch."""
    return start_of_month(name_month(count_months(name) + 1))
