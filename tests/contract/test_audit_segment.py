"""Sealed months: how the log is cut, archived, read back and pruned, with every proof intact."""

from __future__ import annotations

import gzip
import json
from calendar import timegm
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from log_scene import LogScene

from lukhas.audit.archive import Archiver
from lukhas.audit.archive_target import FolderArchive
from lukhas.audit.checkpoint import open_checkpoint
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.merkle import leaf_hash, verify_consistency, verify_inclusion
from lukhas.audit.note import NoteVerifier
from lukhas.audit.proof import prove_consistency, prove_inclusion, root_at
from lukhas.audit.record import AuditRecord
from lukhas.audit.retention import Retention
from lukhas.audit.segment import Segment, SegmentStore, hint_pruned
from lukhas.audit.signing_key import load_signer, load_verifiers
from lukhas.audit.store import AuditStore
from lukhas.audit.verify.anchor import read_proof, unpack_range
from lukhas.errors import ConfigurationError, IntegrityError, InvalidRequest, StorageUnavailable
from lukhas.testing import FrozenClock

HOUR_MS = 3_600_000


def at(year: int, month: int, day: int = 1, hour: int = 0, ms: int = 0) -> int:
    return timegm((year, month, day, hour, 0, 0)) * 1000 + ms


class Broken(Exception):
    """What ends a run between two steps."""


class Months(LogScene):
    """A log with its segments, an archive in a folder, and a clock that is set."""

    def __init__(self, folder: Path) -> None:
        self.clock = FrozenClock(at(2026, 1, 1))
        super().__init__(folder, self.clock)
        self.segments = SegmentStore(self.database, self.writer, self.store, self.clock)
        self.archive = folder / "archive"
        self.folder = folder
        signer = load_signer(self.database, None, self.clock, key=_KEY)  # type: ignore[arg-type]
        self.checkpoints = CheckpointStore(self.database, self.writer, self.clock, signer)

    @property
    def verifiers(self) -> list[NoteVerifier]:
        return load_verifiers(self.database)

    def archiver(self) -> Archiver:
        target = FolderArchive(self.archive)
        return Archiver(
            target, self.segments, self.store.source, self.checkpoints, self.verifiers, self.clock, self.folder
        )

    def retention(self, months: int = 0, min_months: int = 6, **more: Any) -> Retention:
        return Retention(
            self.database,
            self.writer,
            self.segments,
            self.archiver(),
            self.clock,
            months=months,
            min_months=min_months,
            **more,
        )

    def move_to(self, now_ms: int) -> None:
        self.clock.advance(now_ms - self.clock.now_ms())

    def indexes(self) -> list[int]:
        return [row[0] for row in self.query("SELECT leaf_index FROM audit_record ORDER BY leaf_index")]


def _make_key() -> Any:
    from lukhas.settings import Secret

    return Secret("11" * 32)


_KEY = _make_key()


@pytest.fixture
def months(tmp_path: Path) -> Iterator[Months]:
    made = Months(tmp_path)
    yield made
    made.close()


def fill(months: Months, counts: dict[int, int]) -> None:
    """Append records in months of 2026, and sign after each month."""
    for month, count in counts.items():
        start = at(2026, month, 2)
        months.append(count, times=[start + place for place in range(count)])
        months.move_to(start + HOUR_MS)
        months.checkpoints.sign()


def names(segments: list[Segment]) -> list[tuple[str, int, int]]:
    return [(one.name, one.first_index, one.end_index) for one in segments]


def test_seal_cuts_at_the_first_record_of_the_next_month(months: Months) -> None:
    """Each month is one run of indexes; an empty month has no segment; the present month stays open."""
    fill(months, {1: 3, 2: 2, 4: 5})
    assert names(months.segments.seal()) == [("2026-01", 0, 3), ("2026-02", 3, 5)]
    assert months.segments.seal() == []
    first = months.segments.list()[0]
    assert first.root == root_at(months.segments.tiles, 3)
    assert first.sealed_ms == months.clock.now_ms()


