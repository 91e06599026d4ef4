"""Exporting a run of the log: its records verbatim, a line each, and beside them a proof that anchors the run."""

from __future__ import annotations

import gzip
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Final, NamedTuple, cast

import msgspec

from lukhas.audit.checkpoint_store import CheckpointStore, StoredCheckpoint
from lukhas.audit.merkle import leaf_hash
from lukhas.audit.note import NoteVerifier
from lukhas.audit.source import RecordSource
from lukhas.audit.tile import TILE_HEIGHT, TILE_WIDTH, TileReader, split_hashes
from lukhas.audit.verify.anchor import PROOF_SUFFIX, Beyond, ExportProof
from lukhas.audit.verify.compact import CompactRange, cover
from lukhas.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from lukhas.storage.engine import Database

_BATCH: Final = 500
_MOST_CHECKPOINTS: Final = 4_000
_CHECKPOINT_PAGE: Final = 1_000
# Records of calls that run at once are in the order of their writing, which is not quite that of their times.
_UNORDERED: Final = 5_000

Progress = Callable[[int, int], None]
"""Told how many records are done, and of how many."""


class Exported(NamedTuple):
    """What was written: the range, bytes of the text and of the file, and the last record's leaf hash."""

    begin: int
    end: int
    text_bytes: int
    file_bytes: int
    last: bytes | None


class Wanted(NamedTuple):
    """What is asked for: indexes, times in ms since the epoch, or nothing for all."""

    begin: int | None = None
    end: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None


def find_range(database: Database, wanted: Wanted) -> tuple[int, int]:
    """Return the one run of indexes that holds what is asked for: from the first to the last record of the times.

    Raises:
        InvalidRequest: the end is before the begin, or past the log's end.
        NotFound: records of the run were pruned; says where they are.
        StorageUnavailable: the database cannot be read.
    """
    size = RecordSource(database).size()
    begin = 0 if wanted.begin is None else wanted.begin
    end = size if wanted.end is None else wanted.end
    if begin < 0 or end < begin or end > size:
        raise InvalidRequest(f"The log has the records 0 to {size - 1}." if size else "The log is empty.", param="from")
    if wanted.since_ms is not None and wanted.until_ms is not None and wanted.until_ms < wanted.since_ms:
        raise InvalidRequest("The end is before the beginning.", param="until")
    if wanted.since_ms is not None:
        begin = max(begin, _find_since(database, wanted.since_ms, size))
    if wanted.until_ms is not None:
        end = max(begin, min(end, _find_until(database, wanted.until_ms, size)))
    begin = min(begin, end)
    _refuse_pruned(database, begin, end)
    return begin, end


def read_lines(source: RecordSource, begin: int, end: int) -> Iterator[Sequence[bytes]]:
    """Yield the records' bytes in batches.

    Raises:
        IntegrityError: a record is missing.
        StorageUnavailable: the database cannot be read.
    """
    while begin < end:
        lines = source.read(begin, min(_BATCH, end - begin))
        for place, (index, _) in enumerate(lines):
            if index != begin + place:
                raise _missing(begin + place)
        if not lines:
            raise _missing(begin)
        yield [data for _, data in lines]
        begin += len(lines)


def write_lines(
    file: IO[bytes], source: RecordSource, begin: int, end: int, progress: Progress = lambda _done, _all: None
) -> Exported:
    """Write a run of records to an open file.

    Raises:
        IntegrityError: a record is missing.
        StorageUnavailable: the database cannot be read.
        OSError: the file cannot be written.
    """
    done = size = 0
    last: bytes | None = None
    for lines in read_lines(source, begin, end):
        block = b"".join([line + b"\n" for line in lines])
        file.write(block)
        size += len(block)
        done += len(lines)
        last = leaf_hash(lines[-1])
        progress(done, end - begin)
    return Exported(begin, end, size, size, last)


def write_file(
    path: Path, write: Callable[[IO[bytes]], Exported], *, is_forced: bool = False, compress: bool = False
) -> Exported:
    """Write a file whole or not at all, durably, readable by its owner only.

    Raises:
        Conflict: it is there already, and this is not forced.
        OSError: it cannot be written.
    """
    if path.exists() and not is_forced:
        raise Conflict(f"{path} is there already.", hint="Choose another name, or give --force.")
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    with ExitStack() as stack:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        stack.callback(part.unlink, missing_ok=True)
        with os.fdopen(handle, "wb") as file:
            if compress:
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    done = write(cast(IO[bytes], packed))
            else:
                done = write(file)
            file.flush()
            os.fsync(file.fileno())
            done = done._replace(file_bytes=file.tell())
        part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return done


def write_proof(path: Path, proof: ExportProof, *, is_forced: bool = False) -> Path:
    """Write the proof file beside an export, and return its path.

    Raises:
        Conflict, OSError: as `write_file`.
    """
    beside = path.with_name(path.name + PROOF_SUFFIX)
    raw = msgspec.json.format(msgspec.json.encode(proof), indent=1) + b"\n"

    def write(file: IO[bytes]) -> Exported:
        file.write(raw)
        return Exported(0, 0, len(raw), len(raw), None)

    write_file(beside, write, is_forced=is_forced)
    return beside


