"""A lock between processes, on a file of its own; the system lets it go when its holder ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from lukhas.errors import StorageUnavailable

_FIRST_STEP_S: Final = 0.0005
_LONGEST_STEP_S: Final = 0.01


class FileLock:
    """An exclusive `flock`. One thread at a time may use it; two objects on one path exclude each other."""

    __slots__ = ("_file", "_path", "_pid")

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._pid = os.getpid()

    @contextmanager
    def held(self, patience_s: float) -> Generator[None]:
        """Keep the lock for as long as the block runs.

        Raises:
            StorageUnavailable: another holder kept it for longer than `patience_s`.
            OSError: the lock's file cannot be made.
        """
        file = self._take(patience_s)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Let go of the file. The lock can be used again."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _take(self, patience_s: float) -> int:
        if self._pid != os.getpid():
            # What a forked child inherits is its parent's own hold: the two would not exclude each other.
            self.close()
            self._pid = os.getpid()
        deadline = time.monotonic() + patience_s
        step_s = _FIRST_STEP_S
        while True:
            file = self._file
            if file is None:
                file = self._file = self._open()
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise StorageUnavailable(
                        f"Another process has kept {self._path} locked for {patience_s:g} s.",
                        hint="It may be stopped or hang on its disk; `fuser` on that file names it.",
                    ) from None
                time.sleep(step_s)
                step_s = min(step_s * 2, _LONGEST_STEP_S)
                continue
            if self._is_there(file):
                return file
            self.close()  # somebody removed the file: whoever comes now locks another one of that name

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            return os.open(self._path, flags, 0o600)
        except FileNotFoundError:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return os.open(self._path, flags, 0o600)

    def _is_there(self, file: int) -> bool:
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return False
        mine = os.fstat(file)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)
