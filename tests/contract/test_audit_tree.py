"""Tiles, receipts and the static tree, from a real log in a real database."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lukhas.audit.bundle import read_bundle
from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.issuing import choose_record, issue_receipt
from lukhas.audit.merkle import compute_root, leaf_hash, pack_frontier, verify_consistency, verify_inclusion
from lukhas.audit.note import NoteSigner
from lukhas.audit.proof import prove_consistency, prove_inclusion, root_at
from lukhas.audit.receipt import check_receipt, parse_receipt
from lukhas.audit.record import encode_record, splice_tail
from lukhas.audit.static_tree import export_tree
from lukhas.audit.store import AuditRecord, AuditStore, StoredRecord
from lukhas.audit.tile import TileName, list_tiles, tile_path
from lukhas.audit.tile_store import DatabaseTiles
from lukhas.clock import SystemClock
from lukhas.errors import Conflict, IntegrityError, InvalidRequest, NotFound
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter

SIGNER = NoteSigner("example.com/log", bytes(range(32)))
RECORDS = 700


class Log:
    """A log with its checkpoints."""

    def __init__(self, url: str) -> None:
        self.database: Database = open_database(url)
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=10_000)
        self.writer.start()
        self.store = AuditStore(self.database, self.writer, SystemClock())
        self.checkpoints = CheckpointStore(self.database, self.writer, SystemClock(), SIGNER)

    def close(self) -> None:
        self.writer.close(10)
        self.database.close()

    def append(self, count: int, **fields: Any) -> None:
        entries = [encode_record(make(**fields)) for _ in range(count)]
        self.writer.submit_sync(lambda c, groups: [self.store.sink(c, group) for group in groups], entries, 20)

    def leaves(self) -> list[bytes]:
        return [bytes(row[0]) for row in self.rows("SELECT leaf_hash FROM audit_record ORDER BY leaf_index")]

    def rows(self, sql: str) -> list[Any]:
        with self.database.reading() as connection:
            return list(connection.exec_driver_sql(sql).all())

    def change(self, sql: str, *values: Any) -> None:
        with self.database.writer.begin() as connection:
            connection.exec_driver_sql(sql, values)

    def records(self) -> list[StoredRecord]:
        ids = self.rows("SELECT audit_id FROM audit_record ORDER BY leaf_index")
        return [one for row in ids for one in self.store.read(row[0])]


def make(**fields: Any) -> AuditRecord:
    given: dict[str, Any] = {"kind": "note", "audit_id": make_id("aud"), "tenant": "t", "key_id": "key_1", "time_ms": 1}
    given |= {"request_id": None, "session": None, "user": None, "body": {"text": "größe"}}
    return AuditRecord(**(given | fields))


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    made = Log(f"sqlite:///{tmp_path}/lukhas.db")
    yield made
    made.close()


def assert_provable(tiles: DatabaseTiles, leaves: Sequence[bytes], indexes: Sequence[int]) -> None:
    """Each of the records is in the whole tree, and in some older one."""
    chance = random.Random(3)
    size, root = len(leaves), compute_root(leaves)
    assert root_at(tiles, size) == root
    for index in indexes:
        assert verify_inclusion(leaves[index], index, size, prove_inclusion(tiles, index, size), root)
        old = chance.randrange(index + 1, size + 1)
        old_root = compute_root(leaves[:old])
        assert verify_inclusion(leaves[index], index, old, prove_inclusion(tiles, index, old), old_root)
        assert verify_consistency(old, size, old_root, root, prove_consistency(tiles, old, size))


def test_tiles_of_the_database_prove_records_at_any_size(log: Log) -> None:
    """Full tiles, the open one, and what was read before the log grew."""
    log.append(300)
    assert_provable(log.store.tiles, log.leaves(), [0, 17, 255, 256, 299])
    log.append(RECORDS - 300)
    assert_provable(log.store.tiles, log.leaves(), [0, 255, 256, 299, 300, 511, 512, 699])


def test_tiles_of_a_pruned_log_prove_as_before(log: Log) -> None:
    """The hashes stay where the records are gone."""
    log.append(RECORDS)
    leaves = log.leaves()
    log.change("DELETE FROM audit_record WHERE leaf_index < 600")
    # The open tile's hashes stand with its records, and so do those from 512 on: they are full only to 511.
    for index in (0, 255, 300, 511):
        proof = prove_inclusion(DatabaseTiles(log.database), index, 512)
        assert verify_inclusion(leaves[index], index, 512, proof, compute_root(leaves[:512]))
    with pytest.raises(IntegrityError, match="not whole"):
        prove_inclusion(DatabaseTiles(log.database), 0, RECORDS)
    with pytest.raises(NotFound, match="not all in the database"):
        read_bundle(log.store.source, 0, 256)


@pytest.mark.parametrize(
    ("level", "index", "width"),
    [
        *((0, 2, 189), (0, 3, 1), (0, 2, 256), (1, 0, 3), (1, 1, 1), (2, 0, 1), (0, -1, 1), (-1, 0, 1), (0, 0, 0)),
        *((0, 0, 257), (0, 0, -1)),
    ],
)
def test_tile_that_is_not_there_is_refused(log: Log, level: int, index: int, width: int) -> None:
    """Nothing is made up, and nothing short is given."""
    log.append(RECORDS)
    with pytest.raises(IntegrityError):
        log.store.tiles.read(level, index, width)


def test_tiles_of_a_log_from_before_them_are_made_by_the_migration(tmp_path: Path) -> None:
    """A database of the revision before gets every tile, its records prove, and the log goes on."""
    from alembic import command

    url = f"sqlite:///{tmp_path}/old.db"
    old = open_database(url)
    count = 3_000
    leaves: list[bytes] = []
    with old.writer.begin() as connection:
        command.upgrade(migrate.make_config("main", connection), "m0003")
    from lukhas.audit.merkle import append_leaf

    peaks: list[bytes] = []
    with old.writer.begin() as connection:
        for index in range(count):
            entry = encode_record(make())
            data = splice_tail(entry.head, index, index + 1)
            leaves.append(leaf_hash(data))
            append_leaf(peaks, index, leaves[-1])
            connection.exec_driver_sql(
                "INSERT INTO audit_record (leaf_index, audit_id, kind, tenant, time_ms, leaf_hash, data) "
                "VALUES (?, ?, 'note', 't', 1, ?, ?)",
                (index, entry.audit_id, leaves[-1], data),
            )
        connection.exec_driver_sql(
            "UPDATE audit_head SET size = ?, frontier = ? WHERE log = 'main'", (count, pack_frontier(peaks))
        )
        connection.exec_driver_sql("INSERT INTO audit_sequence (key_id, sequence) VALUES ('key_1', ?)", (count,))
    assert migrate.current(old) == "m0003"
    old.close()
    log = Log(url)
    try:
        tiles, root = DatabaseTiles(log.database), compute_root(leaves)
        assert root_at(tiles, count) == root == log.store.head()[1]
        for index, leaf in enumerate(leaves):
            assert verify_inclusion(leaf, index, count, prove_inclusion(tiles, index, count), root)
        log.append(300)
        leaves = log.leaves()
        assert len(leaves) == count + 300
        assert_provable(DatabaseTiles(log.database), leaves, [0, count - 1, count, count + 299])
    finally:
        log.close()


def test_receipt_of_each_record_checks_and_stays_the_same(log: Log) -> None:
    """The first checkpoint that covers a record is the one in its receipt, also when the log has grown."""
    log.append(300)
    first = log.checkpoints.sign()
    log.append(400)
    log.checkpoints.sign()
    for record in [log.records()[at] for at in (0, 255, 256, 299, 300, 699)]:
        receipt = issue_receipt(record, log.store.tiles, log.checkpoints)
        raw = receipt.format()
        assert parse_receipt(raw) == receipt and receipt.data == record.data
        checkpoint = check_receipt(parse_receipt(raw), [SIGNER.verifier])
        assert checkpoint.size == (first.size if record.index < 300 else RECORDS)
        assert raw.startswith(b"c2sp.org/tlog-proof@v1\nextra ") and raw.endswith(b"\n")


def test_receipt_where_no_checkpoint_covers_the_record_signs_one(log: Log) -> None:
    """Nobody waits for the next one; who must not sign is told so."""
    log.append(5)
    record = log.records()[4]
    with pytest.raises(NotFound, match="No checkpoint covers record 4"):
        issue_receipt(record, log.store.tiles, log.checkpoints, sign=False)
    assert check_receipt(issue_receipt(record, log.store.tiles, log.checkpoints), [SIGNER.verifier]).size == 5


def test_receipt_from_a_damaged_tree_is_not_issued(log: Log) -> None:
    """A receipt that would not verify is worse than none."""
    log.append(600)
    log.checkpoints.sign()
    record = log.records()[3]
    log.change("UPDATE audit_tile SET hashes = zeroblob(8192) WHERE level = 0 AND tile_index = 0")
    with pytest.raises(IntegrityError, match="Record 3 cannot be proved"):
        issue_receipt(record, DatabaseTiles(log.database), log.checkpoints)


@pytest.mark.parametrize(
    ("which", "place"),
    [
        pytest.param(None, 1, id="default-is-the-decision"),
        pytest.param("decision", 1, id="decision"),
        pytest.param("outcome", 3, id="last-outcome-that-is-known"),
        pytest.param("0", 0, id="first"),
        pytest.param("4", 4, id="last"),
    ],
)
def test_record_that_is_meant_is_chosen(log: Log, which: str | None, place: int) -> None:
    """Several records share one id."""
    audit_id = make_id("aud")
    for kind, body in (("note", {}), ("decision", {}), ("outcome", {"status": "a"}), ("outcome", {"status": "b"})):
        log.append(1, audit_id=audit_id, kind=kind, body=body)
    log.append(1, audit_id=audit_id, kind="outcome", body={"status": "lost"})
    records = log.store.read(audit_id)
    assert choose_record(records, which) == records[place]


@pytest.mark.parametrize("which", ["", "-1", "1.0", "Decision", "note", "\u0661", "9" * 30])
def test_record_that_is_named_otherwise_is_refused(log: Log, which: str) -> None:
    """Only the documented names and numbers."""
    log.append(1)
    with pytest.raises(InvalidRequest):
        choose_record(log.records(), which)


@pytest.mark.parametrize("which", ["decision", "outcome", "1", "999999999"])
def test_record_that_the_id_does_not_have_is_not_found(log: Log, which: str) -> None:
    """A note has neither a decision nor a second record."""
    log.append(1)
    with pytest.raises(NotFound):
        choose_record(log.records(), which)
    assert choose_record(log.records(), None).kind == "note"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class FolderTiles:
    """Reads an exported tree, as a stranger would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, level: int, index: int, width: int) -> bytes:
        return (self._folder / tile_path(level, index, width)).read_bytes()


