"""Recorded decisions replayed a second: by their own revision, to check them, and by a candidate, to compare.

    python perf/simulate.py [--records 1000000] [--distinct] [--processes 2] [--keep FOLDER] [--json]

The log is filled by bulk insert of rows whose bytes the real encoder made, since writing a million of them one by one
would take the time of a day's calls; `--written` of them go through the real group-commit writer. Levels are drawn
anew for each record with `--distinct`, so that no two have equal inputs and nothing can be taken from a cache;
without it they come from 500 situations. An outcome stands beside each decision, as in a real log.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from lukhas.audit.merkle import leaf_hash
from lukhas.audit.record import AuditRecord, encode_record, splice_tail
from lukhas.audit.store import AuditStore
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import load_policy, parse_policy, read_packaged_text
from lukhas.replay.simulate import simulate
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.metadata import AUDIT_RECORD
from lukhas.storage.writer import GroupCommitWriter

START_MS = 1_760_000_000_000
BATCH = 20_000


def make_bodies(count: int, distinct: bool, dispatcher: Dispatcher) -> Iterator[dict[str, Any]]:
    """Yield decisions as the gateway records them."""
    draw = random.Random(7)
    names = list(dispatcher.policy.signals)
    situations = [draw.sample(names, draw.randrange(5)) for _ in range(500)]
    levels_of = [{name: draw.random() for name in names} for names in situations]
    for index in range(count):
        place = index % len(situations)
        levels = {name: draw.random() for name in situations[place]} if distinct else levels_of[place]
        caller = {"temperature": 0.7, "max_output_tokens": 1000} if place % 3 == 0 else {}
        decision = dispatcher.decide(levels, caller=caller)
        evidence = {
            name: {"level": level, "scope": "session", "source": "call:key_01JABCDEF"} for name, level in levels.items()
        }
        yield {
            "mode": "enforce",
            "dialect": "chat",
            "model": "gpt-4o-mini",
            "stream": False,
            "inputs": {
                "levels": decision.levels,
                "evidence": evidence,
                "caller": caller,
                "tools": ["retrieve_knowledge", "exec_code"] if place % 4 == 0 else [],
            },
            "policy": decision.policy,
            "parameters": decision.parameters,
            "style": decision.style,
            "touched": decision.touched,
            "trace": decision.trace,
            "written": {},
            **({"stripped": ["exec_code"]} if place % 4 == 0 else {}),
        }


def make_record(kind: str, audit_id: str, time_ms: int, body: dict[str, Any]) -> AuditRecord:
    """Return a record with the usual envelope."""
    return AuditRecord(kind, audit_id, "default", "key_01JABCDEF", make_id("req"), time_ms, None, None, body)


def fill(database: Database, count: int, distinct: bool, written: int) -> float:
    """Fill the log; return the mean size of a decision's record in bytes."""
    dispatcher = Dispatcher(load_policy())
    bodies = make_bodies(count, distinct, dispatcher)
    writer = GroupCommitWriter(database, max_rows=100_000)
    writer.start()
    store = AuditStore(database, writer, SystemClock())
    store.close_lost()
    for step in range(written):
        audit_id = make_id("aud")
        store.append_sync(make_record("decision", audit_id, START_MS + step, next(bodies)))
        store.append_sync(make_record("outcome", audit_id, START_MS + step, {"status": "ok"}))
    writer.close(30)
    rows: list[dict[str, Any]] = []
    index, size = written * 2, 0
    for step, body in enumerate(bodies, written):
        audit_id = make_id("aud")
        for kind, content in (("decision", body), ("outcome", {"status": "ok", "duration_ms": 1.5})):
            entry = encode_record(make_record(kind, audit_id, START_MS + step, content))
            data = splice_tail(entry.head, index, index + 1)
            size += len(data) if kind == "decision" else 0
            rows.append(
                {
                    "leaf_index": index,
                    "audit_id": audit_id,
                    "kind": kind,
                    "tenant": "default",
                    "time_ms": START_MS + step,
                    "leaf_hash": leaf_hash(data),
                    "data": data,
                }
            )
            index += 1
        if len(rows) >= BATCH:
            insert_rows(database, rows)
            rows.clear()
    insert_rows(database, rows)
    return size / max(count - written, 1)


def insert_rows(database: Database, rows: list[dict[str, Any]]) -> None:
    """Insert rows in one transaction."""
    if rows:
        with database.writer.begin() as connection:
            connection.execute(insert(AUDIT_RECORD), rows)


def main() -> None:
    """Fill, replay, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--written", type=int, default=1_000)
    parser.add_argument("--distinct", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where the log is, or is to be kept for another run")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        url = f"sqlite:///{folder / 'lukhas.db'}"
        is_there = (folder / "lukhas.db").exists()
        database = open_database(url)
        migrate.upgrade(database)
        began = time.perf_counter()
        size = 0.0 if is_there else fill(database, chosen.records, chosen.distinct, min(chosen.written, chosen.records))
        filled_s = time.perf_counter() - began
        text = read_packaged_text().replace("0.7 - 0.6 * x", "0.65 - 0.6 * x").replace("x > 0.3", "x > 0.25")
        began = time.perf_counter()
        found = simulate(database, url, parse_policy(text, "candidate"), processes=chosen.processes)
        seconds = time.perf_counter() - began
        tally = found.tally
        database.close()
    usage = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    result = {
        "records": tally.read,
        "checked": tally.checked,
        "mismatches": tally.mismatch_count,
        "changed": tally.changed,
        "seconds": round(seconds, 2),
        "per_s": round(tally.read / seconds),
        "filled_s": round(filled_s, 1),
        "record_bytes": round(size),
        "processes": chosen.processes,
        "distinct": chosen.distinct,
        "rss_mb": [round(one.ru_maxrss / 1024) for one in usage],
        "python": platform.python_version(),
    }
    if chosen.json:
        json.dump(result, sys.stdout, indent=2)
        print()
    else:
        print("\n".join(f"{name:14}{value}" for name, value in result.items()))


if __name__ == "__main__":
    main()
