"""Kills processes that append to one audit log, again and again, and checks the log after each kill.

    python tests/fault/audit_kill_loop.py --rounds 200

16 writers in 3 processes append through the real store and writer; in each round one of the processes, or all three, is
killed with SIGKILL at a random moment and started again. Every acknowledged record must be there under its index,
indexes and sequences must have no gap, and hashes, chain, frontier and tiles are recomputed: what is new whenever all
three were killed, the whole log at the end. Prints figures as JSON; exits 1 where something is wrong.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import append_worker
from log_check import LogCheck, read_acks

from lukhas.gateway.runtime import open_migrated

WRITERS = (6, 5, 5)


@dataclass
class Report:
    """What a run came to."""

    rounds: int = 0
    kills: int = 0
    acknowledged: int = 0
    records: int = 0
    tiles: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def run(rounds: int, folder: Path, *, seed: int | None = None) -> Report:
    """Run the loop and check what each round left."""
    dice = random.Random(seed)
    report = Report()
    began = time.monotonic()
    path, acks_path = folder / "lukhas.db", folder / "acks"
    open_migrated(f"sqlite:///{path}").close()
    # Forked: what takes a second to import is imported once. Nothing is open at that moment.
    context = multiprocessing.get_context("fork")

    def start(number: int) -> BaseProcess:
        process = context.Process(target=append_worker.run, args=(path, acks_path, WRITERS[number], number))
        process.start()
        return process

    workers: list[BaseProcess] = [start(number) for number in range(len(WRITERS))]
    check = LogCheck()
    try:
        for _ in range(rounds):
            _await_progress(acks_path)
            time.sleep(dice.uniform(0.0, 0.35))
            hit = range(len(WRITERS)) if dice.random() < 0.5 else [dice.randrange(len(WRITERS))]
            for number in hit:
                workers[number].kill()
            for number in hit:
                workers[number].join(20)
                report.kills += 1
            report.rounds += 1
            if len(hit) == len(WRITERS):
                # Others still write otherwise; then what was acknowledged is compared a round later.
                report.failures += check.advance(path, read_acks(acks_path)[0])
            for number in hit:
                workers[number] = start(number)
            if report.failures:
                break
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.join(30)
            if worker.is_alive():
                report.failures.append("a worker did not stop")
                worker.kill()
    whole = LogCheck()
    acks, _ = read_acks(acks_path)
    report.acknowledged = len(acks)
    report.failures += whole.advance(path, acks)
    report.records, report.tiles = len(whole.leaves), len(whole.leaves) // 256
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _await_progress(acks_path: Path) -> None:
    size = acks_path.stat().st_size if acks_path.exists() else 0
    end = time.monotonic() + 30
    while (acks_path.stat().st_size if acks_path.exists() else 0) <= size:
        if time.monotonic() > end:
            raise RuntimeError("nothing was acknowledged for 30 s")
        time.sleep(0.005)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the kills")
    parser.add_argument("--folder", type=Path, default=None, help="where the log is made; a temporary one else")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lukhas-audit-kill-", dir=options.folder) as folder:
        report = run(options.rounds, Path(folder), seed=options.seed)
    print(json.dumps(asdict(report), indent=2))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
