"""Opening what signs the log, for commands on the operator's own machine."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lukhas.cli.store import Stores, open_existing, open_stores
from lukhas.errors import StorageUnavailable
from lukhas.settings import Settings

if TYPE_CHECKING:
    from lukhas.audit.note import NoteVerifier
    from lukhas.audit.signing_key import SigningKey

_RECORD_KIND: Final = "log_key"


@dataclass(frozen=True, slots=True)
class Signing:
    """The log, opened for a change, and the key that signs it."""

    stores: Stores
    key: SigningKey


def read_verifiers(settings: Settings) -> list[NoteVerifier]:
    """Return the public keys of the log, newest first; empty where it has none yet.

    Raises:
        StorageUnavailable: there is no database yet, it is at another revision, or it cannot be read.
    """
    from lukhas.audit.signing_key import load_verifiers
    from lukhas.storage import migrate

    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        return load_verifiers(database)


@contextmanager
def open_signing(settings: Settings) -> Generator[Signing]:
    """Open log, vault and key; a key that is new is put on record.

    Raises:
        ConfigurationError: what is set does not fit the log, or another process has it for itself.
        IntegrityError: the stored key cannot be opened with this vault's key.
        StorageUnavailable: log or vault cannot be read or written.
    """
    from lukhas.audit.signing_key import load_key
    from lukhas.storage import migrate
    from lukhas.storage.engine import open_database, vault_url
    from lukhas.storage.writer import GroupCommitWriter
    from lukhas.vault.subjects import SubjectVault

    with open_stores(settings) as stores:
        database = open_database(vault_url(settings.sqlalchemy_url), schema="vault")
        try:
            migrate.upgrade(database)
            unused = GroupCommitWriter(database, max_rows=1, name="unused")
            seal = SubjectVault(database, unused, clock=stores.clock).seal
        finally:
            database.close()
        key = load_key(stores.database, seal, stores.clock, origin=settings.audit_origin, key=settings.audit_key)
        if key.is_new:
            _, (sink, entry) = stores.record(_RECORD_KIND, "", key.describe())
            stores.writer.submit_sync(sink, entry, settings.writer_deadline_s)
        yield Signing(stores, key)
