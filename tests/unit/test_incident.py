"""Incidents in a real database: written with their record, restored after a restart, released for good."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lukhas.access.ring import ApiKey
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.errors import InvalidId, InvalidRequest, NotFound, StorageUnavailable
from lukhas.gateway.incident import IncidentStore, Target, check_reason
from lukhas.gateway.intake import list_subjects
from lukhas.gateway.tightening import Raised, tighten
from lukhas.gateway.violation import Violation
from lukhas.ids import make_id
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy
from lukhas.modulation.state import SignalState, Subject
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import FrozenClock

POLICY = load_policy()
RISK = "alignment_risk"
SESSION, USER = "sub_session", "sub_user"


def make_key(name: str = "one", tenant: str = "acme") -> ApiKey:
    return ApiKey(key_id=f"key_{name}", name=name, tenant=tenant, scopes=frozenset(), created_ms=0)


class Process:
    """What one gateway process has: a store, a state, a clock."""

    def __init__(self, folder: Path, clock: FrozenClock, policy: Policy = POLICY) -> None:
        self.clock = clock
        self.policy = policy
        self.database: Database = open_database(f"sqlite:///{folder}/lukhas.db")
        if not migrate.is_current(self.database):
            migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=1000)
        self.writer.start()
        self.audit = AuditStore(self.database, self.writer, clock)
        self.store = IncidentStore(self.database, self.writer, clock, self.audit)
        self.state = SignalState(policy.signals, clock)

    def record(self, key: ApiKey | None = None, kind: str = "outcome") -> AuditRecord:
        key = key or make_key()
        return AuditRecord(kind, make_id("aud"), key.tenant, key.key_id, None, self.clock.now_ms(), None, None, {})

    def violate(
        self,
        severity: str = "high",
        *,
        session: str | None = SESSION,
        user: str | None = None,
        key: ApiKey | None = None,
        **fields: Any,
    ) -> tuple[str, AuditRecord, list[Any]]:
        """Tighten, and return the incident's id, the record and the rows that are still to be written."""
        key = key or make_key()
        values: dict[str, Any] = {"point": "input", "category": "injection", "rule": "injection.x", "action": "block"}
        violation = Violation(make_id("inc"), severity=severity, **{**values, **fields})  # type: ignore[arg-type]
        subjects = list_subjects(session, user, key)
        raised = tighten(self.state, self.policy, subjects, [violation], key, self.clock.now_ms())
        record = self.record(key)
        return (
            violation.incident_id,
            record,
            self.store.make_rows([violation], raised, record.audit_id, key, session, user),
        )

    async def commit(self, severity: str = "high", **fields: Any) -> str:
        """Tighten, and store the incident."""
        incident_id, record, rows = self.violate(severity, **fields)
        await self.store.append(record, rows)
        return incident_id

    async def release(self, *targets: Target) -> None:
        """Release as the API does: first on record, then in the state."""
        now_ms = self.clock.now_ms()
        await self.store.release(self.record(kind="signal"), targets, now_ms)
        for target in targets:
            self.state.release(target.subject, target.signal, now_ms)

    def restart(self, folder: Path, policy: Policy | None = None) -> Process:
        """Return the process that comes after this one was killed."""
        self.close()
        after = Process(folder, self.clock, policy or self.policy)
        after.store.restore(after.state, after.policy, self.clock.now_ms())
        return after

    def level(self, session: str | None = SESSION, user: str | None = None, key: ApiKey | None = None) -> float:
        found = self.state.levels(list_subjects(session, user, key or make_key())).get(RISK)
        return 0.0 if found is None else found.level

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path, FrozenClock())
    yield made
    made.close()


def at_session(signal: str = RISK) -> Target:
    return Target(Subject("session", SESSION), signal)


