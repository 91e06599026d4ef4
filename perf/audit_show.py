"""How long reading and explaining one record takes in a long log, beside reading one row, in one run.

    python perf/audit_show.py [--records 1000000] [--rounds 500] [--json]

The log holds small records with true leaf hashes, inserted in bulk without a tree. Reading, checking hashes and
putting it in sentences is measured in the process; what the command adds by starting is measured and printed by itself.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import insert

from lukhas.audit.explanation import explain_text
from lukhas.audit.merkle import leaf_hash
from lukhas.audit.record import AuditRecord, encode_record, splice_tail
from lukhas.audit.store import AuditStore
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.metadata import AUDIT_RECORD
from lukhas.storage.writer import GroupCommitWriter

TOGETHER = 20_000
DECISION = {
    "mode": "enforce",
    "inputs": {"levels": {"stress": 0.8}, "tools": ["open_url"]},
    "policy": "pol_01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "parameters": {"temperature": 0.2, "tools": ["retrieval"]},
    "trace": [
        {"parameter": "temperature", "step": "style", "before": 0.6, "after": 0.2, "signal": "stress", "level": 0.8}
    ],
}


def fill(database: Database, records: int) -> list[str]:
    """Insert calls of a decision and an outcome each, and return their ids."""
    ids: list[str] = []
    for start in range(0, records, TOGETHER):
        rows: list[dict[str, object]] = []
        for index in range(start, min(start + TOGETHER, records)):
            is_decision = index % 2 == 0
            if is_decision:
                ids.append(make_id("aud"))
            kind, body = ("decision", DECISION) if is_decision else ("outcome", {"status": "ok"})
            entry = encode_record(AuditRecord(kind, ids[-1], "t", "key_1", None, 1_800_000_000_000, None, None, body))
            data = splice_tail(entry.head, index, index + 1)
            row: dict[str, object] = {"leaf_index": index, "audit_id": ids[-1], "kind": kind, "tenant": "t"}
            rows.append(row | {"time_ms": entry.time_ms, "data": data, "leaf_hash": leaf_hash(data)})
        with database.writer.begin() as connection:
            connection.execute(insert(AUDIT_RECORD), rows)
    return ids


def measure(work: Callable[[str], object], ids: Sequence[str], rounds: int) -> tuple[float, float]:
    """Return p50 and p99 in ms over random ids."""
    took: list[float] = []
    for _ in range(rounds):
        one = random.choice(ids)
        began = time.perf_counter()
        work(one)
        took.append((time.perf_counter() - began) * 1000)
    took.sort()
    return took[len(took) // 2], took[int(len(took) * 0.99)]


def main() -> None:
    """Fill a log, measure, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--records", type=int, default=1_000_000)
    options.add_argument("--rounds", type=int, default=500)
    options.add_argument("--json", action="store_true")
    asked = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{Path(folder) / 'lukhas.db'}")
        migrate.upgrade(database)
        ids = fill(database, max(2, asked.records))
        audit = AuditStore(database, GroupCommitWriter(database, max_rows=1, name="unused"), SystemClock())

        def read_row(audit_id: str) -> object:
            with database.reading() as connection:
                query = f"SELECT data FROM audit_record WHERE audit_id = '{audit_id}' LIMIT 1"
                return connection.exec_driver_sql(query).one()

        found = {
            "records": asked.records,
            "one_row_ms": measure(read_row, ids, asked.rounds),
            "show_ms": measure(lambda one: explain_text(audit.read_document(one) or {}), ids, asked.rounds),
        }
        database.close()
        began = time.perf_counter()
        command = [sys.executable, "-c", "from lukhas.cli.main import app; app()", "audit", "show", ids[-1]]
        environ = {**os.environ, "LUKHAS_DATA_DIR": folder}
        ran = subprocess.run(command, env=environ, capture_output=True, check=False)
        found["command_ms"] = (time.perf_counter() - began) * 1000
        found["command_exit"] = ran.returncode
    if asked.json:
        print(json.dumps(found))
        return
    print(f"{asked.records:,} records; p50 and p99 in ms over {asked.rounds} random ids")
    for name in ("one_row_ms", "show_ms"):
        p50, p99 = found[name]
        print(f"  {name[:-3]:10} {p50:8.3f} {p99:8.3f}")
    print(f"  the whole command, start-up included: {found['command_ms']:.0f} ms (exit {found['command_exit']})")


if __name__ == "__main__":
    main()
