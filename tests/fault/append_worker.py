"""One process with several writers on an audit log; says of each record when it was acknowledged.

    python tests/fault/append_worker.py DATABASE ACKS --writers 6 --number 0

Each acknowledged record is one line in the file ACKS, written before its writer goes on: id, index, leaf hash, and the
size that the shim's trace had then. What was written survives a kill of this process.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import event

from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.errors import LukhasError
from lukhas.ids import make_id
from lukhas.storage import session
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter

KINDS = ("decision", "outcome", "refusal", "note")


def make_record(dice: random.Random) -> AuditRecord:
    """Make a record of one of a few keys that all processes share, small or large."""
    size = dice.choice((10, 300, 1_500, 1_500, 1_500, 20_000))
    key = f"key_{dice.randrange(5)}"
    text = dice.randbytes(size // 2).hex()
    now_ms = int(time.time() * 1000)
    return AuditRecord(dice.choice(KINDS), make_id("aud"), "t", key, None, now_ms, None, None, {"text": text})


def run(
    database_path: Path,
    acks_path: Path,
    writers: int,
    number: int,
    trace: Path | None = None,
    pragmas: Sequence[str] = (),
    checkpoint_pages: int | None = None,
) -> None:
    """Append until SIGTERM, on connections for which further pragmas hold."""
    if checkpoint_pages is not None:
        vars(session)["CHECKPOINT_PAGES"] = checkpoint_pages
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    acks = os.open(acks_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    database = open_database(f"sqlite:///{database_path}")

    def set_up(connection: Any, _record: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    event.listen(database.writer, "connect", set_up)
    database.data_version()  # as in a gateway, a reader is open all the time
    writer = GroupCommitWriter(database, max_rows=1_000, name=f"writer-{number}")
    writer.start()
    store = AuditStore(database, writer, SystemClock())

    def write(seed: int) -> None:
        dice = random.Random(seed)
        while not stop.is_set():
            record = make_record(dice)
            try:
                done = store.append_sync(record, 20.0)
            except LukhasError:
                time.sleep(0.02)
                continue
            place = 0 if trace is None else trace.stat().st_size
            line = f"{record.audit_id} {done.index} {done.leaf_hash.hex()} {place}\n"
            os.write(acks, line.encode())

    threads = [threading.Thread(target=write, args=(os.getpid() * 100 + one,)) for one in range(writers)]
    for thread in threads:
        thread.start()
    while not stop.is_set():
        stop.wait(1.0)
    for thread in threads:
        thread.join()
    writer.close(20.0)
    database.close()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("acks", type=Path)
    parser.add_argument("--writers", type=int, default=6)
    parser.add_argument("--number", type=int, default=0)
    parser.add_argument("--trace", type=Path, default=None)
    parser.add_argument("--pragma", action="append", default=[], help="such as synchronous=OFF")
    parser.add_argument("--checkpoint-pages", type=int, default=None)
    options = parser.parse_args()
    run(
        options.database,
        options.acks,
        options.writers,
        options.number,
        options.trace,
        options.pragma,
        options.checkpoint_pages,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
