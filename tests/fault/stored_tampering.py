"""Random changes made directly in the tables of an audit log, each with the first wrong record."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.merkle import append_closing, append_leaf, leaf_hash, pack_frontier
from lukhas.audit.record import AuditRecord
from lukhas.audit.signing_key import load_signer
from lukhas.audit.store import AuditStore
from lukhas.audit.verify.database import verify_database
from lukhas.audit.verify.finding import Report
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.sqlite import load_sqlite_module
from lukhas.storage.writer import GroupCommitWriter
from lukhas.vault.seal import Seal

Connection = Any


def make_database(path: Path, count: int, every: int) -> None:
    """Write a log by the store itself, with a checkpoint after each `every` records and at the end."""
    database = open_database(f"sqlite:///{path}")
    migrate.upgrade(database)
    writer = GroupCommitWriter(database, max_rows=10_000)
    writer.start()
    clock = SystemClock()
    store = AuditStore(database, writer, clock)
    checkpoints = CheckpointStore(database, writer, clock, load_signer(database, Seal(bytes(32)), clock))
    for index in range(count):
        body = {"n": index, "text": "größe " * (index % 7)}
        record = AuditRecord(
            "decision", make_id("aud"), "acme", f"key_{index % 3}", None, clock.now_ms(), None, None, body
        )
        store.append_sync(record)
        if (index + 1) % every == 0 or index + 1 == count:
            checkpoints.sign()
    writer.close(10)
    database.close()
    connection = load_sqlite_module().connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def verify(path: Path) -> Report:
    """Verify a database by its file."""
    database = open_database(f"sqlite:///{path}")
    try:
        return verify_database(database)
    finally:
        database.close()


def change(original: Path, scratch: Path, kind: str, rng: random.Random) -> int | None:
    """Copy a database, change the copy and return the first wrong record's index; None where no record is wrong."""
    for stale in scratch.parent.glob(scratch.name + "-*"):
        stale.unlink()
    shutil.copyfile(original, scratch)
    connection = load_sqlite_module().connect(scratch)
    connection.isolation_level = None
    try:
        return KINDS[kind](connection, rng)
    finally:
        connection.close()


def _pick(connection: Connection, rng: random.Random) -> tuple[int, bytes]:
    size = connection.execute("SELECT size FROM audit_head").fetchone()[0]
    index = rng.randrange(size)
    return index, connection.execute("SELECT data FROM audit_record WHERE leaf_index = ?", (index,)).fetchone()[0]


def _set(connection: Connection, index: int, column: str, value: Any) -> None:
    connection.execute(f"UPDATE audit_record SET {column} = ? WHERE leaf_index = ?", (value, index))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def edit_data(connection: Connection, rng: random.Random) -> int:
    index, data = _pick(connection, rng)
    _set(connection, index, "data", _flip(data, rng))
    return index


def edit_data_and_hash(connection: Connection, rng: random.Random) -> int:
    index, data = _pick(connection, rng)
    data = _flip(data, rng)
    _set(connection, index, "data", data)
    _set(connection, index, "leaf_hash", leaf_hash(data))
    return index


def edit_hash(connection: Connection, rng: random.Random) -> int:
    index, data = _pick(connection, rng)
    _set(connection, index, "leaf_hash", _flip(leaf_hash(data), rng))
    return index


def edit_type(connection: Connection, rng: random.Random) -> int:
    index, data = _pick(connection, rng)
    _set(connection, index, "data", data.decode())
    return index


def edit_column(connection: Connection, rng: random.Random) -> int:
    index, _ = _pick(connection, rng)
    column, value = rng.choice([("kind", "note"), ("tenant", "other"), ("audit_id", "aud_x"), ("time_ms", 5)])
    _set(connection, index, column, value)
    return index


def remove_row(connection: Connection, rng: random.Random) -> int:
    index, _ = _pick(connection, rng)
    connection.execute("DELETE FROM audit_record WHERE leaf_index = ?", (index,))
    return index


def swap_rows(connection: Connection, rng: random.Random) -> int:
    one, two = _pick(connection, rng)[0], _pick(connection, rng)[0]
    if one == two:
        two = one + 1 if one == 0 else one - 1
    for source, target in ((one, -1), (two, one), (-1, two)):
        connection.execute("UPDATE audit_record SET leaf_index = ? WHERE leaf_index = ?", (target, source))
    return min(one, two)


def add_row(connection: Connection, rng: random.Random) -> int:
    index, _ = _pick(connection, rng)
    size = connection.execute("SELECT size FROM audit_head").fetchone()[0]
    connection.execute(
        "INSERT INTO audit_record SELECT ?, audit_id, kind, tenant, time_ms, leaf_hash, data FROM audit_record "
        "WHERE leaf_index = ?",
        (size, index),
    )
    return int(size)


