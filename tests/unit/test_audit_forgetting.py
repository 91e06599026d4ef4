"""Forgetting a subject: vault, texts and record together, whatever ends in between; captured texts under many keys."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import OperationalError

from lukhas.audit.content import ContentStore, Owner, open_content, seal_content, write_contents
from lukhas.audit.excerpt import MARGIN_CHARS, make_excerpt
from lukhas.audit.forgetting import Actor, Forgetter, check_reason
from lukhas.audit.merkle import compute_root, leaf_hash
from lukhas.audit.record import AuditRecord
from lukhas.audit.store import AuditStore
from lukhas.clock import SystemClock
from lukhas.errors import IntegrityError, InvalidRequest, KeyErased, NotFound, StorageUnavailable
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.vault.subjects import SubjectVault

ACTOR = Actor("t", "cli", "cli:root")
ALICE = ("t", "user", "alice")


class House:
    """A log and a vault, as one process has them open."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.main = open_database(f"sqlite:///{folder}/lukhas.db")
        self.side = open_database(f"sqlite:///{folder}/vault.db", schema="vault")
        for database in (self.main, self.side):
            migrate.upgrade(database)
        self.writer = GroupCommitWriter(self.main, max_rows=10_000)
        self.side_writer = GroupCommitWriter(self.side, max_rows=10_000)
        self.writer.start()
        self.side_writer.start()
        clock = SystemClock()
        self.audit = AuditStore(self.main, self.writer, clock)
        self.vault = SubjectVault(self.side, self.side_writer)
        self.contents = ContentStore(self.main, self.vault.keys)
        self.forgetter = Forgetter(self.vault, self.audit, self.main, self.writer, clock)

    def capture(self, session: str | None, user: str | None, text: str = "a text", tenant: str = "t") -> str:
        """Write a decision and its request's text, as the gateway does; return the audit id."""

        async def make() -> tuple[Owner, list[bytes]]:
            ids = [
                None if name is None else await self.vault.resolve(tenant, kind, name)
                for kind, name in (("session", session), ("user", user))
            ]
            owner = Owner(tenant, make_id("aud"), *ids)
            return owner, [await self.vault.keys.key(one) for one in owner.subjects]

        owner, keys = asyncio.run(make())
        row = seal_content(owner, "request", make_excerpt({"text": text}, 1000), 1, keys)
        record = AuditRecord(
            "decision", owner.audit_id, tenant, "key_1", None, 1, owner.session, owner.end_user, {"text": "no"}
        )

        def write(connection: Any, payloads: Any) -> Any:
            write_contents(connection, payloads)
            self.audit.sink(connection, [self.audit.encode(record)])
            return payloads

        self.writer.submit_sync(write, row, 10)
        return owner.audit_id

    def records(self) -> list[tuple[int, bytes]]:
        return list(self.audit.source.read(0, 10_000))

    def erasures(self) -> list[Any]:
        with self.main.reading() as connection:
            query = "SELECT audit_id FROM audit_record WHERE kind = 'erasure' ORDER BY leaf_index"
            return list(connection.exec_driver_sql(query).scalars())

    def rows(self) -> int:
        with self.main.reading() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM audit_content").scalar_one())

    def close(self) -> None:
        for writer in (self.writer, self.side_writer):
            writer.close(5)
        for database in (self.main, self.side):
            database.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path)
    yield made
    made.close()


def test_forget_destroys_deletes_and_records(house: House) -> None:
    """Key, mapping and texts of the subject go, others' stay, and one record tells of it without the name."""
    mine, others = house.capture(None, "alice"), house.capture(None, "bob")
    house.capture("talk", "alice")
    sub_id = house.vault.lookup(*ALICE)
    before = house.records()
    size, root = house.audit.head()
    receipt = house.forgetter.forget(ALICE, ACTOR, "Alice asked for it; mail alice@example.com")
    assert (receipt.sub_id, receipt.keys_destroyed, receipt.content_deleted) == (sub_id, 1, 2)
    assert receipt.is_new and receipt.is_purged and receipt.mapping_destroyed
    assert house.contents.read(mine) is None and house.contents.read(others) is not None
    (stored,) = house.audit.read(receipt.audit_id)
    assert stored.kind == "erasure" and stored.tenant == "t" and b"alice" not in stored.data.lower()
    document = house.audit.read_document(receipt.audit_id)
    assert document is not None and document["end_user"] == sub_id and document["key_id"] == "cli"
    body = document["records"][0]["body"]
    assert body["subject"] == sub_id and body["who"] == "cli:root" and body["content_deleted"] == 2
    assert body["reason"].startswith("[the subject] asked for it")
    # Every record that was there is there as it was, and the tree of that size has the root that it had.
    assert house.records()[:size] == before
    assert compute_root([leaf_hash(data) for _, data in house.records()[:size]]) == root


