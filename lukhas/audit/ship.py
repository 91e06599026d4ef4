"""Shipping: the newest checkpoint and its tiles go outside the box, so that who rewrites the log here is found out.

A target holds the log as C2SP tlog-tiles lays it out: `tile/...`, `checkpoint`, and beside them every checkpoint that
was ever shipped, as `checkpoints/<20-digit size>`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from lukhas.audit.checkpoint import open_checkpoint
from lukhas.audit.checkpoint_store import CheckpointStore, StoredCheckpoint
from lukhas.audit.merkle import HASH_BYTES, node_hash
from lukhas.audit.note import NoteVerifier
from lukhas.audit.proof import root_at
from lukhas.audit.ship_target import ShipTarget
from lukhas.audit.source import RecordSource
from lukhas.audit.tile import TILE_HEIGHT, TILE_WIDTH, split_hashes, tile_path
from lukhas.audit.tile_store import DatabaseTiles
from lukhas.errors import IntegrityError, StorageUnavailable
from lukhas.storage.engine import Database

NEWEST_PATH: Final = "checkpoint"
_PATIENCE_S: Final = 60.0


def checkpoint_path(size: int) -> str:
    """Return where the checkpoint over `size` records is kept for good."""
    return f"checkpoints/{size:020d}"


class Shipper:
    """Brings a target up to the newest checkpoint. Blocks; one thread at a time ships."""

    def __init__(
        self,
        target: ShipTarget,
        database: Database,
        checkpoints: CheckpointStore,
        verifiers: Sequence[NoteVerifier],
    ) -> None:
        """Prepare shipping; nothing is asked or sent.

        Args:
            target: where to.
            database: where the log is.
            checkpoints: what is shipped.
            verifiers: every key that the log ever had; what the target holds must be signed by one.
        """
        self.target = target
        self._source = RecordSource(database)
        self._checkpoints = checkpoints
        self._verifiers = list(verifiers)
        self._tiles = DatabaseTiles(database)
        self._lock = threading.Lock()
        self._last_moment = float("inf")
        # Full tiles of each level that are at the target, from the first on.
        self._full: dict[int, int] = {}
        self._shipped: StoredCheckpoint | None = None

    def ship(self, patience_s: float = _PATIENCE_S) -> StoredCheckpoint | None:
        """Ship the newest checkpoint: its tiles, then the checkpoint under its size, then as the newest one.

        What the target has is read first, and is never replaced by a log that does not continue it. After a crash the
        same call goes on: what is there already is left.

        Args:
            patience_s: after this many seconds no further tile is sent; the next call goes on there.

        Returns:
            What the target covers now; None where nothing was signed or shipped yet.

        Raises:
            IntegrityError: the target has a checkpoint of another log, a larger one than this log, or one that this
                log does not continue. This is how a log that was set back or rewritten is found.
            StorageUnavailable: the target or the database cannot be used, or another thread ships for that long.
        """
        if not self._lock.acquire(timeout=patience_s):
            raise StorageUnavailable(f"Shipping to {self.target} is still under way.")
        try:
            newest = self._checkpoints.newest()
            if newest is None or (self._shipped is not None and self._shipped.size == newest.size):
                return self._shipped
            found = self._read_target()
            if found is not None and found.size >= newest.size:
                self._shipped = found
                return found
            if self._shipped is not None and (found is None or found.size < self._shipped.size):
                self._full.clear()  # the target was emptied or set back: everything is sent anew
                self._shipped = None
            if root_at(self._tiles, newest.size) != newest.root:
                raise IntegrityError(
                    f"The audit log's tiles do not have the root that was signed at {newest.size} records.",
                    hint="Run: lukhas audit verify",
                )
            start = 0 if found is None else found.size
            if not self._send_tiles(start, newest.size, time.monotonic() + patience_s):
                self._shipped = found
                return found
            self.target.put(checkpoint_path(newest.size), newest.note, True)
            self.target.put(NEWEST_PATH, newest.note, False)
            self._shipped = newest
            return newest
        finally:
            self._lock.release()

    def hurry(self, within_s: float) -> None:
        """Let whatever ships, now and from now on, send no further tile after so many seconds: for a shutdown."""
        self._last_moment = time.monotonic() + within_s

    def read_target(self) -> StoredCheckpoint | None:
        """Return the checkpoint that the target has, checked against this log; None where it has none yet.

        Its time is 0 where this log does not keep that checkpoint any more.

        Raises:
            IntegrityError, StorageUnavailable: as `ship`.
        """
        with self._lock:
            return self._read_target()

    def _read_target(self) -> StoredCheckpoint | None:
        note = self.target.get(NEWEST_PATH)
        if note is None:
            return None
        try:
            found = open_checkpoint(note, self._verifiers)
        except IntegrityError as wrong:
            raise IntegrityError(
                f"{self.target} holds a checkpoint that is not of this log: {wrong.message} Nothing was overwritten.",
                hint="Ship to a place of its own, or restore the database and vault that belong to it.",
            ) from wrong
        size = self._source.size()
        if found.size > size:
            raise IntegrityError(
                f"{self.target} holds a checkpoint over {found.size} records, and this log has {size}: it was set back "
                "or cut. Nothing was overwritten.",
                hint="Restore the database as it was, or keep both for whoever looks into it.",
            )
        if root_at(self._tiles, found.size) != found.root:
            raise IntegrityError(
                f"{self.target} holds a checkpoint over {found.size} records which this log does not continue: it was "
                "changed or forked. Nothing was overwritten.",
                hint="Restore the database as it was, or keep both for whoever looks into it.",
            )
        kept = self._checkpoints.read(found.size, found.size + 1, 1)
        return StoredCheckpoint(found.size, found.root, kept[0].time_ms if kept else 0, note)

    def _send_tiles(self, start: int, size: int, deadline: float) -> bool:
        """Send the tiles of `size` leaves that the target lacks; say whether all were sent in time."""
        level, hashes = 0, size
        while hashes:
            whole = hashes // TILE_WIDTH
            # The target's checkpoint vouches for its tiles: they went first.
            known = start >> TILE_HEIGHT * (level + 1)
            for index in range(max(known, self._full.get(level, 0)), whole):
                if time.monotonic() > min(deadline, self._last_moment):
                    return False
                self._send(level, index, TILE_WIDTH)
                self._full[level] = index + 1
            if hashes % TILE_WIDTH:
                self._send(level, whole, hashes % TILE_WIDTH)
            hashes = whole
            level += 1
        return True

    def _send(self, level: int, index: int, width: int) -> None:
        hashes = self._tiles.read(level, index, width)
        if width == TILE_WIDTH and _fold(hashes) != self._read_above(level, index):
            # What is sent stays there for good. The partial tiles are what the signed root was just computed from.
            raise IntegrityError(
                f"The audit log's tile {index} of level {level} is not what was written.",
                hint="Run: lukhas audit verify",
            )
        self.target.put(tile_path(level, index, width), hashes, True)

    def _read_above(self, level: int, index: int) -> bytes:
        place = index % TILE_WIDTH
        return self._tiles.read(level + 1, index // TILE_WIDTH, place + 1)[place * HASH_BYTES :]


def _fold(hashes: bytes) -> bytes:
    row = split_hashes(hashes)
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]
