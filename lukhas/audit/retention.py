"""Retention: sealing and archiving months by itself, and pruning the records of old ones.

Pruned are only records whose archive was read back and proved a moment before. The tree's tiles, the head and all
checkpoints stay, so every proof that was ever given still holds, and new ones of old records can be made.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection

from lukhas.audit.archive import Archiver
from lukhas.audit.archive_target import open_archive
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.month import count_months, month_of
from lukhas.audit.segment import SYSTEM, TIMEOUT_S, Segment, SegmentStore
from lukhas.audit.signing_key import load_verifiers
from lukhas.audit.store import AuditStore
from lukhas.audit.tile import TILE_WIDTH
from lukhas.clock import Clock
from lukhas.errors import ConfigurationError, InvalidRequest
from lukhas.settings import Settings
from lukhas.storage.engine import Database
from lukhas.storage.writer import GroupCommitWriter, Sink

log = logging.getLogger("lukhas.audit.retention")

Progress = Callable[[int], None]
Forget = Callable[[int], object]
"""Told the first index that stays; lets go of what was made of the records before it, such as a search index."""

_FIRST_STEP: Final = TILE_WIDTH
_LARGEST_STEP: Final = 16 * TILE_WIDTH
_SMALLEST_STEP: Final = 16
_STEP_S: Final = 0.02
_LARGEST_PAUSE_S: Final = 0.05


def _say_nothing(_: int) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Kept:
    """Why nothing more is pruned: the oldest month that stays."""

    segment: Segment | None
    reason: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of retention did: months that were sealed, archived and pruned by it."""

    sealed: list[Segment]
    archived: list[Segment]
    pruned: list[Segment]


def open_retention(
    settings: Settings,
    database: Database,
    writer: GroupCommitWriter,
    audit: AuditStore,
    clock: Clock,
    *,
    actor: str = SYSTEM,
    forget: Sequence[Forget] = (),
) -> Retention:
    """Return the retention that the settings ask for.

    Raises:
        ConfigurationError: settings that contradict each other, or an archive that cannot be used.
        StorageUnavailable: the database cannot be read.
    """
    segments = SegmentStore(database, writer, audit, clock, actor=actor)
    archiver = None
    if settings.audit_archive:
        archiver = Archiver(
            open_archive(settings.audit_archive),
            segments,
            audit.source,
            CheckpointStore(database, writer, clock, None),
            load_verifiers(database),
            clock,
            settings.data_dir,
        )
    return Retention(
        database,
        writer,
        segments,
        archiver,
        clock,
        months=settings.audit_retention_months,
        min_months=settings.audit_retention_min_months,
        forget=forget,
    )


