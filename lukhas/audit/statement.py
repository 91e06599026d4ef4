"""The SQL of the audit log's hot path, one text per database.

Beside a busy event loop each statement costs the writer's thread a fight for the GIL, so a batch is one statement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any, Final

from sqlalchemy import Connection

from lukhas.errors import IntegrityError

_COLUMNS: Final = "leaf_index, audit_id, kind, tenant, time_ms, leaf_hash, data"
_WIDTH: Final = 7
_LARGEST_INSERT: Final = 256
_NO_ROW: Final = (None,) * _WIDTH

Row = tuple[int, str, str, str, int, bytes, bytes]
Tile = tuple[int, bytes]
"""Place and the 256 leaf hashes of a full tile of level 0."""
Node = tuple[int, int, bytes]
"""Level of the tile, the hash's place among all of that level, and the hash."""


def move_head(connection: Connection, old: tuple[int, bytes], new: tuple[int, bytes], open_from: int | None) -> bool:
    """Set the head's size and frontier where it still is as given, and say whether it was.

    The changed row is the log's lock on PostgreSQL until the transaction ends.

    Args:
        old: size and frontier that the head must have.
        new: size and frontier that it gets.
        open_from: lowest index whose decision is open; None leaves it.
    """
    sql = (
        "UPDATE audit_head SET size = ?, frontier = ?, open_from = coalesce(?, open_from) "
        "WHERE log = 'main' AND size = ? AND frontier = ?"
    )
    if connection.dialect.name == "postgresql":
        sql = sql.replace("coalesce(?,", "coalesce(?::bigint,").replace("?", "%s")
    return connection.exec_driver_sql(sql, (*new, open_from, *old)).rowcount == 1


def read_head(connection: Connection, *, lock: bool = False) -> tuple[int, bytes, int]:
    """Return size, frontier and open_from; `lock` keeps the log locked, which on SQLite the transaction does."""
    sql = "SELECT size, frontier, open_from FROM audit_head WHERE log = 'main'"
    if lock and connection.dialect.name == "postgresql":
        sql += " FOR UPDATE"
    size, frontier, open_from = connection.exec_driver_sql(sql).one()
    return int(size), bytes(frontier), int(open_from)


def read_leaf(connection: Connection, index: int) -> bytes | None:
    """Return the leaf hash at an index, None past the log's end."""
    sql = f"SELECT leaf_hash FROM audit_record WHERE leaf_index = {int(index)}"  # noqa: S608 - a number
    found = connection.exec_driver_sql(sql).scalar()
    return None if found is None else bytes(found)


def read_leaves(connection: Connection, start: int, end: int) -> list[bytes]:
    """Return the leaf hashes from `start` up to, not including, `end`; fewer where records are missing."""
    sql = (
        f"SELECT leaf_hash FROM audit_record WHERE leaf_index >= {int(start)} AND leaf_index < {int(end)} "  # noqa: S608
        "ORDER BY leaf_index"
    )
    return [bytes(row[0]) for row in connection.exec_driver_sql(sql)]


def read_tile(connection: Connection, level: int, place: int) -> bytes | None:
    """Return the hashes of one stored tile, 32 bytes each; None where there is none.

    Level 0 is stored when its 256 hashes are there; higher levels grow.
    """
    sql = f"SELECT hashes FROM audit_tile WHERE level = {int(level)} AND tile_index = {int(place)}"  # noqa: S608
    found = connection.exec_driver_sql(sql).scalar()
    return None if found is None else bytes(found)


def write_tiles(connection: Connection, tiles: Sequence[Tile], nodes: Sequence[Node]) -> None:
    """Store full tiles of level 0, and append the nodes above them to theirs."""
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    insert = f"INSERT INTO audit_tile (level, tile_index, hashes) VALUES ({mark}, {mark}, {mark})"  # noqa: S608
    for place, hashes in tiles:
        connection.exec_driver_sql(insert, (0, place, hashes))
    update = f"UPDATE audit_tile SET hashes = {mark} WHERE level = {mark} AND tile_index = {mark}"  # noqa: S608
    for level, place, node in nodes:
        if place & 255 == 0:
            connection.exec_driver_sql(insert, (level, place >> 8, node))
            continue
        hashes = read_tile(connection, level, place >> 8)
        if hashes is None or len(hashes) != 32 * (place & 255):
            raise IntegrityError(
                f"The audit log's tile {place >> 8} of level {level} is not whole.", hint="Run: lukhas audit verify"
            )
        connection.exec_driver_sql(update, (hashes + node, level, place >> 8))


def read_sequences(connection: Connection, key_ids: Sequence[str]) -> dict[str, int]:
    """Return the last sequence number of each key that has one."""
    found: dict[str, int] = {}
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    for key_id in key_ids:
        sql = f"SELECT sequence FROM audit_sequence WHERE key_id = {mark}"  # noqa: S608 - a fixed mark
        number = connection.exec_driver_sql(sql, (key_id,)).scalar()
        if number is not None:
            found[key_id] = int(number)
    return found


def write_sequences(connection: Connection, sequences: Mapping[str, int]) -> None:
    """Store the last sequence number of each key."""
    postgresql = connection.dialect.name == "postgresql"
    pairs = list(sequences.items())
    for start in range(0, len(pairs), _LARGEST_INSERT):
        part = pairs[start : start + _LARGEST_INSERT]
        sql = _upsert_sequences(len(part), "%s" if postgresql else "?")
        connection.exec_driver_sql(sql, tuple(chain.from_iterable(part)))


def insert_rows(connection: Connection, rows: Sequence[Row]) -> None:
    """Insert records, in as few statements as the database takes."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(_INSERT_ARRAYS, tuple(list(column) for column in zip(*rows, strict=True)))
        return
    for start in range(0, len(rows), _LARGEST_INSERT):
        part = rows[start : start + _LARGEST_INSERT]
        # Powers of two, filled up with empty rows, keep the number of compiled statements at nine.
        size = 1 << (len(part) - 1).bit_length()
        values: list[Any] = list(chain.from_iterable(part))
        values.extend(_NO_ROW * (size - len(part)))
        connection.exec_driver_sql(_insert_values(size), tuple(values))


_INSERT_ARRAYS: Final = (
    f"INSERT INTO audit_record ({_COLUMNS}) SELECT * FROM unnest("  # noqa: S608 - fixed names
    "%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::bytea[], %s::bytea[])"
)


@lru_cache(maxsize=16)
def _insert_values(size: int) -> str:
    row = f"({', '.join('?' * _WIDTH)})"
    if size == 1:
        return f"INSERT INTO audit_record ({_COLUMNS}) VALUES {row}"  # noqa: S608 - fixed names
    rows = ", ".join([row] * size)
    return f"INSERT INTO audit_record ({_COLUMNS}) SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"  # noqa: S608


@lru_cache(maxsize=_LARGEST_INSERT * 2)
def _upsert_sequences(size: int, mark: str) -> str:
    rows = ", ".join([f"({mark}, {mark})"] * size)
    return (
        f"INSERT INTO audit_sequence (key_id, sequence) VALUES {rows} "  # noqa: S608 - fixed names and marks
        "ON CONFLICT (key_id) DO UPDATE SET sequence = excluded.sequence"
    )
