"""The stored tiles of every level, compared with the hashes of the records under them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from lukhas.audit.merkle import HASH_BYTES
from lukhas.audit.verify.compact import CompactRange
from lukhas.audit.verify.finding import Finding

_WIDTH: Final = 256
_HEIGHT: Final = 8


class Tower:
    """Collects leaf hashes into tiles, level by level, and compares each tile when it is full."""

    def __init__(self, read: Callable[[int, int], bytes]) -> None:
        """Take what reads a stored tile by level and place; empty bytes where there is none."""
        self._read = read
        self._open: list[list[bytes]] = [[]]
        self._kept: tuple[int, bytes] = (-1, b"")

    def stored_leaf(self, index: int) -> bytes | None:
        """Return the leaf hash that the stored tile has of a record; None where it has none."""
        place, offset = divmod(index, _WIDTH)
        if self._kept[0] != place:
            self._kept = (place, self._read(0, place))
        leaf = self._kept[1][HASH_BYTES * offset : HASH_BYTES * (offset + 1)]
        return leaf if len(leaf) == HASH_BYTES else None

    def add(self, index: int, leaf: bytes) -> Finding | None:
        """Take the next record's leaf hash; return what is wrong with a tile that it completes."""
        level, place, node = 0, index, leaf
        while True:
            if len(self._open) == level:
                self._open.append([])
            row = self._open[level]
            row.append(node)
            if len(row) < _WIDTH:
                return None
            place //= _WIDTH
            wrong = self._compare(level, place, row)
            if wrong is not None:
                return wrong
            whole = CompactRange()
            whole.append_leaves(row)
            node = whole.root()
            self._open[level] = []
            level += 1

    def finish(self, size: int) -> Finding | None:
        """Compare the tiles that are not full yet; those of level 0 are stored only when they are."""
        for level, row in enumerate(self._open):
            if level and row:
                wrong = self._compare(level, (size >> _HEIGHT * level) // _WIDTH, row)
                if wrong is not None:
                    return wrong
        return None

    def _compare(self, level: int, place: int, row: list[bytes]) -> Finding | None:
        stored = self._read(level, place)
        for offset, node in enumerate(row):
            if stored[HASH_BYTES * offset : HASH_BYTES * (offset + 1)] != node:
                first = (place * _WIDTH + offset) << _HEIGHT * level
                last = first + (1 << _HEIGHT * level) - 1
                text = (
                    f"The stored tile {place} of level {level} is not that of the records: its hash {offset} is wrong."
                )
                return Finding("tile", text, first, None if last == first else last)
        return None
