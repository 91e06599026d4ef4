"""Durable daily usage: what holders with a daily limit have used, so that a restart gives nobody a new day.

Every change is written as a difference: the reservation before the call, the correction after it. A process that is
killed leaves its calls in flight counted with what was reserved for them, never less than they used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection, select, text

from lukhas.errors import LukhasError
from lukhas.storage.engine import Database
from lukhas.storage.metadata import USAGE_DAY
from lukhas.storage.writer import GroupCommitWriter, Sink

DAY_MS: Final = 86_400_000
_ADD: Final = text(
    "INSERT INTO usage_day (holder, day, tokens, requests) VALUES (:holder, :day, :tokens, :requests) "
    "ON CONFLICT (holder, day) DO UPDATE SET "
    "tokens = usage_day.tokens + excluded.tokens, requests = usage_day.requests + excluded.requests"
)


class DayUsage(NamedTuple):
    """What one holder used on one day (UTC), reservations of calls in flight included."""

    tokens: int
    requests: int


class UsageChange(NamedTuple):
    """A difference to one holder's day.

    Attributes:
        holder: `key:<key_id>` or `tenant:<name>`.
        day: whole days since the epoch, UTC.
        tokens, requests: what comes on top; below 0 where a reservation is corrected.
    """

    holder: str
    day: int
    tokens: int
    requests: int


def day_of(now_ms: int) -> int:
    """Return the day (UTC) of a moment, both since the epoch."""
    return now_ms // DAY_MS


def read_usage(connection: Connection, first_day: int) -> dict[tuple[str, int], DayUsage]:
    """Return what every holder used on this day and on each later one, by holder and day."""
    table = USAGE_DAY.c
    rows = connection.execute(select(USAGE_DAY).where(table.day >= first_day)).all()
    return {(row.holder, row.day): DayUsage(row.tokens, row.requests) for row in rows}


class UsageStore:
    """Writes differences of the daily usage, and reads what earlier processes wrote.

    Attributes:
        unwritten: differences that the database did not take yet; they go with the next one of their holder and day.
    """

    def __init__(self, database: Database, writer: GroupCommitWriter) -> None:
        self._database = database
        self._writer = writer
        self._sink: Sink[UsageChange, None] = _write_changes
        self.unwritten: dict[tuple[str, int], DayUsage] = {}

    def load(self, day: int) -> dict[str, DayUsage]:
        """Return each holder's usage of one day. Blocks.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        with self._database.reading() as connection:
            found = read_usage(connection, day)
        return {holder: usage for (holder, of_day), usage in found.items() if of_day == day}

    def add(self, change: UsageChange) -> None:
        """Hand a difference to the writer, from the event loop, without waiting for it.

        It is in the same transaction as what is handed in next, or in an earlier one. A database that fails loses
        nothing: the difference is kept and goes with the next one.
        """
        place = (change.holder, change.day)
        left = self.unwritten.pop(place, None)
        if left is not None:
            change = change._replace(tokens=change.tokens + left.tokens, requests=change.requests + left.requests)
        try:
            future = self._writer.submit(self._sink, change, owed=True)
        except LukhasError:
            self._keep(change)
            return

        def on_written(written: asyncio.Future[None]) -> None:
            if written.cancelled() or written.exception() is not None:
                self._keep(change)

        future.add_done_callback(on_written)

    def _keep(self, change: UsageChange) -> None:
        place = (change.holder, change.day)
        left = self.unwritten.get(place, DayUsage(0, 0))
        self.unwritten[place] = DayUsage(left.tokens + change.tokens, left.requests + change.requests)


def _write_changes(connection: Connection, changes: Sequence[UsageChange]) -> list[None]:
    sums: dict[tuple[str, int], tuple[int, int]] = {}
    for one in changes:
        tokens, requests = sums.get((one.holder, one.day), (0, 0))
        sums[one.holder, one.day] = (tokens + one.tokens, requests + one.requests)
    connection.execute(
        _ADD,
        [
            {"holder": holder, "day": day, "tokens": tokens, "requests": requests}
            # In one order everywhere, so that two processes cannot wait for each other's rows.
            for (holder, day), (tokens, requests) in sorted(sums.items())
        ],
    )
    return [None] * len(changes)
