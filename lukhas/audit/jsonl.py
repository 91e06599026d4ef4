"""The JSONL file: the log's verbatim records, a line each, in a file that rotates.

The file follows the log by index, and its own last line says how far it came, so nothing else has to be kept: after a
crash a line that was cut off is written again, and so is what a power cut took. Any number of processes may follow one
log into one file. A lock beside it (`audit.jsonl.lock`) is held for each batch.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from lukhas.audit.line_file import is_torn_record, list_rotated, name_rotated, read_ends, read_index
from lukhas.audit.merkle import leaf_hash
from lukhas.audit.source import Line, RecordSource
from lukhas.clock import Clock, SystemClock, format_utc
from lukhas.errors import IntegrityError, LukhasError, StorageUnavailable
from lukhas.settings import Settings
from lukhas.storage.file_lock import FileLock

log = logging.getLogger("lukhas.audit.jsonl")

PATIENCE_S: Final = 5.0
_BATCH: Final = 512
_MOST_SET_ASIDE: Final = 5
_SET_ASIDE_WITHIN_MS: Final = 60_000
_MOST_REMEMBERED: Final = 8
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class JsonlStatus:
    """How the file stands, as this process last saw it.

    Attributes:
        path: where it is.
        next_index: the record that is appended next; 0 before the first look.
        size_bytes: of the file itself, without the rotated ones.
        problem: why the last append failed; None when it did not.
        set_aside: files that were not of this log and were renamed, the newest last.
        gaps: pairs of the first index that is missing and the first that is there again, the newest last.
    """

    path: Path
    next_index: int
    size_bytes: int
    problem: str | None
    set_aside: tuple[str, ...]
    gaps: tuple[tuple[int, int], ...]


class _Place(NamedTuple):
    device: int
    inode: int
    size: int
    first: int | None  # index of the file's first record
    next: int


class JsonlFile:
    """Appends the log's records to one file. Safe in any thread, and beside other processes on the same file."""

    def __init__(
        self,
        path: Path,
        source: RecordSource,
        *,
        fsync: bool,
        max_bytes: int,
        keep: int,
        patience_s: float = PATIENCE_S,
        clock: Clock | None = None,
    ) -> None:
        """Prepare to follow the log; nothing is touched before `catch_up`.

        Args:
            path: the file; a link is followed, so that rotation happens where the file really is.
            source: the log.
            fsync: each batch is on the disk before `catch_up` returns.
            max_bytes: a file is full before it would grow past this. A record that is larger has a file of its own.
            keep: full files that are kept, the newest ones; 0 keeps all.
            patience_s: longest wait for the lock.
            clock: names the files that are set aside.
        """
        self._path = Path(os.path.realpath(path))
        self._source = source
        self._fsync = fsync
        self._max_bytes = max_bytes
        self._keep = keep
        self._patience_s = patience_s
        self._clock = clock or SystemClock()
        self._lock = FileLock(self._path.with_name(self._path.name + ".lock"))
        self._mutex = threading.Lock()
        self._pid = os.getpid()
        self._file: int | None = None
        self._place: _Place | None = None
        self._problem: str | None = None
        self._set_aside: deque[str] = deque(maxlen=_MOST_REMEMBERED)
        self._set_aside_ms: deque[int] = deque(maxlen=_MOST_SET_ASIDE)
        self._gaps: deque[tuple[int, int]] = deque(maxlen=_MOST_REMEMBERED)

    def catch_up(self, patience_s: float | None = None, most: int | None = None) -> int:
        """Append every record up to the log's present head, in batches.

        Args:
            patience_s: longest wait for whoever appends at the moment; None takes the file's own.
            most: stop after about so many records, for who cannot wait for a long backlog; None goes on to the head.

        Returns:
            How many records this call appended; others may have appended them before.

        Raises:
            StorageUnavailable: the file cannot be written, or the log cannot be read. The next call goes on from there.
            IntegrityError: a stored record can be no line.
        """
        patience_s = self._patience_s if patience_s is None else patience_s
        self._leave_parent()
        if not self._mutex.acquire(timeout=patience_s):
            raise StorageUnavailable(f"Another thread has been appending to {self._path} for {patience_s:g} s.")
        total = 0
        try:
            while (added := self._append_batch(patience_s)) == _BATCH and (most is None or total + added < most):
                total += added
            self._problem = None
            return total + added
        except LukhasError as failure:
            self._problem = failure.message
            raise
        finally:
            self._mutex.release()

    def status(self) -> JsonlStatus:
        """Return how the file stands."""
        place = self._place
        return JsonlStatus(
            path=self._path,
            next_index=0 if place is None else place.next,
            size_bytes=0 if place is None else place.size,
            problem=self._problem,
            set_aside=tuple(self._set_aside),
            gaps=tuple(self._gaps),
        )

    def lag(self) -> int:
        """Return how many records of the log this process has not seen in the file yet.

        Raises:
            StorageUnavailable: the log cannot be read.
        """
        place = self._place
        return max(0, self._source.size() - (0 if place is None else place.next))

    def close(self) -> None:
        """Let go of the file. It can be used again."""
        self._leave_parent()
        with self._mutex:
            self._close_file()
            self._lock.close()

    def _append_batch(self, patience_s: float) -> int:
        with _failing_clearly(self._path), self._lock.held(patience_s):
            place = self._find_place()
            lines = self._source.read(place.next, _BATCH)
            if lines:
                self._check_lines(place, lines)
                self._write(place, lines)
            return len(lines)

    def _find_place(self) -> _Place:
        known = self._place
        try:
            there = self._path.stat()
        except FileNotFoundError:
            there = None
        seen = None if there is None or self._file is None else (there.st_dev, there.st_ino, there.st_size)
        if known is not None and seen == known[:3]:
            return known
        self._close_file()
        is_new = there is None
        file = self._open_file()
        while True:
            status = os.fstat(file)
            if status.st_size == 0:
                position = self._find_end_of_rotated()
                if is_new and known is not None and position < known.next <= self._source.size():
                    # The file was removed, and what was in it with it: that is no reason to write all of it again.
                    log.warning("jsonl_file_was_removed", extra={"file": str(self._path), "goes_on_at": known.next})
                    position = known.next
                place = _Place(status.st_dev, status.st_ino, 0, None, position)
                break
            found = self._read_place(file, status)
            if found is not None:
                place = found
                break
            mode = stat.S_IMODE(status.st_mode)
            self._close_file()
            self._put_aside(self._path)
            file = self._open_file(mode)
            is_new = False
        self._place = place
        return place

    def _read_place(self, file: int, status: os.stat_result) -> _Place | None:
        """Return where a file with something in it stands; None where that is not of this log."""
        ends = read_ends(file, status.st_size)
        if ends.end < status.st_size and not is_torn_record(file, ends.end, status.st_size):
            return None
        first, last = read_index(ends.first), read_index(ends.last)
        if ends.end == 0:
            first, position = None, self._find_end_of_rotated()
        elif first is None or last is None or first > last or not self._is_ours(last, ends.last):
            return None
        else:
            position = last + 1
        if ends.end < status.st_size:
            os.ftruncate(file, ends.end)
        return _Place(status.st_dev, status.st_ino, ends.end, first, position)

    def _find_end_of_rotated(self) -> int:
        """Return the index after that of the newest full file of this log."""
        for one in list_rotated(self._path):
            file = os.open(one.path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                size = os.fstat(file).st_size
                ends = read_ends(file, size)
            finally:
                os.close(file)
            if ends.end == size and read_index(ends.last) == one.last and self._is_ours(one.last, ends.last):
                return one.last + 1
            self._put_aside(one.path)
        return 0

    def _is_ours(self, index: int, line: bytes) -> bool:
        found = self._source.read(index, 1)
        if found and found[0][0] == index:
            return found[0][1] == line
        return self._source.read_leaf(index) == leaf_hash(line)

    def _put_aside(self, path: Path) -> None:
        now_ms = self._clock.monotonic_ms()
        if len(self._set_aside_ms) == _MOST_SET_ASIDE and now_ms - self._set_aside_ms[0] < _SET_ASIDE_WITHIN_MS:
            raise StorageUnavailable(
                f"The file {self._path} is written by another log as well.",
                hint="Give each its own LUKHAS_AUDIT_JSONL_PATH.",
            )
        stamp = format_utc(self._clock.now_ms()).translate({ord(sign): None for sign in "-:."})
        target = path.with_name(f"{path.name}.foreign-{stamp}")
        number = 1
        while target.exists():
            number += 1
            target = path.with_name(f"{path.name}.foreign-{stamp}-{number}")
        path.rename(target)
        self._set_aside_ms.append(now_ms)
        self._set_aside.append(str(target))
        log.warning("jsonl_file_was_not_of_this_log", extra={"file": str(path), "renamed_to": str(target)})

    def _check_lines(self, place: _Place, lines: Sequence[Line]) -> None:
        expected = place.next
        for index, data in lines:
            if b"\n" in data:
                raise IntegrityError(f"Record {index} of the audit log is not what was written: it holds a line end.")
            if index != expected:
                if (expected, index) not in self._gaps:
                    self._gaps.append((expected, index))
                    log.warning("jsonl_records_not_in_database", extra={"from_index": expected, "to_index": index})
                expected = index
            expected += 1

    def _write(self, place: _Place, lines: Sequence[Line]) -> None:
        start, held = 0, 0
        for number, (_, data) in enumerate(lines):
            length = len(data) + 1
            if place.size + held and place.size + held + length > self._max_bytes:
                place = self._append(place, lines[start:number], held)
                place = self._rotate(place)
                start, held = number, 0
            held += length
        self._append(place, lines[start:], held)

    def _append(self, place: _Place, lines: Sequence[Line], length: int) -> _Place:
        if not lines:
            return place
        assert self._file is not None
        parts = [data for _, data in lines]
        rest = memoryview(b"\n".join((*parts, b"")))
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
            if self._fsync:
                os.fsync(self._file)
        except OSError:
            # After a failed sync the kernel may have let go of the pages: all of the batch is written anew.
            self._cut_back(self._file, place.size)
            raise
        first = lines[0][0] if place.first is None else place.first
        place = _Place(place.device, place.inode, place.size + length, first, lines[-1][0] + 1)
        self._place = place
        return place

    def _cut_back(self, file: int, size: int) -> None:
        try:
            os.ftruncate(file, size)
        except OSError as failure:
            # The next look at the file cuts off what is not whole.
            log.warning("jsonl_file_was_not_cut_back", extra={"file": str(self._path), "error": str(failure)})
        self._close_file()

    def _rotate(self, place: _Place) -> _Place:
        assert self._file is not None and place.first is not None
        # Its name will vouch for its last line, so that line must be on the disk.
        os.fsync(self._file)
        mode = stat.S_IMODE(os.fstat(self._file).st_mode)
        full = name_rotated(self._path, place.first, place.next - 1)
        if full.exists():
            self._put_aside(full)
        self._path.rename(full)
        self._close_file()
        status = os.fstat(self._open_file(mode))
        self._place = _Place(status.st_dev, status.st_ino, 0, None, place.next)
        if self._keep:
            self._remove_oldest()
        return self._place

    def _remove_oldest(self) -> None:
        for one in list_rotated(self._path)[self._keep :]:
            try:
                one.path.unlink()
            except OSError as failure:
                log.warning("jsonl_file_was_not_removed", extra={"file": str(one.path), "error": str(failure)})

    def _open_file(self, mode: int = 0o600) -> int:
        """Open the file, made where it is missing; `mode` keeps what an operator set for those who read it."""
        is_new = not self._path.exists()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = self._file = os.open(self._path, _FLAGS, 0o600)
        if not stat.S_ISREG(os.fstat(file).st_mode):
            self._close_file()
            raise StorageUnavailable(
                f"{self._path} is not a plain file.", hint="Set LUKHAS_AUDIT_JSONL_PATH to a file on a disk."
            )
        if is_new:
            if mode != 0o600:
                os.fchmod(file, mode)
            _sync_folder(self._path.parent)
        return file

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            os.close(file)

    def _leave_parent(self) -> None:
        if self._pid != os.getpid():
            # A forked child has neither the threads that held the mutex nor a right to the parent's place in the file.
            self._pid = os.getpid()
            self._mutex = threading.Lock()
            self._close_file()


def open_jsonl(settings: Settings, source: RecordSource) -> JsonlFile | None:
    """Return the file that the settings ask for; None where they ask for none."""
    if settings.audit_jsonl == "off":
        return None
    return JsonlFile(
        settings.audit_jsonl_path or settings.data_dir / "audit.jsonl",
        source,
        fsync=settings.audit_jsonl_fsync,
        max_bytes=settings.audit_jsonl_max_bytes,
        keep=settings.audit_jsonl_keep,
        patience_s=min(PATIENCE_S, settings.writer_deadline_s),
    )


@contextmanager
def _failing_clearly(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as failure:
        hint = "The records are in the database, and are appended as soon as this works again."
        if failure.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = f"Free space on its disk. {hint}"
        elif failure.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR):
            hint = f"Check LUKHAS_AUDIT_JSONL_PATH and its permissions. {hint}"
        raise StorageUnavailable(
            f"The file {path} cannot be written: {failure.strerror or failure}.", hint=hint
        ) from failure


def _sync_folder(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
