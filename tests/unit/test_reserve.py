"""Disk room that is kept back, and the small file whose room was taken beforehand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lukhas.storage.reserve import Reserve
from lukhas.storage.slot_file import SlotFile


def test_reserve_takes_its_room_and_gives_it_back(tmp_path: Path) -> None:
    """The blocks are taken, not only the name; only the owner may read it; both ways may be gone twice."""
    reserve = Reserve(tmp_path / "audit.reserve", 1_000_000)
    assert not reserve.is_held
    assert reserve.restore() and reserve.restore() and reserve.is_held
    status = (tmp_path / "audit.reserve").stat()
    assert status.st_size == 1_000_000 <= status.st_blocks * 512
    assert status.st_mode & 0o777 == 0o600
    assert reserve.release()
    assert not reserve.release()
    assert not (tmp_path / "audit.reserve").exists()


@pytest.mark.parametrize("size", [pytest.param(10, id="too-small"), pytest.param(2_000_000, id="too-large")])
def test_reserve_of_another_size_is_replaced(tmp_path: Path, size: int) -> None:
    """The setting was changed between two starts, or the file was only a name with a hole."""
    path = tmp_path / "audit.reserve"
    with path.open("wb") as file:
        file.truncate(size)
    assert Reserve(path, 1_000_000).restore()
    assert path.stat().st_size == 1_000_000


def test_reserve_without_blocks_is_not_held(tmp_path: Path) -> None:
    """A hole of the right size keeps no room."""
    path = tmp_path / "audit.reserve"
    with path.open("wb") as file:
        file.truncate(1_000_000)
    assert not Reserve(path, 1_000_000).is_held


def test_reserve_of_no_size_takes_its_file_away(tmp_path: Path) -> None:
    """0 turns it off, also where an earlier start had made one."""
    path = tmp_path / "audit.reserve"
    assert Reserve(path, 10_000).restore()
    assert not Reserve(path, 0).restore()
    assert not path.exists()


def test_reserve_without_room_is_not_held_and_leaves_nothing(tmp_path: Path) -> None:
    """It never takes what others need: where the disk has not twice as much, there is no reserve."""
    found = os.statvfs(tmp_path)
    reserve = Reserve(tmp_path / "audit.reserve", found.f_bavail * found.f_frsize)
    assert not reserve.restore()
    assert not (tmp_path / "audit.reserve").exists()


def test_reserve_in_a_folder_that_is_gone_is_not_held(tmp_path: Path) -> None:
    """What goes wrong with the reserve stops nobody."""
    reserve = Reserve(tmp_path / "gone" / "audit.reserve", 1_000)
    assert not reserve.restore()
    assert not reserve.release()


def test_slot_file_gives_back_the_newest_value(tmp_path: Path) -> None:
    """Also to the next process, and an empty value is one."""
    path = tmp_path / "slots"
    assert SlotFile(path).read() == b""
    first = SlotFile(path, 4_096)
    for number in range(5):
        first.write(b"value %d" % number)
    first.close()
    second = SlotFile(path, 4_096)
    assert second.read() == b"value 4"
    second.write(b"")
    second.close()
    assert SlotFile(path, 4_096).read() == b""
    assert path.stat().st_size == 8_192 and path.stat().st_mode & 0o777 == 0o600


def test_slot_file_torn_anywhere_gives_back_the_value_before(tmp_path: Path) -> None:
    """A power cut in the middle of a write costs that write, never both."""
    path = tmp_path / "slots"
    file = SlotFile(path, 512)
    file.write(b"old")
    before = path.read_bytes()
    file.write(b"new")
    file.close()
    after = path.read_bytes()
    changed = [place for place in range(len(after)) if after[place] != before[place]]
    assert changed
    for place in changed:
        path.write_bytes(before[:place] + bytes([before[place]]) + after[place + 1 :])
        assert SlotFile(path, 512).read() == b"old"


def test_slot_file_refuses_a_value_that_does_not_fit(tmp_path: Path) -> None:
    """The other slot begins there."""
    file = SlotFile(tmp_path / "slots", 512)
    file.write(b"x" * 460)
    with pytest.raises(ValueError, match="does not fit"):
        file.write(b"x" * 461)
    assert SlotFile(tmp_path / "slots", 512).read() == b"x" * 460
    file.close()


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 262_144, b"\xff" * 262_144])
def test_slot_file_of_something_else_is_empty(tmp_path: Path, content: bytes) -> None:
    """Whatever stands there, it is no value."""
    path = tmp_path / "slots"
    path.write_bytes(content)
    file = SlotFile(path)
    assert file.read() == b""
    file.write(b"value")
    file.close()
    assert SlotFile(path).read() == b"value"
