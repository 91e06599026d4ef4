"""How long a proof from a large log takes, beside the read of one indexed row from the same database.

    python perf/proof.py [--records 5000000] [--samples 500] [--keep FOLDER] [--json]

The log is written straight into its tables, whole: records, tiles, head and a signed checkpoint. Warm means that this
process has read tiles before; cold, that neither tiles nor database pages are in its memory, only in the system's.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.issuing import issue_receipt
from lukhas.audit.merkle import append_closing, append_leaf, leaf_hash, pack_frontier
from lukhas.audit.note import NoteSigner
from lukhas.audit.proof import prove_consistency, prove_inclusion
from lukhas.audit.receipt import check_receipt, parse_receipt
from lukhas.audit.record import encode_record, splice_tail
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.audit.tile_store import DatabaseTiles
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database, sqlite_safety
from lukhas.storage.writer import GroupCommitWriter

TOGETHER = 51_200  # records to a transaction, whole tiles
SIGNER = NoteSigner("perf.example/log", bytes(range(32)))
COLUMNS = "leaf_index, audit_id, kind, tenant, time_ms, leaf_hash, data"
INSERT_RECORD = f"INSERT INTO audit_record ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"
INSERT_TILE = "INSERT INTO audit_tile (level, tile_index, hashes) VALUES (?, ?, ?)"


def write_log(database: Database, count: int) -> None:
    """Write a log of `count` small records, as the gateway's writer would leave it."""
    peaks: list[bytes] = []
    levels: list[list[bytes]] = []
    last: bytes | None = None
    tile: list[bytes] = []
    now_ms = SystemClock().now_ms()
    for start in range(0, count, TOGETHER):
        rows: list[tuple[Any, ...]] = []
        tiles: list[tuple[int, int, bytes]] = []
        for index in range(start, min(start + TOGETHER, count)):
            record = AuditRecord("note", make_id("aud"), "default", "key_1", None, now_ms, None, None, None)
            data = splice_tail(encode_record(record).head, index, index + 1, last)
            last = leaf = leaf_hash(data)
            rows.append((index, record.audit_id, record.kind, record.tenant, record.time_ms, leaf, data))
            tile.append(leaf)
            if len(tile) < 256:
                append_leaf(peaks, index, leaf)
                continue
            tiles.append((0, index >> 8, b"".join(tile)))
            tile.clear()
            for level, node in enumerate(append_closing(peaks, index, leaf)):
                if level == len(levels):
                    levels.append([])
                levels[level].append(node)
        with database.writer.begin() as connection:
            connection.exec_driver_sql(INSERT_RECORD, rows)
            if tiles:
                connection.exec_driver_sql(INSERT_TILE, tiles)
        if sys.stderr.isatty():
            print(f"\r{start + len(rows):,} of {count:,} records", end="", file=sys.stderr)
    above = [
        (level, start >> 8, b"".join(nodes[start : start + 256]))
        for level, nodes in enumerate(levels, start=1)
        for start in range(0, len(nodes), 256)
    ]
    with database.writer.begin() as connection:
        if above:
            connection.exec_driver_sql(INSERT_TILE, above)
        connection.exec_driver_sql("UPDATE audit_head SET size = ?, frontier = ?", (count, pack_frontier(peaks)))


def measure(
    database: Database, store: AuditStore, checkpoints: CheckpointStore, samples: int
) -> dict[str, list[float]]:
    """Return the times of each kind of read, in ms, at indexes drawn at random."""
    size = store.source.size()
    chance = random.Random(1)
    ids: dict[int, str] = {}
    with database.reading() as connection:
        for index in (chance.randrange(size) for _ in range(samples)):
            sql = f"SELECT audit_id FROM audit_record WHERE leaf_index = {index}"
            ids[index] = connection.exec_driver_sql(sql).scalar_one()

    def read_row(index: int) -> None:
        assert store.source.read(index, 1)

    def prove(index: int) -> None:
        prove_inclusion(store.tiles, index, size)

    def prove_cold(index: int) -> None:
        prove_inclusion(DatabaseTiles(database), index, size)

    def prove_growth(index: int) -> None:
        prove_consistency(store.tiles, index + 1, size)

    def issue(index: int) -> None:
        (record,) = store.read(ids[index])
        raw = issue_receipt(record, store.tiles, checkpoints, sign=False).format()
        if index % 50 == 0:
            check_receipt(parse_receipt(raw), [SIGNER.verifier])

    def forget() -> None:
        database.close()
        with database.reading() as connection:
            connection.exec_driver_sql("SELECT size FROM audit_head").scalar_one()

    runs: dict[str, tuple[Callable[[int], None], Callable[[], None] | None]] = {
        "one row by its index, warm": (read_row, None),
        "one row by its index, cold": (read_row, forget),
        "inclusion proof, warm": (prove, None),
        "inclusion proof, cold": (prove_cold, forget),
        "consistency proof, warm": (prove_growth, None),
        "receipt with its record, warm": (issue, None),
        "receipt with its record, cold": (issue, forget),
    }
    found: dict[str, list[float]] = {}
    for name, (run, before) in runs.items():
        times: list[float] = []
        for index in ids:
            if before is not None:
                before()
            started = time.perf_counter()
            run(index)
            times.append((time.perf_counter() - started) * 1e3)
        found[name] = sorted(times)
    return found


def main() -> None:
    """Write the log, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=5_000_000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--keep", type=Path, help="folder for the log; one that is there already is used again")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with ExitStack() as stack:
        folder: Path = chosen.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = open_database(f"sqlite:///{(folder / 'lukhas.db').absolute()}")
        stack.callback(database.close)
        migrate.upgrade(database)
        writer = GroupCommitWriter(database, max_rows=1_000)
        writer.start()
        stack.callback(writer.close, 10.0)
        store = AuditStore(database, writer, SystemClock())
        checkpoints = CheckpointStore(database, writer, SystemClock(), SIGNER)
        if store.source.size() == 0:
            write_log(database, chosen.records)
            checkpoints.sign()
        results = measure(database, store, checkpoints, chosen.samples)
        size = store.source.size()
    report = {
        name: {"p50_ms": times[len(times) // 2], "p99_ms": times[len(times) * 99 // 100]}
        for name, times in results.items()
    }
    if chosen.json:
        about = {"records": size, "sqlite": sqlite_safety().version, "python": platform.python_version()}
        json.dump({"about": about, "results": report}, sys.stdout, indent=2)
        print()
        return
    print(f"\n{size:,} records, SQLite {sqlite_safety().version}, Python {platform.python_version()}")
    base = report["one row by its index, warm"]["p50_ms"]
    print(f"{'':34}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}")
    for name, one in report.items():
        print(f"{name:34}{one['p50_ms']:>9.3f}{one['p99_ms']:>9.3f}{one['p50_ms'] / base:>8.1f}")


if __name__ == "__main__":
    main()
