"""The log's tree as static files: checkpoint, tiles and, where wanted, the records, laid out for any web server.

Source: C2SP tlog-tiles, https://c2sp.org/tlog-tiles.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lukhas.audit.bundle import read_bundle
from lukhas.audit.checkpoint import Checkpoint, read_checkpoint
from lukhas.audit.merkle import HASH_BYTES, leaf_hash
from lukhas.audit.proof import root_at
from lukhas.audit.source import RecordSource
from lukhas.audit.tile import TILE_WIDTH, TileName, TileReader, entries_path, list_tiles, tile_path
from lukhas.errors import Conflict, IntegrityError, NotFound

_CHECKPOINT: Final = "checkpoint"
_TILE_BYTES: Final = TILE_WIDTH * HASH_BYTES

Progress = Callable[[int, int], None]
"""Told how many files are done, and of how many."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What one run did.

    Attributes:
        size: records that the tree in the folder now covers.
        root: its root hash.
        written: files that were written.
        kept: files that were there already.
        missing: bundles of records left out, since some of their records are not in the database any more.
    """

    size: int
    root: bytes
    written: int
    kept: int
    missing: int


def export_tree(
    folder: Path,
    note: bytes,
    tiles: TileReader,
    source: RecordSource | None = None,
    on_progress: Progress | None = None,
) -> Exported:
    """Write the tree of one checkpoint into a folder, or bring an earlier export up to it.

    The checkpoint is written last, so that whatever it covers is there. A run that was broken off is taken up where it
    stopped.

    Args:
        folder: made where it is missing.
        note: the signed checkpoint.
        tiles: the log's tiles.
        source: the log's records, where they are wanted too.
        on_progress: told after each file.

    Raises:
        Conflict: the folder has another log, or a newer state of this one.
        IntegrityError: the log is not what was signed.
        StorageUnavailable: the database cannot be read.
        OSError: the folder cannot be written.
    """
    checkpoint = read_checkpoint(note)
    if root_at(tiles, checkpoint.size) != checkpoint.root:
        raise IntegrityError("The log's tree is not the one that was signed.", hint="Run: lukhas audit verify")
    known = _find_known(folder, checkpoint, tiles)
    names = list(list_tiles(checkpoint.size))
    bundles = [name for name in names if name.level == 0] if source is not None else []
    count = len(names) + len(bundles) + 1
    written = missing = 0
    for done, name in enumerate(names):
        written += _write_tile(folder, name, tiles, known)
        if on_progress is not None:
            on_progress(done + 1, count)
    for done, name in enumerate(bundles, start=len(names)):
        if source is not None and not (path := folder / entries_path(name.index, name.width)).exists():
            try:
                bundle = read_bundle(source, name.index, name.width)
            except NotFound:
                missing += 1
            else:
                _check_bundle(bundle, name, tiles)
                _write(path, bundle)
                written += 1
        if on_progress is not None:
            on_progress(done + 1, count)
    written += _write_changed(folder / _CHECKPOINT, note)
    if on_progress is not None:
        on_progress(count, count)
    return Exported(checkpoint.size, checkpoint.root, written, count - written - missing, missing)


def _find_known(folder: Path, checkpoint: Checkpoint, tiles: TileReader) -> int:
    """Return the size of the tree that an earlier run completed; 0 where none did."""
    path = folder / _CHECKPOINT
    if not path.exists():
        return 0
    try:
        earlier = read_checkpoint(path.read_bytes())
    except IntegrityError as wrong:
        raise Conflict(f"{path} is not a checkpoint of a log.", hint="Choose another folder.") from wrong
    if earlier.origin != checkpoint.origin or earlier.size > checkpoint.size:
        raise Conflict(
            f"{folder} has a checkpoint of {earlier.size} records of '{earlier.origin}', and this one is of "
            f"{checkpoint.size} records of '{checkpoint.origin}'.",
            hint="Choose another folder.",
        )
    if root_at(tiles, earlier.size) != earlier.root:
        raise IntegrityError(
            f"The log does not continue the one in {folder}: its first {earlier.size} records are others.",
            hint="Keep that folder: its checkpoint shows that the log was changed. Run: lukhas audit verify",
        )
    return earlier.size


def _write_tile(folder: Path, name: TileName, tiles: TileReader, known: int) -> bool:
    """Write a tile unless it is there, and say whether it was written."""
    level = name.level or 0
    path = folder / tile_path(level, name.index, name.width)
    end = (name.index + 1) * TILE_WIDTH ** (level + 1)
    # A tile is renamed into place whole, but what a power loss left of a file without a checkpoint may be anything.
    if name.width == TILE_WIDTH and end <= known and path.is_file() and path.stat().st_size == _TILE_BYTES:
        return False
    return _write_changed(path, tiles.read(level, name.index, name.width))


def _write_changed(path: Path, content: bytes) -> bool:
    if path.is_file() and path.read_bytes() == content:
        return False
    _write(path, content)
    return True


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def _check_bundle(bundle: bytes, name: TileName, tiles: TileReader) -> None:
    hashes: list[bytes] = []
    start = 0
    while start < len(bundle):
        end = start + 2 + int.from_bytes(bundle[start : start + 2], "big")
        hashes.append(leaf_hash(bundle[start + 2 : end]))
        start = end
    if b"".join(hashes) != tiles.read(0, name.index, name.width):
        first = name.index * TILE_WIDTH
        raise IntegrityError(
            f"One of the records {first} to {first + name.width - 1} is not what was written.",
            hint="Run: lukhas audit verify",
        )
