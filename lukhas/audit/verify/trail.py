"""Putting chunks together in the log's order: tree, chain, sequences, and the roots that checkpoints name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lukhas.audit.record import NOTHING_BEFORE
from lukhas.audit.verify.anchor import Anchor
from lukhas.audit.verify.chunk import Chunk
from lukhas.audit.verify.compact import CompactRange


class Trail:
    """Everything that is known after the chunks taken so far.

    Attributes:
        range: compact range from 0 where what is left of the export is known, else from its first record.
        leaf: leaf hash of the last record; None before the first.
        anchored: largest size whose root a checkpoint has confirmed; None where none has.
        wrong: the checkpoint of the smallest size whose root is another; None where there is none.
        fitting: the sizes whose root was confirmed, each for one root.
        leaves: the leaf hashes that were asked for.
    """

    def __init__(self, left: CompactRange, anchors: Iterable[Anchor]) -> None:
        self.range = left.copy()
        self.first = left.end
        self.leaf: bytes | None = None
        self.anchored: CompactRange | None = None
        self.wrong: Anchor | None = None
        self.states: dict[tuple[int, bytes], bool] = {}
        self.leaves: dict[int, bytes] = {}
        self._numbers: dict[str, int] = {}
        self._is_plain = True
        self._anchors: dict[int, list[Anchor]] = {}
        for one in anchors:
            self._anchors.setdefault(one.checkpoint.size, []).append(one)

    @property
    def stops(self) -> Sequence[int]:
        """The sizes, ascending, that checkpoints name."""
        return sorted(self._anchors)

    @property
    def has_root(self) -> bool:
        """Whether roots can be computed."""
        return self.range.begin == 0

    def fits(self, chunk: Chunk) -> bool:
        """Say whether a chunk's first record continues the log."""
        if chunk.records == 0:
            return True
        if chunk.begin != self.range.end:
            return False
        if chunk.previous is None:
            if not self._is_plain:
                return False
        elif chunk.begin == 0:
            if chunk.previous != NOTHING_BEFORE:
                return False
        elif self.leaf is not None and chunk.previous != self.leaf.hex():
            return False
        return self.find_jump(chunk) is None

    def find_jump(self, chunk: Chunk) -> tuple[int, str, int, int] | None:
        """Return the first record of the chunk whose sequence does not follow: index, key, expected and found."""
        jumps: list[tuple[int, str, int, int]] = []
        for key, span in chunk.spans.items():
            before = self._numbers.get(key)
            if before is None and self.first:
                continue  # of an export that begins inside the log, the first number of a key is not known
            expected = (before or 0) + 1
            if span.number != expected:
                jumps.append((span.index, key, expected, span.number))
        return min(jumps, default=None)

    def take(self, chunk: Chunk) -> None:
        """Add a chunk that fits."""
        for size, nodes in chunk.stops:
            self._compare(size, nodes)
        if chunk.records:
            self.range.extend(chunk.nodes)
            self.leaf = chunk.leaf
            self._is_plain = self._is_plain and chunk.plain == chunk.records
        for key, span in chunk.spans.items():
            self._numbers[key] = span.last
        self.leaves.update(chunk.leaves)

    def number_of(self, key: str) -> int | None:
        """Return the last sequence number of a key so far."""
        return self._numbers.get(key)

    def compare_here(self) -> None:
        """Compare with checkpoints of exactly the present size."""
        self._compare(self.range.end, ())

    def compare_beyond(self, size: int, nodes: CompactRange) -> bool:
        """Compare with checkpoints of a larger size, given what lies between; False where they do not fit."""
        self._compare(size, nodes.nodes)
        return all(self.states.get((one.checkpoint.size, one.checkpoint.root), True) for one in self._anchors[size])

    def _compare(self, size: int, nodes: Iterable[tuple[int, bytes]]) -> None:
        if not self.has_root or size not in self._anchors:
            return
        reached = self.range.copy()
        reached.extend(nodes)
        root = reached.root()
        for one in self._anchors[size]:
            fits = one.checkpoint.root == root
            self.states[size, one.checkpoint.root] = fits
            if not fits and (self.wrong is None or size < self.wrong.checkpoint.size):
                self.wrong = one
            if fits and (self.anchored is None or size > self.anchored.end):
                self.anchored = reached