def test_seal_waits_an_hour_for_late_records(months: Months) -> None:
    """What a busy queue writes after midnight still belongs to its month."""
    months.append(2, time_ms=at(2026, 1, 31))
    months.move_to(at(2026, 2, 1) + HOUR_MS - 1)
    assert months.segments.seal() == []
    months.append(1, time_ms=at(2026, 2, 1) - 1)
    months.move_to(at(2026, 2, 1) + HOUR_MS)
    assert names(months.segments.seal()) == [("2026-01", 0, 3)]
    (entry,) = months.query("SELECT kind, data FROM audit_record WHERE leaf_index = 3")
    assert entry[0] == "segment"
    body = json.loads(entry[1])["body"]
    assert (body["event"], body["segment"]["name"], body["segment"]["end_index"]) == ("sealed", "2026-01", 3)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        pytest.param(
            [at(2026, 1, 31), at(2026, 2), at(2026, 2) - 5, at(2026, 2, 3)], [("2026-01", 0, 1)], id="out-of-order"
        ),
        pytest.param([1, at(2026, 1), at(2026, 2)], [("1970-01", 0, 1), ("2026-01", 1, 2)], id="since-1970"),
        pytest.param(
            [at(2026, 1), at(2099, 1), at(2026, 1, 2), at(2026, 2)], [("2026-01", 0, 3)], id="one-from-the-future"
        ),
        pytest.param([at(2099, 1), at(2026, 1), at(2026, 2)], [("2026-01", 0, 2)], id="first-from-the-future"),
        pytest.param([at(2099, 1)], [], id="only-the-future"),
        pytest.param([], [], id="empty"),
        pytest.param([at(2026, 2) - 1, at(2026, 2)], [("2026-01", 0, 1)], id="to-the-millisecond"),
    ],
)
def test_seal_holds_with_any_times(months: Months, times: list[int], expected: list[tuple[str, int, int]]) -> None:
    """Clocks step; the cut is at the first record of a later month that is not in the future."""
    months.move_to(at(2026, 2, 5))
    if times:
        months.append(0, times=times)
    assert names(months.segments.seal()) == expected


def test_seal_many_months_in_one_run_has_no_gap(months: Months) -> None:
    """A log that was never sealed is cut into all of its months at once, by tenant or not."""
    for month in range(1, 11):
        months.append(30, times=[at(2026, month, 1 + day) for day in range(27)] + [at(2026, month, 28)] * 3)
        months.execute("UPDATE audit_record SET tenant = 't' || (leaf_index % 3)")
    months.move_to(at(2026, 10, 29))
    found = names(months.segments.seal())
    assert found == [(f"2026-{month:02d}", 30 * (month - 1), 30 * month) for month in range(1, 10)]


def test_changed_tree_is_noticed_before_anything_else_is_done(months: Months) -> None:
    """A segment whose root the log no longer has stops sealing, archiving and pruning."""
    fill(months, {1: 300, 2: 3})
    months.segments.seal()
    months.execute("UPDATE audit_segment SET root = ?", b"\1" * 32)
    for step in (months.segments.seal, months.archiver().archive_all, lambda: months.retention().prune(6)):
        with pytest.raises(IntegrityError, match="2026-01"):
            step()


def test_archive_is_the_records_and_verifies_by_itself(months: Months) -> None:
    """One compressed file of verbatim lines, the same bytes each time, with what ties it to a signed checkpoint."""
    fill(months, {1: 700, 2: 40, 3: 1})
    stored = months.stored()
    months.segments.seal()
    done = months.archiver().archive_all()
    assert [one.name for one in done] == ["2026-01", "2026-02"]
    raw = (months.archive / "audit-2026-02.jsonl.gz").read_bytes()
    assert gzip.decompress(raw) == b"".join(line + b"\n" for line in stored[700:740])
    (february,) = [one for one in months.segments.list() if one.name == "2026-02"]
    assert february.archive == f"{months.archive.as_uri()}/audit-2026-02.jsonl.gz"
    assert (february.archive_sha256, february.archive_bytes) == (sha256(raw).hexdigest(), len(raw))
    assert february.archived_ms == months.clock.now_ms()
    assert months.archiver().archive_all() == []
    months.execute("UPDATE audit_segment SET archived_ms = NULL")
    for path in months.archive.glob("*.gz"):
        path.unlink()
    months.archiver().archive_all()
    assert (months.archive / "audit-2026-02.jsonl.gz").read_bytes() == raw
    assert sorted(path.name for path in months.archive.iterdir()) == [
        "audit-2026-01.jsonl.gz",
        "audit-2026-01.jsonl.gz.proof",
        "audit-2026-02.jsonl.gz",
        "audit-2026-02.jsonl.gz.proof",
    ]
    assert not (months.folder / "archiving").exists()


