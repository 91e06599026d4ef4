"""Opening a database: SQLite in a file, or PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Literal

from sqlalchemy import URL, Connection, Engine, create_engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lukhas.errors import ConfigurationError, StorageUnavailable
from lukhas.storage.revision import REVISION_SUM
from lukhas.storage.sqlite import SqliteSafety, create_private_file, make_engines, sqlite_safety

__all__ = ["Database", "Kind", "Schema", "SqliteSafety", "open_database", "sqlite_safety", "vault_url"]

Kind = Literal["sqlite", "postgresql"]
Schema = Literal["main", "vault"]
_PG_NAMES: Final = frozenset({"postgres", "postgresql", "postgresql+psycopg"})


class Database:
    """One open database: an engine that writes and one that reads.

    Attributes:
        kind: 'sqlite' or 'postgresql'.
        schema: which tables live here: 'main', or 'vault' for subject keys.
        writer: its transactions take the write lock at their start.
        reader: its connections cannot write (SQLite).
        path: the file, on SQLite.
        shares_connection: this SQLite is unsafe with two connections, so one serves all and nobody may keep it.
    """

    __slots__ = (
        "_watch_lock",
        "_watcher",
        "kind",
        "path",
        "reader",
        "schema",
        "shares_connection",
        "writer",
    )

    def __init__(
        self, kind: Kind, schema: Schema, writer: Engine, reader: Engine, path: Path | None, shares_connection: bool
    ) -> None:
        self.kind: Kind = kind
        self.schema: Schema = schema
        self.writer = writer
        self.reader = reader
        self.path = path
        self.shares_connection = shares_connection
        self._watcher: Any = None
        self._watch_lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Database({self.kind}, {self.schema})"

    def data_version(self) -> int:
        """Return a number that changes when anybody commits; cheap enough to ask every 200 ms.

        On SQLite any commit changes it. On PostgreSQL it changes with the revisions (`lukhas.storage.revision`).

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        try:
            if self.kind == "sqlite" and not self.shares_connection:
                with self._watch_lock:
                    if self._watcher is None:
                        # A connection of its own: the pragma compares with what this very connection saw before.
                        pooled = self.reader.raw_connection()
                        pooled.detach()
                        self._watcher = pooled.dbapi_connection
                    return int(self._watcher.execute("PRAGMA data_version").fetchone()[0])
            with self.reader.connect() as connection:
                return int(connection.exec_driver_sql(REVISION_SUM).scalar_one())
        except Exception as failure:
            if not _is_database_failure(failure):
                raise
            self._forget_watcher()
            raise StorageUnavailable("The database cannot be read.") from failure

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Open a connection that reads, for as long as the block runs.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        try:
            with self.reader.connect() as connection:
                yield connection
        except (DBAPIError, PoolTimeout) as failure:
            cause = getattr(failure, "orig", failure)
            raise StorageUnavailable("The database cannot be read.", hint=f"It says: {cause}.") from failure

    def integrity_check(self) -> list[str]:
        """Return what the database itself finds wrong with its file; empty when all is well."""
        if self.kind == "postgresql":
            return []
        try:
            with self.reader.connect() as connection:
                found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check").all()]
                problems = [] if found == ["ok"] else [f"integrity: {line}" for line in found]
                for table, rowid, parent, _ in connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                    problems.append(f"foreign key: row {rowid} of {table} points to nothing in {parent}")
                return problems
        except DBAPIError as failure:
            return [f"integrity: {failure.orig}"]

    def close(self) -> None:
        """Close every connection. The database can be used again; it then reconnects."""
        self._forget_watcher()
        self.reader.dispose()
        self.writer.dispose()

    def abandon(self) -> None:
        """Let go of connections without closing them: for a forked child, whose parent still uses them."""
        self._watcher = None
        self._watch_lock = threading.Lock()
        self.reader.dispose(close=False)
        self.writer.dispose(close=False)

    def _forget_watcher(self) -> None:
        with self._watch_lock:
            watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.close()


def open_database(url: str, *, schema: Schema = "main") -> Database:
    """Open a database by its SQLAlchemy URL. SQLite's file is created (0600) where it is missing.

    Args:
        url: `sqlite:////path/lukhas.db` or `postgresql://user:password@host/name`.
        schema: which set of tables lives there.

    Raises:
        ConfigurationError: an URL that cannot serve, or a driver that is not installed. Never shows a password.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("The database URL cannot be understood.", param="LUKHAS_DATABASE_URL") from None
    if parsed.get_backend_name() == "sqlite":
        return _open_sqlite(parsed, schema)
    if parsed.drivername in _PG_NAMES:
        return _open_postgresql(parsed, schema)
    raise ConfigurationError(
        f"The database '{parsed.drivername}' is not supported.",
        hint="Use sqlite:///path or postgresql://user@host/name.",
        param="LUKHAS_DATABASE_URL",
    )


def vault_url(main_url: str) -> str:
    """Return where subject keys live for a main database: `vault.db` beside an SQLite file, else the same server."""
    parsed = make_url(main_url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        return main_url
    path = Path(parsed.database).with_name("vault.db")
    return parsed.set(database=str(path)).render_as_string(hide_password=False)


def _open_sqlite(url: URL, schema: Schema) -> Database:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise ConfigurationError(
            "SQLite needs a file here: memory is not durable.",
            hint="Use sqlite:////absolute/path/lukhas.db.",
            param="LUKHAS_DATABASE_URL",
        )
    path = Path(url.database).absolute()
    try:
        create_private_file(path)
    except OSError as failure:
        raise ConfigurationError(
            f"The database {path} cannot be created: {failure.strerror}.", param="LUKHAS_DATA_DIR"
        ) from failure
    shared = not sqlite_safety().safe
    writer, reader = make_engines(f"sqlite:///{path}", shared=shared)
    return Database("sqlite", schema, writer, reader, path, shared)


def _open_postgresql(url: URL, schema: Schema) -> Database:
    if find_spec("psycopg") is None:
        raise ConfigurationError(
            "PostgreSQL needs the driver psycopg 3, which is not installed.",
            hint="Run: pip install 'lukhas-pwm[postgres]'",
            param="LUKHAS_DATABASE_URL",
        )
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"), hide_parameters=True, pool_size=8, max_overflow=8, pool_pre_ping=True
    )
    return Database("postgresql", schema, engine, engine, None, False)


def _is_database_failure(failure: Exception) -> bool:
    # The watcher speaks to the driver directly, whose errors SQLAlchemy does not wrap.
    return isinstance(failure, DBAPIError) or type(failure).__module__.split(".")[0] in {"sqlite3", "pysqlite3"}
