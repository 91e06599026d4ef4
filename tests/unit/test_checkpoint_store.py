"""Checkpoints as they are kept: each continues the one before, and what nobody needs goes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_scene import ORIGIN, Scene, open_scene

from lukhas.audit.checkpoint import open_checkpoint
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.merkle import EMPTY_ROOT
from lukhas.audit.note import NoteSigner
from lukhas.errors import ConfigurationError, IntegrityError, StorageUnavailable

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_scene(tmp_path) as found:
        yield found


def edit(scene: Scene, sql: str) -> None:
    with sqlite3.connect(scene.path) as connection:
        connection.execute(sql)
    connection.close()


def test_sign_covers_the_log_as_it_is(scene: Scene) -> None:
    """The note verifies, and has the size and root of the stored head."""
    scene.append(300)
    signed = scene.checkpoints.sign()
    checkpoint = open_checkpoint(signed.note, [scene.signer.verifier])
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == (ORIGIN, *scene.audit.head())
    assert (signed.size, signed.root) == (checkpoint.size, checkpoint.root)
    assert signed.time_ms == scene.clock.now_ms()
    assert scene.checkpoints.newest() == signed


def test_sign_of_an_unchanged_log_is_the_same_checkpoint(scene: Scene) -> None:
    """Without new records nothing is signed or written."""
    assert scene.checkpoints.newest() is None
    empty = scene.checkpoints.sign()
    assert (empty.size, empty.root) == (0, EMPTY_ROOT)
    scene.append(1)
    first = scene.checkpoints.sign()
    scene.clock.advance(1000)
    assert scene.checkpoints.sign() == first
    assert scene.checkpoints.read(0, 100, 100) == [empty, first]


def test_sign_is_durable_when_it_returns(scene: Scene) -> None:
    """Another connection finds the checkpoint at once."""
    scene.append(2)
    signed = scene.checkpoints.sign()
    with sqlite3.connect(scene.path) as connection:
        rows = connection.execute("SELECT size, note FROM audit_checkpoint").fetchall()
    connection.close()
    assert rows == [(2, signed.note)]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
def test_sign_after_each_size_continues(scene: Scene, size: int) -> None:
    """A checkpoint at any size, tile borders among them, is continued by the next."""
    scene.append(size)
    scene.checkpoints.sign()
    scene.append(300)
    assert scene.checkpoints.sign().size == size + 300


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("UPDATE audit_checkpoint SET size = 500", id="log-cut"),
        pytest.param("UPDATE audit_checkpoint SET root = zeroblob(32)", id="log-changed"),
        pytest.param("UPDATE audit_record SET leaf_hash = zeroblob(32) WHERE leaf_index = 259", id="leaf-changed"),
        pytest.param("UPDATE audit_tile SET hashes = zeroblob(32) WHERE level = 1", id="tile-changed"),
        pytest.param("UPDATE audit_head SET frontier = zeroblob(1)", id="head-broken"),
        pytest.param("DELETE FROM audit_tile", id="tiles-gone"),
    ],
)
def test_sign_of_a_log_that_does_not_continue_is_refused(scene: Scene, sql: str) -> None:
    """Nothing is signed over a log that was cut, changed or replaced behind its newest checkpoint."""
    scene.append(260)
    signed = scene.checkpoints.sign()
    scene.append(1)
    edit(scene, sql)
    fresh = CheckpointStore(scene.database, scene.writer, scene.clock, scene.signer)
    with pytest.raises(IntegrityError):
        fresh.sign()
    assert [one.note for one in fresh.read(0, 10_000, 10)] == [signed.note]


def test_sign_of_a_log_cut_to_the_same_size_is_refused(scene: Scene) -> None:
    """Same size, other root: also without a new record it is found."""
    scene.append(3)
    scene.checkpoints.sign()
    edit(scene, "UPDATE audit_head SET frontier = zeroblob(64)")
    with pytest.raises(IntegrityError, match="was changed"):
        scene.checkpoints.sign()


def test_sign_without_a_key_is_refused(scene: Scene) -> None:
    """A process that only reads cannot sign by accident."""
    with pytest.raises(ConfigurationError):
        CheckpointStore(scene.database, scene.writer, scene.clock).sign()


def test_sign_with_the_database_gone_fails_clearly(scene: Scene) -> None:
    """A database that cannot be read is StorageUnavailable, and signing works again when it is back."""
    scene.append(1)
    moved = scene.path.with_name("away.db")
    scene.database.close()
    scene.path.rename(moved)
    with pytest.raises(StorageUnavailable):
        scene.checkpoints.sign()
    moved.rename(scene.path)
    assert scene.checkpoints.sign().size == 1


def test_sign_from_many_threads_and_stores_agrees(tmp_path: Path) -> None:
    """Two processes' stores that sign while a third appends never sign two roots for one size."""
    with open_scene(tmp_path) as one, open_scene(tmp_path) as two:
        failures: list[BaseException] = []

        def sign(scene: Scene) -> None:
            try:
                for _ in range(15):
                    scene.checkpoints.sign()
            except BaseException as failure:  # noqa: BLE001 - a thread's failure is this test's
                failures.append(failure)

        threads = [threading.Thread(target=sign, args=(scene,)) for scene in (one, two, one)]
        for thread in threads:
            thread.start()
        for _ in range(20):
            one.append(3)
        for thread in threads:
            thread.join(30)
        assert failures == []
        assert one.checkpoints.sign() == two.checkpoints.sign()


