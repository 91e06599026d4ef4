"""Opening the log's database for commands that read all of it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lukhas.cli.store import open_existing
from lukhas.errors import StorageUnavailable
from lukhas.settings import Settings

if TYPE_CHECKING:
    from lukhas.storage.engine import Database


@contextmanager
def open_log_database(settings: Settings) -> Generator[Database]:
    """Open the main database for reading; makes nothing.

    Raises:
        StorageUnavailable: there is no database yet, it is at another revision, or it cannot be read.
    """
    from lukhas.storage import migrate

    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        yield database