def test_forget_again_changes_nothing(house: House) -> None:
    """By its id the first receipt comes again; by its name there is nobody. One record in all."""
    house.capture(None, "alice")
    first = house.forgetter.forget(ALICE, ACTOR)
    again = house.forgetter.forget(first.sub_id, ACTOR)
    assert (again.audit_id, again.erased_ms, again.is_new) == (first.audit_id, first.erased_ms, False)
    assert again.keys_destroyed == 0 and again.content_deleted == 1
    with pytest.raises(NotFound):
        house.forgetter.forget(ALICE, ACTOR)
    assert house.erasures() == [first.audit_id]


def test_forget_from_two_processes_at_once_is_on_record_once(house: House, tmp_path: Path) -> None:
    """However many ask, there is one erasure and one record, and each of those who ask gets it."""
    house.capture(None, "alice")
    sub_id = house.vault.lookup(*ALICE)
    assert sub_id is not None
    other = House(tmp_path)

    async def ask() -> list[Any]:
        jobs = [asyncio.to_thread(one.forgetter.forget, sub_id, ACTOR) for _ in range(6) for one in (house, other)]
        return await asyncio.gather(*jobs)

    receipts = asyncio.run(ask())
    assert len({one.audit_id for one in receipts}) == 1 and sum(one.is_new for one in receipts) == 1
    assert house.erasures() == [receipts[0].audit_id]
    other.close()


@pytest.mark.parametrize("step", ["purge", "record", "mark"])
def test_forget_killed_between_its_steps_is_finished_later(house: House, tmp_path: Path, step: str) -> None:
    """A process that dies after the vault's half leaves an erased subject, and the next one writes what is missing."""
    audit_id = house.capture(None, "alice")
    code = f"""
        import os, signal
        from pathlib import Path
        from lukhas.audit.forgetting import Forgetter
        from lukhas.vault.erasure import EraseLedger
        from test_audit_forgetting import ACTOR, ALICE, House
        def die(*_): os.kill(os.getpid(), signal.SIGKILL)
        holder, name = {{"purge": (EraseLedger, "purge"), "record": (Forgetter, "_record"),
                        "mark": (EraseLedger, "mark_recorded")}}[{step!r}]
        setattr(holder, name, die)
        House(Path({str(tmp_path)!r})).forgetter.forget(ALICE, ACTOR, "why")
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, timeout=60, cwd=Path(__file__).parent, check=False)
    assert done.returncode == -signal.SIGKILL
    later = House(tmp_path)
    with pytest.raises(NotFound):
        later.forgetter.find_kind("t", "alice")
    assert len(later.erasures()) == (1 if step == "mark" else 0)
    assert later.forgetter.complete()
    assert len(later.erasures()) == 1 and later.rows() == 0 and later.contents.read(audit_id) is None
    assert (tmp_path / "vault.db-wal").stat().st_size < 9_000, "only the mark was written since it was emptied"
    assert later.forgetter.complete() and len(later.erasures()) == 1
    later.close()


def test_forget_while_the_log_cannot_be_written_says_what_is_done(house: House, monkeypatch: Any) -> None:
    """The subject is erased, the record is missing, the error says so; it is written when the log is back."""
    house.capture(None, "alice")

    def fail(*_: object) -> Any:
        raise OperationalError("INSERT", {}, Exception("disk full"))

    with monkeypatch.context() as patch:
        patch.setattr(house.forgetter, "_sink", fail)
        with pytest.raises(StorageUnavailable, match="is erased") as raised:
            house.forgetter.forget(ALICE, ACTOR)
    assert house.erasures() == [] and house.vault.lookup(*ALICE) is None
    sub_id = raised.value.hint.split()[-1]
    receipt = house.forgetter.forget(sub_id, ACTOR)
    assert house.erasures() == [receipt.audit_id] and receipt.content_deleted == 1


def test_find_kind_of_a_name_that_two_have_asks_which(house: House) -> None:
    """A user and a session may have one name: nobody is forgotten by chance."""
    house.capture("alice", "alice")
    with pytest.raises(InvalidRequest, match="user and a session"):
        house.forgetter.find_kind("t", "alice")
    house.forgetter.forget(ALICE, ACTOR)
    assert house.forgetter.find_kind("t", "alice") == "session"
    with pytest.raises(NotFound):
        house.forgetter.find_kind("other", "alice")


def test_belongs_to_reads_records_not_texts(house: House) -> None:
    """A subject is a tenant's whose record names it in its own field; a text that looks so does not count."""
    house.capture(None, "alice")
    sub_id = house.vault.lookup(*ALICE)
    assert sub_id is not None
    forged = f'"end_user":"{sub_id}"'
    record = AuditRecord("note", make_id("aud"), "thief", "k", None, 1, None, None, {"end_user": sub_id, "x": forged})
    house.audit.append_sync(record)
    assert house.forgetter.belongs_to(sub_id, "t")
    assert not house.forgetter.belongs_to(sub_id, "thief") and not house.forgetter.belongs_to(sub_id, "")
    assert not house.forgetter.belongs_to(make_id("sub"), "t")


