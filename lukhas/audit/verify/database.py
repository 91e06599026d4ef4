"""Verifying the log where it is kept: records, hashes, chain, sequences, tiles, head and checkpoints.

Only reads, and works beside a gateway that serves: what is looked at is the log as it is at the start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from lukhas.audit.merkle import leaf_hash
from lukhas.audit.note import NoteVerifier
from lukhas.audit.record import NOTHING_BEFORE
from lukhas.audit.ship_target import ShipTarget
from lukhas.audit.signing_key import load_verifiers
from lukhas.audit.verify.anchor import Anchor, check_notes
from lukhas.audit.verify.attest import judge_checkpoints, list_checked
from lukhas.audit.verify.compact import CompactRange
from lukhas.audit.verify.finding import Finding, Report, sort_findings
from lukhas.audit.verify.line import read_place
from lukhas.audit.verify.passage import Progress
from lukhas.audit.verify.row import NAMED, Named, compare_columns, judge_hash, judge_place
from lukhas.audit.verify.stored import (
    Snapshot,
    StoredRow,
    read_all_rows,
    read_rows,
    read_snapshot,
    read_stored_tile,
)
from lukhas.audit.verify.tower import Tower
from lukhas.audit.verify.trail import Trail
from lukhas.storage.engine import Database

_SHIPPED: Final = "checkpoint"
_FAILURES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


def verify_database(
    database: Database,
    keys: Sequence[NoteVerifier] = (),
    notes: Sequence[tuple[bytes, str, bool]] = (),
    shipped: ShipTarget | None = None,
    progress: Progress = lambda _done, _all: None,
) -> Report:
    """Verify the whole log of a database.

    Args:
        database: where it is kept; only read.
        keys: the keys that count; none: those that the database itself holds.
        notes: signed checkpoints from elsewhere: bytes, source, and whether it must be one.
        shipped: where checkpoints were shipped to.
        progress: told of records.

    Raises:
        IntegrityError: the head cannot even be read.
        StorageUnavailable: the database, or what was shipped, cannot be read.
    """
    all_notes = [*notes]
    # Before the log's own size: what was shipped later may cover records that were not there yet.
    if shipped is not None and (note := shipped.get(_SHIPPED)) is not None:
        all_notes.append((note, f"{shipped}/{_SHIPPED}", True))
    snapshot = read_snapshot(database)
    verifiers = [*keys] or load_verifiers(database)
    all_notes += [(note, f"the stored one of size {size}", True) for size, _, note in snapshot.notes]
    anchors, findings, warnings = check_notes(all_notes, verifiers) if all_notes else ([], [], [])
    work = _Work(database, snapshot, anchors)
    work.run(progress)
    found = [*work.findings, *findings, *judge_checkpoints(work.trail, anchors, snapshot, work.findings)]
    if not anchors:
        warnings.append("There is no signed checkpoint: a log that was rebuilt whole would not show.")
    trail = work.trail
    anchored = 0 if trail.anchored is None else trail.anchored.end
    root = trail.range.root().hex() if trail.range.end == snapshot.size else None
    ordered = sort_findings(found)
    checked = list_checked(trail, anchors)
    return Report(not ordered, work.records, 0, snapshot.size, root, anchored, checked, ordered, warnings)


class _Work:
    def __init__(self, database: Database, snapshot: Snapshot, anchors: Sequence[Anchor]) -> None:
        self.findings: list[Finding] = []
        self.records = 0
        self.trail = Trail(CompactRange(), anchors)
        self._stops = set(self.trail.stops)
        self._database = database
        self._snapshot = snapshot
        self._tower = Tower(lambda level, place: read_stored_tile(database, level, place))
        self._numbers: dict[str, int] = {}
        self._had_gap = False
        self._before: bytes | None = None
        self._is_plain = True

    def run(self, progress: Progress) -> None:
        """Read all records, up to the first that is wrong, and then compare what stands beside them."""
        size = self._snapshot.size
        self.trail.compare_here()
        for rows in read_all_rows(self._database, size):
            for row in rows:
                if not self._take(row):
                    return
            progress(self.trail.range.end, size)
        if self.trail.range.end < size and not self._skip_to(size):
            return
        self._finish()

    def _take(self, row: StoredRow) -> bool:
        index = self.trail.range.end
        if row.index != index and not self._skip_to(int(row.index)):
            return False
        index = int(row.index)
        data = row.data
        leaf = leaf_hash(data) if isinstance(data, bytes) else b""
        if leaf != row.leaf_hash:
            return self._fail(judge_hash(row, self._after(index), self._tower.stored_leaf(index)))
        try:
            named = NAMED.decode(data)
        except _FAILURES:
            named = None
        if named is None or not self._continues(data, index, named):
            return self._fail(self._judge_place(row, index, named))
        wrong = compare_columns(row, named)
        if wrong is not None:
            return self._fail(wrong)
        self.records += 1
        self._before = data
        return self._add(index, leaf)

    def _continues(self, data: bytes, index: int, named: Named) -> bool:
        place = read_place(data)
        if place is None or place.index != index:
            return False
        if place.previous is None:
            if not self._is_plain:
                return False
        else:
            self._is_plain = False
            expected = NOTHING_BEFORE if index == 0 else (self.trail.leaf or b"").hex()
            if place.previous.decode() != expected:
                return False
        number = self._numbers.get(named.key_id)
        if number is None and not self._had_gap:
            number = 0
        if number is not None and place.sequence != number + 1:
            return False
        self._numbers[named.key_id] = place.sequence
        return True

    def _judge_place(self, row: StoredRow, index: int, named: Named | None) -> Finding:
        before = self._tower.stored_leaf(index - 1) if index else None
        tiles = (before, self._tower.stored_leaf(index))
        number = self._numbers.get(named.key_id) if named is not None else None
        return judge_place(index, self._before, row, self._after(index), number, tiles, self._stands_later(index))

    def _after(self, index: int) -> list[StoredRow]:
        return read_rows(self._database, index + 1, min(self._snapshot.size, index + 3), 2)

    def _stands_later(self, index: int) -> bool:
        needle = b',"tree":{"index":"%016d"' % index
        begin = index + 1
        while rows := read_rows(self._database, begin, self._snapshot.size):
            if any(isinstance(row.data, bytes) and needle in row.data[-160:] for row in rows):
                return True
            begin = int(rows[-1].index) + 1
        return False

    def _skip_to(self, index: int) -> bool:
        """Go over pruned records by their tiles; what is missing otherwise is a finding."""
        at = self.trail.range.end
        while at < index:
            end = next((end for first, end in self._snapshot.pruned if first <= at < end), None)
            if end is None:
                last = index - 1
                text = f"Record {at} is" if last == at else f"Records {at} to {last} are"
                return self._fail(Finding("missing", f"{text} missing from the database.", at, last))
            self._had_gap = True
            self._before = None
            for each in range(at, min(end, index)):
                leaf = self._tower.stored_leaf(each)
                if leaf is None:
                    text = f"The tile over the pruned record {each} is not there or not whole."
                    return self._fail(Finding("tile", text, each))
                if not self._add(each, leaf):
                    return False
            at = min(end, index)
        return True

    def _add(self, index: int, leaf: bytes) -> bool:
        trail = self.trail
        trail.range.append(0, leaf)
        trail.leaf = leaf
        if index + 1 in self._stops:
            trail.compare_here()
        wrong = self._tower.add(index, leaf)
        return True if wrong is None else self._fail(wrong)

    def _finish(self) -> None:
        snapshot, trail = self._snapshot, self.trail
        wrong = self._tower.finish(snapshot.size)
        if wrong is not None:
            self.findings.append(wrong)
        stray = [at for at in (snapshot.lowest, snapshot.highest) if at is not None and not 0 <= at < snapshot.size]
        for at in stray:
            text = f"A record stands at {at}, outside the {snapshot.size} that the log's head counts."
            self.findings.append(Finding("inserted", text, at))
        frontier = b"".join(node for _, node in trail.range.nodes)
        if snapshot.frontier != frontier:
            self.findings.append(self._judge_frontier(frontier))
        self._compare_sequences()

    def _judge_frontier(self, frontier: bytes) -> Finding:
        size, stored = self._snapshot.size, self._snapshot.frontier
        if size and len(stored) == len(frontier) and stored[:-32] == frontier[:-32] and self._before is not None:
            # All records but the last are confirmed by the one after them.
            text = f"Record {size - 1}, the last one, was edited, or the log's head: the two do not fit."
            return Finding("edited", text, size - 1)
        return Finding("head", "The log's stored head is not that of its records.")

    def _compare_sequences(self) -> None:
        stored = self._snapshot.numbers
        for key in sorted(stored.keys() | self._numbers.keys()):
            if key not in self._numbers and self._had_gap:
                continue
            said, found = stored.get(key, 0), self._numbers.get(key, 0)
            if said != found:
                text = f"The key {key} has {found} records, and its stored sequence says {said}."
                self.findings.append(Finding("sequence", text))
                return

    def _fail(self, finding: Finding) -> bool:
        self.findings.append(finding)
        return False
