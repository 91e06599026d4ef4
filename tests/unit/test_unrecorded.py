"""Counting calls that pass unrecorded: what is kept, what is taken back, and what becomes of it after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lukhas.access.ring import ApiKey
from lukhas.audit.log import Appended
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.gateway.runtime import open_migrated
from lukhas.gateway.unrecorded import UnrecordedCalls
from lukhas.ids import make_id
from lukhas.storage.writer import GroupCommitWriter
from lukhas.telemetry import Metrics
from lukhas.testing import FrozenClock


class Scene:
    """A real log, and counters on one data directory as one process after the other would make them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = FrozenClock()
        self.metrics = Metrics()
        self.database = open_migrated(f"sqlite:///{folder / 'lukhas.db'}")
        self.writer = GroupCommitWriter(self.database, max_rows=1_000)
        self.writer.start()
        self.audit = AuditStore(self.database, self.writer, self.clock)

    def count(self) -> UnrecordedCalls:
        return UnrecordedCalls(self.folder, self.audit, self.clock, self.metrics, 5.0, is_open=True)

    def told(self) -> list[dict[str, Any]]:
        with self.database.reading() as connection:
            ids = connection.exec_driver_sql("SELECT audit_id FROM audit_record WHERE kind = 'unrecorded'").scalars()
            return [self.audit.read_document(one)["records"][0]["body"] for one in ids.all()]  # type: ignore[index]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.writer.close(5.0)
    made.database.close()


def key(number: int = 0) -> ApiKey:
    return ApiKey(key_id=f"key_{number}", tenant=f"tenant-{number}", name="t", scopes=frozenset(), created_ms=0)


def stop_driver() -> None:
    """Keep the counter's own task from recording: its process is about to die."""
    for task in asyncio.all_tasks():
        if task.get_name() == "unrecorded":
            task.cancel()


def record_of(audit_id: str) -> AuditRecord:
    return AuditRecord("decision", audit_id, "t", "key_0", None, 0, None, None, {})


async def test_counts_of_two_keys_become_one_record(scene: Scene) -> None:
    """Calls, outcomes, statuses and times by key; then nothing is left to tell."""
    counted = scene.count()
    counted.miss(key(1), "decision", None, "disk is full")
    scene.clock.advance(1_000)
    counted.miss(key(1), "outcome", None, "")
    counted.miss(key(2), "decision", None, "")
    counted.end(key(2), "ok")
    assert counted.count == 3
    assert counted.problem() == "3 calls passed unrecorded since 2025-01-01T00:00:00.000Z"
    await counted.close()
    (body,) = scene.told()
    assert (body["calls"], body["outcomes"], body["reason"]) == (2, 1, "disk is full")
    one, two = body["keys"]
    assert (one["key"], one["calls"], one["outcomes"]) == ("key_1", 1, 1)
    assert (one["first"], one["last"]) == ("2025-01-01T00:00:00.000Z", "2025-01-01T00:00:01.000Z")
    assert (two["tenant"], two["statuses"]) == ("tenant-2", {"ok": 1})
    assert counted.problem() is None and counted.count == 0
    await scene.count().close()
    assert len(scene.told()) == 1


async def test_counts_that_a_crash_left_are_recorded_by_the_next_process(scene: Scene) -> None:
    """What was kept before the crash is there, whatever happened to the memory."""
    lost = scene.count()
    for _ in range(3):
        lost.miss(key(), "decision", None, "")
    stop_driver()
    await lost.kept()
    await scene.count().close()
    (body,) = scene.told()
    assert body["calls"] == 3


async def test_counts_whose_record_was_written_before_the_crash_are_not_recorded_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash came between the record and the file's update: the id in the file says that it is there."""
    lost = scene.count()
    lost.miss(key(), "decision", None, "")

    async def die(_: UnrecordedCalls) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        patch.setattr(UnrecordedCalls, "_finish", die)
        with pytest.raises(asyncio.CancelledError):
            await lost.close()
    assert len(scene.told()) == 1
    after = scene.count()
    assert after.count == 1
    await after.close()
    assert len(scene.told()) == 1 and after.count == 0


async def test_late_write_that_comes_about_is_taken_back(scene: Scene) -> None:
    """It is on record after all; one that fails stays counted."""
    counted = scene.count()
    loop = asyncio.get_running_loop()
    late: list[asyncio.Future[Appended]] = [loop.create_future(), loop.create_future()]
    for future in late:
        counted.miss(key(), "decision", (make_id("aud"), future), "")
    assert counted.count == 2 and counted.is_late
    late[0].set_result(Appended("aud_x", 0, 1, b""))
    late[1].set_exception(OSError("no"))
    await asyncio.sleep(0)
    assert counted.count == 1 and not counted.is_late
    await counted.close()


@pytest.mark.parametrize("is_written", [True, False])
async def test_late_write_of_a_process_that_died_is_looked_up(scene: Scene, is_written: bool) -> None:
    """Only the log knows whether it came about."""
    lost, audit_id = scene.count(), make_id("aud")
    lost.miss(key(), "decision", (audit_id, asyncio.get_running_loop().create_future()), "")
    stop_driver()
    await lost.kept()
    if is_written:
        await scene.audit.append(record_of(audit_id))
    await scene.count().close()
    assert [body["calls"] for body in scene.told()] == ([] if is_written else [1])


async def test_counts_of_very_many_keys_fit_one_record(scene: Scene) -> None:
    """Past 150 keys the rest shares an entry; no call is forgotten."""
    counted = scene.count()
    for number in range(400):
        counted.miss(key(number), "decision", None, "")
    await counted.close()
    (body,) = scene.told()
    assert body["calls"] == 400 == sum(one["calls"] for one in body["keys"])
    assert len(body["keys"]) == 151
    assert next(one["calls"] for one in body["keys"] if one["key"] == "others") == 250


async def test_counts_without_a_file_are_kept_in_memory_and_said_so(scene: Scene, tmp_path: Path) -> None:
    """A file that cannot be written loses nothing while the process lives."""
    (tmp_path / "audit.unrecorded").mkdir()
    counted = scene.count()
    counted.miss(key(), "decision", None, "")
    await counted.kept()
    assert (counted.problem() or "").endswith("the count is in memory only")
    await counted.close()
    assert [body["calls"] for body in scene.told()] == [1]
