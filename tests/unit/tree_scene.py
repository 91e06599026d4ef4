"""A tree of synthetic leaf hashes, its tiles in memory, and RFC 6962's definitions written out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from lukhas.audit.merkle import compute_root, leaf_hash, node_hash
from lukhas.errors import IntegrityError


@lru_cache(maxsize=1)
def make_leaves(count: int = 1 << 17) -> list[bytes]:
    """Return leaf hashes, each another."""
    return [leaf_hash(b"%d" % number) for number in range(count)]


class MemoryTiles:
    """The tiles over a list of leaf hashes. Counts what is read, and gives nothing that a tree of `size` has not.

    Attributes:
        size: leaves of the tree; may be lowered.
        reads: how many tiles were read.
    """

    def __init__(self, leaves: Sequence[bytes]) -> None:
        self.size = len(leaves)
        self.reads = 0
        self._levels = [list(leaves)]
        while len(self._levels[-1]) >= 256:
            below = self._levels[-1]
            whole = len(below) & ~255
            self._levels.append([fold_tile(below[start : start + 256]) for start in range(0, whole, 256)])

    def read(self, level: int, index: int, width: int) -> bytes:
        """Return a tile's hashes."""
        self.reads += 1
        there = (self.size >> 8 * level) - 256 * index
        if level >= len(self._levels) or not 0 < width <= min(there, 256):
            raise IntegrityError("there is no such tile")
        return b"".join(self._levels[level][index * 256 : index * 256 + width])


def fold_tile(hashes: Sequence[bytes]) -> bytes:
    """Return the root over 256 hashes."""
    row = list(hashes)
    while len(row) > 1:
        row = [node_hash(left, right) for left, right in zip(row[::2], row[1::2], strict=True)]
    return row[0]


def define_inclusion(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """Return PATH(m, D[n]) as RFC 6962, section 2.1.1, defines it."""
    if len(leaves) == 1:
        return []
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if index < split:
        return [*define_inclusion(index, leaves[:split]), compute_root(leaves[split:])]
    return [*define_inclusion(index - split, leaves[split:]), compute_root(leaves[:split])]


def define_consistency(old: int, leaves: Sequence[bytes], is_whole: bool = True) -> list[bytes]:
    """Return SUBPROOF(m, D[n], b) as RFC 6962, section 2.1.2, defines it."""
    if old == len(leaves):
        return [] if is_whole else [compute_root(leaves)]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    if old <= split:
        return [*define_consistency(old, leaves[:split], is_whole), compute_root(leaves[split:])]
    return [*define_consistency(old - split, leaves[split:], False), compute_root(leaves[:split])]