class Retention:
    """Keeps the log's months. Its methods block; one process at a time archives or prunes.

    Attributes:
        segments: the sealed months.
        archiver: None where nothing is archived.
        months: after how many months `run` prunes; 0 never.
    """

    def __init__(
        self,
        database: Database,
        writer: GroupCommitWriter,
        segments: SegmentStore,
        archiver: Archiver | None,
        clock: Clock,
        *,
        months: int,
        min_months: int,
        forget: Sequence[Forget] = (),
    ) -> None:
        """Prepare; nothing is read.

        Args:
            archiver: None where nothing is archived, and so nothing can be pruned.
            months: after how many months `run` prunes; 0 never.
            min_months: what neither `months` nor `prune` may undercut.
            forget: called before records are deleted.

        Raises:
            ConfigurationError: `months` is less than `min_months`, or there is no archive to prune by.
        """
        if 0 < months < min_months:
            raise ConfigurationError(
                f"A retention of {months} months is less than the minimum of {min_months}.",
                hint="Raise LUKHAS_AUDIT_RETENTION_MONTHS, or lower LUKHAS_AUDIT_RETENTION_MIN_MONTHS if you may.",
                param="LUKHAS_AUDIT_RETENTION_MONTHS",
            )
        if months and archiver is None:
            raise ConfigurationError(
                "Records are pruned only once they are archived, and there is no archive.",
                hint="Set LUKHAS_AUDIT_ARCHIVE to file:///folder or s3://bucket/prefix.",
                param="LUKHAS_AUDIT_ARCHIVE",
            )
        self._database = database
        self._writer = writer
        self.segments = segments
        self.archiver = archiver
        self._clock = clock
        self.months = months
        self._min_months = min_months
        self._forget = tuple(forget)
        self._sink: Sink[tuple[int, int, int], int] = self._delete

    def run(self) -> Run:
        """Seal what is over, archive it where there is an archive, prune where the settings say so. Call it hourly.

        Raises:
            IntegrityError: what is stored or archived is not what was sealed; nothing was pruned after that.
            StorageUnavailable, Overloaded: database or archive cannot be used. The next run goes on from there.
        """
        sealed = self.segments.seal()
        archived = [] if self.archiver is None else self.archiver.archive_all()
        pruned = self.prune(self.months) if self.months else []
        return Run(sealed, archived, pruned)

    def plan(self, months: int) -> tuple[list[Segment], Kept]:
        """Return the months that `prune` would prune, the oldest first, and why it would stop there.

        Raises:
            InvalidRequest: fewer months than the minimum.
            IntegrityError: a segment is not what was sealed.
        """
        if months < self._min_months:
            raise InvalidRequest(
                f"Records younger than {self._min_months} months are not pruned, and {months} were asked for.",
                hint="LUKHAS_AUDIT_RETENTION_MIN_MONTHS is the minimum.",
                param="older-than",
            )
        now = count_months(month_of(self._clock.now_ms()))
        chosen: list[Segment] = []
        for one in self.segments.check():
            if one.pruned_ms is not None:
                continue
            if count_months(one.name) + 1 + months > now:
                return chosen, Kept(one, f"it has not been over for {months} months")
            if one.archived_ms is None:
                return chosen, Kept(one, "it is not archived; see lukhas audit archive")
            chosen.append(one)
        return chosen, Kept(None, "no other month is sealed yet")

    def prune(self, months: int, on_progress: Progress = _say_nothing) -> list[Segment]:
        """Delete the records of months that have been over for `months` months, and return those months.

        Every archive is read back and proved first. Up to 255 records of the newest pruned month stay until the next
        one is pruned, since their tile is not full of pruned ones.

        Raises:
            InvalidRequest: fewer months than the minimum.
            IntegrityError: an archive is not what it was; nothing of that month or later ones was deleted.
            StorageUnavailable, Overloaded: as `run`.
        """
        chosen, _ = self.plan(months)
        for segment in chosen:
            if self.archiver is None:
                raise ConfigurationError(
                    "The archive cannot be checked before pruning: none is set.",
                    hint="Set LUKHAS_AUDIT_ARCHIVE to where the months were archived.",
                    param="LUKHAS_AUDIT_ARCHIVE",
                )
            self.archiver.check(segment)
            self.segments.mark(segment, "pruning")
            self._prune(segment, on_progress)
            self.segments.mark(segment, "pruned", pruned_ms=self._clock.now_ms())
            log.info("segment_pruned", extra={"segment": segment.name, "archive": segment.archive})
        return chosen

    def _prune(self, segment: Segment, on_progress: Progress) -> None:
        end = segment.end_index // TILE_WIDTH * TILE_WIDTH
        for forget in self._forget:
            forget(end)
        with self._database.reading() as connection:
            first = connection.exec_driver_sql("SELECT min(leaf_index) FROM audit_record").scalar()
        at = end if first is None else int(first)
        step = _FIRST_STEP
        while at < end:
            until = min(at + step, end)
            began = time.monotonic()
            deleted = self._writer.submit_sync(self._sink, (at, until, segment.end_index), TIMEOUT_S)
            took_s = time.monotonic() - began
            on_progress(deleted)
            at = until
            step = min(step * 2, _LARGEST_STEP) if took_s < _STEP_S / 2 else step
            step = max(step // 2, _SMALLEST_STEP) if took_s > _STEP_S else step
            # Whoever waits for the lock gets it for at least as long as this had it.
            time.sleep(min(took_s, _LARGEST_PAUSE_S))

    @staticmethod
    def _delete(connection: Connection, ranges: Sequence[tuple[int, int, int]]) -> list[int]:
        answers: list[int] = []
        for first, end, kept_from in ranges:
            where = f"leaf_index >= {int(first)} AND leaf_index < {int(end)}"
            # A call that began in this month and ended in the next keeps its text until the next is pruned.
            connection.exec_driver_sql(
                f"DELETE FROM audit_content WHERE audit_id IN (SELECT audit_id FROM audit_record WHERE {where}) "  # noqa: S608 - numbers
                "AND NOT EXISTS (SELECT 1 FROM audit_record AS later WHERE later.audit_id = audit_content.audit_id "
                f"AND later.leaf_index >= {int(kept_from)})"
            )
            answers.append(connection.exec_driver_sql(f"DELETE FROM audit_record WHERE {where}").rowcount)  # noqa: S608
        return answers
