"""Cuts the power at random moments while an audit log is written, and checks what a disk could then hold.

    python tests/fault/power_cut.py --cuts 200

A shim (shim/disk_fault.c) writes down every write, truncate, sync and unlink of the database's files, in order, while
16 writers in 3 processes append. For each cut the files are made again as a disk could hold them: what was synced by
then is there; of what came later any part may be there or not, down to single sectors. Then the log is opened as a
start opens it: every record acknowledged before the cut must be there, the log must check out, and it must take another
record. Prints figures as JSON; exits 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import append_worker
from disk_shim import DiskShim, Operation, read_trace
from log_check import Ack, LogCheck, read_acks

from lukhas.audit.store import AuditStore
from lukhas.clock import SystemClock
from lukhas.gateway.runtime import open_migrated
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter

WRITERS = (6, 5, 5)
SECTOR = 512


@dataclass
class Report:
    """What a run came to.

    Attributes:
        cuts_with_loss: cuts after which something that was not synced was missing.
    """

    cuts: int = 0
    acknowledged: int = 0
    operations: int = 0
    syncs: int = 0
    checkpoints: int = 0
    cuts_with_loss: int = 0
    records_after_last_cut: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass
class DiskFile:
    """One file as the disk may hold it: what is certain, and what came after the last sync."""

    certain: bytearray | None
    later: list[Operation] = field(default_factory=list)

    def take(self, operation: Operation) -> None:
        """Take one operation in."""
        if operation.kind != "S":
            self.later.append(operation)
            return
        self.certain = _replay(self.certain, self.later)
        self.later.clear()

    def draw(self, dice: random.Random, share: float, is_torn: bool) -> bytes | None:
        """Return what could be there: each later operation with a chance of `share`, or some of its sectors."""
        kept: list[Operation] = []
        for operation in self.later:
            if operation.kind == "W" and is_torn:
                kept += [part for part in _sectors(operation) if dice.random() < share]
            elif dice.random() < share:
                kept.append(operation)
        found = _replay(self.certain, kept)
        return None if found is None else bytes(found)


def _replay(before: bytearray | None, operations: list[Operation]) -> bytearray | None:
    data = None if before is None else bytearray(before)
    for one in operations:
        if one.kind == "U":
            data = None
            continue
        data = bytearray() if data is None else data
        size = one.offset if one.kind == "T" else one.offset + len(one.data)
        if size > len(data):
            data.extend(bytes(size - len(data)))
        if one.kind == "T":
            del data[one.offset :]
        else:
            data[one.offset : one.offset + len(one.data)] = one.data
    return data


def _sectors(one: Operation) -> Iterator[Operation]:
    start, last = one.offset, one.offset + len(one.data)
    while start < last:
        end = min(last, (start // SECTOR + 1) * SECTOR)
        yield Operation("W", one.path, start, one.data[start - one.offset : end - one.offset], one.end)
        start = end


def record_trace(folder: Path, seconds: float, pragmas: Sequence[str]) -> tuple[DiskShim, Path, bytes, list[Ack]]:
    """Let the writers write; return the shim with its trace, the database's path and first content, and all acks."""
    path, acks_path = folder / "data" / "lukhas.db", folder / "acks"
    open_migrated(f"sqlite:///{path}").close()
    before = path.read_bytes()
    shim = DiskShim(folder / "shim", str(path), traces=True)
    script = Path(__file__).parent / "append_worker.py"
    workers = [
        subprocess.Popen(
            [sys.executable, str(script), str(path), str(acks_path)]
            + ["--writers", str(count), "--number", str(number), "--trace", str(shim.trace)]
            + ["--checkpoint-pages", "200"]
            + [f"--pragma={pragma}" for pragma in pragmas],
            env={**os.environ, **shim.environ},
        )
        for number, count in enumerate(WRITERS)
    ]
    end = time.monotonic() + 30
    while not acks_path.exists() and time.monotonic() < end:
        time.sleep(0.01)
    time.sleep(seconds)
    # Half of them at a power cut's pace: their last writes were never finished.
    for worker in workers[1:]:
        worker.kill()
    workers[0].terminate()
    for worker in workers:
        worker.wait(30)
    return shim, path, before, read_acks(acks_path)[0]


def run(
    cuts: int,
    folder: Path,
    *,
    seconds: float = 2.0,
    seed: int | None = None,
    pragmas: Sequence[str] = (),
) -> Report:
    """Write for some seconds, then cut. Checkpoints come more often than in service, so that cuts hit some."""
    dice = random.Random(seed)
    began = time.monotonic()
    shim, path, before, acks = record_trace(folder, seconds, pragmas)
    operations = list(read_trace(shim.trace))
    report = Report(acknowledged=len(acks), operations=len(operations))
    report.syncs = sum(one.kind == "S" for one in operations)
    report.checkpoints = sum(one.kind == "S" and one.path == path for one in operations)
    moments = sorted(dice.randrange(1, len(operations) + 1) for _ in range(cuts))
    files: dict[Path, DiskFile] = {path: DiskFile(bytearray(before))}
    done = 0
    for moment in moments:
        for operation in operations[done:moment]:
            files.setdefault(operation.path, DiskFile(None)).take(operation)
        done = moment
        due = [ack for ack in acks if ack.place <= operations[moment - 1].end]
        share, is_torn = dice.choice((0.0, 0.2, 0.5, 0.8, 1.0)), dice.random() < 0.7
        target = folder / "cut" / path.name
        shutil.rmtree(target.parent, ignore_errors=True)
        target.parent.mkdir()
        for name, file in files.items():
            if (data := file.draw(dice, share, is_torn)) is not None:
                (target.parent / name.name).write_bytes(data)
        wrong = check_cut(target, due)
        report.failures += [f"cut {report.cuts} at operation {moment}: {one}" for one in wrong]
        report.cuts += 1
        report.cuts_with_loss += any(file.later for file in files.values()) and share < 1
        if len(report.failures) > 20:
            break
    report.records_after_last_cut = len(due)
    report.seconds = round(time.monotonic() - began, 1)
    return report


def check_cut(path: Path, due: list[Ack]) -> list[str]:
    """Open a log as a start does, check it, append to it, and check it again."""
    check = LogCheck()
    wrong = check.advance(path, due)
    if wrong:
        return wrong
    database = open_database(f"sqlite:///{path}")
    writer = GroupCommitWriter(database, max_rows=100)
    writer.start()
    try:
        store = AuditStore(database, writer, SystemClock())
        done = store.append_sync(append_worker.make_record(random.Random(1)), 10.0)
    finally:
        writer.close(10.0)
        database.close()
    return check.advance(path, [Ack(done.audit_id, done.index, done.leaf_hash.hex(), 0)])


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=4.0, help="how long the writers write")
    parser.add_argument(
        "--pragma", action="append", default=[], help="for the writers' connections; synchronous=OFF loses records"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the moments and of what is lost")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lukhas-power-cut-") as folder:
        report = run(options.cuts, Path(folder), seconds=options.seconds, seed=options.seed, pragmas=options.pragma)
    print(json.dumps(asdict(report), indent=2))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