def make_proof(
    done: Exported, size: int, tiles: TileReader, checkpoints: CheckpointStore, keys: Sequence[NoteVerifier]
) -> ExportProof:
    """Return what anchors a run of records in the signed tree.

    Args:
        done: the run.
        size: records of the log.
        tiles: the log's tiles.
        checkpoints: the log's signed checkpoints: those in the run go in, thinned where they are very many, and the
            first and the newest that cover it.
        keys: the log's verifier keys, newest first.

    Raises:
        IntegrityError: a tile is not whole.
        StorageUnavailable: the database cannot be read.
    """
    inside = _read_checkpoints(checkpoints, done.begin + 1, done.end + 1)
    behind: dict[int, StoredCheckpoint] = {}
    for one in (checkpoints.first_covering(max(done.end - 1, 0)), checkpoints.newest()):
        if one is not None and one.size > done.end:
            behind[one.size] = one
    return ExportProof(
        begin=done.begin,
        end=done.end,
        log_size=size,
        origin=keys[0].name if keys else "",
        left=_read_nodes(tiles, 0, done.begin),
        last="" if done.last is None else done.last.hex(),
        right=[Beyond(one, _read_nodes(tiles, done.end, one)) for one in sorted(behind)],
        keys=[str(key) for key in keys],
        checkpoints=[one.note.decode() for one in (*inside, *(behind[size] for size in sorted(behind)))],
    )


def _read_checkpoints(checkpoints: CheckpointStore, first: int, end: int) -> list[StoredCheckpoint]:
    found: list[StoredCheckpoint] = []
    newest: StoredCheckpoint | None = None
    step = seen = 0
    step = 1
    while page := checkpoints.read(first, end, _CHECKPOINT_PAGE):
        for one in page:
            if seen % step == 0:
                found.append(one)
            seen += 1
            if len(found) >= 2 * _MOST_CHECKPOINTS:
                found, step = found[::2], step * 2
        newest, first = page[-1], page[-1].size + 1
    if newest is not None and found[-1] != newest:
        found.append(newest)
    return found


def _read_nodes(tiles: TileReader, begin: int, end: int) -> list[str]:
    return [_read_node(tiles, height, place).hex() for height, place in cover(begin, end)]


def _read_node(tiles: TileReader, height: int, place: int) -> bytes:
    level, above = divmod(height, TILE_HEIGHT)
    index, offset = divmod(place << above, TILE_WIDTH)
    width = offset + (1 << above)
    part = CompactRange()
    part.append_leaves(split_hashes(tiles.read(level, index, width))[offset:])
    return part.root()


def _find_since(database: Database, since_ms: int, size: int) -> int:
    at = _bisect(database, since_ms, size)
    sql = (
        f"SELECT min(leaf_index) FROM audit_record WHERE leaf_index >= {at - _UNORDERED} "  # noqa: S608 - numbers
        f"AND leaf_index < {at} AND time_ms >= {since_ms}"
    )
    with database.reading() as connection:
        earlier = connection.exec_driver_sql(sql).scalar()
    return at if earlier is None else int(earlier)


def _find_until(database: Database, until_ms: int, size: int) -> int:
    at = _bisect(database, until_ms, size)
    sql = (
        f"SELECT max(leaf_index) FROM audit_record WHERE leaf_index >= {at} "  # noqa: S608 - numbers
        f"AND leaf_index < {at + _UNORDERED} AND time_ms < {until_ms}"
    )
    with database.reading() as connection:
        later = connection.exec_driver_sql(sql).scalar()
    return at if later is None else int(later) + 1


def _bisect(database: Database, moment_ms: int, size: int) -> int:
    """Return the index from which on records are of the moment or later, as if they were in the order of time."""
    low, high = 0, size
    with database.reading() as connection:
        while low < high:
            middle = (low + high) // 2
            sql = (
                f"SELECT leaf_index, time_ms FROM audit_record WHERE leaf_index >= {middle} "  # noqa: S608 - a number
                "ORDER BY leaf_index LIMIT 1"
            )
            row = connection.exec_driver_sql(sql).first()
            if row is None or int(row[0]) >= high or int(row[1]) >= moment_ms:
                high = middle
            else:
                low = int(row[0]) + 1
    return low


def _refuse_pruned(database: Database, begin: int, end: int) -> None:
    sql = (
        "SELECT name, first_index, end_index, archive FROM audit_segment "  # noqa: S608 - numbers
        f"WHERE pruned_ms IS NOT NULL AND first_index < {int(end)} AND end_index > {int(begin)} "
        "ORDER BY first_index DESC"
    )
    with database.reading() as connection:
        rows = connection.exec_driver_sql(sql).all()
    if rows:
        name, first, after, archive = rows[0]
        raise NotFound(
            f"The records {first} to {after - 1} (segment {name}) were pruned from the database.",
            hint=f"They are in {archive or 'the archive'}. What is still here: --from {after}.",
        )


def _missing(index: int) -> IntegrityError:
    return IntegrityError(f"Record {index} of the audit log is missing.", hint="Run: lukhas audit verify")
