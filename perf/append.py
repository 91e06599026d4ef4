"""Durable appends a second through the audit store, beside plain inserts, in one run on one disk.

    python perf/append.py [--records 20000] [--writers 64] [--busy-us 0] [--json]

The store is measured as the gateway uses it: coroutines on one event loop, each waiting for its record to be durable.
`--busy-us` makes the loop spin that long before each append, as a gateway that parses and forwards does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvloop
from sqlalchemy import insert

from lukhas.audit.record import encode_record, splice_tail
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database, sqlite_safety
from lukhas.storage.metadata import AUDIT_RECORD
from lukhas.storage.writer import GroupCommitWriter

TRACE = [
    {"parameter": "temperature", "before": 0.6, "after": 0.32, "signal": "stress", "level": 0.8, "line": 12 + number}
    for number in range(10)
]
BODY = {"policy": "pol_01ARZ3NDEKTSV4RRFFQ69G5FAV", "model": "gpt-4o-mini", "trace": TRACE}


def make_record(kind: str, audit_id: str) -> AuditRecord:
    """Return a record of the usual size."""
    return AuditRecord(kind, audit_id, "default", "key_1", "req_1", time.time_ns() // 1_000_000, None, None, BODY)


def make_row(index: int) -> dict[str, Any]:
    """Return the same as a plain row, encoded beforehand."""
    entry = encode_record(make_record("decision", make_id("aud")))
    data = splice_tail(entry.head, index, index + 1)
    return {
        "leaf_index": index,
        "audit_id": entry.audit_id,
        "kind": entry.kind,
        "tenant": entry.tenant,
        "time_ms": entry.time_ms,
        "leaf_hash": bytes(32),
        "data": data,
    }


def measure_plain(database: Database, records: int, batch: int) -> dict[str, float]:
    """Insert rows by SQLAlchemy Core, `batch` to a transaction, from the calling thread."""
    rows = [make_row(index) for index in range(records)]
    started, cpu = time.perf_counter(), time.thread_time()
    for start in range(0, records, batch):
        with database.writer.begin() as connection:
            connection.execute(insert(AUDIT_RECORD), rows[start : start + batch])
    seconds, cpu_s = time.perf_counter() - started, time.thread_time() - cpu
    return {"per_s": records / seconds, "writer_cpu_us": cpu_s / records * 1e6}


def measure_store(database: Database, records: int, writers: int, busy_us: float) -> dict[str, float]:
    """Append through the store from `writers` coroutines, a decision and an outcome in turn."""
    writer = GroupCommitWriter(database, max_rows=20_000)
    writer.start()
    store = AuditStore(database, writer, SystemClock())
    store.close_lost()
    waits: list[float] = []

    async def caller() -> None:
        for _ in range(records // writers // 2):
            audit_id = make_id("aud")
            for kind in ("decision", "outcome"):
                if busy_us:
                    until = time.perf_counter() + busy_us / 1e6
                    while time.perf_counter() < until:
                        pass
                    await asyncio.sleep(0)
                started = time.perf_counter()
                await store.append(make_record(kind, audit_id))
                waits.append(time.perf_counter() - started)

    async def run() -> tuple[float, float, float]:
        thread, process, started = time.thread_time(), time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(writers)))
        loop_s = time.thread_time() - thread
        return time.perf_counter() - started, loop_s, time.process_time() - process - loop_s

    seconds, loop_s, other_s = uvloop.run(run())
    writer.close(10)
    waits.sort()
    return {
        "per_s": len(waits) / seconds,
        "writer_cpu_us": other_s / len(waits) * 1e6,
        "loop_cpu_us": loop_s / len(waits) * 1e6 - busy_us,
        "wait_p50_ms": waits[len(waits) // 2] * 1e3,
        "wait_p99_ms": waits[len(waits) * 99 // 100] * 1e3,
    }


def main() -> None:
    """Run all four and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--writers", type=int, default=64)
    parser.add_argument("--busy-us", type=float, default=0)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    few = max(chosen.records // 20, 100)
    runs: dict[str, Callable[[Database], dict[str, float]]] = {
        "core, 1 row to a commit": lambda database: measure_plain(database, few, 1),
        "core, 100 rows to a commit": lambda database: measure_plain(database, chosen.records, 100),
        "audit store, 1 writer": lambda database: measure_store(database, few, 1, 0),
        f"audit store, {chosen.writers} writers": lambda database: measure_store(
            database, chosen.records, chosen.writers, chosen.busy_us
        ),
    }
    results: dict[str, dict[str, float]] = {}
    for name, run in runs.items():
        with tempfile.TemporaryDirectory() as folder:
            database = open_database(f"sqlite:///{Path(folder) / 'lukhas.db'}")
            migrate.upgrade(database)
            results[name] = run(database)
            database.close()
    base = results["core, 1 row to a commit"]["per_s"]
    about = {
        "sqlite": sqlite_safety().version,
        "python": platform.python_version(),
        "record_bytes": len(make_row(0)["data"]),
        "threads": threading.active_count(),
        "busy_us": chosen.busy_us,
    }
    if chosen.json:
        json.dump({"about": about, "results": results}, sys.stdout, indent=2)
        print()
        return
    print(f"SQLite {about['sqlite']}, Python {about['python']}, {about['record_bytes']} bytes to a record, FULL")
    print(f"{'':28}{'rows/s':>10}{'ratio':>8}{'writer us':>11}{'loop us':>9}{'p50 ms':>8}{'p99 ms':>8}")
    for name, found in results.items():
        rest = "".join(
            f"{found[key]:>{width}.{digits}f}" if key in found else " " * width
            for key, width, digits in (("loop_cpu_us", 9, 1), ("wait_p50_ms", 8, 2), ("wait_p99_ms", 8, 2))
        )
        print(f"{name:28}{found['per_s']:>10.0f}{found['per_s'] / base:>8.2f}{found['writer_cpu_us']:>11.1f}{rest}")


if __name__ == "__main__":
    main()
