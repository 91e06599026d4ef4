"""The search index: a file of its own beside the database, which follows the log and can be made again at any time.

It is SQLite's FTS5 over tokens that were made here (`search_query.facts`), one row for each record, without its text.
What it finds is read from the log and looked at again: a wrong index may leave out, and never shows what is not there.
Every call opens the file anew: nothing is kept open that a deletion by another process could leave behind.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

from lukhas.audit.search_query import Condition, facts
from lukhas.audit.source import Line, RecordSource
from lukhas.errors import StorageUnavailable
from lukhas.storage.file_lock import FileLock
from lukhas.storage.sqlite import create_private_file, load_sqlite_module

FILE_NAME: Final = "search.db"
_LOCK_NAME: Final = "search.lock"
_FORMAT: Final = 1
_TOGETHER: Final = 500
_PATIENCE_S: Final = 60.0
_BUSY_S: Final = 5.0
_BLOCK_BITS: Final = 8
_MOST_TERMS: Final = 32
_DELETED_TOGETHER: Final = 5_000
# Reading records keeps the interpreter's lock, which the calls of the same process need: it is let go about every ms.
_READ_TOGETHER: Final = 8
_PAUSE_S: Final = 0.0002

_T = TypeVar("_T")


class SearchIndex:
    """Follows one log into `search.db` of a folder. Safe in any thread; processes exclude each other while they write.

    Args:
        folder: where the file is made, at the first `catch_up`.
        source: the log.
    """

    def __init__(self, folder: Path, source: RecordSource) -> None:
        self._path = folder / FILE_NAME
        self._source = source
        self._lock = FileLock(folder / _LOCK_NAME)
        self._turn = threading.Lock()

    def catch_up(self, most: int = 10_000) -> int:
        """Add up to `most` records that the index has not; return how many were looked at, 0 while another does it.

        An index of another log, of a longer one, or one that cannot be read is made anew from the start.

        Raises:
            StorageUnavailable: the disk is full, or the log or the file cannot be used. A later call goes on.
        """
        try:
            with self._alone(0):
                return self._write(lambda connection: self._follow(connection, most))
        except _Busy:
            return 0

    def lag(self) -> int:
        """Return how many records of the log the index does not have yet.

        Raises:
            StorageUnavailable: the log or the file cannot be read.
        """
        return max(0, self._source.size() - self.reach())

    def rebuild(self, on_progress: Callable[[int, int], None] = lambda _done, _total: None) -> int:
        """Delete the index and make it anew; return how many records it has.

        Args:
            on_progress: told how many records are done, of how many.

        Raises:
            StorageUnavailable: another process writes it, the disk is full, or the log cannot be read.
        """
        done = 0
        try:
            with self._alone(_PATIENCE_S):
                self._delete()
                while added := self._write(lambda connection: self._follow(connection, _TOGETHER * 10)):
                    done += added
                    on_progress(done, max(done, self._source.size()))
        except _Busy as busy:
            raise StorageUnavailable("Another process writes the search index.", hint="Try again later.") from busy
        return done

    def forget_before(self, index: int) -> None:
        """Forget every record before an index, which the log is about to prune.

        Raises:
            StorageUnavailable: another process writes it, or the file cannot be written.
        """
        if not self._path.exists():
            return
        try:
            with self._alone(_PATIENCE_S):
                self._write(lambda connection: _forget(connection, index))
        except _Busy as busy:
            raise StorageUnavailable("Another process writes the search index.", hint="Try again later.") from busy

    def reach(self) -> int:
        """Return how many records from the log's beginning the index has looked at; 0 where it is of no use.

        Raises:
            StorageUnavailable: the log or the file cannot be read.
        """
        if not self._path.exists():
            return 0
        return self._read(self._find_reach)

    def ranges(self, since_ms: int | None, until_ms: int | None, low: int, high: int) -> list[tuple[int, int]]:
        """Return where in [low, high) records of a time may be, as ranges of indexes, the newest first.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        if low >= high:
            return []
        if since_ms is None and until_ms is None:
            return [(low, high)]
        since = -(2**63) if since_ms is None else max(since_ms, -(2**63))
        until = 2**63 - 1 if until_ms is None else min(until_ms, 2**63 - 1)
        sql = (
            "SELECT block FROM span WHERE newest_ms >= ? AND oldest_ms < ? AND block BETWEEN ? AND ? "
            "ORDER BY block DESC"
        )
        edges = (since, until, low >> _BLOCK_BITS, (high - 1) >> _BLOCK_BITS)
        found: list[tuple[int, int]] = []
        for (block,) in self._read(lambda connection: connection.execute(sql, edges).fetchall()):
            start, end = max(low, block << _BLOCK_BITS), min(high, (block + 1) << _BLOCK_BITS)
            if found and found[-1][0] == end:
                found[-1] = (start, found[-1][1])
            else:
                found.append((start, end))
        return found

    def find(self, condition: Condition, low: int, high: int, most: int) -> list[int]:
        """Return up to `most` indexes in [low, high) of records that have the facets and terms, the newest first.

        Raises:
            StorageUnavailable: the file cannot be read.
        """
        parts = [f'facet : "{one}"' for one in sorted(condition.facets)]
        # More words than these cost more than they spare; whoever asks looks at the record itself anyway.
        for term in condition.terms[:_MOST_TERMS]:
            parts.append(f'words : "{" ".join(term.words)}"{" *" if term.is_prefix else ""}')
        sql = "SELECT rowid FROM record WHERE record MATCH ? AND rowid >= ? AND rowid < ? ORDER BY rowid DESC LIMIT ?"
        sought = (" AND ".join(parts), low, high, most)
        return [row[0] for row in self._read(lambda connection: connection.execute(sql, sought).fetchall())]

    def close(self) -> None:
        """Let go of the lock's file. The index can be used again."""
        with self._turn:
            self._lock.close()

    @contextmanager
    def _alone(self, patience_s: float) -> Generator[None]:
        if not self._turn.acquire(timeout=patience_s):
            raise _Busy
        try:
            held = self._lock.held(patience_s)
            try:
                held.__enter__()
            except StorageUnavailable as busy:
                raise _Busy from busy
            except OSError as failure:
                raise _unusable(self._path, failure) from failure
            try:
                yield
            finally:
                held.__exit__(None, None, None)
        finally:
            self._turn.release()

    def _write(self, work: Callable[[Any], _T]) -> _T:
        """Run work on the open file; one that is damaged, or of another form, is deleted and made anew, once."""
        module = load_sqlite_module()
        try:
            try:
                with closing(self._open()) as connection:
                    return work(connection)
            except module.Error as failure:
                if not _is_damage(failure):
                    raise
            self._delete()
            with closing(self._open()) as connection:
                return work(connection)
        except (module.Error, OSError) as failure:
            raise _unusable(self._path, failure) from failure

    def _read(self, work: Callable[[Any], _T]) -> _T:
        module = load_sqlite_module()
        try:
            # Read-only, so that its closing never deletes a write-ahead log.
            address = f"file:{quote(str(self._path))}?mode=ro"
            with closing(module.connect(address, uri=True, timeout=_BUSY_S, isolation_level=None)) as connection:
                return work(connection)
        except (module.Error, OSError) as failure:
            raise _unusable(self._path, failure) from failure

    def _open(self) -> Any:
        create_private_file(self._path)
        connection = load_sqlite_module().connect(str(self._path), timeout=_BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            form = connection.execute("PRAGMA user_version").fetchone()[0]
            if form == 0 and not connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall():
                _create(connection)
            elif form != _FORMAT:
                raise load_sqlite_module().DatabaseError("the search index is of another form")
        except BaseException:
            connection.close()
            raise
        return connection

    def _delete(self) -> None:
        try:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        except OSError as failure:
            raise _unusable(self._path, failure) from failure

    def _find_reach(self, connection: Any) -> int:
        row = connection.execute("SELECT next_index, leaf FROM place").fetchone()
        if row is None or connection.execute("PRAGMA user_version").fetchone()[0] != _FORMAT:
            return 0
        reach, leaf = row
        if type(reach) is not int or not 0 <= reach <= self._source.size():
            return 0
        if reach and (self._source.read_leaf(reach - 1) or b"") != leaf:
            return 0
        return reach

    def _follow(self, connection: Any, most: int) -> int:
        start = connection.execute("SELECT next_index FROM place").fetchone()
        reach = self._find_reach(connection)
        if start is None or reach != start[0]:
            raise load_sqlite_module().DatabaseError("the search index is of another log")
        done = 0
        while done < most:
            size = self._source.size()
            lines = self._source.read(reach, min(_TOGETHER, most - done)) if reach < size else ()
            end = lines[-1][0] + 1 if lines else size
            if end == reach:
                break
            leaf = self._source.read_leaf(end - 1) or b""
            _add(connection, lines, end, leaf)
            reach = end
            done += len(lines)
        return done


class _Busy(Exception):
    """Another thread or process writes the index."""


def _create(connection: Any) -> None:
    # The tokenizer has nothing left to do but to split at blanks: which word is one was settled before.
    options = "tokenize='ascii'"
    if tuple(load_sqlite_module().sqlite_version_info) >= (3, 43):
        options += ", content='', contentless_delete=1"
    with _transaction(connection):
        connection.execute(f"CREATE VIRTUAL TABLE record USING fts5(facet, words, {options})")
        connection.execute(
            "CREATE TABLE span(block INTEGER PRIMARY KEY, oldest_ms INTEGER NOT NULL, newest_ms INTEGER NOT NULL)"
        )
        connection.execute("CREATE TABLE place(next_index INTEGER NOT NULL, leaf BLOB NOT NULL)")
        connection.execute("INSERT INTO place VALUES (0, x'')")
        connection.execute(f"PRAGMA user_version={_FORMAT}")


def _add(connection: Any, lines: Any, end: int, leaf: bytes) -> None:
    rows: list[tuple[int, str, str]] = []
    spans: dict[int, tuple[int, int]] = {}
    line: Line
    for number, line in enumerate(lines):
        if number % _READ_TOGETHER == 0:
            time.sleep(_PAUSE_S)
        index, data = line
        found = facts(data)
        if found is None:
            continue
        rows.append((index, " ".join(found.facets), found.words))
        if found.time_ms is not None:
            oldest, newest = spans.get(index >> _BLOCK_BITS, (found.time_ms, found.time_ms))
            spans[index >> _BLOCK_BITS] = (min(oldest, found.time_ms), max(newest, found.time_ms))
    with _transaction(connection):
        connection.executemany("INSERT INTO record(rowid, facet, words) VALUES (?, ?, ?)", rows)
        connection.executemany(
            "INSERT INTO span VALUES (?, ?, ?) ON CONFLICT(block) DO UPDATE SET "
            "oldest_ms = min(oldest_ms, excluded.oldest_ms), newest_ms = max(newest_ms, excluded.newest_ms)",
            [(block, *times) for block, times in spans.items()],
        )
        connection.execute("UPDATE place SET next_index = ?, leaf = ?", (end, leaf))


def _forget(connection: Any, index: int) -> None:
    while True:
        sql = "SELECT max(rowid) FROM (SELECT rowid FROM record WHERE rowid < ? ORDER BY rowid LIMIT ?)"
        last = connection.execute(sql, (index, _DELETED_TOGETHER)).fetchone()[0]
        if last is None:
            break
        with _transaction(connection):
            connection.execute("DELETE FROM record WHERE rowid <= ?", (last,))
    with _transaction(connection):
        connection.execute("DELETE FROM span WHERE block < ?", (index >> _BLOCK_BITS,))


@contextmanager
def _transaction(connection: Any) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _is_damage(failure: Exception) -> bool:
    """Say whether the file is wrong, rather than the moment: a full disk, a lock."""
    if not isinstance(failure, load_sqlite_module().OperationalError):
        return True
    # Unrecognized: a newer SQLite made the file.
    return any(said in str(failure) for said in ("no such table", "no such column", "unrecognized option"))


def _unusable(path: Path, failure: Exception) -> StorageUnavailable:
    return StorageUnavailable(
        f"The search index {path} cannot be used: {failure}.",
        hint="Calls and records are not touched by that. Free some space, or delete the file: it is made anew.",
    )