async def test_incident_and_its_record_are_written_together(process: Process) -> None:
    """After the future resolves both are there; the row says what was raised."""
    incident_id, record, rows = process.violate(tool="exec_code", details={"email": "a@example.com", "n": 1})
    appended = await process.store.append(record, rows)
    row = process.store.read(incident_id)
    assert (row.audit_id, row.tenant, row.key_id, row.session) == (record.audit_id, "acme", "key_one", SESSION)
    assert row.raised == (Raised("session", SESSION, 0.8, 600_000, process.clock.now_ms(), RISK),)
    assert row.until_ms == process.clock.now_ms() + 600_000 and row.released_ms is None
    assert row.details == {"email": "[redacted:email]", "n": 1}
    assert [stored.index for stored in process.audit.read(record.audit_id)] == [appended.index]


async def test_incident_that_cannot_be_written_leaves_no_record(process: Process) -> None:
    """A row that the database refuses takes its record with it, and nobody else's."""
    incident_id = await process.commit()
    _, record, rows = process.violate()
    twice = [msgspec.structs.replace(rows[0], incident_id=incident_id)]
    bad = process.store.append(record, twice)
    good_id, good_record, good_rows = process.violate()
    await process.store.append(good_record, good_rows)
    with pytest.raises(Exception, match="UNIQUE"):
        await bad
    assert process.audit.read(record.audit_id) == []
    assert process.store.read(good_id).incident_id == good_id


async def test_outcome_follows_its_decision_in_the_log(process: Process) -> None:
    """However records with and without incidents share transactions, no outcome stands before its decision."""
    process.audit.close_lost()
    written: list[tuple[Any, Any]] = []
    for number in range(30):
        audit_id = make_id("aud")
        decision = msgspec.structs.replace(process.record(kind="decision"), audit_id=audit_id)
        outcome = msgspec.structs.replace(process.record(), audit_id=audit_id)
        process.audit.append(process.record(kind="note"))
        _, _, rows = process.violate()
        if number % 2:
            made = process.store.append(decision, rows)
            written.append((made, process.store.append(outcome, [], owed=True, after=made)))
        else:
            made = process.audit.append(decision)
            written.append((made, process.store.append(outcome, rows, owed=True, after=made)))
    for made, ended in written:
        assert (await made).index < (await ended).index
    assert process.audit.close_overdue(2**53) == 0


async def test_outcome_whose_decision_failed_still_stores_its_incident(process: Process) -> None:
    """What was raised is not forgotten because another record could not be written."""
    failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    incident_id, record, rows = process.violate()
    ended = process.store.append(record, rows, owed=True, after=failed)
    failed.set_exception(StorageUnavailable("The record was not durable in time."))
    await ended
    assert process.store.read(incident_id).incident_id == incident_id
    assert isinstance(failed.exception(), StorageUnavailable)


async def test_outcome_whose_decision_outlives_the_writer_fails(process: Process) -> None:
    """Nobody waits for a write that will never be tried."""
    made: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    _, record, rows = process.violate()
    ended = process.store.append(record, rows, owed=True, after=made)
    process.writer.close(5)
    made.set_result(None)
    with pytest.raises(StorageUnavailable):
        await ended


async def test_incident_append_is_refused_when_the_writer_has_stopped(process: Process) -> None:
    """The caller learns at once that nothing was written."""
    _, record, rows = process.violate()
    process.writer.close(5)
    with pytest.raises(StorageUnavailable):
        process.store.append(record, rows, owed=True)


async def test_restart_forgets_no_violation_and_its_decay_goes_on(process: Process, tmp_path: Path) -> None:
    """The level after a restart is what it would have been without one, and it ends when it would have ended."""
    await process.commit()
    process.clock.advance(60_000)
    await process.commit("medium")
    process.clock.advance(30_000)
    before = process.level()
    after = process.restart(tmp_path)
    assert after.level() == pytest.approx(before) and before > 0.5
    after.clock.advance(600_000 - 30_000 - 1)
    assert after.state.holdings([Subject("session", SESSION)])
    after.clock.advance(1)
    assert not after.state.holdings([Subject("session", SESSION)])
    after.close()


