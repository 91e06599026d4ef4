"""A log with a key, for the tests of signing and shipping."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lukhas.audit.checkpoint import open_checkpoint
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.note import NoteSigner, NoteVerifier
from lukhas.audit.proof import root_at
from lukhas.audit.ship import Shipper
from lukhas.audit.ship_target import ShipTarget
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.audit.tile import TILE_WIDTH, tile_path
from lukhas.errors import IntegrityError
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import FrozenClock

ORIGIN = "example.com/audit"
SEED = bytes(range(32))


@dataclass(frozen=True)
class Scene:
    """One open log."""

    path: Path
    database: Database
    writer: GroupCommitWriter
    clock: FrozenClock
    audit: AuditStore
    checkpoints: CheckpointStore
    signer: NoteSigner

    def append(self, count: int, text: str = "x") -> None:
        """Append records, each with this text."""
        sink, writer = self.audit.sink, self.writer
        for start in range(0, count, 500):
            entries = [self.audit.encode(self.make(text)) for _ in range(min(500, count - start))]
            writer.submit_sync(lambda c, many: [sink(c, one) for one in many], entries, 30)

    def make(self, text: str) -> AuditRecord:
        return AuditRecord(
            kind="note",
            audit_id=make_id("aud"),
            tenant="t",
            key_id="key_1",
            request_id=None,
            time_ms=self.clock.now_ms(),
            session=None,
            user=None,
            body={"text": text},
        )

    def shipper(self, target: ShipTarget) -> Shipper:
        return Shipper(target, self.database, self.checkpoints, [self.signer.verifier])


@contextmanager
def open_scene(folder: Path, seed: bytes = SEED, origin: str = ORIGIN) -> Generator[Scene]:
    """Open, and make where it is missing, the log in a folder."""
    database = open_database(f"sqlite:///{folder / 'lukhas.db'}")
    migrate.upgrade(database)
    clock = FrozenClock()
    writer = GroupCommitWriter(database, max_rows=10_000)
    writer.start()
    signer = NoteSigner(origin, seed)
    checkpoints = CheckpointStore(database, writer, clock, signer)
    audit = AuditStore(database, writer, clock)
    try:
        yield Scene(folder / "lukhas.db", database, writer, clock, audit, checkpoints, signer)
    finally:
        writer.close(10)
        database.close()


class TargetTiles:
    """Reads tiles as a stranger does who has the target alone: a partial one, else from the full one."""

    def __init__(self, target: ShipTarget) -> None:
        self._target = target

    def read(self, level: int, index: int, width: int) -> bytes:
        found = self._target.get(tile_path(level, index, width)) or self._target.get(tile_path(level, index))
        if found is None or len(found) < 32 * width:
            raise IntegrityError(f"tile {level}/{index} is not there")
        return found[: 32 * width]


def check_whole(target: ShipTarget, verifier: NoteVerifier) -> int:
    """Return the size that the target proves by itself: every leaf hash is there, and they make the signed root."""
    note = target.get("checkpoint")
    assert note is not None
    found = open_checkpoint(note, [verifier])
    tiles = TargetTiles(target)
    assert root_at(tiles, found.size) == found.root
    for index in range(0, found.size, TILE_WIDTH):
        tiles.read(0, index // TILE_WIDTH, min(TILE_WIDTH, found.size - index))
    assert target.get(f"checkpoints/{found.size:020d}") == note
    return found.size
