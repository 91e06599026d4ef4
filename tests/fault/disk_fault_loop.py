"""Lets the disk fail again and again while processes append to one audit log, and checks what is left.

    python tests/fault/disk_fault_loop.py --faults 100

A shim (shim/disk_fault.c) fails writes, syncs, truncates and opens of the database's files with EIO, ENOSPC or EROFS
for a moment, then lets them succeed again, while 16 writers in 3 processes append; now and then a process is killed
meanwhile. After each fault every process must acknowledge records again by itself. At the end every acknowledged record
must be there, the log must check out, and no sync may have been tried again on a handle whose last one failed. Prints
figures as JSON; exits 1 where something is wrong.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from disk_shim import DiskShim
from log_check import LogCheck, read_acks

from lukhas.gateway.runtime import open_migrated

WRITERS = (6, 5, 5)
FAULTS = (
    "EIO fsync",
    "EIO write",
    "EIO write fsync truncate",
    "EIO fsync truncate",
    "ENOSPC write",
    "ENOSPC write truncate fsync",
    "EROFS write truncate open",
    "EIO open fsync",
)
BACK_WITHIN_S = 10.0


@dataclass
class Report:
    """What a run came to.

    Attributes:
        failed: operations that the shim failed.
        slowest_return_s: longest time from a fault's end until every process had a record acknowledged again.
        syncs_tried_again: on a handle whose last sync had failed.
    """

    faults: int = 0
    kills: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    syncs_tried_again: int = 0
    acknowledged: int = 0
    records: int = 0
    slowest_return_s: float = 0.0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def run(faults: int, folder: Path, *, seed: int | None = None) -> Report:
    """Run the loop and check what it left."""
    dice = random.Random(seed)
    report = Report()
    began = time.monotonic()
    path = folder / "data" / "lukhas.db"
    open_migrated(f"sqlite:///{path}").close()
    shim = DiskShim(folder / "shim", str(path))
    acks = [folder / f"acks-{number}" for number in range(len(WRITERS))]
    script = Path(__file__).parent / "append_worker.py"

    def start(number: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(script), str(path), str(acks[number]), "--writers", str(WRITERS[number])]
        environ = {**os.environ, **shim.environ}
        return subprocess.Popen([*command, "--number", str(number), "--checkpoint-pages=200"], env=environ)

    workers = [start(number) for number in range(len(WRITERS))]
    try:
        _await_progress(acks, 60)
        for _ in range(faults):
            time.sleep(dice.uniform(0.0, 0.1))
            shim.fail(dice.choice(FAULTS))
            report.faults += 1
            time.sleep(dice.uniform(0.02, 0.3))
            if dice.random() < 0.1:
                number = dice.randrange(len(WRITERS))
                workers[number].kill()
                workers[number].wait(20)
                report.kills += 1
                shim.heal()
                workers[number] = start(number)
            shim.heal()
            healed = time.monotonic()
            if not _await_progress(acks, BACK_WITHIN_S):
                report.failures.append(f"after fault {report.faults} a process did not come back")
                break
            report.slowest_return_s = max(report.slowest_return_s, round(time.monotonic() - healed, 2))
    finally:
        shim.heal()
        for worker in workers:
            worker.terminate()
        for worker in workers:
            if worker.wait(60) != 0:
                report.failures.append(f"a worker ended with {worker.returncode}")
    acknowledged = [ack for one in acks for ack in read_acks(one)[0]]
    check = LogCheck()
    report.failures += check.advance(path, acknowledged)
    report.acknowledged, report.records = len(acknowledged), len(check.leaves)
    for line in shim.reports("failed"):
        operation = line.split()[1]
        report.failed[operation] = report.failed.get(operation, 0) + 1
    again = shim.reports("again")
    report.syncs_tried_again = len(again)
    report.failures += again[:3]
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _await_progress(acks: list[Path], timeout_s: float) -> bool:
    """Wait until every process has had a record acknowledged from now on."""
    sizes = [one.stat().st_size if one.exists() else 0 for one in acks]
    end = time.monotonic() + timeout_s
    while any((one.stat().st_size if one.exists() else 0) <= size for one, size in zip(acks, sizes, strict=True)):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None, help="of the faults and their moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lukhas-disk-fault-") as folder:
        report = run(options.faults, Path(folder), seed=options.seed)
    print(json.dumps(asdict(report), indent=2))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
