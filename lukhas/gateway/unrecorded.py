"""Calls that pass without a record where LUKHAS_AUDIT_ON_FAILURE=open: counted now, recorded once the log takes it.

The counts are kept in a file too, so that a crash during the outage does not lose them. The record that tells of them
has its id before it is written, and that id is in the file, so it is written once, over restarts too.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from lukhas.access.ring import ApiKey
from lukhas.audit.store import Appended, AuditRecord, AuditStore
from lukhas.clock import Clock, format_utc
from lukhas.errors import LukhasError
from lukhas.ids import make_id
from lukhas.storage.slot_file import SlotFile
from lukhas.telemetry import Metrics

log = structlog.get_logger("lukhas.unrecorded")

FILE_NAME: Final = "audit.unrecorded"
_SYSTEM: Final = "system"
_TRY_EVERY_S: Final = 1.0
# A file that takes longer does not hold up the answers that it should not outlive.
_FILE_PATIENCE_S: Final = 0.5
# So that one record, of at most 60,000 bytes, has room for all; further keys share an entry.
_MOST_KEYS: Final = 150
_MOST_REFS: Final = 500
_OTHERS: Final = ("", "others")


class Missed(msgspec.Struct):
    """What one key's calls lack in the log.

    Attributes:
        calls: calls without a decision on record.
        outcomes: calls whose decision is on record and whose outcome is not.
        first_ms, last_ms: when the first and the last of them passed, in ms since the epoch.
        statuses: how those that ended have ended.
    """

    tenant: str
    key_id: str
    calls: int = 0
    outcomes: int = 0
    first_ms: int = 0
    last_ms: int = 0
    statuses: dict[str, int] = {}


class _Kept(msgspec.Struct):
    """The file's content."""

    reason: str = ""
    open: list[Missed] = []
    closing_id: str = ""
    closing: list[Missed] = []
    refs: dict[str, tuple[str, str]] = {}