def test_static_tree_is_the_tree_and_grows_with_the_log(log: Log, tmp_path: Path) -> None:
    """Exactly the files of the standard; a second run writes only what is new."""
    out = tmp_path / "static" / "log"
    log.append(600)
    first = log.checkpoints.sign()
    done = export_tree(out, first.note, log.store.tiles, log.store.source)
    assert (done.size, done.root, done.missing) == (600, first.root, 0)
    found = files(out)
    expected = {tile_path(name.level or 0, name.index, name.width) for name in list_tiles(600)}
    bundles = {"tile/entries/000", "tile/entries/001", "tile/entries/002.p/88"}
    assert set(found) == expected | bundles | {"checkpoint"} and done.written == len(found)
    again = export_tree(out, first.note, log.store.tiles, log.store.source)
    assert (again.written, again.kept) == (0, len(found))
    log.append(600)
    second = log.checkpoints.sign()
    export_tree(out, second.note, log.store.tiles, log.store.source)
    assert_folder_holds(out, log.leaves())
    assert files(out)["checkpoint"] == second.note
    with pytest.raises(Conflict):
        export_tree(out, first.note, log.store.tiles)


def assert_folder_holds(folder: Path, leaves: list[bytes]) -> None:
    tiles, root, size = FolderTiles(folder), compute_root(leaves), len(leaves)
    assert root_at(tiles, size) == root
    for index in (0, 255, 256, size - 1):
        assert verify_inclusion(leaves[index], index, size, prove_inclusion(tiles, index, size), root)


