"""What the database holds of the log at one moment, read without trusting it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection

from lukhas.audit import statement
from lukhas.errors import IntegrityError
from lukhas.storage.engine import Database

_BATCH: Final = 1_000


class StoredRow(NamedTuple):
    """A row of the records' table; an edit may have put any type into any column."""

    index: Any
    audit_id: Any
    kind: Any
    tenant: Any
    time_ms: Any
    leaf_hash: Any
    data: Any


class Snapshot(NamedTuple):
    """Everything beside the records, as of one size of the log.

    Attributes:
        size: records of the log, pruned ones among them.
        frontier: the head's stored peaks.
        lowest: smallest index that a row has; None without rows.
        highest: largest index that a row has.
        numbers: the last sequence of each key.
        pruned: runs of indexes whose records are in the archive alone.
        notes: the stored checkpoints: size, root and signed note.
    """

    size: int
    frontier: bytes
    lowest: int | None
    highest: int | None
    numbers: dict[str, int]
    pruned: list[tuple[int, int]]
    notes: list[tuple[int, bytes, bytes]]


def read_snapshot(database: Database) -> Snapshot:
    """Read everything that belongs to one size of the log, in one transaction.

    Raises:
        IntegrityError: a column holds another type than was written.
        StorageUnavailable: the database cannot be read.
    """
    with database.reading() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        try:
            return _read_snapshot(connection)
        except (TypeError, ValueError) as wrong:
            raise IntegrityError("The log's head, keys or checkpoints are not of the type that was written.") from wrong


def read_rows(database: Database, begin: int, end: int, most: int = _BATCH) -> list[StoredRow]:
    """Return up to `most` rows of the indexes [begin, end), in order."""
    sql = (
        "SELECT leaf_index, audit_id, kind, tenant, time_ms, leaf_hash, data FROM audit_record "  # noqa: S608 - numbers
        f"WHERE leaf_index >= {int(begin)} AND leaf_index < {int(end)} ORDER BY leaf_index LIMIT {int(most)}"
    )
    with database.reading() as connection:
        return [StoredRow(*row) for row in connection.exec_driver_sql(sql)]


def read_all_rows(database: Database, size: int) -> Iterator[Sequence[StoredRow]]:
    """Yield all rows under a size in batches, each read in a transaction of its own, so that nothing waits for them."""
    begin = 0
    while begin < size:
        rows = read_rows(database, begin, size)
        if not rows:
            return
        yield rows
        begin = int(rows[-1].index) + 1


def read_stored_tile(database: Database, level: int, place: int) -> bytes:
    """Return a stored tile's hashes; empty where there is none or it is not bytes."""
    with database.reading() as connection:
        try:
            return statement.read_tile(connection, level, place) or b""
        except TypeError:
            return b""


def _read_snapshot(connection: Connection) -> Snapshot:
    def all_of(sql: str) -> list[Any]:
        return list(connection.exec_driver_sql(sql).all())

    size, frontier, _ = statement.read_head(connection)
    lowest, highest = all_of("SELECT min(leaf_index), max(leaf_index) FROM audit_record")[0]
    numbers = {str(key): int(number) for key, number in all_of("SELECT key_id, sequence FROM audit_sequence")}
    pruned = all_of("SELECT first_index, end_index FROM audit_segment WHERE pruned_ms IS NOT NULL ORDER BY first_index")
    notes = all_of("SELECT size, root, note FROM audit_checkpoint ORDER BY size")
    return Snapshot(
        size,
        frontier,
        None if lowest is None else int(lowest),
        None if highest is None else int(highest),
        numbers,
        [(int(first), int(end)) for first, end in pruned],
        [(int(at), bytes(root), bytes(note)) for at, root, note in notes],
    )
