"""The audit store, against every database that can serve it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from lukhas.audit.merkle import compute_root, leaf_hash
from lukhas.audit.store import Appended, AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.errors import IntegrityError, InvalidId, NotFound
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter


class Log:
    """One process's way to the log: a database, a writer and a store of its own."""

    def __init__(self, url: str) -> None:
        self.database: Database = open_database(url)
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=10_000)
        self.writer.start()
        self.store = AuditStore(self.database, self.writer, SystemClock())

    def close(self) -> None:
        self.writer.close(10)
        self.database.close()

    def rows(self, sql: str) -> list[Any]:
        with self.database.reading() as connection:
            return [tuple(row) for row in connection.exec_driver_sql(sql).all()]

    def open_from(self) -> int:
        return self.rows("SELECT open_from FROM audit_head")[0][0]


@pytest.fixture(params=["sqlite"])
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/lukhas.db"


@pytest.fixture
def log(url: str) -> Iterator[Log]:
    made = Log(url)
    yield made
    made.close()


def make(kind: Any = "note", audit_id: str | None = None, body: Any = None, **fields: Any) -> AuditRecord:
    given: dict[str, Any] = {"tenant": "default", "key_id": "key_1", "request_id": "req_1", "time_ms": 1}
    given |= {"session": "sub_s", "user": None}
    return AuditRecord(kind=kind, audit_id=audit_id or make_id("aud"), body=body, **(given | fields))


def assert_whole(log: Log) -> None:
    """Indexes and sequences have no gap, hashes are right, and the head is the tree over all of it."""
    rows = log.rows("SELECT leaf_index, leaf_hash, data FROM audit_record ORDER BY leaf_index")
    sequences: dict[str, int] = {}
    for place, (index, leaf, data) in enumerate(rows):
        record = json.loads(data)
        assert index == place == int(record["tree"]["index"])
        assert leaf == leaf_hash(data)
        sequences[record["key_id"]] = sequences.get(record["key_id"], 0) + 1
        assert int(record["tree"]["sequence"]) == sequences[record["key_id"]]
    assert dict(log.rows("SELECT key_id, sequence FROM audit_sequence")) == sequences
    assert log.store.head() == (len(rows), compute_root([leaf for _, leaf, _ in rows]))


async def test_append_resolves_with_its_place_and_reads_back(log: Log) -> None:
    """A record is stored with the bytes that were hashed, and found by its id."""
    record = make(body={"n": 1})
    done = await log.store.append(record)
    assert (done.audit_id, done.index, done.sequence) == (record.audit_id, 0, 1)
    (stored,) = log.store.read(record.audit_id)
    assert (stored.index, stored.kind, stored.tenant, stored.time_ms) == (0, "note", "default", 1)
    assert stored.leaf_hash == done.leaf_hash == leaf_hash(stored.data)
    assert json.loads(stored.data)["body"] == {"n": 1}


async def test_append_concurrently_keeps_one_order_without_gaps(log: Log) -> None:
    """Any number of callers and keys share one tree, each key with its own numbering."""

    async def caller(number: int) -> list[Appended]:
        return [await log.store.append(make(key_id=f"key_{number % 3}")) for _ in range(20)]

    answers = [one for part in await asyncio.gather(*(caller(number) for number in range(16))) for one in part]
    assert sorted(one.index for one in answers) == list(range(320))
    assert_whole(log)


async def test_append_of_more_than_a_batch_at_once_is_whole(log: Log) -> None:
    """Batches larger than one statement are cut into several, inside one order."""
    await asyncio.gather(*(log.store.append(make(key_id=f"key_{n}")) for n in range(1_500)))
    assert_whole(log)


async def test_append_from_two_stores_shares_one_order(log: Log, url: str) -> None:
    """Another process's records are noticed, whatever this one remembers."""
    other = Log(url)
    for _ in range(5):
        await asyncio.gather(*(one.store.append(make()) for one in (log, other, log, other)))
    await other.store.append(make(key_id="key_2"))
    await log.store.append(make(key_id="key_2"))
    assert_whole(log)
    other.close()


async def test_append_with_a_bad_record_in_the_batch_loses_only_that(log: Log) -> None:
    """A record that the database refuses leaves no gap and no wrong memory behind."""
    records = [make(), make(tenant=None), make(), make(tenant="\ud800"), make(kind=None), make()]
    answers = await asyncio.gather(*map(log.store.append, records), return_exceptions=True)
    assert [isinstance(answer, Appended) for answer in answers] == [True, False, True, False, False, True]
    await log.store.append(make())
    assert_whole(log)


async def test_append_after_a_rolled_back_transaction_is_whole(log: Log) -> None:
    """What a failed transaction staged is forgotten, tree and numbering alike, also twice in one transaction."""
    await log.store.append(make())

    def staged_then_failed(connection: Connection, payloads: Any) -> list[Any]:
        log.store.sink(connection, [log.store.encode(make("decision"))])
        log.store.sink(connection, [log.store.encode(make("decision"))])
        raise NotFound("nothing")

    log.store.close_lost()
    with pytest.raises(NotFound):
        await log.writer.submit(staged_then_failed, None)
    assert_whole(log)
    await log.store.append(make())
    assert log.open_from() == 2
    assert_whole(log)