def test_static_tree_that_was_broken_off_or_damaged_is_completed(log: Log, tmp_path: Path) -> None:
    """Files that are gone, cut or wrong are written again."""
    log.append(RECORDS)
    newest = log.checkpoints.sign()
    export_tree(tmp_path, newest.note, log.store.tiles)
    (tmp_path / "tile/0/000").unlink()
    (tmp_path / "tile/0/001").write_bytes(b"short")
    assert export_tree(tmp_path, newest.note, log.store.tiles).written == 2
    (tmp_path / "checkpoint").unlink()
    (tmp_path / "tile/0/000").write_bytes(bytes(8192))
    assert export_tree(tmp_path, newest.note, log.store.tiles).written == 2
    assert_folder_holds(tmp_path, log.leaves())


def test_static_tree_of_another_log_is_not_overwritten(log: Log, tmp_path: Path) -> None:
    """Neither one of another name, nor one of other content, which is the sign of a log that was rebuilt."""
    log.append(5)
    newest = log.checkpoints.sign()
    (tmp_path / "checkpoint").write_bytes(b"my own notes")
    with pytest.raises(Conflict, match="not a checkpoint"):
        export_tree(tmp_path, newest.note, log.store.tiles)
    other = NoteSigner("example.com/other", bytes(32))
    (tmp_path / "checkpoint").write_bytes(Checkpoint(other.verifier.name, 5, newest.root).sign(other))
    with pytest.raises(Conflict):
        export_tree(tmp_path, newest.note, log.store.tiles)
    (tmp_path / "checkpoint").write_bytes(Checkpoint("example.com/log", 4, bytes(32)).sign(SIGNER))
    with pytest.raises(IntegrityError, match="does not continue"):
        export_tree(tmp_path, newest.note, log.store.tiles)
    wrong = Checkpoint("example.com/log", 5, bytes(32)).sign(SIGNER)
    with pytest.raises(IntegrityError, match="not the one that was signed"):
        export_tree(tmp_path / "new", wrong, log.store.tiles)