def test_archive_proof_ties_its_records_to_signed_checkpoints(months: Months) -> None:
    """From the two files and the key alone: what lies before, the records, what lies behind, give the signed roots."""
    fill(months, {1: 700, 2: 40, 3: 600})
    months.segments.seal()
    months.archiver().archive_all()
    proof = read_proof(months.archive / "audit-2026-02.jsonl.gz.proof")
    assert proof is not None
    assert (proof.begin, proof.end, proof.keys) == (700, 740, [str(one) for one in months.verifiers])
    signed = [open_checkpoint(note.encode(), months.verifiers) for note in proof.checkpoints]
    assert [one.size for one in signed] == [740]
    tree = unpack_range(0, proof.begin, proof.left)
    lines = gzip.decompress((months.archive / "audit-2026-02.jsonl.gz").read_bytes()).splitlines()
    tree.append_leaves([leaf_hash(line) for line in lines])
    assert tree.root() == signed[0].root
    assert proof.last == leaf_hash(lines[-1]).hex()
    months.execute("DELETE FROM audit_checkpoint WHERE size = 740")
    months.execute("UPDATE audit_segment SET archived_ms = NULL WHERE name = '2026-02'")
    months.archiver().archive_all()
    proof = read_proof(months.archive / "audit-2026-02.jsonl.gz.proof")
    assert proof is not None
    (later,) = [open_checkpoint(note.encode(), months.verifiers) for note in proof.checkpoints]
    (beyond,) = proof.right
    tree.extend(unpack_range(740, beyond.size, beyond.nodes).nodes)
    assert (later.size, later.root) == (beyond.size, tree.root())


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param("UPDATE audit_record SET data = replace(data, 'x', 'y') WHERE leaf_index = 5", id="edited"),
        pytest.param("DELETE FROM audit_record WHERE leaf_index = 5", id="gone"),
        pytest.param("UPDATE audit_record SET data = 5 WHERE leaf_index = 5", id="a-number"),
        pytest.param("UPDATE audit_record SET data = (SELECT data FROM audit_record WHERE leaf_index = 6) "
                     "WHERE leaf_index = 5", id="swapped"),
    ],
)  # fmt: skip
def test_archive_refuses_records_that_are_not_those_sealed(months: Months, edit: str) -> None:
    """An archive would give an edit a home of its own."""
    fill(months, {1: 300, 2: 3})
    months.segments.seal()
    months.execute(edit)
    with pytest.raises(IntegrityError):
        months.archiver().archive_all()
    assert months.segments.list()[0].archived_ms is None


def test_archive_never_overwrites_another_file(months: Months) -> None:
    """Two logs with one folder would lose one of them."""
    fill(months, {1: 3, 2: 3})
    months.segments.seal()
    months.archive.mkdir()
    place = months.archive / "audit-2026-01.jsonl.gz"
    place.write_bytes(b"somebody else's")
    with pytest.raises(IntegrityError, match="not overwritten"):
        months.archiver().archive_all()
    assert place.read_bytes() == b"somebody else's"


