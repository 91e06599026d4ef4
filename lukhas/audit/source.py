"""Reading the log in its order: what export, search, the JSONL file and the verifier follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from lukhas.audit import statement
from lukhas.audit.merkle import HASH_BYTES, fold_root, unpack_frontier
from lukhas.errors import IntegrityError
from lukhas.storage.engine import Database

Line: TypeAlias = tuple[int, bytes]
"""One record as it is stored: its index and its verbatim bytes, a line of the export without the newline."""


class RecordSource:
    """Reads committed records by index, in batches. Safe in any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def size(self) -> int:
        """Return how many records the log has, pruned ones among them.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        with self._database.reading() as connection:
            return statement.read_head(connection)[0]

    def head(self) -> tuple[int, bytes]:
        """Return the log's size and its RFC 6962 root hash.

        Raises:
            StorageUnavailable: the database cannot be read.
            IntegrityError: the stored head does not fit its size.
        """
        with self._database.reading() as connection:
            size, frontier, _ = statement.read_head(connection)
        try:
            return size, fold_root(unpack_frontier(frontier, size))
        except ValueError as wrong:
            raise IntegrityError("The audit log's stored head does not fit its size.") from wrong

    def read(self, start: int, most: int) -> Sequence[Line]:
        """Return up to `most` records from index `start` on, in order. Pruned ones are not there, which leaves a gap.

        Raises:
            StorageUnavailable: the database cannot be read.
            IntegrityError: what is stored there is neither bytes nor text.
        """
        sql = (
            f"SELECT leaf_index, data FROM audit_record WHERE leaf_index >= {int(start)} "  # noqa: S608 - numbers
            f"ORDER BY leaf_index LIMIT {int(most)}"
        )
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(sql).all()
        return [(index, data if type(data) is bytes else _to_bytes(index, data)) for index, data in rows]

    def pick(self, indexes: Sequence[int]) -> Sequence[Line]:
        """Return the records at these indexes, at most some hundreds, in order. Pruned ones are left out.

        Raises:
            StorageUnavailable, IntegrityError: as `read`.
        """
        if not indexes:
            return []
        wanted = ",".join(str(int(index)) for index in indexes)
        sql = f"SELECT leaf_index, data FROM audit_record WHERE leaf_index IN ({wanted}) ORDER BY leaf_index"  # noqa: S608 - numbers
        with self._database.reading() as connection:
            rows = connection.exec_driver_sql(sql).all()
        return [(index, data if type(data) is bytes else _to_bytes(index, data)) for index, data in rows]

    def read_leaf(self, index: int) -> bytes | None:
        """Return the leaf hash of the record at an index, pruned or not; None past the log's end.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        with self._database.reading() as connection:
            leaf = statement.read_leaf(connection, index)
            if leaf is not None:
                return leaf
            tile = statement.read_tile(connection, 0, index >> 8)
        start = HASH_BYTES * (index & 255)
        return None if tile is None else tile[start : start + HASH_BYTES] or None


def _to_bytes(index: int, data: object) -> bytes:
    # SQLite keeps whatever type an edit has put there. A text is compared as what it says, so that it is named.
    if isinstance(data, str):
        return data.encode("utf-8", "surrogateescape")
    raise IntegrityError(f"Record {index} of the audit log is not of the type that was written.")