async def test_close_lost_closes_open_decisions_once(log: Log, url: str) -> None:
    """After a crash each decision without outcome gets one that says so, and the others none."""
    log.store.close_lost()
    ids = [make_id("aud") for _ in range(6)]
    for audit_id in ids:
        await log.store.append(make("decision", audit_id, {"n": 1}))
    for audit_id in (ids[0], ids[1], ids[3]):
        await log.store.append(make("outcome", audit_id, {"status": "ok"}))
    assert log.open_from() == 2

    restarted = Log(url)
    assert await asyncio.to_thread(restarted.store.close_lost) == 3
    assert restarted.open_from() == 12
    again = Log(url)
    assert await asyncio.to_thread(again.store.close_lost) == 0
    for audit_id in ids:
        document = again.store.read_document(audit_id)
        assert document is not None
        lost = audit_id in (ids[2], ids[4], ids[5])
        assert document["outcome"] == {"status": "lost" if lost else "ok"}
        assert len(document["records"]) == 2
    assert_whole(again)
    restarted.close()
    again.close()


async def test_watermark_of_a_serving_store_is_the_oldest_open_decision(log: Log, url: str) -> None:
    """The watermark never passes an open decision, and a store that does not serve leaves it alone."""
    log.store.close_lost()
    first, second = make_id("aud"), make_id("aud")
    await log.store.append(make("decision", first))
    await log.store.append(make("decision", second))
    assert log.open_from() == 0
    await log.store.append(make("outcome", second))
    assert log.open_from() == 0
    other = Log(url)
    await other.store.append(make())
    assert log.open_from() == 0
    await log.store.append(make("outcome", first))
    assert log.open_from() == 5
    await asyncio.gather(log.store.append(make("decision", third := make_id("aud"))), log.store.append(make()))
    await log.store.append(make("outcome", third))
    assert log.open_from() == 8
    other.close()


async def test_watermark_after_a_lost_outcome_write_stays(log: Log) -> None:
    """An outcome whose transaction was rolled back leaves its decision open."""
    log.store.close_lost()
    audit_id = make_id("aud")
    await log.store.append(make("decision", audit_id))

    def failing(connection: Connection, payloads: Any) -> list[Any]:
        log.store.sink(connection, [log.store.encode(make("outcome", audit_id))])
        raise NotFound("nothing")

    with pytest.raises(NotFound):
        await log.writer.submit(failing, None)
    await log.store.append(make())
    assert log.open_from() == 0
    assert await asyncio.to_thread(log.store.close_overdue, 1) == 0
    assert await asyncio.to_thread(log.store.close_overdue, 2) == 1
    assert log.open_from() == 3
    assert_whole(log)


async def test_read_document_prefers_a_real_outcome(log: Log) -> None:
    """An outcome that came after its decision was given up is the one shown; nothing is hidden."""
    audit_id = make_id("aud")
    for kind, body in (("decision", {"d": 1}), ("outcome", {"status": "ok"}), ("outcome", {"status": "lost"})):
        await log.store.append(make(kind, audit_id, body))
    document = log.store.read_document(audit_id)
    assert document is not None
    assert document["decision"] == {"d": 1}
    assert document["outcome"] == {"status": "ok"}
    assert (document["audit_id"], document["tenant"], document["session"]) == (audit_id, "default", "sub_s")
    assert len(document["records"]) == 3


def test_read_unknown_and_wrong_ids(log: Log) -> None:
    """An unknown id is nothing, a wrong one an error."""
    assert log.store.read(make_id("aud")) == []
    assert log.store.read_document(make_id("aud")) is None
    for wrong in ("", "aud_x", make_id("req"), make_id("aud") + "' OR 1=1"):
        with pytest.raises(InvalidId):
            log.store.read(wrong)


async def test_read_of_changed_bytes_is_an_integrity_error(log: Log) -> None:
    """A record that was edited in the database is not served as if it were the one written."""
    done = await log.store.append(make(body={"n": 1}))
    with log.database.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE audit_record SET data = CAST('{\"n\":2}' AS BLOB)")
    with pytest.raises(IntegrityError):
        log.store.read(done.audit_id)


async def test_read_of_bytes_turned_into_text_is_an_integrity_error(log: Log, url: str) -> None:
    """SQLite lets an edit change a column's type; that too is an edit, not a crash."""
    done = await log.store.append(make(body={"n": 1}))
    with log.database.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE audit_record SET data = CAST(data AS TEXT)")
    with pytest.raises(IntegrityError):
        log.store.read(done.audit_id)


async def test_append_on_a_damaged_head_is_refused(log: Log, url: str) -> None:
    """A head that does not fit its size stops the log instead of growing a wrong tree."""
    await log.store.append(make())
    with log.database.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE audit_head SET size = 3")
    with pytest.raises(IntegrityError):
        await log.store.append(make())
    with pytest.raises(IntegrityError):
        log.store.head()
