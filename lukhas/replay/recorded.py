"""Recorded decisions as the log has them: where they stand, and the parts that decide again.

What is compared byte for byte stays as the record's own bytes (`msgspec.Raw`); only what a decision is made of is
decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import func, select

from lukhas.audit.merkle import leaf_hash
from lukhas.storage.engine import Database
from lukhas.storage.metadata import AUDIT_RECORD

# Rows that one query brings into memory; a record has at most 60,000 bytes.
ROWS_TOGETHER: Final = 1024
_LONGEST_DIGITS: Final = 400


class Inputs(msgspec.Struct, gc=False):
    """What a decision was made of."""

    levels: msgspec.Raw
    caller: msgspec.Raw = msgspec.Raw(b"{}")
    nudges: msgspec.Raw = msgspec.Raw(b"null")
    tools: list[Any] = []


class Body(msgspec.Struct, gc=False):
    """What was decided. `stripped` are the offered tools that were taken out."""

    policy: str
    inputs: Inputs
    parameters: msgspec.Raw
    style: str
    touched: msgspec.Raw
    trace: msgspec.Raw
    stripped: list[Any] = []
    denied: str | None = None


class Envelope(msgspec.Struct, gc=False):
    """The record's top level."""

    audit_id: str
    body: Body


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the log.

    Attributes:
        is_whole: the bytes are those that were hashed into the log, under the id that they name.
        body: None where the bytes are no decision that this program can read.
    """

    index: int
    audit_id: str
    is_whole: bool
    body: Body | None


class Window(NamedTuple):
    """Which part of the log is replayed: indexes in [first, end), times in [since_ms, until_ms)."""

    first: int
    end: int
    since_ms: int | None = None
    until_ms: int | None = None


_DECODER: Final = msgspec.json.Decoder(Envelope)
_VALUES: Final[msgspec.json.Decoder[dict[str, Any] | None]] = msgspec.json.Decoder(dict[str, Any] | None)
_DIGITS: Final = re.compile(rb'":"-?[0-9]')


def find_window(
    database: Database, since_ms: int | None = None, until_ms: int | None = None, limit: int | None = None
) -> Window:
    """Find the part of the log that holds the decisions of a time.

    Args:
        since_ms, until_ms: in ms since the epoch; None has no end.
        limit: the newest that many decisions of it.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    first, end = _index_bounds(database, since_ms, until_ms)
    window = Window(first, end, since_ms, until_ms)
    if limit is None or end <= first:
        return window
    query = f"{_condition('SELECT leaf_index', window)} ORDER BY leaf_index DESC LIMIT 1 OFFSET {limit - 1:d}"
    with database.reading() as connection:
        found = connection.exec_driver_sql(query).scalar()
    return window if found is None else window._replace(first=int(found))


def read_rows(database: Database, window: Window) -> Iterator[Row]:
    """Yield the decisions of a window in the log's order; memory stays flat.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    for start in range(window.first, window.end, ROWS_TOGETHER):
        part = window._replace(first=start, end=min(start + ROWS_TOGETHER, window.end))
        query = f"{_condition('SELECT leaf_index, audit_id, leaf_hash, data', part)} ORDER BY leaf_index"
        with database.reading() as connection:
            rows = connection.exec_driver_sql(query).all()
        for index, audit_id, leaf, stored in rows:
            data = bytes(stored)
            found = _decode(data)
            is_whole = leaf_hash(data) == bytes(leaf) and (found is None or found.audit_id == audit_id)
            yield Row(index, audit_id, is_whole, None if found is None else found.body)


def decode_values(raw: msgspec.Raw) -> dict[str, Any] | None:
    """Return values by parameter; integers beyond 64 bits, which a record keeps as digits, are numbers again.

    Raises:
        msgspec.MsgspecError: the bytes are no such object.
    """
    values = _VALUES.decode(raw)
    if values is None or not _DIGITS.search(raw):
        return values
    for name, value in values.items():
        if isinstance(value, str) and len(value) < _LONGEST_DIGITS and value.removeprefix("-").isdecimal():
            values[name] = int(value)
    return values


def decode_decision(data: bytes) -> Body | None:
    """Return what a record's bytes hold of a decision; None where they are of another form."""
    found = _decode(data)
    return None if found is None else found.body


def _decode(data: bytes) -> Envelope | None:
    try:
        return _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def _condition(selected: str, window: Window) -> str:
    # Whole numbers alone stand in the statement, so that it suits either database's driver.
    query = f"{selected} FROM audit_record WHERE leaf_index >= {window.first:d} AND leaf_index < {window.end:d}"
    query += " AND kind = 'decision'"
    if window.since_ms is not None:
        query += f" AND time_ms >= {window.since_ms:d}"
    if window.until_ms is not None:
        query += f" AND time_ms < {window.until_ms:d}"
    return query


def _index_bounds(database: Database, since_ms: int | None, until_ms: int | None) -> tuple[int, int]:
    table = AUDIT_RECORD.c
    bounds = select(func.min(table.leaf_index), func.max(table.leaf_index))
    if since_ms is None and until_ms is None:
        with database.reading() as connection:
            low, high = connection.execute(bounds).one()
        return (0, 0) if high is None else (int(low), int(high) + 1)
    if since_ms is not None:
        bounds = bounds.where(table.time_ms >= since_ms)
    if until_ms is not None:
        bounds = bounds.where(table.time_ms < until_ms)
    lows: list[int] = []
    highs: list[int] = []
    with database.reading() as connection:
        # Tenant by tenant, since the index by time begins with the tenant: the log itself is not read for this.
        tenant = connection.execute(select(func.min(table.tenant))).scalar()
        while tenant is not None:
            low, high = connection.execute(bounds.where(table.tenant == tenant)).one()
            if low is not None:
                lows.append(int(low))
                highs.append(int(high))
            tenant = connection.execute(select(func.min(table.tenant)).where(table.tenant > tenant)).scalar()
    return (min(lows), max(highs) + 1) if lows else (0, 0)
