"""Proofs from tiles: inclusion, consistency and roots of any size that the log ever had, in O(log n) reads.

Every hash of a proof is the root over a run of leaves, [start, end). A run is made of full subtrees, each of which lies
within one tile; one that ends where the tree ends may have several, and folds from them, right to left.

Source: RFC 6962, sections 2.1.1 and 2.1.2.
"""

from __future__ import annotations

from collections.abc import Iterator

from lukhas.audit.merkle import EMPTY_ROOT, fold_root, node_hash
from lukhas.audit.tile import TILE_HEIGHT, TILE_WIDTH, TileReader, split_hashes
from lukhas.errors import InvalidRequest


def prove_inclusion(tiles: TileReader, index: int, size: int) -> list[bytes]:
    """Return the proof that a leaf stands in the tree of some size, its neighbour's hash first.

    Args:
        tiles: the log's tiles; it may have grown past `size` since.
        index: the leaf's index, from 0.
        size: leaves in the tree that the proof is for.

    Raises:
        InvalidRequest: there is no such leaf in a tree of that size.
        IntegrityError: a tile is not there.
    """
    if not 0 <= index < size:
        raise InvalidRequest(f"A tree of {size} records has no record {index}.")
    nodes = _Nodes(tiles, size)
    proof: list[bytes] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            proof.append(nodes.hash_run(middle, end))
            end = middle
        else:
            proof.append(nodes.hash_run(start, middle))
            start = middle
    return proof[::-1]


def prove_consistency(tiles: TileReader, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of size `new` continues that of size `old`; empty for equal sizes and from 0.

    Raises:
        InvalidRequest: `old` is negative or larger than `new`.
        IntegrityError: a tile is not there.
    """
    if not 0 <= old <= new:
        raise InvalidRequest(f"A tree of {new} records continues none of {old}.")
    if old in (0, new):
        return []
    nodes = _Nodes(tiles, new)
    proof: list[bytes] = []
    start, end = 0, new
    # The older tree's part of the present run is [start, old).
    while old != end:
        middle = start + _split(end - start)
        if old <= middle:
            proof.append(nodes.hash_run(middle, end))
            end = middle
        else:
            proof.append(nodes.hash_run(start, middle))
            start = middle
    if start:
        proof.append(nodes.hash_run(start, end))
    return proof[::-1]


def root_at(tiles: TileReader, size: int) -> bytes:
    """Return the root that the log had at some size.

    Raises:
        InvalidRequest: a negative size.
        IntegrityError: a tile is not there.
    """
    if size < 0:
        raise InvalidRequest("A tree's size is 0 or more.")
    return _Nodes(tiles, size).hash_run(0, size) if size else EMPTY_ROOT


class _Nodes:
    """Node hashes of the tree of one size; keeps each tile for as long as one proof takes."""

    def __init__(self, tiles: TileReader, size: int) -> None:
        self._tiles = tiles
        self._size = size
        self._rows: dict[tuple[int, int], list[list[bytes]]] = {}

    def hash_run(self, start: int, end: int) -> bytes:
        """Return the root over the leaves [start, end), where `start` is a multiple of the largest subtree in it."""
        return fold_root([self._hash_subtree(height, place) for height, place in _cover(start, end)])

    def _hash_subtree(self, height: int, place: int) -> bytes:
        level, above = divmod(height, TILE_HEIGHT)
        index, offset = divmod(place << above, TILE_WIDTH)
        return self._read_rows(level, index)[above][offset >> above]

    def _read_rows(self, level: int, index: int) -> list[list[bytes]]:
        """Return a tile's hashes, and above them those of each height up to its root, as far as they are full."""
        found = self._rows.get((level, index))
        if found is None:
            width = min(TILE_WIDTH, (self._size >> TILE_HEIGHT * level) - index * TILE_WIDTH)
            row = split_hashes(self._tiles.read(level, index, width))
            found = [row]
            while len(row) > 1:
                row = [node_hash(row[at], row[at + 1]) for at in range(0, len(row) - 1, 2)]
                found.append(row)
            self._rows[level, index] = found
        return found


def _split(count: int) -> int:
    """Return the largest power of two under `count`, which is at least 2."""
    return 1 << ((count - 1).bit_length() - 1)


def _cover(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the full subtrees that make up a run, largest first, each as its height and its place at that height."""
    while start < end:
        height = (end - start).bit_length() - 1
        yield height, start >> height
        start += 1 << height
