"""Shipping: the target ends with the whole tree, and a log that does not continue it overwrites nothing."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from checkpoint_scene import Scene, check_whole, open_scene
from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas.audit.ship import Shipper
from lukhas.audit.ship_file import FileTarget
from lukhas.audit.ship_target import open_target
from lukhas.errors import ConfigurationError, IntegrityError, StorageUnavailable


class MemoryTarget:
    """A target that keeps everything in memory, and fails when told to.

    Attributes:
        puts: paths in the order in which they were written.
        fail_at: the put of this number fails, counted from 1.
    """

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.puts: list[str] = []
        self.fail_at = 0

    def put(self, path: str, data: bytes, immutable: bool) -> None:
        self.puts.append(path)
        if len(self.puts) == self.fail_at:
            raise StorageUnavailable("no more")
        if immutable and self.held.get(path, data) != data:
            raise IntegrityError("something else is there")
        self.held[path] = data

    def get(self, path: str) -> bytes | None:
        return self.held.get(path)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with open_scene(tmp_path) as found:
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out" / "side"


def test_ship_before_the_first_checkpoint_does_nothing(scene: Scene, folder: Path) -> None:
    """Nothing signed, nothing sent."""
    assert scene.shipper(FileTarget(folder)).ship() is None
    assert not folder.exists()


@pytest.mark.parametrize("sizes", [(1,), (256,), (255, 1, 1), (700, 300), (256 * 3, 1), (5, 600, 3)])
def test_ship_target_alone_proves_what_was_signed(scene: Scene, folder: Path, sizes: tuple[int, ...]) -> None:
    """After each ship a stranger who has only the folder and the key can compute the signed root."""
    target = FileTarget(folder)
    shipper = scene.shipper(target)
    total = 0
    for count in sizes:
        scene.append(count)
        total += count
        signed = scene.checkpoints.sign()
        assert shipper.ship() == signed
        assert check_whole(target, scene.signer.verifier) == total
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert len(kept) == len(sizes)
    assert kept[-1] == f"{total:020d}"
    assert not [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_ship_empty_log_is_shipped_too(scene: Scene, folder: Path) -> None:
    """Also that a log is empty can be signed and kept."""
    scene.checkpoints.sign()
    target = FileTarget(folder)
    scene.shipper(target).ship()
    assert check_whole(target, scene.signer.verifier) == 0


def test_ship_sends_tiles_first_and_only_new_ones(scene: Scene) -> None:
    """The checkpoint goes last; what is there already is not sent again, also not by a new process."""
    target = MemoryTarget()
    shipper = scene.shipper(target)
    scene.append(600)
    scene.checkpoints.sign()
    shipper.ship()
    last = ["checkpoints/00000000000000000600", "checkpoint"]
    assert target.puts == ["tile/0/000", "tile/0/001", "tile/0/002.p/88", "tile/1/000.p/2", *last]
    target.puts.clear()
    shipper.ship()
    assert target.puts == []
    scene.append(200)
    scene.checkpoints.sign()
    scene.shipper(target).ship()
    last = ["checkpoints/00000000000000000800", "checkpoint"]
    assert target.puts == ["tile/0/002", "tile/0/003.p/32", "tile/1/000.p/3", *last]


def test_ship_partial_tiles_go_when_the_full_one_is_there(scene: Scene, folder: Path) -> None:
    """A folder does not gather partial tiles for ever."""
    shipper = scene.shipper(FileTarget(folder))
    for count in (100, 100, 56):
        scene.append(count)
        scene.checkpoints.sign()
        shipper.ship()
    assert sorted(path.name for path in (folder / "tile" / "0").iterdir()) == ["000"]


@given(fail_at=st.integers(1, 9), more=st.integers(0, 300))
@settings(max_examples=25)
def test_ship_broken_off_anywhere_is_resumed(tmp_path_factory: pytest.TempPathFactory, fail_at: int, more: int) -> None:
    """A failure at any put leaves a target that is whole as it was, and the next ship completes it."""
    target = MemoryTarget()
    with open_scene(tmp_path_factory.mktemp("scene")) as scene:
        shipper = scene.shipper(target)
        scene.append(300)
        scene.checkpoints.sign()
        shipper.ship()
        scene.append(700)
        scene.checkpoints.sign()
        target.fail_at = len(target.puts) + fail_at
        try:
            shipper.ship()
        except StorageUnavailable:
            assert check_whole(target, scene.signer.verifier) == 300
        target.fail_at = 0
        scene.append(more)
        scene.checkpoints.sign()
        again = shipper if fail_at % 2 else scene.shipper(target)
        again.ship()
        assert check_whole(target, scene.signer.verifier) == 1000 + more


def test_ship_large_backlog_is_sent_in_pieces(scene: Scene) -> None:
    """Without patience nothing new is promised, and the next call goes on where this one stopped."""
    target = MemoryTarget()
    shipper = scene.shipper(target)
    scene.append(256 * 4)
    scene.checkpoints.sign()
    assert shipper.ship(0) is None
    assert "checkpoint" not in target.held
    signed = scene.checkpoints.newest()
    assert shipper.ship() == signed
    assert check_whole(target, scene.signer.verifier) == 1024


def test_ship_in_a_hurry_stops_sending_tiles(scene: Scene) -> None:
    """At shutdown what is under way ends soon; the target keeps what it had."""
    target = MemoryTarget()
    shipper = scene.shipper(target)
    scene.append(1)
    first = scene.checkpoints.sign()
    shipper.ship()
    scene.append(600)
    scene.checkpoints.sign()
    shipper.hurry(-1)
    assert shipper.ship() == first
    assert check_whole(target, scene.signer.verifier) == 1


def test_ship_of_two_processes_never_goes_back(scene: Scene) -> None:
    """What another process shipped meanwhile is taken as shipped; a smaller checkpoint never replaces it."""
    target = MemoryTarget()
    one, two = scene.shipper(target), scene.shipper(target)
    scene.append(10)
    scene.checkpoints.sign()
    one.ship()
    scene.append(10)
    signed = scene.checkpoints.sign()
    two.ship()
    assert one.ship() == signed
    assert check_whole(target, scene.signer.verifier) == 20


def test_ship_target_that_was_emptied_is_filled_again(scene: Scene, folder: Path) -> None:
    """Where somebody removed what was shipped, everything is sent anew."""
    shipper = scene.shipper(FileTarget(folder))
    scene.append(600)
    scene.checkpoints.sign()
    shipper.ship()
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    scene.append(1)
    scene.checkpoints.sign()
    shipper.ship()
    assert check_whole(FileTarget(folder), scene.signer.verifier) == 601


def test_ship_rolled_back_database_is_found(tmp_path: Path) -> None:
    """A database set back to an older copy overwrites nothing, neither shorter nor grown again with other records."""
    target = MemoryTarget()
    with open_scene(tmp_path) as scene:
        scene.append(10)
        scene.checkpoints.sign()
        scene.shipper(target).ship()
    copy = tmp_path / "copy.db"
    shutil.copy(tmp_path / "lukhas.db", copy)
    with open_scene(tmp_path) as scene:
        scene.append(10)
        scene.checkpoints.sign()
        scene.shipper(target).ship()
    before = dict(target.held)
    for path in tmp_path.glob("lukhas.db*"):
        path.unlink()
    shutil.copy(copy, tmp_path / "lukhas.db")
    with open_scene(tmp_path) as scene:
        scene.append(5, "other")
        scene.checkpoints.sign()
        with pytest.raises(IntegrityError, match="it was set back or cut"):
            scene.shipper(target).ship()
        scene.append(50, "other")
        scene.checkpoints.sign()
        with pytest.raises(IntegrityError, match="changed or forked"):
            scene.shipper(target).ship()
        with pytest.raises(IntegrityError):
            scene.shipper(target).read_target()
    assert target.held == before


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"not a note\n", id="garbage"),
        pytest.param(b"x" * 2_000_000, id="huge"),
    ],
)
def test_ship_target_with_something_else_is_not_overwritten(scene: Scene, note: bytes) -> None:
    """A place where something else stands under `checkpoint` is not taken over."""
    target = MemoryTarget()
    target.held["checkpoint"] = note
    scene.append(1)
    scene.checkpoints.sign()
    with pytest.raises(IntegrityError, match="not of this log"):
        scene.shipper(target).ship()
    assert target.held == {"checkpoint": note}


def test_ship_target_of_another_log_is_not_overwritten(tmp_path: Path) -> None:
    """Two logs cannot share one place, whether by another name or another key."""
    target = MemoryTarget()
    for name, seed, origin in (("a", bytes(32), "a"), ("b", bytes(32), "b"), ("c", bytes([1]) * 32, "a")):
        (tmp_path / name).mkdir()
        with open_scene(tmp_path / name, seed, origin) as scene:
            scene.append(1)
            scene.checkpoints.sign()
            if name == "a":
                scene.shipper(target).ship()
                before = dict(target.held)
                continue
            with pytest.raises(IntegrityError, match="not of this log"):
                scene.shipper(target).ship()
            assert target.held == before


def test_ship_after_a_rotation_goes_on(scene: Scene) -> None:
    """What the older key signed at the target is accepted, since the log had that key."""
    target = MemoryTarget()
    scene.append(1)
    scene.checkpoints.sign()
    scene.shipper(target).ship()
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.audit.note import NoteSigner

    rotated = NoteSigner("example.com/audit", bytes(32))
    store = CheckpointStore(scene.database, scene.writer, scene.clock, rotated)
    scene.append(1)
    store.sign()
    Shipper(target, scene.database, store, [rotated.verifier, scene.signer.verifier]).ship()
    assert check_whole(target, rotated.verifier) == 2


@pytest.mark.parametrize(
    "sql",
    [
        pytest.param("UPDATE audit_tile SET hashes = zeroblob(8192) WHERE level = 0 AND tile_index = 1", id="tile"),
        pytest.param("UPDATE audit_tile SET hashes = zeroblob(96) WHERE level = 1", id="tile-above"),
        pytest.param("UPDATE audit_record SET leaf_hash = zeroblob(32) WHERE leaf_index = 770", id="leaf"),
        pytest.param("DELETE FROM audit_tile WHERE level = 0 AND tile_index = 2", id="tile-gone"),
    ],
)
def test_ship_of_changed_tiles_sends_no_checkpoint(scene: Scene, sql: str) -> None:
    """Hashes that do not make the signed root are not sent for good."""
    target = MemoryTarget()
    scene.append(800)
    scene.checkpoints.sign()
    with sqlite3.connect(scene.path) as connection:
        connection.execute(sql)
    connection.close()
    with pytest.raises(IntegrityError):
        scene.shipper(target).ship()
    assert "checkpoint" not in target.held
    assert bytes(32) not in b"".join(target.held.values())


def test_file_target_put_is_whole_and_immutable_stays(folder: Path) -> None:
    """What is immutable may be put again as it is, and not as something else; `checkpoint` may change."""
    target = FileTarget(folder)
    target.put("tile/0/000", b"a", True)
    target.put("tile/0/000", b"a", True)
    with pytest.raises(IntegrityError, match="something else"):
        target.put("tile/0/000", b"b", True)
    target.put("checkpoint", b"1", False)
    target.put("checkpoint", b"2", False)
    assert target.get("tile/0/000") == b"a"
    assert target.get("checkpoint") == b"2"
    assert target.get("no/such") is None
    assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["000", "checkpoint"]


def test_file_target_gone_is_not_made_again(folder: Path) -> None:
    """An unmounted folder is an error, and not silently filled on the disk below."""
    target = FileTarget(folder)
    target.put("checkpoint", b"1", False)
    shutil.rmtree(folder)
    with pytest.raises(StorageUnavailable):
        target.put("checkpoint", b"2", False)
    with pytest.raises(StorageUnavailable):
        target.get("checkpoint")
    assert not folder.exists()


def test_file_target_that_is_a_file_fails_clearly(tmp_path: Path) -> None:
    """A path through a file can be neither written nor read."""
    (tmp_path / "file").write_bytes(b"")
    target = FileTarget(tmp_path / "file" / "out")
    with pytest.raises(StorageUnavailable, match="cannot be written"):
        target.put("checkpoint", b"1", False)
    with pytest.raises(StorageUnavailable, match="cannot be read"):
        target.get("checkpoint")


def test_file_target_full_disk_fails_and_recovers(scene: Scene, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no space left ship() ends with StorageUnavailable, leaves no half file, and completes when there is room."""
    scene.append(300)
    scene.checkpoints.sign()
    target = FileTarget(folder)
    shipper = scene.shipper(target)
    real = os.fsync

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageUnavailable, match="No space left"):
        shipper.ship()
    monkeypatch.setattr(os, "fsync", real)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    shipper.ship()
    assert check_whole(target, scene.signer.verifier) == 300


@pytest.mark.parametrize(
    "url",
    [
        *("", "/tmp/x", "ftp://host/x", "file://host/x", "file:relative", "s3://", "s3:///prefix"),
        *("s3://key:secret@bucket/x", "s3://bucket/x?a=b", "https://bucket.s3.amazonaws.com/x"),
    ],
)
def test_open_target_other_url_is_refused(url: str) -> None:
    """What is no place to ship to is refused when it is opened, and a secret in it is not shown."""
    with pytest.raises(ConfigurationError) as refused:
        open_target(url)
    assert "secret" not in str(refused.value)


def test_open_target_file_url_is_decoded(tmp_path: Path) -> None:
    """A folder with spaces and other letters is found."""
    place = tmp_path / "a b \u00e4%"
    open_target(place.as_uri()).put("checkpoint", b"1", False)
    assert (place / "checkpoint").read_bytes() == b"1"


def test_open_target_without_boto3_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 needs an extra, and the error names it."""
    import sys

    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match="boto3") as refused:
        open_target("s3://bucket/prefix")
    assert "lukhas-pwm[backup]" in refused.value.hint