def test_prune_deletes_whole_tiles_and_keeps_every_proof(months: Months) -> None:
    """Records go, tiles stay: inclusion, consistency, roots and checkpoints hold as before."""
    fill(months, {1: 700, 2: 600, 3: 10})
    leaves = [leaf_hash(line) for line in months.stored()]
    size, root = months.store.head()
    tiles = months.segments.tiles
    before = {index: prove_inclusion(tiles, index, size) for index in (0, 255, 256, 699, 700, 1023, 1300, size - 1)}
    notes = months.checkpoints.read(0, 10**6, 100)
    months.execute(
        "INSERT INTO audit_content SELECT audit_id, 'request', 't', NULL, NULL, time_ms, data, data FROM audit_record"
    )
    months.move_to(at(2026, 9, 1))
    forgotten: list[int] = []
    retention = months.retention(forget=[forgotten.append])
    run = retention.run()
    assert [len(run.sealed), len(run.archived), len(run.pruned)] == [3, 3, 0]
    assert [one.name for one in retention.prune(6)] == ["2026-01", "2026-02"]
    assert months.indexes()[0] == 1300 // 256 * 256 == 1280
    assert months.query("SELECT count(*) FROM audit_content")[0][0] == 1310 - 1280
    assert forgotten == [512, 1280]
    fresh = SegmentStore(months.database, months.writer, months.store, months.clock).tiles
    for index, proof in before.items():
        assert prove_inclusion(fresh, index, size) == proof
        assert verify_inclusion(leaves[index], index, size, proof, root)
    now, new_root = months.store.head()
    for old in (1, 255, 256, 700, 1300, size):
        assert verify_consistency(old, now, root_at(fresh, old), new_root, prove_consistency(fresh, old, now))
    assert months.checkpoints.read(0, 10**6, 100)[: len(notes)] == notes
    assert open_checkpoint(months.checkpoints.sign().note, months.verifiers).size == now
    assert names(months.segments.check())[0] == ("2026-01", 0, 700)
    assert retention.prune(6) == []
    events = [json.loads(row[0])["body"]["event"] for row in months.query(
        "SELECT data FROM audit_record WHERE kind = 'segment' ORDER BY leaf_index"
    )]  # fmt: skip
    assert events == ["sealed"] * 3 + ["archived"] * 3 + ["pruning", "pruned"] * 2


def test_log_goes_on_after_pruning(months: Months) -> None:
    """Another process appends, reads the head and closes lost calls where the beginning is gone."""
    months.store._log.serve([])
    lost = AuditRecord("decision", "aud_0" + "0" * 25, "t", "key_9", None, at(2026, 1, 2), None, None, {})
    months.store.append_sync(lost)
    fill(months, {1: 600, 2: 5})
    months.move_to(at(2026, 8, 1))
    retention = months.retention(months=6)
    retention.run()
    assert months.indexes()[0] == 512
    later = AuditStore(months.database, months.writer, months.clock)
    assert later.close_lost() == 0
    done = later.append_sync(AuditRecord("note", "aud_0" + "1" * 25, "t", "key_1", None, 1, None, None, {}))
    size, root = later.head()
    assert (done.index, root) == (size - 1, root_at(months.segments.tiles, size))


def test_prune_says_where_a_record_went(months: Months) -> None:
    """An id carries its time, so its month's archive can be named."""
    fill(months, {1: 600, 2: 5})
    months.move_to(at(2026, 8, 1))
    made = at(2026, 1, 20)
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    audit_id = "aud_" + "".join(digits[made >> shift & 31] for shift in range(45, -1, -5)) + "A" * 16
    assert hint_pruned(months.database, audit_id) == ""
    months.retention(months=6).run()
    assert "audit-2026-01.jsonl.gz" in hint_pruned(months.database, audit_id)
    assert hint_pruned(months.database, "aud_" + "7" + "Z" * 25) == ""
    assert hint_pruned(months.database, "nonsense") == ""


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        pytest.param(lambda path: path.unlink(), IntegrityError, id="gone"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-9]), IntegrityError, id="cut"),
        pytest.param(lambda path: path.write_bytes(gzip.compress(b"{}\n")), IntegrityError, id="other"),
        pytest.param(lambda path: (path.unlink(), path.mkdir()), StorageUnavailable, id="unreadable"),
    ],
)
def test_prune_deletes_nothing_without_a_whole_archive(months: Months, spoil: Any, error: type[Exception]) -> None:
    """The archive is read back at the time of pruning, not only when it was made."""
    fill(months, {1: 600, 2: 5})
    months.move_to(at(2026, 8, 1))
    retention = months.retention(months=6)
    months.segments.seal()
    months.archiver().archive_all()
    spoil(months.archive / "audit-2026-01.jsonl.gz")
    with pytest.raises(error):
        retention.run()
    assert months.indexes()[0] == 0


