"""Opening the databases for commands: to change something, or only to look."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from lukhas.clock import SystemClock
from lukhas.errors import ConfigurationError, StorageUnavailable
from lukhas.settings import Settings

if TYPE_CHECKING:
    from lukhas.access.keys import Also, KeyStore
    from lukhas.audit.store import AuditStore
    from lukhas.storage.engine import Database, Schema
    from lukhas.storage.writer import GroupCommitWriter

# Who acted, where it was nobody's API key but a person at the command line.
ACTOR: Final = "cli"
_CLOSE_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stores:
    """What a command that changes something needs."""

    keys: KeyStore
    audit: AuditStore
    clock: SystemClock
    database: Database
    writer: GroupCommitWriter

    def record(self, kind: str, tenant: str, body: dict[str, Any]) -> tuple[str, Also]:
        """Return the id of a new audit record, and the record in the form that goes into a change's transaction."""
        from lukhas.audit.redaction import redact
        from lukhas.audit.store import AuditRecord
        from lukhas.ids import make_id

        audit_id = make_id("aud")
        record = AuditRecord(
            kind=kind,
            audit_id=audit_id,
            tenant=tenant,
            key_id=ACTOR,
            request_id=None,
            time_ms=self.clock.now_ms(),
            session=None,
            user=None,
            body=redact(body),
        )
        return audit_id, (self.audit.sink, self.audit.encode(record))


@contextmanager
def open_stores(settings: Settings) -> Generator[Stores]:
    """Open keys and audit log for a change, migrated, beside a running gateway or without one.

    Raises:
        ConfigurationError: the database cannot be used, or this SQLite allows one process only and another has it.
        StorageUnavailable: it cannot be read or written.
    """
    from lukhas.access.keys import KeyStore
    from lukhas.audit.redaction import install_redactor
    from lukhas.audit.redaction_reader import load_redactor
    from lukhas.audit.store import AuditStore
    from lukhas.storage import migrate
    from lukhas.storage.engine import open_database
    from lukhas.storage.serving import ServingLock
    from lukhas.storage.writer import GroupCommitWriter

    clock = SystemClock()
    install_redactor(load_redactor(settings.redaction))
    with ExitStack() as stack:
        database = open_database(settings.sqlalchemy_url)
        stack.callback(database.close)
        if database.shares_connection:
            # This SQLite may lose writes when two processes write; a gateway holds the lock while it serves.
            lock = ServingLock(settings.data_dir)
            lock.acquire()
            stack.callback(lock.release)
        migrate.upgrade(database)
        writer = GroupCommitWriter(database, max_rows=settings.writer_queue_rows, name="cli-writer")
        writer.start()
        stack.callback(writer.close, _CLOSE_TIMEOUT_S)
        keys, audit = KeyStore(database, writer, clock), AuditStore(database, writer, clock)
        yield Stores(keys, audit, clock, database, writer)


@contextmanager
def open_existing(settings: Settings, schema: Schema = "main") -> Generator[Database]:
    """Open a database to look at it; makes nothing.

    Raises:
        StorageUnavailable: there is none yet, or it cannot be read.
    """
    from lukhas.storage.engine import open_database, vault_url

    url = settings.sqlalchemy_url if schema == "main" else vault_url(settings.sqlalchemy_url)
    path = find_file(url)
    if path is not None and not path.is_file():
        raise StorageUnavailable(
            f"There is no database at {path} yet.", hint="Start the gateway (lukhas serve), or: lukhas db upgrade"
        )
    database = open_database(url, schema=schema)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def open_log(settings: Settings) -> Generator[AuditStore]:
    """Open the audit log for reading.

    Raises:
        StorageUnavailable: there is no database yet, it is at another revision, or it cannot be read.
    """
    from lukhas.audit.store import AuditStore
    from lukhas.storage import migrate
    from lukhas.storage.writer import GroupCommitWriter

    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        yield AuditStore(database, GroupCommitWriter(database, max_rows=1, name="unused"), SystemClock())


def find_file(url: str) -> Any:
    """Return the path of an SQLite URL's file; None for a database on a server.

    Raises:
        ConfigurationError: the URL cannot be understood.
    """
    from pathlib import Path

    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ConfigurationError("The database URL cannot be understood.", param="LUKHAS_DATABASE_URL") from None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None
