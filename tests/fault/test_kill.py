"""kill -9 in the middle of calls: what a client received is on record afterwards."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import kill_loop


def test_answers_survive_four_kills(tmp_path: Path) -> None:
    """The short form of `kill_loop.py --kills 50`."""
    report = kill_loop.run(4, tmp_path, seed=7)
    assert not report.failures
    assert report.kills == 4
    assert report.plain_answers > 20 and report.streamed_answers > 20
    assert report.closed_as_lost > 0


def test_check_finds_an_answer_without_its_record(tmp_path: Path) -> None:
    """The loop's own check can fail: for an answer that is not in the log."""
    report = kill_loop.run(0, tmp_path, clients=2)
    assert not report.failures
    kill_loop.check(report, tmp_path, ["aud_00000000000000000000000000"])
    assert len(report.failures) == 2