async def test_restart_restores_every_scope_and_nobody_elses(process: Process, tmp_path: Path) -> None:
    """Session, user and a widened key come back; another tenant's are its own."""
    for _ in range(2):
        await process.commit(user=USER)
    await process.commit("low", session=None, key=make_key("two", "zeta"))
    after = process.restart(tmp_path)
    assert after.level() == pytest.approx(0.95)
    assert after.level(session=None) == pytest.approx(0.8)
    assert after.level(None, None, make_key("three")) == 0
    assert after.level(None, None, make_key("two", "zeta")) == pytest.approx(0.3)
    after.close()


async def test_restart_under_a_clock_that_was_set_back_holds_a_whole_ttl_at_most(
    process: Process, tmp_path: Path
) -> None:
    """An incident from the future counts from now on, so that it does end."""
    await process.commit()
    process.clock.step_back(365 * 86_400_000)
    after = process.restart(tmp_path)
    assert after.level() == pytest.approx(0.8)
    after.clock.advance(600_000)
    assert after.level() == 0
    after.close()


async def test_restart_with_a_policy_that_has_another_signal_still_tightens(process: Process, tmp_path: Path) -> None:
    """A raised guard that the policy no longer declares gives way to the one that violations raise now."""
    signals = {name: spec for name, spec in POLICY.signals.items() if name != RISK}
    signals["hazard"] = dataclasses.replace(POLICY.signals[RISK], name="hazard")
    other = dataclasses.replace(
        POLICY, signals=signals, violations=dataclasses.replace(POLICY.violations, signal="hazard")
    )
    await process.commit()
    after = process.restart(tmp_path, other)
    assert after.state.levels([Subject("session", SESSION)])["hazard"].level == pytest.approx(0.8)
    after.close()


@pytest.mark.parametrize(
    "raised",
    [
        pytest.param("not json", id="garbage"),
        pytest.param("{}", id="other-form"),
        pytest.param('[{"scope":"galaxy","id":"x","level":1,"ttl_ms":1,"at_ms":1,"signal":"stress"}]', id="scope"),
        pytest.param('[{"scope":"user","id":"x","level":7,"ttl_ms":9000,"at_ms":9e12,"signal":"a"}]', id="level"),
        pytest.param("[]", id="nothing"),
    ],
)
async def test_restart_over_a_row_that_cannot_be_used_goes_on(process: Process, tmp_path: Path, raised: str) -> None:
    """One odd row keeps neither the gateway from starting nor the others from counting."""
    odd = await process.commit(session="sub_odd")
    await process.commit()
    with process.database.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE incident SET raised = ? WHERE incident_id = ?", (raised, odd))
    after = process.restart(tmp_path)
    assert after.level() == pytest.approx(0.8)
    assert after.level(session="sub_odd") == 0
    after.close()


async def test_release_is_for_good(process: Process, tmp_path: Path) -> None:
    """What was released does not come back with a restart; what came after does."""
    first = await process.commit()
    process.clock.advance(10)
    await process.release(at_session())
    assert process.level() == 0
    assert process.store.read(first).released_ms == process.clock.now_ms()
    process.clock.advance(10)
    await process.commit("low")
    assert process.level() == pytest.approx(0.3)
    after = process.restart(tmp_path)
    assert after.level() == pytest.approx(0.3)
    after.close()


async def test_release_of_one_subject_leaves_the_others(process: Process, tmp_path: Path) -> None:
    """An incident of which a part was released is not released; the rest of it survives a restart."""
    incident_id = await process.commit(user=USER)
    await process.release(at_session())
    row = process.store.read(incident_id)
    assert row.released_ms is None
    assert [(one.scope, one.released_ms is None) for one in row.raised] == [("session", False), ("user", True)]
    after = process.restart(tmp_path)
    assert after.level() == 0 and after.level(user=USER) == pytest.approx(0.8)
    after.close()


