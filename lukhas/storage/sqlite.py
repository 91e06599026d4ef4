"""Which SQLite serves, whether it is safe, and how each connection is set up."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

BUSY_TIMEOUT_MS: Final = 5_000
_WAL_PATIENCE_S: Final = 5.0
CHECKPOINT_PAGES: Final = 4_000


@dataclass(frozen=True, slots=True)
class SqliteSafety:
    """Whether the SQLite in use may have several connections that write and checkpoint."""

    version: str
    safe: bool
    reason: str


@cache
def load_sqlite_module() -> Any:
    """Return the DBAPI module: `pysqlite3` (which bundles a recent SQLite) when installed, else the standard one."""
    try:
        return import_module("pysqlite3")
    except ImportError:
        return sqlite3


def judge_version(version: tuple[int, int, int]) -> SqliteSafety:
    """Say whether this SQLite version is free of the WAL-reset bug.

    The bug can lose committed writes when two connections write and checkpoint. Fixed in 3.51.3, and on the older
    branches in 3.50.7 and 3.44.6. Source: https://sqlite.org/wal.html#walresetbug.
    """
    text = ".".join(map(str, version))
    if version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0):
        return SqliteSafety(text, True, "free of the WAL-reset bug")
    return SqliteSafety(
        text,
        False,
        "has the WAL-reset bug (fixed in 3.51.3, 3.50.7 and 3.44.6): everything goes through one connection of one "
        "process; install the package pysqlite3 where it has a wheel",
    )


def sqlite_safety() -> SqliteSafety:
    """Judge the SQLite that this process uses."""
    major, minor, patch = load_sqlite_module().sqlite_version_info[:3]
    return judge_version((major, minor, patch))


def can_ask_for_log() -> bool:
    """Say whether this SQLite tells how long its write-ahead log is: `wal_checkpoint(NOOP)`, since 3.51.0."""
    return tuple(load_sqlite_module().sqlite_version_info[:2]) >= (3, 51)


def create_private_file(path: Path) -> None:
    """Create the database file readable by its owner only, in a directory made the same way where it is missing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # SQLite gives the -wal and -shm files the mode of the main file, so this one call covers all three.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass


def make_engines(url: str, *, shared: bool) -> tuple[Engine, Engine]:
    """Build the writer's engine (BEGIN IMMEDIATE) and the readers' (BEGIN, query only) for one SQLite file.

    Args:
        url: an SQLAlchemy URL that names a file.
        shared: one connection serves both, for a SQLite that is not safe with two.
    """
    writer = _make_engine(url, begin="BEGIN IMMEDIATE", query_only=False, single=shared)
    if shared:
        return writer, writer
    return writer, _make_engine(url, begin="BEGIN", query_only=True, single=False)


def _make_engine(url: str, *, begin: str, query_only: bool, single: bool) -> Engine:
    engine = create_engine(
        url,
        module=load_sqlite_module(),
        poolclass=QueuePool,
        pool_size=1 if single else 4,
        max_overflow=0 if single else 12,
        pool_timeout=30,
        hide_parameters=True,
        connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
    )

    def set_up(connection: Any, _record: object) -> None:
        # The driver must not open transactions by itself: the begin event below does.
        connection.isolation_level = None
        cursor = connection.cursor()
        _turn_on_wal(cursor)
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")
        # Fewer checkpoints copy the log's hottest pages less often; the WAL file stays near 16 MB.
        cursor.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
        if query_only:
            cursor.execute("PRAGMA query_only=ON")
        cursor.close()

    def refuse_missing(_dialect: object, _record: object, arguments: Sequence[Any], _options: object) -> None:
        # SQLite would make an empty file, and the next start would take that for a new installation.
        if not Path(arguments[0]).exists():
            raise load_sqlite_module().OperationalError("the database file is not there")

    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    event.listen(engine, "do_connect", refuse_missing)
    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", start)
    return engine


def _turn_on_wal(cursor: Any) -> None:
    # SQLite answers 'locked' at once, without its busy handler, when two processes make a new file WAL together.
    deadline = time.monotonic() + _WAL_PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except load_sqlite_module().OperationalError as failure:
            if "locked" not in str(failure) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
