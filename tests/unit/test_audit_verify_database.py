"""The verifier over the tables: beside a writer, with pruned records, against what was signed elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.export import Wanted, find_range
from lukhas.audit.note import NoteSigner
from lukhas.audit.record import AuditRecord
from lukhas.audit.signing_key import load_signer, load_verifiers
from lukhas.audit.store import AuditStore
from lukhas.audit.verify.database import verify_database
from lukhas.clock import SystemClock
from lukhas.errors import NotFound
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.vault.seal import Seal


class Log:
    """A log with a writer, and what signs it."""

    def __init__(self, url: str) -> None:
        self.database: Database = open_database(url)
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=10_000)
        self.writer.start()
        clock = SystemClock()
        self.store = AuditStore(self.database, self.writer, clock)
        signer = load_signer(self.database, Seal(bytes(32)), clock)
        self.checkpoints = CheckpointStore(self.database, self.writer, clock, signer)

    def fill(self, count: int) -> None:
        for number in range(count):
            self.store.append_sync(
                AuditRecord(
                    "note", make_id("aud"), "acme", f"key_{number % 3}", None, number, None, None, {"n": number}
                )
            )

    def change(self, sql: str) -> None:
        with self.database.writer.begin() as connection:
            connection.execute(text(sql))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(f"sqlite:///{tmp_path}/lukhas.db")
    yield made
    made.writer.close(10)
    made.database.close()


def test_verify_empty_log_is_well(log: Log) -> None:
    """Nothing was recorded yet, and nothing is wrong."""
    report = verify_database(log.database)
    assert report.ok and (report.records, report.size) == (0, 0)


def test_verify_beside_a_writer_looks_at_the_log_as_it_was_at_the_start(log: Log) -> None:
    """Records, tiles and checkpoints that come meanwhile are no findings."""
    log.fill(600)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            log.fill(10)
            log.checkpoints.sign()

    writing = threading.Thread(target=write)
    writing.start()
    try:
        reports = [verify_database(log.database) for _ in range(6)]
    finally:
        stop.set()
        writing.join()
    assert [report.findings for report in reports] == [[]] * 6
    assert reports[0].size >= 600 and reports[-1].size > reports[0].size


def test_verify_of_pruned_records_goes_by_their_tiles(log: Log) -> None:
    """What the archive has alone is proved by the tiles that stay; what is gone beside it is missing."""
    log.fill(700)
    log.checkpoints.sign()
    log.change("DELETE FROM audit_record WHERE leaf_index < 512")
    assert verify_database(log.database).findings[0].kind == "missing"
    log.change(
        "INSERT INTO audit_segment (name, first_index, end_index, root, sealed_ms, archive, pruned_ms) "
        "VALUES ('2026-01', 0, 512, x'00', 1, 'file:///archive/2026-01', 2)"
    )
    report = verify_database(log.database)
    assert report.ok and report.records == 188 and report.anchored == 700, report.findings
    with pytest.raises(NotFound, match="pruned") as refused:
        find_range(log.database, Wanted())
    assert "file:///archive/2026-01" in refused.value.hint and "--from 512" in refused.value.hint
    assert find_range(log.database, Wanted(begin=512)) == (512, 700)
    log.change("DELETE FROM audit_record WHERE leaf_index = 520")
    found = verify_database(log.database).findings[0]
    assert (found.kind, found.index) == ("missing", 520)


def test_verify_with_another_key_finds_that_nothing_is_signed_by_it(log: Log) -> None:
    """Whoever can change the tables can change the keys in them, so a key from elsewhere counts alone."""
    log.fill(3)
    log.checkpoints.sign()
    stranger = NoteSigner("log.example", bytes(32)).verifier
    assert verify_database(log.database, [stranger]).findings[0].kind == "key"


def test_verify_against_a_checkpoint_kept_elsewhere_finds_a_log_that_was_set_back(log: Log, tmp_path: Path) -> None:
    """A restored older database is whole in itself; what was signed later says how many records are gone."""
    log.fill(5)
    kept = log.checkpoints.sign()
    other = Log(f"sqlite:///{tmp_path}/older.db")
    try:
        other.fill(3)
        report = verify_database(other.database, load_verifiers(log.database), [(kept.note, "kept", True)])
    finally:
        other.writer.close(10)
        other.database.close()
    (found,) = [one for one in report.findings if one.kind == "truncated"]
    assert (found.index, found.last) == (3, 4)