class UnrecordedCalls:
    """Counts calls that pass unrecorded, keeps the counts, and puts them on record. For one event loop.

    Attributes:
        is_open: whether such calls may pass at all. Where not, only what an earlier process left is recorded.
    """

    def __init__(
        self, data_dir: Path, audit: AuditStore, clock: Clock, metrics: Metrics, deadline_s: float, *, is_open: bool
    ) -> None:
        """Read what an earlier process has left.

        Args:
            data_dir: where the file is.
            deadline_s: longest wait for the record that tells of the calls.
        """
        self.is_open = is_open
        self._audit = audit
        self._clock = clock
        self._metrics = metrics
        self._deadline_s = deadline_s
        self._file = SlotFile(data_dir / FILE_NAME)
        self._reason = ""
        self._open: dict[tuple[str, str], Missed] = {}
        self._closing_id = ""
        self._closing: list[Missed] = []
        # Of writes that are late: they may still come about, and then the call is on record after all.
        self._refs: dict[str, tuple[str, str]] = {}
        self._stale_refs: dict[str, tuple[str, str]] = {}
        self._writing: asyncio.Task[None] | None = None
        self._is_dirty = False
        self._is_kept = True
        self._file_holds = False
        self._record: asyncio.Future[Appended] | None = None
        self._driver: asyncio.Task[None] | None = None
        self._load()

    @property
    def count(self) -> int:
        """Calls that are not on record and not told of by a record either."""
        return sum(one.calls + one.outcomes for one in [*self._open.values(), *self._closing])

    @property
    def is_late(self) -> bool:
        """Whether a write is late right now: waiting for the next one would only cost its caller time."""
        return bool(self._refs)

    def problem(self) -> str | None:
        """Return what `/readyz` says; None where every call is on record."""
        count = self.count
        if not count:
            return None
        first_ms = min(one.first_ms for one in [*self._open.values(), *self._closing])
        said = f"{count} {'call' if count == 1 else 'calls'} passed unrecorded since {format_utc(first_ms)}"
        return said if self._is_kept else f"{said}; the count is in memory only"

    def start(self) -> None:
        """Take the file's room, and put on record what an earlier process left. Needs the event loop."""
        if self.is_open:
            with contextlib.suppress(OSError):
                self._file.prepare()
        if self.count or self._closing_id:
            self._drive()

    async def close(self) -> None:
        """Try once more to put the counts on record, and let the file go."""
        if self._driver is not None:
            self._driver.cancel()
            await asyncio.gather(self._driver, return_exceptions=True)
            self._driver = None
        with contextlib.suppress(LukhasError):
            await self._recover()
        await self._keep()
        await asyncio.to_thread(self._file.close)

    def miss(self, key: ApiKey, part: str, late: tuple[str, asyncio.Future[Appended]] | None, reason: str) -> None:
        """Count one call that passes unrecorded.

        Args:
            part: 'decision', or 'outcome' where the decision is on record.
            late: the call's id and its write, where that may still come about; the call is then taken back.
            reason: why, in the database's words.
        """
        name = (key.tenant, key.key_id)
        self._reason = reason or self._reason
        self._add(name, part, 1)
        self._metrics.unrecorded.add()
        if late is not None:
            audit_id, future = late
            ref = f"{audit_id}:{part}"
            self._refs[ref] = name
            future.add_done_callback(lambda done: self._settle(ref, name, part, done))
        self._is_dirty = True
        self._drive()

    def end(self, key: ApiKey, status: str) -> None:
        """Note how a call that was counted has ended."""
        known = {(one.tenant, one.key_id): one for one in self._closing} | self._open
        one = known.get((key.tenant, key.key_id)) or known.get(_OTHERS)
        if one is not None:
            one.statuses[status] = one.statuses.get(status, 0) + 1
            self._is_dirty = True

    async def kept(self) -> None:
        """Wait until the counts are in the file, as far as the file can be written without delay."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FILE_PATIENCE_S if self._is_kept else 0):
                await self._keep()

    def _load(self) -> None:
        try:
            raw = self._file.read()
            kept = msgspec.json.decode(raw, type=_Kept) if raw else _Kept()
        except (OSError, msgspec.MsgspecError) as failure:
            log.warning("unrecorded_counts_not_read", problem=str(failure))
            return
        self._reason = kept.reason
        self._open = {(one.tenant, one.key_id): one for one in kept.open}
        self._closing_id, self._closing = kept.closing_id, kept.closing
        self._stale_refs = kept.refs
        self._file_holds = bool(self._open or self._closing_id)

    def _add(self, name: tuple[str, str], part: str, by: int) -> None:
        one = self._open.get(name)
        if one is None:
            if len(self._open) >= _MOST_KEYS:
                name = _OTHERS
            one = self._open.setdefault(name, Missed(*name))
        now_ms = self._clock.now_ms()
        one.first_ms = one.first_ms or now_ms
        one.last_ms = now_ms
        if part == "decision":
            one.calls += by
        else:
            one.outcomes += by

    def _take_back(self, name: tuple[str, str], part: str) -> None:
        one = self._open.get(name) or self._open.get(_OTHERS)
        if one is None:
            return
        if part == "decision":
            one.calls -= 1
        else:
            one.outcomes -= 1
        if not one.calls and not one.outcomes:
            del self._open[(one.tenant, one.key_id)]
        self._is_dirty = True

    def _settle(self, ref: str, name: tuple[str, str], part: str, done: asyncio.Future[Appended]) -> None:
        if self._refs.pop(ref, None) is not None and not done.cancelled() and done.exception() is None:
            self._take_back(name, part)

    def _drive(self) -> None:
        if self._driver is None or self._driver.done():
            self._driver = asyncio.get_running_loop().create_task(self._run(), name="unrecorded")

    async def _run(self) -> None:
        while self.count or self._closing_id or self._is_dirty or self._refs:
            try:
                await self._recover()
            except LukhasError as failure:
                log.debug("unrecorded_not_recorded_yet", problem=failure.message)
            await self._keep()
            await asyncio.sleep(_TRY_EVERY_S)

    async def _recover(self) -> None:
        """Put the counts on record where the log takes it.

        Raises:
            LukhasError: it does not, yet.
        """
        if self._record is not None and not self._record.done():
            return
        await self._check_refs()
        if self._closing_id:
            if await asyncio.to_thread(self._audit.read, self._closing_id):
                await self._finish()
            else:
                self._reopen()
        if self._refs or not self.count:
            return
        self._closing_id, self._closing = make_id("aud"), list(self._open.values())
        self._open = {}
        self._is_dirty = True
        await self._keep()
        if not self._is_kept and self._file_holds:
            return  # a crash after the record would have the counts of the file recorded again
        self._record = self._audit.append(self._make_record(), owed=True)
        done, _ = await asyncio.wait([self._record], timeout=self._deadline_s)
        if done:
            self._record.result()
            await self._finish()

    async def _finish(self) -> None:
        """Forget what is on record now."""
        log.warning("unrecorded_calls_recorded", audit_id=self._closing_id, calls=sum(o.calls for o in self._closing))
        self._closing_id, self._closing, self._is_dirty = "", [], True
        await self._keep()

    def _reopen(self) -> None:
        """Take the counts of a record that could not be written back: the next one tells of what came since, too."""
        parts, self._closing_id, self._closing = self._closing, "", []
        for one in parts:
            name = (one.tenant, one.key_id)
            known = self._open.setdefault(name, one)
            if known is not one:
                known.calls += one.calls
                known.outcomes += one.outcomes
                known.first_ms = min(known.first_ms, one.first_ms)
                known.last_ms = max(known.last_ms, one.last_ms)
                for status, count in one.statuses.items():
                    known.statuses[status] = known.statuses.get(status, 0) + count

    async def _check_refs(self) -> None:
        """Take back what an earlier process counted and its writer wrote all the same."""
        for ref, name in list(self._stale_refs.items()):
            audit_id, _, part = ref.partition(":")
            found = await asyncio.to_thread(self._audit.read, audit_id)
            del self._stale_refs[ref]
            if any(one.kind == part for one in found):
                self._take_back(name, part)

    def _make_record(self) -> AuditRecord:
        parts = self._closing
        body: dict[str, Any] = {
            "event": "recovered",
            "reason": self._reason[:200],
            "calls": sum(one.calls for one in parts),
            "outcomes": sum(one.outcomes for one in parts),
            "first": format_utc(min(one.first_ms for one in parts)),
            "last": format_utc(max(one.last_ms for one in parts)),
            "keys": [_describe(one) for one in parts],
        }
        return AuditRecord(
            kind="unrecorded",
            audit_id=self._closing_id,
            tenant="",
            key_id=_SYSTEM,
            request_id=None,
            time_ms=self._clock.now_ms(),
            session=None,
            user=None,
            body=body,
        )

    async def _keep(self) -> None:
        """Write the file until it holds what is counted; several callers share one write."""
        while self._is_dirty or self._writing is not None:
            if self._writing is None:
                self._is_dirty = False
                self._writing = asyncio.get_running_loop().create_task(self._write(self._encode(), self.count))
            # Whoever stops waiting must not stop the write.
            await asyncio.shield(self._writing)
            if not self._is_kept:
                return

    async def _write(self, content: bytes, count: int) -> None:
        try:
            await asyncio.to_thread(self._file.write, content)
        except (OSError, ValueError) as failure:
            if self._is_kept:
                log.warning("unrecorded_counts_not_kept", problem=str(failure))
            self._is_kept, self._is_dirty = False, True
        else:
            self._is_kept = True
            self._file_holds = count > 0
        finally:
            # By the task itself: one that is done and still stands here would be awaited without end.
            self._writing = None

    def _encode(self) -> bytes:
        refs = dict(list({**self._stale_refs, **self._refs}.items())[:_MOST_REFS])
        kept = _Kept(self._reason[:200], list(self._open.values()), self._closing_id, self._closing, refs)
        return msgspec.json.encode(kept)


def _describe(one: Missed) -> dict[str, Any]:
    times = {"first": format_utc(one.first_ms), "last": format_utc(one.last_ms)}
    counts = {"calls": one.calls, "outcomes": one.outcomes, "statuses": one.statuses}
    return {"tenant": one.tenant, "key": one.key_id, **counts, **times}
