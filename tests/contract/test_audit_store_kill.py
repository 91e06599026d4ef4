"""kill -9 while many append: what was acknowledged is there, and the tree is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lukhas.audit.merkle import compute_root, leaf_hash
from lukhas.audit.store import AuditStore
from lukhas.clock import SystemClock
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter

CHILD = """
import asyncio, os, sys
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter

database = open_database(sys.argv[1])
writer = GroupCommitWriter(database, max_rows=1000)
writer.start()
store = AuditStore(database, writer, SystemClock())
store.close_lost()

async def caller(number):
    while True:
        audit_id = make_id("aud")
        for kind in ("decision", "outcome"):
            record = AuditRecord(kind, audit_id, "default", f"key_{number}", None, 1, None, None, {"x": "y" * 900})
            done = await store.append(record)
            os.write(1, f"{done.audit_id} {done.index} {kind}\\n".encode())

async def main():
    await asyncio.gather(*(caller(number) for number in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("rounds", [5])
def test_kill_while_appending_loses_nothing_acknowledged(tmp_path: Path, rounds: int) -> None:
    """Every acknowledged record survives, indexes and sequences have no gap, and the head is the recomputed root."""
    url = f"sqlite:///{tmp_path}/lukhas.db"
    database = open_database(url)
    migrate.upgrade(database)
    acknowledged: dict[tuple[str, int], str] = {}
    for number in range(rounds):
        child = subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE)
        assert child.stdout is not None
        received = b""
        while received.count(b"\n") < 150 + 60 * number:
            part = os.read(child.stdout.fileno(), 65_536)
            assert part, "the child ended by itself"
            received += part
        child.send_signal(signal.SIGKILL)
        received += child.stdout.read()
        child.wait()
        child.stdout.close()
        for line in received.decode().splitlines():
            fields = line.split()
            if len(fields) == 3:
                acknowledged[fields[0], int(fields[1])] = fields[2]
    with database.reading() as connection:
        rows = connection.exec_driver_sql(
            "SELECT leaf_index, audit_id, kind, leaf_hash, data FROM audit_record ORDER BY leaf_index"
        ).all()
    assert [row.leaf_index for row in rows] == list(range(len(rows)))
    stored = {(row.audit_id, row.leaf_index): row.kind for row in rows}
    assert len(acknowledged) >= 150 * rounds
    assert acknowledged.items() <= stored.items()
    sequences: dict[str, int] = {}
    for row in rows:
        record = json.loads(row.data)
        assert row.leaf_hash == leaf_hash(row.data)
        sequences[record["key_id"]] = sequences.get(record["key_id"], 0) + 1
        assert int(record["tree"]["sequence"]) == sequences[record["key_id"]]
    writer = GroupCommitWriter(database, max_rows=1000)
    writer.start()
    store = AuditStore(database, writer, SystemClock())
    assert store.head() == (len(rows), compute_root([row.leaf_hash for row in rows]))
    opened = {row.audit_id for row in rows if row.kind == "decision"} - {
        row.audit_id for row in rows if row.kind == "outcome"
    }
    assert store.close_lost() == len(opened)
    assert store.close_lost() == 0
    assert writer.close(5)
    assert migrate.check(database) == []
    database.close()
