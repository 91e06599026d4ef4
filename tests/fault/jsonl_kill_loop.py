"""Long form: processes that append to one JSONL file are killed at any moment, and the file is cut at any byte.

Run: PYTHONPATH=tests/contract python tests/fault/jsonl_kill_loop.py --rounds 200
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from log_scene import LogScene

from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.line_file import list_rotated

CHILD = """
import sys
from pathlib import Path
from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.source import RecordSource
from lukhas.storage.engine import open_database
file = JsonlFile(Path(sys.argv[2]), RecordSource(open_database(sys.argv[1])), fsync=False, max_bytes=200_000, keep=0)
while True:
    file.catch_up()
"""


def check(scene: LogScene, path: Path) -> None:
    """Fail unless the lines are the log."""
    paths = [one.path for one in reversed(list_rotated(path))] + [path]
    assert b"".join(one.read_bytes() for one in paths) == b"".join(line + b"\n" for line in scene.stored())
    assert not list(path.parent.glob("*.foreign-*"))


def main() -> None:
    """Run the rounds and say how many lines came through."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder:
        scene = LogScene(Path(folder))
        path = Path(folder) / "audit.jsonl"
        command = [sys.executable, "-c", CHILD, scene.url, str(path)]
        for _ in range(given.rounds):
            children = [subprocess.Popen(command) for _ in range(3)]
            ends = time.monotonic() + 0.3 + rng.random()
            while time.monotonic() < ends:
                scene.append(rng.randrange(1, 200))
            for child in children:
                child.send_signal(signal.SIGKILL)
                child.wait()
            if rng.random() < 0.5 and path.exists():
                with path.open("r+b") as file:
                    file.truncate(rng.randrange(path.stat().st_size + 1))
            last = JsonlFile(path, scene.store.source, fsync=False, max_bytes=200_000, keep=0)
            last.catch_up()
            last.close()
            check(scene, path)
        print(f"{given.rounds} rounds, {scene.store.head()[0]} lines, none lost, none twice")
        scene.close()


if __name__ == "__main__":
    main()
