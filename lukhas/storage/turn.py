"""Taking turns at SQLite's write lock between processes.

SQLite's lock is not fair: a process that writes without pause starves another that only looks now and then. So who
waits says so by a shared `flock` on a file beside the database, and who writes without pause looks there.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOOK_EVERY_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 0.02
_STEP_S: Final = 0.001


class WriteTurn:
    """One writer's view of who else wants to write to a database file."""

    __slots__ = ("_looked_at", "_marker")

    def __init__(self, database_path: Path) -> None:
        marker = database_path.with_name(database_path.name + "-turn")
        self._marker = os.open(marker, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._looked_at = time.monotonic()

    def give_way(self) -> None:
        """Pause for at most 20 ms while another writer waits. Call between batches, outside any transaction."""
        now = time.monotonic()
        if now - self._looked_at < _LOOK_EVERY_S:
            return
        while self._someone_waits() and time.monotonic() - now < _LONGEST_PAUSE_S:
            time.sleep(_STEP_S)
        self._looked_at = time.monotonic()

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Show others that this writer waits, for as long as the block runs."""
        fcntl.flock(self._marker, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._marker, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the marker file."""
        os.close(self._marker)

    def _someone_waits(self) -> bool:
        try:
            fcntl.flock(self._marker, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
        fcntl.flock(self._marker, fcntl.LOCK_UN)
        return False