def test_content_of_an_erased_subject_in_a_copy_is_unreadable(house: House, tmp_path: Path) -> None:
    """Rows that a backup of the main database brings back stay unreadable: their key is gone."""
    audit_id = house.capture("talk", "alice")
    with house.main.reading() as connection:
        row = connection.exec_driver_sql("SELECT * FROM audit_content").one()
    house.forgetter.forget(ALICE, ACTOR)
    with house.main.writer.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_content VALUES (?, ?, ?, ?, ?, ?, ?, ?)", tuple(row))
    with pytest.raises(KeyErased):
        house.contents.read(audit_id)
    # The other subject's key alone does not open it either.
    owner = Owner("t", audit_id, None, row.session)
    with house.main.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE audit_content SET session = NULL, end_user = session")
    assert owner.subjects
    with pytest.raises(IntegrityError):
        house.contents.read(audit_id)


@pytest.mark.parametrize("column", ["tenant", "audit_id", "part", "nonce", "sealed"])
def test_content_moved_to_another_place_does_not_open(house: House, column: str) -> None:
    """A text is bound to its tenant, call and part, and any changed byte is found."""
    audit_id = house.capture(None, "alice")
    other = house.capture(None, "alice") if column == "audit_id" else audit_id
    change = {
        "tenant": "tenant = 'u'", "part": "part = 'answer'", "nonce": "nonce = zeroblob(12)",
        "sealed": "sealed = zeroblob(40)", "audit_id": f"audit_id = '{audit_id}'",
    }[column]  # fmt: skip
    with house.main.writer.begin() as connection:
        if column == "audit_id":
            connection.exec_driver_sql(f"DELETE FROM audit_content WHERE audit_id = '{audit_id}'")
        connection.exec_driver_sql(f"UPDATE audit_content SET {change} WHERE audit_id = '{other}'")
    with pytest.raises(IntegrityError):
        house.contents.read(audit_id)