def cut_rows(connection: Connection, rng: random.Random) -> int:
    index, _ = _pick(connection, rng)
    connection.execute("DELETE FROM audit_record WHERE leaf_index >= ?", (index,))
    return index


def cut_log(connection: Connection, rng: random.Random) -> int:
    """Cut the tail and make head, tiles and sequences fit, as our own code would have left them."""
    index, _ = _pick(connection, rng)
    connection.execute("DELETE FROM audit_record WHERE leaf_index >= ?", (index,))
    _rebuild(connection)
    return index


def edit_tile(connection: Connection, rng: random.Random) -> int:
    level, place, hashes = rng.choice(connection.execute("SELECT level, tile_index, hashes FROM audit_tile").fetchall())
    at = rng.randrange(len(hashes))
    changed = bytearray(hashes)
    changed[at] ^= 4
    connection.execute(
        "UPDATE audit_tile SET hashes = ? WHERE level = ? AND tile_index = ?", (bytes(changed), level, place)
    )
    return (place * 256 + at // 32) << (8 * level)


def edit_head(connection: Connection, rng: random.Random) -> None:
    (frontier,) = connection.execute("SELECT frontier FROM audit_head").fetchone()
    connection.execute("UPDATE audit_head SET frontier = ?", (b"\0" + frontier[1:-1] + b"\0",))


def edit_sequence(connection: Connection, rng: random.Random) -> None:
    connection.execute("UPDATE audit_sequence SET sequence = sequence + 1 WHERE key_id = 'key_1'")


def edit_note(connection: Connection, rng: random.Random) -> None:
    size, note = rng.choice(connection.execute("SELECT size, note FROM audit_checkpoint").fetchall())
    connection.execute("UPDATE audit_checkpoint SET note = ? WHERE size = ?", (_flip(note, rng), size))


def rebuild_from(connection: Connection, rng: random.Random) -> int:
    """Change a record and make everything after it fit: chain, hashes, tiles, head."""
    index, data = _pick(connection, rng)
    at = data.index(b'"n":') + 4
    _set(connection, index, "data", data[:at] + (b"7" if data[at : at + 1] != b"7" else b"8") + data[at + 1 :])
    _rebuild(connection)
    return index


def _rebuild(connection: Connection) -> None:
    rows = connection.execute("SELECT leaf_index, data FROM audit_record ORDER BY leaf_index").fetchall()
    peaks: list[bytes] = []
    previous = bytes(32)
    tiles: dict[tuple[int, int], bytes] = {}
    numbers: dict[str, int] = {}
    for index, data in rows:
        at = data.rindex(b'"previous":"') + 12
        data = data[:at] + previous.hex().encode() + data[at + 64 :]
        previous = leaf = leaf_hash(data)
        _set(connection, index, "data", data)
        _set(connection, index, "leaf_hash", leaf)
        numbers[f"key_{index % 3}"] = int(data[-19:-3])
        tiles[0, index >> 8] = tiles.get((0, index >> 8), b"") + leaf
        if index & 255 == 255:
            for level, node in enumerate(append_closing(peaks, index, leaf), start=1):
                place = index >> 8 * (level + 1)
                tiles[level, place] = tiles.get((level, place), b"") + node
        else:
            append_leaf(peaks, index, leaf)
    connection.execute("DELETE FROM audit_tile")
    kept = [(level, place, hashes) for (level, place), hashes in tiles.items() if level or len(hashes) == 8192]
    connection.executemany("INSERT INTO audit_tile VALUES (?, ?, ?)", kept)
    connection.execute("DELETE FROM audit_sequence")
    connection.executemany("INSERT INTO audit_sequence VALUES (?, ?)", numbers.items())
    connection.execute("UPDATE audit_head SET size = ?, frontier = ?", (len(rows), pack_frontier(peaks)))


KINDS: Final[dict[str, Callable[[Connection, random.Random], int | None]]] = {
    "table: record": edit_data,
    "table: record and hash": edit_data_and_hash,
    "table: hash": edit_hash,
    "table: type": edit_type,
    "table: column": edit_column,
    "table: row gone": remove_row,
    "table: rows swapped": swap_rows,
    "table: row added": add_row,
    "table: rows cut": cut_rows,
    "table: log cut to fit": cut_log,
    "table: tile": edit_tile,
    "table: head": edit_head,
    "table: sequence": edit_sequence,
    "table: signed note": edit_note,
    "table: rebuilt from a record on": rebuild_from,
}