def test_sign_after_a_rotation_keeps_the_older_note(scene: Scene) -> None:
    """A new key signs the next state; what the old one signed stays as it was handed out."""
    scene.append(1)
    old = scene.checkpoints.sign()
    rotated = NoteSigner(ORIGIN, bytes(32))
    store = CheckpointStore(scene.database, scene.writer, scene.clock, rotated)
    assert store.sign() == old
    scene.append(1)
    assert open_checkpoint(store.sign().note, [rotated.verifier]).size == 2
    assert store.read(1, 2, 1) == [old]


def test_first_covering_is_the_smallest(scene: Scene) -> None:
    """A record is vouched for by the first checkpoint after it, not by the one that ends before it."""
    for count in (3, 4):
        scene.append(count)
        scene.checkpoints.sign()
    found = [scene.checkpoints.first_covering(index) for index in (0, 2, 3, 6, 7)]
    assert [None if one is None else one.size for one in found] == [3, 3, 7, 7, None]


def test_read_is_half_open_and_limited(scene: Scene) -> None:
    """Sizes from the first up to, not including, the end; at most as many as asked for."""
    for _ in range(5):
        scene.append(1)
        scene.checkpoints.sign()
    assert [one.size for one in scene.checkpoints.read(2, 5, 10)] == [2, 3, 4]
    assert [one.size for one in scene.checkpoints.read(2, 5, 2)] == [2, 3]
    assert scene.checkpoints.read(6, 1, 10) == []


def test_thin_keeps_a_day_whole_then_hours_then_days(scene: Scene) -> None:
    """Of 60 days of one in 20 minutes, the last day stays whole, 29 days by the hour, the rest by the day."""
    start = 1_700_006_400_000  # a midnight
    rows = [(size, start + size * (HOUR_MS // 3)) for size in range(60 * 72)]
    now = rows[-1][1]
    with sqlite3.connect(scene.path) as connection:
        insert = "INSERT INTO audit_checkpoint VALUES (?, 0, zeroblob(32), ?, x'00')"
        connection.executemany(insert, rows)
    connection.close()
    scene.clock.step_back(scene.clock.now_ms() - now)
    deleted = scene.checkpoints.thin()
    left = {one.size: one.time_ms for one in scene.checkpoints.read(0, 10**9, 10**6)}
    assert deleted == len(rows) - len(left)
    recent = [ms for _, ms in rows if ms >= now - DAY_MS]
    assert [ms for ms in left.values() if ms >= now - DAY_MS] == recent
    hourly = [ms // HOUR_MS for ms in left.values() if now - 30 * DAY_MS < ms < now - DAY_MS]
    daily = [ms // DAY_MS for ms in left.values() if ms <= now - 30 * DAY_MS]
    assert len(hourly) == len(set(hourly)) and len(hourly) in (29 * 24, 29 * 24 + 1)
    assert len(daily) == len(set(daily)) and len(daily) in (30, 31)
    assert scene.checkpoints.thin() == 0


def test_thin_never_takes_the_newest(scene: Scene) -> None:
    """After a year without a record the newest checkpoint is still there."""
    for _ in range(3):
        scene.append(1)
        newest = scene.checkpoints.sign()
    scene.clock.advance(365 * DAY_MS)
    assert scene.checkpoints.thin() == 2
    assert scene.checkpoints.newest() == newest
    assert scene.checkpoints.sign() == newest


def test_thin_after_a_clock_step_keeps_the_newest(scene: Scene) -> None:
    """A newest checkpoint with an older time than those before it stays."""
    scene.append(1)
    scene.checkpoints.sign()
    scene.clock.step_back(2 * DAY_MS)
    scene.append(1)
    newest = scene.checkpoints.sign()
    scene.clock.advance(400 * DAY_MS)
    scene.checkpoints.thin()
    assert scene.checkpoints.newest() == newest