async def test_release_while_a_call_goes_on_counts_for_its_incident(process: Process, tmp_path: Path) -> None:
    """A stream's incident is written at its end; a release in between is not undone by a restart."""
    incident_id, record, rows = process.violate()
    process.clock.advance(10)
    await process.release(at_session())
    process.clock.advance(10)
    await process.store.append(record, rows)
    assert process.store.read(incident_id).released_ms is not None
    after = process.restart(tmp_path)
    assert after.level() == 0
    after.close()


async def test_release_and_later_violation_in_one_batch_keep_their_order(process: Process, tmp_path: Path) -> None:
    """A violation after a release is not released by it, although both are written in one transaction."""
    await process.commit()
    process.clock.advance(10)
    released = process.store.release(process.record(kind="signal"), [at_session()], process.clock.now_ms())
    process.clock.advance(10)
    _, record, rows = process.violate("low")
    await asyncio.gather(released, process.store.append(record, rows))
    assert [row.released_ms is None for row in process.store.list()] == [True, False]


async def test_release_by_another_process_counts_here(process: Process, tmp_path: Path) -> None:
    """A command's release reaches the gateway's state at its next look, once, and drops nothing newer."""
    incident_id = await process.commit()
    assert process.store.find_releases() == ()
    process.clock.advance(10)
    other = Process(tmp_path, process.clock)
    row = other.store.read(incident_id)
    other.store.release_sync(
        process.record(kind="signal"), [Target(r.subject, r.signal) for r in row.raised], process.clock.now_ms()
    )
    other.close()
    process.clock.advance(10)
    found = process.store.find_releases()
    assert process.store.apply_releases(process.state, found) == 1
    assert process.level() == 0
    await process.commit("low")
    await process.store.append(process.record(), [])
    assert process.store.apply_releases(process.state, process.store.find_releases()) == 0
    assert process.level() == pytest.approx(0.3)


async def test_list_pages_through_incidents_newest_first(process: Process) -> None:
    """Filters narrow, and a cursor goes on where the page ended, also within one moment."""
    ids = [await process.commit(tool="exec_code" if n % 2 else None, category="tool") for n in range(5)]
    process.clock.advance(1000)
    ids.append(await process.commit(category="secret", key=make_key("two", "zeta")))
    listed = process.store.list()
    assert [row.incident_id for row in listed] == sorted(ids, reverse=True)
    first = process.store.list(limit=2)
    rest = process.store.list(cursor=(first[-1].time_ms, first[-1].incident_id))
    assert [row.incident_id for row in [*first, *rest]] == sorted(ids, reverse=True)
    assert len(process.store.list(tenant="acme")) == 5
    assert len(process.store.list(tool="exec_code")) == 2
    assert [row.incident_id for row in process.store.list(category="secret")] == [ids[-1]]
    now_ms = process.clock.now_ms()
    assert len(process.store.list(since_ms=now_ms)) == 1 and len(process.store.list(until_ms=now_ms)) == 5
    assert process.store.list(point="call") == []


@pytest.mark.parametrize(
    ("incident_id", "error"),
    [
        pytest.param("inc_01M83K4Y0902T8TCAN7K67HX25", NotFound, id="unknown"),
        pytest.param("aud_01M83K4Y0902T8TCAN7K67HX25", InvalidId, id="another-kind"),
        pytest.param("' OR 1=1", InvalidId, id="no-id"),
        pytest.param("", InvalidId, id="empty"),
    ],
)
def test_read_of_no_incident_is_an_error(process: Process, incident_id: str, error: type[Exception]) -> None:
    """Unknown and malformed ids are told apart."""
    with pytest.raises(error):
        process.store.read(incident_id)


@pytest.mark.parametrize("reason", ["", "  \n ", "x" * 501, "a\x1b[31m"])
def test_release_without_a_proper_reason_is_refused(reason: str) -> None:
    """1 to 500 printable characters."""
    with pytest.raises(InvalidRequest):
        check_reason(reason)


def test_release_reason_of_the_longest_length_is_taken() -> None:
    """The limit itself is allowed, and white space at the ends goes."""
    assert check_reason(f"  {'é' * 500}\n") == "é" * 500
