"""A log with records in it, for tests of what follows the log."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lukhas.audit.record import AuditRecord
from lukhas.audit.store import AuditStore
from lukhas.clock import Clock, SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter


class LogScene:
    """One process's log in a folder."""

    def __init__(self, folder: Path, clock: Clock | None = None, **options: Any) -> None:
        self.url = f"sqlite:///{folder}/lukhas.db"
        self.clock = clock or SystemClock()
        self.database: Database = open_database(self.url)
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=100_000, **options)
        self.writer.start()
        self.store = AuditStore(self.database, self.writer, self.clock)

    def close(self) -> None:
        self.writer.close(10)
        self.database.close()

    def append(self, count: int, *, time_ms: int | None = None, times: Sequence[int] = (), body: Any = "x") -> None:
        """Append records, in one transaction, each at its time."""
        given = list(times) or [self.clock.now_ms() if time_ms is None else time_ms] * count
        entries = [
            self.store.encode(AuditRecord("note", make_id("aud"), "default", "key_1", None, at, None, None, body))
            for at in given
        ]
        for start in range(0, len(entries), 5_000):
            self.writer.submit_sync(self.store._log.write_together, entries[start : start + 5_000], 60)

    def execute(self, sql: str, *parameters: Any) -> int:
        with self.database.writer.begin() as connection:
            return connection.exec_driver_sql(sql, tuple(parameters)).rowcount

    def query(self, sql: str) -> list[Any]:
        with self.database.reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql).all()]

    def stored(self) -> list[bytes]:
        return [bytes(row[0]) for row in self.query("SELECT data FROM audit_record ORDER BY leaf_index")]