def test_static_tree_checks_records_and_leaves_pruned_ones_out(log: Log, tmp_path: Path) -> None:
    """A record that was edited stops the export; one that was pruned is counted."""
    log.append(RECORDS)
    newest = log.checkpoints.sign()
    log.change("DELETE FROM audit_record WHERE leaf_index < 256")
    done = export_tree(tmp_path, newest.note, log.store.tiles, log.store.source)
    assert done.missing == 1 and "tile/entries/000" not in files(tmp_path)
    log.change("UPDATE audit_record SET data = ? WHERE leaf_index = 300", b"{}")
    with pytest.raises(IntegrityError, match="One of the records 256 to 511"):
        export_tree(tmp_path / "new", newest.note, log.store.tiles, log.store.source)


def test_static_tree_of_an_empty_log_is_its_checkpoint(log: Log, tmp_path: Path) -> None:
    """Nothing to serve but that there is nothing."""
    newest = log.checkpoints.sign()
    done = export_tree(tmp_path / "out", newest.note, log.store.tiles, log.store.source)
    assert (done.size, done.written) == (0, 1) and list(files(tmp_path / "out")) == ["checkpoint"]


def test_receipt_that_says_another_place_than_its_record_is_refused(log: Log) -> None:
    """Even a log that signs it cannot move a record that names its own place."""
    data = splice_tail(encode_record(make()).head, 7, 1)
    leaf = leaf_hash(data)
    log.append(1)
    receipt = issue_receipt(log.records()[0], log.store.tiles, log.checkpoints)
    forged = replace(receipt, data=data, note=Checkpoint("example.com/log", 1, leaf).sign(SIGNER))
    with pytest.raises(IntegrityError, match="stands elsewhere"):
        check_receipt(forged, [SIGNER.verifier])


def test_tile_names_of_a_log_are_what_the_database_has(log: Log) -> None:
    """The database keeps no tile more and none less than the standard has, but the open one."""
    log.append(RECORDS)
    stored = {(level, index): len(hashes) // 32 for level, index, hashes in log.rows("SELECT * FROM audit_tile")}
    named = {(name.level or 0, name.index): name.width for name in list_tiles(RECORDS)}
    assert named == stored | {(0, 2): RECORDS - 512} and TileName(1, 0, 2) in set(list_tiles(RECORDS))
