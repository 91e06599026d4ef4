"""Streams that break at either end leave nothing in the gateway's process."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import broken_stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("broken-stream")


@pytest.fixture(scope="module")
def report(folder: Path) -> broken_stream.Report:
    """The short form of `broken_stream.py --streams 20000`, every kind of break in it at least twice."""
    return broken_stream.run(folder, 260, seed=3, concurrency=48, patience_s=2.0)


def test_hundreds_of_broken_streams_leave_nothing_behind(report: broken_stream.Report) -> None:
    """No task, connection, reservation or open decision; every call has its decision and its outcome."""
    assert not report.failures
    assert report.plain.streams == 195 and report.moderated.streams == 65
    assert {name.split()[0] for name in report.plain.outcomes} == {*broken_stream.EXPECTED, *broken_stream.LEAVES}
    assert report.plain.with_usage > 10
    assert report.plain.records >= 2 * (195 + 8)
    assert report.plain.upstream_connections_left == 0


def test_run_finds_what_is_left_and_calls_without_an_outcome(report: broken_stream.Report, folder: Path) -> None:
    """The run's own check can fail: for a task that is left, and for an answer that is not in the log."""
    before = report.plain.before
    phase = broken_stream.Phase(before=before, after={**before, "tasks": before["tasks"] + 1})
    seen = [("ok", "chat", broken_stream.Seen("aud_00000000000000000000000000", "last event"))]
    broken_stream.judge(phase, folder / "plain", seen, "", warm_up=8)
    assert len(phase.failures) == 4
