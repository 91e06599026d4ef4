"""Kill -9 a process that signs and ships, again and again, and look at what it left outside.

Long form: `python tests/fault/ship_kill_loop.py --rounds 200 --folder DIR`. Each round starts a process that appends,
signs and ships to a folder, kills it at a random moment, and checks the folder as a stranger would.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from checkpoint_scene import check_whole, open_scene

from lukhas.audit.ship_file import FileTarget


class DyingTarget(FileTarget):
    """A folder whose process is killed right before the put of one number, counted from 1; 0 is never."""

    def __init__(self, root: Path, die_at: int) -> None:
        super().__init__(root)
        self._left = die_at

    def put(self, path: str, data: bytes, immutable: bool) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        super().put(path, data, immutable)


def work(folder: Path, rounds: int, count: int, die_at: int) -> None:
    """Append, sign and ship; says `ready` once, so that who kills knows when it may."""
    target = DyingTarget(folder / "out", die_at)
    with open_scene(folder) as scene:
        shipper = scene.shipper(target)
        print("ready", flush=True)
        while rounds:
            scene.append(count)
            scene.checkpoints.sign()
            shipper.ship()
            rounds -= 1


def start(folder: Path, rounds: int, count: int, die_at: int) -> subprocess.Popen[str]:
    """Start `work` in a process of its own, and return it when it is at work."""
    arguments = ["--folder", str(folder), "--work", str(rounds), "--count", str(count), "--die-at", str(die_at)]
    process = subprocess.Popen([sys.executable, __file__, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


def finish(folder: Path) -> int:
    """Ship what is signed, as the next start would, and return what the folder then proves by itself."""
    with open_scene(folder) as scene:
        scene.checkpoints.sign()
        scene.shipper(FileTarget(folder / "out")).ship()
        size, _ = scene.audit.head()
        assert check_whole(FileTarget(folder / "out"), scene.signer.verifier) == size
        return size


def check(folder: Path) -> int:
    """Return what the folder proves as it was left; 0 before its first checkpoint."""
    if not (folder / "out" / "checkpoint").exists():
        return 0
    with open_scene(folder) as scene:
        return check_whole(FileTarget(folder / "out"), scene.signer.verifier)


def main() -> None:
    """Run the loop, or one worker of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--work", type=int, default=0, help="be a worker: how often to ship; -1 until killed")
    parser.add_argument("--count", type=int, default=90, help="records appended before each ship")
    parser.add_argument("--die-at", type=int, default=0)
    parser.add_argument("--seed", type=int, default=None)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    if given.work:
        work(folder, given.work, given.count, given.die_at)
        return
    chance = random.Random(given.seed)
    for number in range(1, given.rounds + 1):
        process = start(folder, -1, given.count, 0)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
        left = check(folder)
        done = finish(folder) if number % 2 else left
        print(f"round {number}: {left} records were proved outside as it was left, {done} after the next start")


if __name__ == "__main__":
    main()
