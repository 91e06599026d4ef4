"""The writer's one connection: opened when needed, dropped for good after any failure of the disk."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, RootTransaction
from sqlalchemy.exc import (
    DatabaseError,
    DBAPIError,
    InterfaceError,
    InternalError,
    OperationalError,
)
from sqlalchemy.exc import (
    TimeoutError as PoolTimeout,
)

from lukhas.storage.engine import Database
from lukhas.storage.sqlite import BUSY_TIMEOUT_MS, CHECKPOINT_PAGES, can_ask_for_log
from lukhas.storage.turn import WriteTurn

_RETRY_STEP_S: Final = 0.001
_LOOK_EVERY_S: Final = 0.05
_REST_S: Final = 1.0


def is_storage_failure(failure: BaseException, kind: str) -> bool:
    """Tell a failure of the disk, file, lock or server from a fault in the data that was to be written."""
    if isinstance(failure, (PoolTimeout, OSError)):
        return True
    if not isinstance(failure, DBAPIError):
        return False
    if failure.connection_invalidated or isinstance(failure, (OperationalError, InternalError)):
        return True
    if isinstance(failure, InterfaceError):
        return kind == "postgresql"  # SQLite's driver raises it for a value that it cannot bind
    return type(failure) is DatabaseError  # a malformed file


class WriteSession:
    """Runs transactions for one thread, on one connection that it keeps.

    Attributes:
        checkpoint_error: why the write-ahead log could not be copied into the database; None where it could.
    """

    __slots__ = ("_connection", "_database", "_file", "_looks_at", "_turn", "checkpoint_error")

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._file = _identify(database.path)
        self._turn: WriteTurn | None = None
        self._looks_at = math.inf
        self.checkpoint_error: str | None = None

    def run(self, work: Callable[[Connection], None]) -> None:
        """Run `work` in one transaction and commit it durably; on any error nothing of it stays.

        Raises:
            whatever `work` or the database raises. After a storage failure the connection is never used again.
            OSError: the file was removed or replaced since it was opened: what is written to the open one is lost.
        """
        connection = self._connection
        try:
            self._check_file()
            if connection is None:
                connection = self._connection = self._open()
            with self._begin(connection):
                work(connection)
            if time.monotonic() >= self._looks_at:
                self._shorten_log(connection)
        except BaseException as failure:
            if connection is not None and is_storage_failure(failure, self._database.kind):
                self._discard(connection)
            raise
        finally:
            if self._database.shares_connection:
                self.release()

    def give_way(self) -> None:
        """Let another process write, where one waits."""
        if self._turn is not None:
            self._turn.give_way()

    def release(self) -> None:
        """Give the connection back."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Close everything this session holds."""
        self.release()
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.close()

    def _open(self) -> Connection:
        if self._turn is None and self._database.path is not None and not self._database.shares_connection:
            self._turn = WriteTurn(self._database.path)
        connection = self._database.writer.connect()
        if self._file is None:
            self._file = _identify(self._database.path)
        if self._turn is not None:
            self._set(connection, "busy_timeout=0")  # the wait in `_begin` is ours, since SQLite's own grows to 100 ms
            if can_ask_for_log():
                # SQLite's own checkpoint comes within a commit, which says nothing of its failure, and would sync again
                # on the handle whose sync has failed.
                self._set(connection, "wal_autocheckpoint=0")
                self._looks_at = max(time.monotonic(), 0.0 if self._looks_at == math.inf else self._looks_at)
        return connection

    def _shorten_log(self, connection: Connection) -> None:
        """Copy the write-ahead log into the database where it has grown long.

        What was written is durable whether this works or not, so a failure is not its callers'.
        """
        self._looks_at = time.monotonic() + _LOOK_EVERY_S
        driver = connection.connection.driver_connection
        assert driver is not None
        try:
            pages = driver.execute("PRAGMA wal_checkpoint(NOOP)").fetchone()[1]
            if pages >= CHECKPOINT_PAGES:
                driver.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except driver.Error as failure:
            self.checkpoint_error = str(failure)
            self._looks_at = time.monotonic() + _REST_S
            self._discard(connection)
            # SQLite hands a closed connection's handle on to the next one while others are open.
            self._database.close()
        else:
            self.checkpoint_error = None

    def _begin(self, connection: Connection) -> RootTransaction:
        turn = self._turn
        try:
            return connection.begin()
        except OperationalError as failure:
            if turn is None or "locked" not in str(failure.orig):
                raise
        with turn.waiting():
            deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
            while True:
                try:
                    return connection.begin()
                except OperationalError as failure:
                    if "locked" not in str(failure.orig) or time.monotonic() > deadline:
                        raise
                time.sleep(_RETRY_STEP_S)

    def _check_file(self) -> None:
        if self._file is not None and _identify(self._database.path) != self._file:
            self._file = None
            # Readers, too, would go on with what is no longer there.
            self._database.close()
            raise OSError("the database file was removed or replaced")

    def _discard(self, connection: Connection) -> None:
        # After a failed fsync the kernel may have dropped the dirty pages: only a new handle sees the truth.
        self._connection = None
        try:
            connection.invalidate()
        finally:
            connection.close()

    @staticmethod
    def _set(connection: Connection, pragma: str) -> None:
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(f"PRAGMA {pragma}")


def _identify(path: Path | None) -> tuple[int, int] | None:
    """Return what tells a file from another of the same name; None where there is none."""
    try:
        status = None if path is None else path.stat()
    except FileNotFoundError:
        return None
    return None if status is None else (status.st_dev, status.st_ino)
