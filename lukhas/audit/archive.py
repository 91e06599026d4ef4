"""Archiving sealed months: one compressed file of verbatim records each, and its proof beside it.

`audit-2026-05.jsonl.gz` holds the records as the export does, and `audit-2026-05.jsonl.gz.proof` what ties them to
signed checkpoints, so `lukhas audit verify --export` takes an archive as it takes an export. Equal records give an
equal file, so archiving again after a crash changes nothing.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from lukhas.audit.archive_target import ArchiveTarget
from lukhas.audit.checkpoint_store import CheckpointStore, StoredCheckpoint
from lukhas.audit.line_file import read_index
from lukhas.audit.merkle import leaf_hash, node_hash
from lukhas.audit.note import NoteVerifier
from lukhas.audit.record import LARGEST_RECORD_BYTES
from lukhas.audit.segment import Segment, SegmentStore
from lukhas.audit.source import RecordSource
from lukhas.audit.tile import TILE_HEIGHT, TILE_WIDTH, TileReader, split_hashes
from lukhas.audit.verify.anchor import PROOF_SUFFIX, Beyond, ExportProof
from lukhas.audit.verify.compact import CompactRange, cover
from lukhas.clock import Clock
from lukhas.errors import IntegrityError, StorageUnavailable
from lukhas.storage.file_lock import FileLock

log = logging.getLogger("lukhas.audit.archive")

Progress = Callable[[int], None]
"""Told how many more records are done."""

_BATCH: Final = 1_000
_BLOCK: Final = 1 << 20
_MOST_CHECKPOINTS: Final = 1_000
_LOCK_PATIENCE_S: Final = 1.0


def _say_nothing(_: int) -> None:
    pass


class Archiver:
    """Archives sealed months to one target, and proves that an archive is whole. Its methods block."""

    def __init__(
        self,
        target: ArchiveTarget,
        segments: SegmentStore,
        source: RecordSource,
        checkpoints: CheckpointStore,
        verifiers: list[NoteVerifier],
        clock: Clock,
        folder: Path,
    ) -> None:
        """Prepare; nothing is read or written.

        Args:
            target: where archives are kept.
            checkpoints: signed states of the log; those in and behind a month go into its proof.
            verifiers: every key that the log ever had.
            folder: has room for one archive while it is made; the data directory.
        """
        self._target = target
        self._segments = segments
        self._source = source
        self._checkpoints = checkpoints
        self._verifiers = verifiers
        self._clock = clock
        self._work = folder / "archiving"
        self._lock = FileLock(folder / "archiving.lock")

    def archive_all(self, on_progress: Progress = _say_nothing) -> list[Segment]:
        """Archive every sealed month that is not archived yet, the oldest first, and return those.

        Raises:
            IntegrityError: the records are not those that were sealed, or the target holds something else.
            StorageUnavailable: database or target cannot be used, or another process archives at the moment.
        """
        done: list[Segment] = []
        with self._working() as folder:
            for segment in self._segments.check():
                if segment.archived_ms is None:
                    self._archive(segment, folder, on_progress)
                    done.append(segment)
        return done

    def check(self, segment: Segment, on_progress: Progress = _say_nothing) -> None:
        """Read a month's archive back and compare hash, every record and the tree.

        Raises:
            IntegrityError: it is not there, or not what was archived.
            StorageUnavailable: the target cannot be read, or another process archives at the moment.
        """
        with self._working() as folder:
            copy = folder / "copy"
            if not self._target.get_file(name_archive(segment), copy):
                raise IntegrityError(f"The archive {segment.archive} is not there any more.")
            if hash_file(copy) != segment.archive_sha256:
                raise IntegrityError(f"The archive {segment.archive} is not what was archived: its hash is another.")
            check_records(copy, segment, self._segments.tiles, on_progress)

    def _archive(self, segment: Segment, folder: Path, on_progress: Progress) -> None:
        name = name_archive(segment)
        copy = folder / "copy"
        if self._target.get_file(name, copy):
            # From a run that was cut off after the upload. What is there must be this month whole, or it is not ours.
            try:
                check_records(copy, segment, self._segments.tiles, on_progress)
            except IntegrityError as wrong:
                raise IntegrityError(
                    f"{self._target} has something else under {name}; it was not overwritten.",
                    hint=f"Move it away, or give each log its own LUKHAS_AUDIT_ARCHIVE. {wrong.message}",
                ) from wrong
            digest = hash_file(copy)
        else:
            draft = folder / name
            self._write_records(segment, draft, on_progress)
            digest = hash_file(draft)
            self._target.put_file(name, draft)
            if not self._target.get_file(name, copy) or hash_file(copy) != digest:
                raise StorageUnavailable(f"{self._target} did not give back what was archived there as {name}.")
        proof = folder / f"{name}{PROOF_SUFFIX}"
        proof.write_bytes(msgspec.json.encode(self._make_proof(segment)))
        self._target.put_file(proof.name, proof)
        self._segments.mark(
            segment,
            "archived",
            archive=f"{self._target}/{name}",
            archive_sha256=digest,
            archive_bytes=copy.stat().st_size,
            archived_ms=self._clock.now_ms(),
        )
        log.info("segment_archived", extra={"segment": segment.name, "archive": f"{self._target}/{name}"})

    def _write_records(self, segment: Segment, path: Path, on_progress: Progress) -> None:
        tree = read_range(self._segments.tiles, 0, segment.first_index)
        with path.open("wb") as file, compress(file) as packed:
            at = segment.first_index
            while at < segment.end_index:
                lines = self._source.read(at, min(_BATCH, segment.end_index - at))
                if not lines or any(index != at + place for place, (index, _) in enumerate(lines)):
                    raise IntegrityError(
                        f"The segment {segment.name} cannot be archived: a record from {at} on is not there.",
                        hint="Run: lukhas audit verify",
                    )
                _check_place(lines[0][1], at)
                tree.append_leaves([leaf_hash(data) for _, data in lines])
                packed.write(b"\n".join((*(data for _, data in lines), b"")))
                at += len(lines)
                on_progress(len(lines))
        _check_root(tree, segment)

    def _make_proof(self, segment: Segment) -> ExportProof:
        tiles, end = self._segments.tiles, segment.end_index
        size = self._source.size()
        notes = self._collect_checkpoints(segment)
        leaf = tiles.read(0, (end - 1) // TILE_WIDTH, (end - 1) % TILE_WIDTH + 1)[-32:]
        return ExportProof(
            begin=segment.first_index,
            end=end,
            log_size=size,
            origin=self._verifiers[0].name if self._verifiers else "",
            left=_to_hex(read_range(tiles, 0, segment.first_index)),
            last=leaf.hex(),
            right=[Beyond(one.size, _to_hex(read_range(tiles, end, one.size))) for one in notes if one.size > end],
            keys=[str(one) for one in self._verifiers],
            checkpoints=[one.note.decode() for one in notes],
        )

    def _collect_checkpoints(self, segment: Segment) -> list[StoredCheckpoint]:
        """Return checkpoints within the month, evenly thinned out, and the first that covers all of it."""
        within = self._checkpoints.read(segment.first_index + 1, segment.end_index + 1, _MOST_CHECKPOINTS)
        covering = self._checkpoints.first_covering(segment.end_index - 1)
        notes = {one.size: one for one in within}
        if covering is not None:
            notes[covering.size] = covering
        return [notes[size] for size in sorted(notes)]

    @contextmanager
    def _working(self) -> Generator[Path]:
        try:
            with self._lock.held(_LOCK_PATIENCE_S):
                # What a crash left there is of no use.
                shutil.rmtree(self._work, ignore_errors=True)
                self._work.mkdir(mode=0o700, parents=True)
                try:
                    yield self._work
                finally:
                    shutil.rmtree(self._work, ignore_errors=True)
        except OSError as failure:
            raise StorageUnavailable(
                f"No archive can be made in {self._work}: {failure.strerror}.", hint="It needs room for one month."
            ) from failure


def name_archive(segment: Segment) -> str:
    """Return the name of a month's archive."""
    return f"audit-{segment.name}.jsonl.gz"


