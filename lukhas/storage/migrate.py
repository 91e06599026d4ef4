"""Bringing a database's tables up to date. Alembic is imported only where there is something to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, MetaData, inspect, text
from sqlalchemy.exc import DBAPIError

from lukhas.errors import ConfigurationError, StorageUnavailable
from lukhas.storage.engine import Database, Schema
from lukhas.storage.metadata import MAIN, VAULT
from lukhas.storage.sqlite import BUSY_TIMEOUT_MS

if TYPE_CHECKING:
    from alembic.config import Config

_MIGRATION_PATIENCE_MS: Final = 60_000
_LOCK_KEY: Final = 0x6C756B68  # any fixed number; all replicas must agree on it


@dataclass(frozen=True, slots=True)
class _Line:
    head: str
    folder: str
    version_table: str
    metadata: MetaData


# `head` is written down so that a start on a current database need not import Alembic; a test compares it.
_LINES: Final[dict[Schema, _Line]] = {
    "main": _Line("m0004", "versions", "alembic_version", MAIN),
    "vault": _Line("v0002", "vault_versions", "alembic_version_vault", VAULT),
}


def head_revision(schema: Schema) -> str:
    """Return the newest revision that this code knows for a set of tables."""
    return _LINES[schema].head


def current(database: Database) -> str | None:
    """Return the revision that the database is at; None before the first upgrade.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    with database.reading() as connection:
        return _read_version(connection, _LINES[database.schema].version_table)


def is_current(database: Database) -> bool:
    """Say whether the database is at this code's newest revision, without importing Alembic."""
    return current(database) == _LINES[database.schema].head


def upgrade(database: Database) -> None:
    """Bring the tables to the newest revision. Safe to call from several processes at once; does nothing when current.

    Raises:
        ConfigurationError: the database was made by a newer version of this program.
        StorageUnavailable: the database cannot be written.
    """
    line = _LINES[database.schema]
    if is_current(database):
        return
    from alembic import command
    from alembic.util.exc import CommandError

    try:
        # One transaction from the look at the version to its change: a second process waits, then finds it done.
        with database.writer.connect() as connection:
            _wait_patiently(connection, database)
            try:
                with connection.begin():
                    if database.kind == "postgresql":
                        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
                    if _read_version(connection, line.version_table) != line.head:
                        command.upgrade(make_config(database.schema, connection), "head")
            finally:
                _wait_as_usual(connection, database)
    except CommandError as failure:
        raise ConfigurationError(
            "The database was made by a newer version of this program.", hint="Run that version, or restore a backup."
        ) from failure
    except DBAPIError as failure:
        raise StorageUnavailable("The database cannot be upgraded.", hint=_cause(failure)) from failure


def check(database: Database) -> list[str]:
    """Return what is wrong with a database: its revision, its file, and tables that differ from the code's."""
    line = _LINES[database.schema]
    found = current(database)
    if found != line.head:
        problems = [f"revision: at {found or 'nothing'}, this program needs {line.head} (run: lukhas db upgrade)"]
    else:
        problems = _find_drift(database, line)
    return problems + database.integrity_check()


def make_config(schema: Schema, connection: Connection | None = None) -> Config:
    """Return Alembic's configuration for a set of tables; with a connection, its scripts can run in it."""
    from alembic.config import Config

    line = _LINES[schema]
    here = Path(__file__).parent / "migrations"
    config = Config()
    # A per cent sign in an installation path would otherwise be read as an interpolation.
    config.set_main_option("script_location", str(here).replace("%", "%%"))
    config.set_main_option("version_locations", str(here / line.folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    config.attributes.update(connection=connection, metadata=line.metadata, version_table=line.version_table)
    return config


def _find_drift(database: Database, line: _Line) -> list[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    def is_ours(name: str | None, kind: str, _parents: object) -> bool:
        return kind != "table" or name in line.metadata.tables

    with database.reader.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"include_name": is_ours, "version_table": line.version_table}
        )
        return [f"schema: {difference}" for difference in compare_metadata(context, line.metadata)]


def _read_version(connection: Connection, table: str) -> str | None:
    if not inspect(connection).has_table(table):
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {table}").scalar()  # noqa: S608 - a fixed name


def _wait_patiently(connection: Connection, database: Database) -> None:
    _set_patience(connection, database, _MIGRATION_PATIENCE_MS)


def _wait_as_usual(connection: Connection, database: Database) -> None:
    _set_patience(connection, database, BUSY_TIMEOUT_MS)


def _set_patience(connection: Connection, database: Database, ms: int) -> None:
    if database.kind == "sqlite":
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute(f"PRAGMA busy_timeout={ms}")


def _cause(failure: DBAPIError) -> str:
    return f"The database says: {failure.orig}."
