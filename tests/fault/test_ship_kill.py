"""A process that is killed while it ships leaves a place outside that is whole, and the next start completes it."""

from __future__ import annotations

from pathlib import Path

import pytest
from ship_kill_loop import check, finish, start


@pytest.mark.parametrize(
    ("die_at", "left"),
    [
        # A first ship of 300 puts two tiles of level 0, one of level 1, the kept checkpoint, and the newest one.
        pytest.param(2, 0, id="between-tiles"),
        pytest.param(4, 0, id="before-the-kept-checkpoint"),
        pytest.param(5, 0, id="between-the-two-checkpoints"),
        pytest.param(6, 300, id="in-the-second-ship"),
        pytest.param(10, 300, id="before-the-second-checkpoint"),
    ],
)
def test_ship_killed_process_leaves_a_whole_place(tmp_path: Path, die_at: int, left: int) -> None:
    """Kill -9 between any two writes: what is there proves itself, and nothing is lost by the next start."""
    process = start(tmp_path, -1, 300, die_at)
    process.communicate(timeout=60)
    assert process.returncode == -9
    assert check(tmp_path) == left
    assert finish(tmp_path) == left + 300