def check_records(path: Path, segment: Segment, tiles: TileReader, on_progress: Progress = _say_nothing) -> None:
    """Check that a compressed file holds exactly a segment's records, by the tree.

    Raises:
        IntegrityError: it does not.
    """
    tree = read_range(tiles, 0, segment.first_index)
    at = segment.first_index
    for lines in _read_lines(path):
        if at + len(lines) > segment.end_index:
            raise IntegrityError(f"The archive of {segment.name} holds more than that month.")
        for place, line in enumerate(lines):
            _check_place(line, at + place)
        tree.append_leaves([leaf_hash(line) for line in lines])
        at += len(lines)
        on_progress(len(lines))
    if at != segment.end_index:
        raise IntegrityError(f"The archive of {segment.name} ends at record {at}, the month at {segment.end_index}.")
    _check_root(tree, segment)


def read_range(tiles: TileReader, begin: int, end: int) -> CompactRange:
    """Return the compact range over the records [begin, end), from the log's tiles."""
    nodes = [(height, _read_subtree(tiles, height, place)) for height, place in cover(begin, end)]
    return CompactRange(begin, end, nodes)


def hash_file(path: Path) -> str:
    """Return a file's SHA-256 as hex."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def compress(file: Any) -> Generator[gzip.GzipFile]:
    """Compress into an open file without name or time, so that equal content gives equal bytes; synced at the end."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
        yield packed
    file.flush()
    os.fsync(file.fileno())


def _read_lines(path: Path) -> Iterator[list[bytes]]:
    rest = b""
    try:
        with gzip.open(path, "rb") as file:
            while block := file.read(_BLOCK):
                lines = (rest + block).split(b"\n")
                rest = lines.pop()
                if len(rest) > LARGEST_RECORD_BYTES:
                    raise IntegrityError(f"{path.name} holds a line that is longer than any record.")
                yield lines
    except (OSError, EOFError, zlib.error) as failure:
        raise IntegrityError(f"The archive cannot be unpacked: {failure}.") from failure
    if rest:
        raise IntegrityError("The archive's last line is not whole.")


def _read_subtree(tiles: TileReader, height: int, place: int) -> bytes:
    level, above = divmod(height, TILE_HEIGHT)
    index, offset = divmod(place << above, TILE_WIDTH)
    row = split_hashes(tiles.read(level, index, offset + (1 << above)))[offset:]
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


def _check_place(line: bytes, index: int) -> None:
    if read_index(line) != index:
        raise IntegrityError(f"Where record {index} should be, something else is.")


def _check_root(tree: CompactRange, segment: Segment) -> None:
    if tree.root() != segment.root:
        raise IntegrityError(
            f"The records of {segment.name} are not those that were sealed: their root is another.",
            hint="Run: lukhas audit verify",
        )


def _to_hex(tree: CompactRange) -> list[str]:
    return [node.hex() for _, node in tree.nodes]
