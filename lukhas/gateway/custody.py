"""What runs beside the log so that it can be proved, followed and kept: the chain of custody of its records.

Signing and shipping, the JSONL file, the search index, sealing and pruning of old months, erasures that a crash left
half told, and the reserve that a shutdown on a full disk needs. None of it is on a call's path.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from lukhas.audit.attestation import Attestation, Part
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.forgetting import Forgetter
from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.jsonl_follower import JsonlFollower
from lukhas.audit.record import AuditRecord
from lukhas.audit.retention import open_retention
from lukhas.audit.search_index import SearchIndex
from lukhas.audit.ship import Shipper
from lukhas.audit.ship_target import open_target
from lukhas.audit.signing_key import load_key, load_verifiers
from lukhas.audit.store import AuditStore
from lukhas.clock import Clock
from lukhas.errors import LukhasError
from lukhas.settings import Settings
from lukhas.storage.engine import Database
from lukhas.storage.reserve import FILE_NAME, Reserve
from lukhas.storage.writer import GroupCommitWriter
from lukhas.telemetry import Metrics
from lukhas.vault.subjects import SubjectVault

log = structlog.get_logger("lukhas.custody")

Duty = tuple[float, Callable[[], Awaitable[None]]]
"""How often, in seconds, and what."""

FORGET_EVERY_S: Final = 0.2
COMPLETE_EVERY_S: Final = 15.0
THIN_EVERY_S: Final = 3600.0
KEEP_EVERY_S: Final = 900.0
INDEX_EVERY_S: Final = 0.5
# At most about 4,000 records a second: what is not indexed yet is found too, so falling behind loses nothing.
_INDEX_TOGETHER: Final = 2_000
_FOLLOWER_PATIENCE_S: Final = 5.0


class Custody:
    """One serving process's care for its audit log.

    Attributes:
        checkpoints: signs, and reads what was signed.
        verifiers: every key the log ever had, newest first.
        retention: seals, archives and prunes months.
        search: the index of the log; None where it is off, or the log is on PostgreSQL.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        database: Database,
        writer: GroupCommitWriter,
        audit: AuditStore,
        vault: SubjectVault,
        jsonl: JsonlFile | None,
        make_record: Callable[[str, dict[str, Any]], AuditRecord],
    ) -> None:
        """Load or make the key that signs, and open what is set; blocking, with the writer running.

        Raises:
            ConfigurationError: a key, an origin, a target or a retention that cannot be.
            StorageUnavailable: the database cannot be used.
        """
        key = load_key(database, vault.seal, clock, origin=settings.audit_origin, key=settings.audit_key)
        if key.is_new:
            audit.append_sync(make_record("log_key", key.describe()))
        self.verifiers = load_verifiers(database)
        self.checkpoints = CheckpointStore(database, writer, clock, key.signer)
        shipper = None
        if settings.audit_ship:
            shipper = Shipper(open_target(settings.audit_ship), database, self.checkpoints, self.verifiers)
        is_indexed = settings.audit_search and database.path is not None
        self.search = SearchIndex(settings.data_dir, audit.source) if is_indexed else None
        forget = [] if self.search is None else [self.search.forget_before]
        self.retention = open_retention(settings, database, writer, audit, clock, forget=forget)
        self._settings = settings
        self._writer = writer
        self._vault = vault
        self._attestation = Attestation(self.checkpoints, shipper, metrics, _tell)
        self._metrics = metrics
        self._forgetter = Forgetter(vault, audit, database, writer, clock)
        self._jsonl = jsonl
        self._follower = None if jsonl is None else JsonlFollower(jsonl, metrics)
        self._reserve = Reserve(settings.data_dir / FILE_NAME, settings.audit_reserve_bytes)
        self._kept: LukhasError | None = None
        self._source = audit.source
        self._indexed = -1
        self._unindexed: LukhasError | None = None

    def duties(self) -> list[Duty]:
        """Return the work to be done again and again, each in a task of its own."""
        every_s = self._settings.audit_checkpoint_every_s
        return [
            (every_s, self._sign),
            # Apart from signing: a slow target must not delay the next signature.
            (every_s, self._ship),
            (FORGET_EVERY_S, self._follow_erasures),
            (COMPLETE_EVERY_S, self._complete),
            (THIN_EVERY_S, self._thin),
            (KEEP_EVERY_S, self._keep),
            *([] if self.search is None else [(INDEX_EVERY_S, self._index)]),
        ]

    async def start(self) -> None:
        """Begin to follow the log, and take the reserve."""
        await asyncio.to_thread(self._reserve.restore)
        if self._follower is not None:
            self._follower.start()

    async def free_reserve(self) -> None:
        """Give the reserved room to the last records, where the disk refuses them. For a process that drains."""
        if not self._writer.healthy:
            await asyncio.to_thread(self._reserve.release)

    async def finish(self) -> None:
        """Sign and ship for the last time: after the last record, before the writer closes."""
        await self._attestation.finish()

    def close(self) -> None:
        """Append what is left to the JSONL file, and let go of it: after the writer, before the database closes."""
        if self.search is not None:
            self.search.close()
        if self._follower is not None and not self._follower.stop(_FOLLOWER_PATIENCE_S):
            log.warning("jsonl_left_behind", lag=self._metrics.jsonl_lag.value)

    def problems(self) -> dict[str, str]:
        """Return what does not work at present, by its name; none of it stops a call."""
        found = {part: failure.message for part, failure in self._attestation.problems.items()}
        if self._follower is not None and self._follower.problem is not None:
            found["jsonl"] = self._follower.problem
        if self._kept is not None:
            found["retention"] = self._kept.message
        if self._unindexed is not None:
            found["search"] = self._unindexed.message
        return {**found}

    async def _sign(self) -> None:
        await self._attestation.sign()

    async def _ship(self) -> None:
        await self._attestation.ship()

    async def _thin(self) -> None:
        await self._attestation.thin()

    async def _follow_erasures(self) -> None:
        await asyncio.to_thread(self._vault.refresh_if_changed)

    async def _complete(self) -> None:
        await asyncio.to_thread(self._forgetter.complete)
        if self._writer.healthy:
            await asyncio.to_thread(self._reserve.restore)

    async def _index(self) -> None:
        search = self.search
        if search is None:
            return
        try:
            size = await asyncio.to_thread(self._source.size)
            if size != self._indexed:
                await asyncio.to_thread(search.catch_up, _INDEX_TOGETHER)
                lag = self._metrics.search_lag.value = await asyncio.to_thread(search.lag)
                self._indexed = size if not lag else -1
        except LukhasError as failure:
            self._metrics.audit_failures.add("search")
            self._unindexed = failure
            raise
        self._unindexed = None

    async def _keep(self) -> None:
        try:
            done = await asyncio.to_thread(self.retention.run)
        except LukhasError as failure:
            self._metrics.audit_failures.add("retention")
            self._kept = failure
            raise
        self._kept = None
        for event, segments in (("sealed", done.sealed), ("archived", done.archived), ("pruned", done.pruned)):
            if segments:
                log.info("audit_months_kept", event_name=event, months=[one.name for one in segments])


def _tell(part: Part, failure: LukhasError | None) -> None:
    if failure is None:
        log.info("audit_works_again", part=part)
    else:
        log.warning("audit_work_failed", part=part, problem=failure.message, hint=failure.hint)
