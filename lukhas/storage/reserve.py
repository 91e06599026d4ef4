"""Disk room that is kept back for the last records of a shutdown on a full disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FILE_NAME: Final = "audit.reserve"


class Reserve:
    """A file that holds room until it is needed. For one thread at a time.

    It is kept for the shutdown and not given away while serving: whatever fills the disk would take the room within
    moments, and then nothing would be left for the summary and the final checkpoint.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        """Name the file; `restore` makes it.

        Args:
            path: where; on the database's file system.
            size_bytes: how much is kept; 0 keeps nothing.
        """
        self._path = path
        self._size_bytes = size_bytes

    @property
    def is_held(self) -> bool:
        """Whether the whole room is taken, on the disk and not only by name."""
        try:
            status = self._path.stat()
        except OSError:
            return False
        return self._size_bytes > 0 and status.st_size == self._size_bytes <= status.st_blocks * 512

    def restore(self) -> bool:
        """Take the room where the disk has as much again left for others; a file of another size is replaced.

        Returns:
            Whether the room is held then. Never raises for want of room or of a disk that can be written.
        """
        if self.is_held:
            return True
        try:
            self._path.unlink(missing_ok=True)
            if self._size_bytes == 0 or _free_bytes(self._path.parent) < 2 * self._size_bytes:
                return False
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                allocate(handle, self._size_bytes, self._path.parent)
            except BaseException:
                self._path.unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
        except OSError:
            return False
        return self.is_held

    def release(self) -> bool:
        """Give the room back.

        Returns:
            Whether there was any.
        """
        was_held = self._path.exists()
        try:
            # Emptied first: some file systems need room to take a name away, and another process may have it open.
            os.truncate(self._path, 0)
        except OSError:
            pass
        try:
            self._path.unlink(missing_ok=True)
        except OSError:
            return False
        return was_held


def allocate(handle: int, size_bytes: int, folder: Path) -> None:
    """Give an open file its size and its blocks, durably.

    Args:
        handle: open for writing.
        size_bytes: the size, more than 0.
        folder: where the file's name stands, which is made durable too.

    Raises:
        OSError: there is no room.
    """
    os.posix_fallocate(handle, 0, size_bytes)
    os.fsync(handle)
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(above)
    finally:
        os.close(above)


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
