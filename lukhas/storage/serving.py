"""One serving process per data directory: a second one would decide from other signals than the first."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from lukhas.errors import ConfigurationError


class ServingLock:
    """An advisory lock on `serve.lock`; the system lets it go when the process ends, however it ends."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "serve.lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            ConfigurationError: another process serves this data directory.
        """
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as failure:
            raise ConfigurationError(
                f"The data directory {self._path.parent} cannot be used: {failure.strerror}.",
                hint="Set LUKHAS_DATA_DIR to a directory that this user can write.",
                param="LUKHAS_DATA_DIR",
            ) from failure
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(file, 20).decode("ascii", "replace").strip()
            os.close(file)
            raise ConfigurationError(
                f"Another gateway (process {holder or 'unknown'}) already serves this data directory.",
                hint="Stop it, or give this one its own LUKHAS_DATA_DIR.",
                param="LUKHAS_DATA_DIR",
            ) from None
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Let the lock go. May be called twice."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