SUBJECTS = st.tuples(st.sampled_from([None, "s1", "s2"]), st.sampled_from(["a", "b", "c"]))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(SUBJECTS, min_size=1, max_size=6), gone=st.sets(st.sampled_from(["s1", "s2", "a", "b", "c"])))
def test_erasing_any_subject_hides_its_texts_and_no_others(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str | None, str]], gone: set[str]
) -> None:
    """For any calls and any subjects: a text is readable exactly while all that its call names are there."""
    house = House(tmp_path_factory.mktemp("house"))
    try:
        ids = [house.capture(*call, text=f"text {n}") for n, call in enumerate(calls)]
        with house.main.reading() as connection:
            saved = [tuple(row) for row in connection.exec_driver_sql("SELECT * FROM audit_content")]
        known = {name for call in calls for name in call if name is not None}
        for name in gone & known:
            house.forgetter.forget(("t", "session" if name[0] == "s" else "user", name), ACTOR)
        with house.main.writer.begin() as connection:
            # As a restored backup would bring them back.
            connection.exec_driver_sql("DELETE FROM audit_content")
            connection.exec_driver_sql("INSERT INTO audit_content VALUES (?, ?, ?, ?, ?, ?, ?, ?)", saved)
        for number, (audit_id, call) in enumerate(zip(ids, calls, strict=True)):
            if gone & set(call):
                with pytest.raises(KeyErased):
                    house.contents.read(audit_id)
            else:
                found = house.contents.read(audit_id)
                assert found is not None and f"text {number}" in found.parts[0].text
    finally:
        house.close()


def test_seal_content_binds_the_set_of_keys() -> None:
    """Too few keys are refused, and the order of subjects counts."""
    owner = Owner("t", make_id("aud"), make_id("sub"), make_id("sub"))
    a, b = os.urandom(32), os.urandom(32)
    excerpt = make_excerpt({"x": 1}, 100)
    row = seal_content(owner, "answer", excerpt, 5, [a, b])
    assert open_content(row, [a, b]).text == '{"x":1}'
    with pytest.raises(IntegrityError):
        open_content(row, [b, a])
    with pytest.raises(ValueError, match="each of its subjects"):
        seal_content(owner, "answer", excerpt, 5, [a])


@pytest.mark.parametrize(
    ("value", "most", "expected", "is_cut"),
    [
        pytest.param({"a": "x"}, 100, '{"a":"x"}', False, id="whole"),
        pytest.param("plain", 100, "plain", False, id="text"),
        pytest.param("", 100, "", False, id="empty"),
        pytest.param({"n": float("nan")}, 100, '{"n":"[nan]"}', False, id="nan"),
        pytest.param("x" * 200, 100, "x" * 100 + "[cut: the rest was not kept]", True, id="cut"),
        pytest.param("ä" * 60, 101, "ä" * 50 + "[cut: the rest was not kept]", True, id="cut-inside-a-character"),
        pytest.param({"password": "hunter2"}, 100, '{"password":"[redacted:password]"}', False, id="by-name"),
    ],
)
def test_make_excerpt_redacts_and_cuts(value: Any, most: int, expected: str, is_cut: bool) -> None:
    """What is kept is redacted JSON of bounded size, valid UTF-8, with a mark where it ends early."""
    assert make_excerpt(value, most) == (expected, is_cut)


@pytest.mark.parametrize("shift", range(0, 40, 3))
def test_make_excerpt_at_a_cut_shows_no_half_of_a_secret(shift: int) -> None:
    """An address that the cut, or the end of what is read, goes through is not left there in part."""
    for place in (1000, 1000 + MARGIN_CHARS):
        text = "x " * ((place - shift) // 2) + "someone.private@example.com" + " y" * 40_000
        assert "someone" not in make_excerpt({"t": text}, 1000).text
    repeated = "someone.private@example.com " * 5_000
    assert "someone" not in make_excerpt({"t": repeated}, 1000).text


@pytest.mark.parametrize(
    ("why", "name", "kept"),
    [
        pytest.param("  ", "alice", "", id="empty"),
        pytest.param("ALICE and alice", "alice", "[the subject] and [the subject]", id="any-case"),
        pytest.param("a+b", "+", "a[the subject]b", id="no-pattern"),
        pytest.param("İx alice", "alice", "İx [the subject]", id="case-changes-length"),
        pytest.param("no name", None, "no name", id="by-id"),
    ],
)
def test_check_reason_leaves_the_name_out(why: str, name: str | None, kept: str) -> None:
    """What goes on record for good must not hold what is to be forgotten."""
    assert check_reason(why, name) == kept


@pytest.mark.parametrize("why", ["x" * 501, "a\x00b", "\x1b[31m"])
def test_check_reason_of_what_cannot_be_printed_is_refused(why: str) -> None:
    """A reason is a short printable text."""
    with pytest.raises(InvalidRequest):
        check_reason(why, None)