def test_prune_of_an_archive_that_hides_an_edit_is_refused(months: Months) -> None:
    """Who can change the archive and its hash in the database still meets the tree."""
    fill(months, {1: 600, 2: 5})
    months.move_to(at(2026, 8, 1))
    months.segments.seal()
    months.archiver().archive_all()
    path = months.archive / "audit-2026-01.jsonl.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).replace(b'"x"', b'"y"')))
    months.execute("UPDATE audit_segment SET archive_sha256 = ?", sha256(path.read_bytes()).hexdigest())
    with pytest.raises(IntegrityError, match="root is another"):
        months.retention().prune(6)
    assert months.indexes()[0] == 0


def test_retention_never_goes_under_the_minimum(months: Months) -> None:
    """Neither by the setting nor by the command."""
    with pytest.raises(ConfigurationError, match="less than the minimum"):
        months.retention(months=5)
    with pytest.raises(InvalidRequest, match="younger than 6 months"):
        months.retention().prune(5)
    with pytest.raises(ConfigurationError, match="no archive"):
        Retention(
            months.database, months.writer, months.segments, None, months.clock, months=6, min_months=6
        )  # fmt: skip


@pytest.mark.parametrize(
    ("now_ms", "expected"),
    [
        pytest.param(at(2026, 8, 1) - 1, [], id="a-moment-before"),
        pytest.param(at(2026, 8, 1), ["2026-01"], id="six-months-after-its-end"),
    ],
)
def test_plan_counts_from_the_months_end(months: Months, now_ms: int, expected: list[str]) -> None:
    """The youngest record of a pruned month is at least as old as asked for."""
    fill(months, {1: 3, 2: 3})
    months.move_to(now_ms)
    months.segments.seal()
    months.archiver().archive_all()
    chosen, kept = months.retention().plan(6)
    assert [one.name for one in chosen] == expected
    assert "months" in kept.reason


@pytest.mark.parametrize("stop_after", range(14))
def test_run_broken_off_between_any_two_steps_is_taken_up(
    months: Months, monkeypatch: pytest.MonkeyPatch, stop_after: int
) -> None:
    """Whatever was done stays done, nothing is lost, and the next run ends where an unbroken one would."""
    fill(months, {1: 600, 2: 300, 3: 2})
    stored = months.stored()
    months.move_to(at(2026, 9, 1))
    steps = 0

    def count(*_: Any) -> None:
        nonlocal steps
        steps += 1
        if steps > stop_after:
            raise Broken

    for owner, method in (
        (SegmentStore, "_submit"),
        (FolderArchive, "put_file"),
        (FolderArchive, "get_file"),
        (Archiver, "check"),
        (Retention, "_prune"),
    ):
        original = getattr(owner, method)

        def wrapped(*arguments: Any, _original: Any = original, **named: Any) -> Any:
            count()
            return _original(*arguments, **named)

        monkeypatch.setattr(owner, method, wrapped)
    with pytest.raises(Broken):
        months.retention(months=6).run()
    stop_after = 10**6
    months.retention(months=6).run()
    assert names(months.segments.check()) == [("2026-01", 0, 600), ("2026-02", 600, 900), ("2026-03", 900, 902)]
    assert months.indexes()[0] == 768
    lines = [
        line for name in ("01", "02") for line in
        gzip.decompress((months.archive / f"audit-2026-{name}.jsonl.gz").read_bytes()).splitlines()
    ]  # fmt: skip
    assert lines == stored[:900]
