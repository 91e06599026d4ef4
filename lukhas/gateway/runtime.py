"""Everything that one serving process holds open, in the order in which it opens and closes."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import structlog

from lukhas import flags
from lukhas.access.keys import AdminKey, KeyStore
from lukhas.access.limit import LimitStore
from lukhas.access.meter import Meter
from lukhas.access.ring import ApiKey
from lukhas.access.usage import UsageStore
from lukhas.audit.jsonl import JsonlFile, open_jsonl
from lukhas.audit.redaction import install_redactor
from lukhas.audit.redaction_reader import load_redactor
from lukhas.audit.source import RecordSource
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import Clock, SystemClock
from lukhas.errors import LukhasError, ModerationUnavailable, ShuttingDown, StorageUnavailable
from lukhas.gateway.admission import Admission, Prove
from lukhas.gateway.custody import Custody
from lukhas.gateway.equipment import Equipment, load_packaged_rules, prepare_guard_rules, warm_up
from lukhas.gateway.incident import IncidentStore
from lukhas.gateway.object import ObjectOwners
from lukhas.gateway.pipeline import Pipeline
from lukhas.gateway.policies import Active
from lukhas.gateway.policy_file import PolicyFile
from lukhas.gateway.readiness import describe_readiness
from lukhas.gateway.sensors import LoadMeter, load_sensors
from lukhas.gateway.shadow import ShadowPolicy
from lukhas.gateway.succession import Succession
from lukhas.ids import make_id
from lukhas.moderation.remote import RemoteModerator
from lukhas.moderation.rule_reader import load_rules
from lukhas.modulation.policy import Policy
from lukhas.modulation.revision import Also, RevisionStore
from lukhas.modulation.state import SignalState
from lukhas.openai.capabilities import CapabilityTable, load_capabilities
from lukhas.openai.tooling import load_registry
from lukhas.openai.upstream import Upstream, make_upstream
from lukhas.settings import Settings
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database, vault_url
from lukhas.storage.serving import ServingLock
from lukhas.storage.writer import GroupCommitWriter
from lukhas.telemetry import Metrics
from lukhas.vault.pepper import FILE_NAME as VAULT_KEY
from lukhas.vault.subjects import SubjectVault

log = structlog.get_logger("lukhas.runtime")

WATCH_EVERY_S: Final = 0.2
# A file counts as written when two looks in a row find the same; a change takes effect after at most three.
POLICY_EVERY_S: Final = 0.25
MODERATOR_EVERY_S: Final = 5.0
HOUSEKEEPING_EVERY_S: Final = 15.0
SUMMARY_EVERY_S: Final = 60.0
SYSTEM: Final = "system"


class Runtime:
    """One serving process. Open it with `open_runtime`, then `start` it on the event loop that serves.

    Attributes:
        admin: where the admin key comes from; its secret, if new, is shown once by whoever serves.
        is_draining: no new call is taken.
        unauthenticated: refusals since the last summary record.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Clock,
        metrics: Metrics,
        lock: ServingLock,
        database: Database,
        vault_database: Database,
        writer: GroupCommitWriter,
        vault_writer: GroupCommitWriter,
        upstream: Upstream,
        jsonl: JsonlFile | None = None,
        prove: Prove | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.metrics = metrics
        self.database = database
        self.writer = writer
        self.upstream = upstream
        self.capabilities: CapabilityTable = load_capabilities(settings.capabilities)
        self.audit = AuditStore(database, writer, clock)
        self.lost = self.audit.close_lost()
        self.revisions = RevisionStore(database, writer, clock)
        admission = Admission(
            self.revisions,
            require_proof=settings.policy_require_proof,
            timeout_s=settings.policy_proof_timeout_s,
            prove=prove,
            on_proof=lambda policy: log.info(
                "policy_proof_began", policy=policy.id, timeout_s=settings.policy_proof_timeout_s
            ),
        )
        file = PolicyFile(settings.policy)
        self.succession = Succession(file, self.revisions, admission, self._make_also, metrics)
        self.policies = self.succession.policies
        self.shadow = ShadowPolicy(settings.shadow_policy, metrics)
        self.keys = KeyStore(database, writer, clock)
        self.admin: AdminKey = self.keys.ensure_admin(settings, also=self._record_admin)
        self.vault = SubjectVault(vault_database, vault_writer, key_path=settings.data_dir / VAULT_KEY, clock=clock)
        self.custody = Custody(
            settings,
            clock=clock,
            metrics=metrics,
            database=database,
            writer=writer,
            audit=self.audit,
            vault=self.vault,
            jsonl=jsonl,
            make_record=self.make_record,
        )
        self.state = SignalState(self.policies.policy.signals, clock, entries_per_key=settings.signal_entries_per_key)
        self.succession.on_adopt = self._follow_signals
        self.incidents = IncidentStore(database, writer, clock, self.audit)
        self.owners = ObjectOwners(database, writer, clock)
        self.limits = LimitStore(database, writer, clock)
        usage = UsageStore(database, writer)
        self.meter = Meter(self.limits, clock, output_tokens=settings.limit_output_tokens, usage=usage, metrics=metrics)
        self.registry = load_registry(settings.tools)
        path = settings.moderation_rules
        self.rules = load_packaged_rules() if path is None else load_rules(path)
        self.moderator = _make_moderator(settings)
        self.sensors = load_sensors(settings.sensors, flags.is_enabled, on_failure=metrics.sensor_failures.add)
        self.load = LoadMeter(clock)
        self.restored = self.incidents.restore(self.state, self.policies.policy, clock.now_ms())
        self._guard_rules = prepare_guard_rules(self.rules)
        self.pipeline = Pipeline(
            Equipment(
                settings=settings,
                clock=clock,
                metrics=metrics,
                policies=self.policies,
                shadow=self.shadow,
                state=self.state,
                vault=self.vault,
                audit=self.audit,
                incidents=self.incidents,
                owners=self.owners,
                upstream=upstream,
                capabilities=self.capabilities,
                registry=self.registry,
                rules=self.rules,
                guard_rules=self._guard_rules,
                moderator=self.moderator,
                sensors=self.sensors,
                load=self.load,
                meter=self.meter,
            )
        )
        self.is_draining = False
        self.unauthenticated = 0
        self._lock = lock
        self._vault_database = vault_database
        self.vault_writer = vault_writer
        self._tasks: list[asyncio.Task[None]] = []
        self.keys_stale: str | None = None
        self.limits_stale: str | None = None

    def _record_admin(self, key: ApiKey) -> tuple[Any, Any]:
        """Return what records the first admin key, in the transaction that stores it."""
        body = {"event": "created", "key": key.key_id, "name": key.name, "scopes": sorted(key.scopes)}
        return self.audit.sink, self.audit.encode(self.make_record("key", body))

    def authenticate(self, secret: str) -> ApiKey:
        """Return the key that a secret belongs to; refusals are counted for the summary.

        Raises:
            Unauthenticated: it is none.
        """
        try:
            return self.keys.ring.authenticate(secret, self.clock.now_ms())
        except LukhasError:
            self.count_unauthenticated()
            raise

    def count_unauthenticated(self) -> None:
        """Count one refusal for want of a valid key."""
        self.unauthenticated += 1
        self.metrics.unauthenticated.add()

    def check_serving(self) -> None:
        """Refuse work while the process drains.

        Raises:
            ShuttingDown: it does.
        """
        if self.is_draining:
            raise ShuttingDown("The gateway is shutting down.", hint="Try again; another instance will answer.")

    def make_record(self, kind: str, body: dict[str, Any], key: ApiKey | None = None, **more: Any) -> AuditRecord:
        """Make a record of something that is not a governed call; without a key it is the system's own."""
        fields: dict[str, Any] = {"audit_id": make_id("aud"), "request_id": None, "session": None, "user": None}
        return AuditRecord(
            kind=kind,
            tenant="" if key is None else key.tenant,
            key_id=SYSTEM if key is None else key.key_id,
            time_ms=self.clock.now_ms(),
            body=body,
            **(fields | more),
        )

    async def record(self, record: AuditRecord) -> str:
        """Write a record durably and return its audit id.

        Raises:
            StorageUnavailable: it could not be written in time.
        """
        try:
            async with asyncio.timeout(self.settings.writer_deadline_s):
                await self.audit.append(record)
        except TimeoutError as late:
            raise StorageUnavailable("The record could not be written in time.") from late
        return record.audit_id

    async def start(self) -> None:
        """Start the background work. Needs the event loop that serves."""
        active = self.policies.active
        policy = active.policy
        body = {"event": "in_force", "policy": policy.id, "name": policy.name, "proof": active.proof}
        await self.record(self.make_record("policy", body | {"certificate": active.certificate}))
        if (candidate := self.shadow.policy) is not None:
            await asyncio.to_thread(self._save_shadow, candidate)
        await self.custody.start()
        self.pipeline.unrecorded.start()
        self._tasks = [
            asyncio.create_task(_repeat(every_s, work), name=work.__name__) for every_s, work in self.custody.duties()
        ]
        self._tasks += [
            asyncio.create_task(_repeat(WATCH_EVERY_S, self._watch_drain), name="watch-drain"),
            asyncio.create_task(_repeat(WATCH_EVERY_S, self._watch_keys), name="watch-keys"),
            asyncio.create_task(_repeat(WATCH_EVERY_S, self._watch_limits), name="watch-limits"),
            asyncio.create_task(_repeat(WATCH_EVERY_S, self._watch_releases), name="watch-releases"),
            # Each in a task of its own: a rollback elsewhere must not wait for the proof of a changed file.
            asyncio.create_task(_repeat(POLICY_EVERY_S, self.succession.watch_file), name="watch-policy-file"),
            asyncio.create_task(_repeat(POLICY_EVERY_S, self.succession.watch_database), name="watch-policy"),
            asyncio.create_task(_repeat(MODERATOR_EVERY_S, self._watch_moderator), name="watch-moderator"),
            asyncio.create_task(_repeat(HOUSEKEEPING_EVERY_S, self._keep_house), name="housekeeping"),
            asyncio.create_task(_repeat(SUMMARY_EVERY_S, self._summarise), name="summary"),
        ]
        if self.shadow.is_on:
            watching = _repeat(POLICY_EVERY_S, self._watch_shadow)
            self._tasks.append(asyncio.create_task(watching, name="watch-shadow-policy"))
        # Not awaited: whoever calls at once only waits for what is not compiled yet.
        self._tasks.append(
            asyncio.create_task(asyncio.to_thread(warm_up, self.rules, self._guard_rules), name="warm-up")
        )
        log.info("gateway_started", policy=policy.id, mode=self.settings.mode, lost=self.lost, tightened=self.restored)

    async def stop(self) -> None:
        """Stop the background work, flush every record, close everything. May be called twice."""
        self.is_draining = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        await self._watch_drain()
        await self.pipeline.unrecorded.close()
        with contextlib.suppress(LukhasError):
            await self._summarise()
        await self.custody.finish()
        await self.upstream.close()
        if self.moderator is not None:
            await self.moderator.close()
        flushed = await asyncio.to_thread(self.close)
        log.info("gateway_stopped", flushed=flushed)

    def close(self) -> bool:
        """Flush the writers and close the databases; return whether everything waiting was written."""
        timeout_s = max(self.settings.writer_deadline_s, 5.0)
        flushed = self.writer.close(timeout_s)
        flushed = self.vault_writer.close(timeout_s) and flushed
        self.custody.close()
        self.database.close()
        self._vault_database.close()
        self._lock.release()
        return flushed

    async def check(self) -> dict[str, Any]:
        """Return the truth about each dependency, for `/readyz`."""
        return await describe_readiness(self)

    async def _watch_drain(self) -> None:
        # Calls that were let in, the summary and the last checkpoint still have to be written.
        if self.is_draining:
            await self.custody.free_reserve()

    async def _watch_keys(self) -> None:
        try:
            await asyncio.to_thread(self.keys.refresh_if_changed)
        except StorageUnavailable as failure:
            if self.keys_stale is None:
                log.warning("keys_not_refreshed", problem=failure.message)
            self.keys_stale = failure.message
            return
        self.keys_stale = None

    async def _watch_limits(self) -> None:
        try:
            await asyncio.to_thread(self.limits.refresh_if_changed)
        except LukhasError as failure:
            # The last good ones hold on, also where what is stored now are none.
            if self.limits_stale is None:
                log.warning("limits_not_refreshed", problem=failure.message)
            self.limits_stale = failure.message
            return
        self.limits_stale = None

    async def _watch_moderator(self) -> None:
        # While it fails, few calls or none come by to find out that it answers again.
        if self.moderator is not None and self.moderator.status() is not None:
            with contextlib.suppress(ModerationUnavailable):
                await self.moderator.check(("ok",), "input")

    async def _watch_releases(self) -> None:
        with contextlib.suppress(StorageUnavailable):
            found = await asyncio.to_thread(self.incidents.find_releases)
            if found:
                self.incidents.apply_releases(self.state, found)

    async def _watch_shadow(self) -> None:
        found = await asyncio.to_thread(self.shadow.read_if_changed)
        if found is not None:
            await asyncio.to_thread(self._save_shadow, found)
            self.shadow.adopt(found)

    def _save_shadow(self, policy: Policy) -> None:
        # A record that names the candidate must find its text.
        body = {"event": "shadow", "policy": policy.id, "name": policy.name}
        also = self._make_also(body, None)
        details = {"file": policy.source}
        self.revisions.save(policy, None, SYSTEM, "LUKHAS_SHADOW_POLICY", "shadow", also, details=details)

    def _follow_signals(self, active: Active) -> None:
        self.state.configure(active.policy.signals)

    def _make_also(self, body: dict[str, Any], key: ApiKey | None) -> Also:
        return self.audit.sink, self.audit.encode(self.make_record("policy", body, key))

    async def _keep_house(self) -> None:
        self.metrics.signal_entries.value = self.state.sweep()
        patience_ms = round((self.settings.upstream_total_timeout_s + 60) * 1000)
        await asyncio.to_thread(self.audit.close_overdue, self.clock.now_ms() - patience_ms)

    async def _summarise(self) -> None:
        count, self.unauthenticated = self.unauthenticated, 0
        if count:
            await self.record(self.make_record("refusal", {"event": "unauthenticated", "count": count}))
        limited, self.pipeline.limited = self.pipeline.limited, Counter()
        if limited:
            body = {"event": "limited", "count": limited.total(), "keys": dict(limited.most_common(100))}
            await self.record(self.make_record("refusal", body))


