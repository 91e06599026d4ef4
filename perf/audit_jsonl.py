"""What the JSONL file costs: durable appends without it, and with it required, with and without its own sync.

Run: python perf/audit_jsonl.py --records 20000 --writers 64
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.source import RecordSource
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter

BODY = {"text": "x" * 1_100}


async def append(store: AuditStore, count: int) -> None:
    """Append records one after another, each awaited."""
    for _ in range(count):
        await store.append(AuditRecord("note", make_id("aud"), "t", "key_1", None, 1, None, None, BODY))


async def measure(store: AuditStore, records: int, writers: int) -> float:
    """Return durable records a second with so many writers at once."""
    began = time.perf_counter()
    await asyncio.gather(*(append(store, records // writers) for _ in range(writers)))
    return records // writers * writers / (time.perf_counter() - began)


def run(folder: Path, records: int, writers: int, mode: str) -> float:
    """Measure one mode in a folder of its own."""
    database = open_database(f"sqlite:///{folder}/{mode}/lukhas.db")
    migrate.upgrade(database)
    file = JsonlFile(
        folder / mode / "audit.jsonl",
        RecordSource(database),
        fsync=mode == "synced",
        max_bytes=256_000_000,
        keep=8,
    )
    after = None if mode in ("off", "later") else file.catch_up
    writer = GroupCommitWriter(database, max_rows=100_000, after_commit=after)
    writer.start()
    rate = asyncio.run(measure(AuditStore(database, writer, SystemClock()), records, writers))
    if mode == "later":
        began = time.perf_counter()
        rate = file.catch_up() / (time.perf_counter() - began)
    writer.close(30)
    database.close()
    return rate


def main() -> None:
    """Print one line for each mode."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=20_000)
    parser.add_argument("--writers", type=int, default=64)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        off = 0.0
        for mode in ("off", "required", "synced", "later"):
            rate = run(Path(folder), given.records, given.writers, mode)
            off = off or rate
            name = {"later": "catching up a backlog", "synced": "required, synced"}.get(mode, mode)
            print(f"{name:24}{rate:10,.0f} records/s  {rate / off:5.2f} of without")


if __name__ == "__main__":
    main()
