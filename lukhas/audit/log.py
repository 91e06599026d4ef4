"""The audit log's sink: gives each record its place, hashes it and moves the head, in one transaction.

The head moves by compare-and-set, so a head that is kept in memory needs no reading before each batch, and another
process's records, or a transaction of ours that was rolled back, are noticed by the failing comparison.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec
from sqlalchemy import Connection

from lukhas.audit import statement
from lukhas.audit.merkle import append_closing, append_leaf, leaf_hash, pack_frontier, unpack_frontier
from lukhas.audit.record import Entry, splice_tail
from lukhas.errors import IntegrityError

_MOST_SEQUENCES: Final = 50_000
_LAST_OF_TILE: Final = 255


class Appended(msgspec.Struct, frozen=True, gc=False):
    """Where a durable record stands: index in the log from 0, sequence among its key's records from 1."""

    audit_id: str
    index: int
    sequence: int
    leaf_hash: bytes


class OpenDecision(msgspec.Struct, frozen=True, gc=False):
    """A decision that has no outcome yet."""

    audit_id: str
    index: int
    time_ms: int


class _Plan(NamedTuple):
    rows: list[statement.Row]
    answers: list[Appended]
    peaks: list[bytes]
    last: bytes | None
    open_tile: list[bytes]
    tiles: list[statement.Tile]
    nodes: list[statement.Node]
    sequences: dict[str, int]
    opened: list[OpenDecision]
    closed: list[OpenDecision]