def open_runtime(
    settings: Settings,
    *,
    clock: Clock | None = None,
    upstream: Upstream | None = None,
    metrics: Metrics | None = None,
    prove: Prove | None = None,
) -> Runtime:
    """Open everything that serving needs: lock, databases (migrated), writers, keys, policy, upstream.

    Raises:
        ConfigurationError: another process serves this directory, or something is not set up.
        PolicyError: the policy does not load; without one nothing is served.
        StorageUnavailable: a database cannot be used.
    """
    install_redactor(load_redactor(settings.redaction))
    flags.reload()  # a flag of a wrong value is found now, not at its first use
    with contextlib.ExitStack() as undo:
        lock = ServingLock(settings.data_dir)
        lock.acquire()
        undo.callback(lock.release)
        database = open_migrated(settings.sqlalchemy_url)
        undo.callback(database.close)
        vault_database = open_migrated(vault_url(settings.sqlalchemy_url), is_vault=True)
        undo.callback(vault_database.close)
        jsonl = open_jsonl(settings, RecordSource(database))
        is_required = jsonl is not None and settings.audit_jsonl == "required"
        if jsonl is not None and is_required:
            jsonl.catch_up()  # else the first commit would append the whole backlog, and miss its deadline
        writer = GroupCommitWriter(
            database,
            max_rows=settings.writer_queue_rows,
            after_commit=jsonl.catch_up if jsonl is not None and is_required else None,
        )
        writer.start()
        undo.callback(writer.close, 5.0)
        vault_writer = GroupCommitWriter(vault_database, max_rows=settings.writer_queue_rows, name="vault-writer")
        vault_writer.start()
        undo.callback(vault_writer.close, 5.0)
        runtime = Runtime(
            settings,
            clock=clock or SystemClock(),
            metrics=metrics or Metrics(),
            lock=lock,
            database=database,
            vault_database=vault_database,
            writer=writer,
            vault_writer=vault_writer,
            upstream=upstream or make_upstream(settings),
            jsonl=jsonl,
            prove=prove,
        )
        undo.pop_all()
        return runtime


def _make_moderator(settings: Settings) -> RemoteModerator | None:
    if not settings.moderation_url:
        return None
    return RemoteModerator(
        settings.moderation_url,
        api_key=settings.moderation_api_key,
        model=settings.moderation_model,
        timeout_s=settings.moderation_timeout_s,
    )


def open_migrated(url: str, *, is_vault: bool = False) -> Database:
    """Open a database and bring its tables up to date."""
    database = open_database(url, schema="vault" if is_vault else "main")
    try:
        if not migrate.is_current(database):
            migrate.upgrade(database)
    except BaseException:
        database.close()
        raise
    return database


async def _repeat(every_s: float, work: Callable[[], Awaitable[None]]) -> None:
    said: str | None = None
    while True:
        await asyncio.sleep(every_s)
        try:
            await work()
        except LukhasError as failure:
            # Once for each reason: what fails four times a second would bury everything else.
            if failure.message != said:
                log.warning("background_work_failed", work=work.__name__, code=failure.code, problem=failure.message)
            said = failure.message
        else:
            said = None
