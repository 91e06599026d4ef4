"""Compact ranges: the roots of the full subtrees over any run of leaves, which add up from chunk to chunk.

Source: https://github.com/transparency-dev/merkle/blob/main/docs/compact_ranges.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final, TypeAlias

from lukhas.audit.merkle import EMPTY_ROOT, node_hash

Node: TypeAlias = tuple[int, bytes]
"""Height of a full subtree (0: a leaf) and its root."""

_WIDTH: Final = 256
_HEIGHT: Final = 8


class CompactRange:
    """The leaves [begin, end) of a tree.

    Attributes:
        begin: index of the first leaf.
        end: index after the last leaf.
        nodes: the subtrees, from left to right.
    """

    __slots__ = ("begin", "end", "nodes")

    def __init__(self, begin: int = 0, end: int | None = None, nodes: Iterable[Node] = ()) -> None:
        self.begin = begin
        self.end = begin if end is None else end
        self.nodes = list(nodes)

    def copy(self) -> CompactRange:
        """Return a range of its own with the same leaves."""
        return CompactRange(self.begin, self.end, self.nodes)

    def append(self, height: int, node: bytes) -> None:
        """Add a full subtree at the right; the range's end must be a multiple of its width."""
        nodes, place = self.nodes, self.end >> height
        self.end += 1 << height
        while nodes and place & 1 and nodes[-1][0] == height:
            node = node_hash(nodes.pop()[1], node)
            height += 1
            place >>= 1
        nodes.append((height, node))

    def append_leaves(self, leaves: Sequence[bytes]) -> None:
        """Add leaf hashes at the right; whole tiles of 256 are hashed level by level, which is the fastest here."""
        at, count = 0, len(leaves)
        while at < count:
            if count - at >= _WIDTH and self.end % _WIDTH == 0:
                row = leaves[at : at + _WIDTH]
                while len(row) > 1:
                    row = [sha256(b"\x01" + a + b).digest() for a, b in zip(row[::2], row[1::2], strict=True)]
                self.append(_HEIGHT, row[0])
                at += _WIDTH
            else:
                self.append(0, leaves[at])
                at += 1

    def extend(self, nodes: Iterable[Node]) -> None:
        """Add the range that begins where this one ends."""
        for height, node in nodes:
            self.append(height, node)

    def root(self) -> bytes:
        """Return the RFC 6962 root; only of a range that begins at 0."""
        if self.begin:
            raise ValueError("a range that begins inside the log has no root")
        if not self.nodes:
            return EMPTY_ROOT
        root = self.nodes[-1][1]
        for _, node in reversed(self.nodes[:-1]):
            root = node_hash(node, root)
        return root


def cover(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the subtrees that a compact range over [begin, end) has, each as height and place at that height."""
    while begin < end:
        fitting = (end - begin).bit_length() - 1
        height = min(fitting, (begin & -begin).bit_length() - 1) if begin else fitting
        yield height, begin >> height
        begin += 1 << height