class AuditLog:
    """One process's memory of the log's head. `write` is a sink and runs on the writer's thread alone."""

    def __init__(self) -> None:
        self._size = -1  # matches no head, so that the first batch reads it
        self._frontier = b""
        self._peaks: list[bytes] = []
        self._last: bytes | None = None
        self._open_tile: list[bytes] = []
        self._sequences: dict[str, int] = {}
        self._serving = False
        self._open: dict[str, OpenDecision] = {}
        self._open_lock = threading.Lock()
        self._staged: list[_Plan] = []
        self._staged_in: object = None

    def serve(self, still_open: Iterable[OpenDecision]) -> None:
        """Make this process the one that keeps the watermark of open decisions.

        Args:
            still_open: decisions without an outcome that are in the log already, lowest index first.
        """
        with self._open_lock:
            self._open = {one.audit_id: one for one in still_open}
            self._serving = True

    def open_decisions(self) -> list[OpenDecision]:
        """Return decisions of this process, and those it took over, that have no outcome yet."""
        with self._open_lock:
            return list(self._open.values())

    def write(self, connection: Connection, entries: Sequence[Entry]) -> list[Appended]:
        """Write records inside the open transaction. A sink of the group-commit writer.

        Raises:
            IntegrityError: the stored head does not fit the tree.
        """
        transaction = connection.get_transaction()
        plan = self._plan(connection, entries)
        if not self._apply(connection, plan):
            self._reload(connection)
            plan = self._plan(connection, entries)
            if not self._apply(connection, plan):
                raise IntegrityError("The audit log's head changed under its lock.")
        # That the head was as remembered proves what earlier transactions staged, but not what this one did.
        if self._staged_in is not transaction:
            self._staged.clear()
            self._staged_in = transaction
        self._remember(plan)
        return plan.answers

    def write_together(self, connection: Connection, groups: Sequence[Sequence[Entry]]) -> list[list[Appended]]:
        """Write groups of records, each whole or not at all. A sink of the group-commit writer."""
        return [self.write(connection, group) for group in groups]

    def _plan(self, connection: Connection, entries: Sequence[Entry]) -> _Plan:
        known = self._sequences
        unknown = {entry.key_id for entry in entries if entry.key_id not in known}
        if unknown:
            if len(known) > _MOST_SEQUENCES:
                known.clear()
                unknown = {entry.key_id for entry in entries}
            for key_id in unknown:
                known[key_id] = 0
            known.update(statement.read_sequences(connection, sorted(unknown)))
        index = max(self._size, 0)
        peaks = self._peaks.copy()
        last = self._last
        open_tile = self._open_tile.copy()
        tiles: list[statement.Tile] = []
        nodes: list[statement.Node] = []
        sequences: dict[str, int] = {}
        rows: list[statement.Row] = []
        answers: list[Appended] = []
        opened: list[OpenDecision] = []
        closed: list[OpenDecision] = []
        for audit_id, kind, tenant, key_id, time_ms, head in entries:
            sequence = (sequences.get(key_id) or known[key_id]) + 1
            sequences[key_id] = sequence
            data = splice_tail(head, index, sequence, last)
            last = leaf = leaf_hash(data)
            open_tile.append(leaf)
            if index & _LAST_OF_TILE == _LAST_OF_TILE:
                tiles.append((index >> 8, b"".join(open_tile)))
                open_tile.clear()
                for level, node in enumerate(append_closing(peaks, index, leaf), start=1):
                    nodes.append((level, index >> 8 * level, node))
            else:
                append_leaf(peaks, index, leaf)
            rows.append((index, audit_id, kind, tenant, time_ms, leaf, data))
            answers.append(Appended(audit_id, index, sequence, leaf))
            if self._serving:
                if kind == "decision":
                    opened.append(OpenDecision(audit_id, index, time_ms))
                elif kind == "outcome" and (one := self._open.get(audit_id)):
                    closed.append(one)
            index += 1
        return _Plan(rows, answers, peaks, last, open_tile, tiles, nodes, sequences, opened, closed)

    def _apply(self, connection: Connection, plan: _Plan) -> bool:
        size = self._size + len(plan.rows)
        frontier = pack_frontier(plan.peaks)
        watermark = self._find_watermark(plan, size) if self._serving else None
        if not statement.move_head(connection, (self._size, self._frontier), (size, frontier), watermark):
            return False
        statement.write_sequences(connection, plan.sequences)
        statement.insert_rows(connection, plan.rows)
        if plan.tiles:
            statement.write_tiles(connection, plan.tiles, plan.nodes)
        return True

    def _find_watermark(self, plan: _Plan, size: int) -> int:
        closed = {one.audit_id for one in plan.closed}
        closed.update(row[1] for row in plan.rows if row[2] == "outcome")
        for one in self._open.values():
            if one.audit_id not in closed:
                return one.index
        return next((one.index for one in plan.opened if one.audit_id not in closed), size)

    def _remember(self, plan: _Plan) -> None:
        self._size += len(plan.rows)
        self._peaks = plan.peaks
        self._frontier = pack_frontier(plan.peaks)
        self._last = plan.last
        self._open_tile = plan.open_tile
        self._sequences.update(plan.sequences)
        self._staged.append(plan)
        if not self._serving:
            return
        with self._open_lock:
            for one in plan.opened:
                self._open[one.audit_id] = one
            for row in plan.rows:
                if row[2] == "outcome":
                    self._open.pop(row[1], None)

    def _reload(self, connection: Connection) -> None:
        """Read the head anew: somebody else wrote, or what was staged last was rolled back."""
        size, frontier, _ = statement.read_head(connection, lock=True)
        try:
            self._peaks = unpack_frontier(frontier, size)
        except ValueError as wrong:
            raise IntegrityError("The audit log's stored head does not fit its size.") from wrong
        self._open_tile = statement.read_leaves(connection, size & ~_LAST_OF_TILE, size)
        if len(self._open_tile) != size & _LAST_OF_TILE:
            raise IntegrityError("The audit log has fewer records than its head says.", hint="Run: lukhas audit verify")
        if self._open_tile:
            self._last = self._open_tile[-1]
        else:
            tile = statement.read_tile(connection, 0, (size >> 8) - 1)
            self._last = None if tile is None else tile[-32:]
        self._size = size
        self._frontier = frontier
        self._sequences.clear()
        if self._staged and not self._was_committed(connection, self._staged[-1]):
            self._undo_open()
        self._staged.clear()

    @staticmethod
    def _was_committed(connection: Connection, plan: _Plan) -> bool:
        last = plan.rows[-1]
        return statement.read_leaf(connection, last[0]) == last[5]

    def _undo_open(self) -> None:
        with self._open_lock:
            for plan in reversed(self._staged):
                for one in plan.opened:
                    self._open.pop(one.audit_id, None)
                self._open.update((one.audit_id, one) for one in plan.closed)
            # The watermark is the first entry's index, so order matters.
            self._open = dict(sorted(self._open.items(), key=lambda item: item[1].index))
