"""The verifier's inner loop: hash lines, compare their tails with what must stand there, build the tree over them.

A chunk takes its first line's place as that line says, and leaves it to whoever combines the chunks to compare it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Final

import msgspec

from lukhas.audit.verify.compact import CompactRange, Node
from lukhas.audit.verify.line import KEY_DECODER, Place, read_place

_TAIL: Final = b',"tree":{"index":"%016d","previous":"%b","sequence":"%016d"}}'
_WIDTH: Final = 256
_FAILURES: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Span(msgspec.Struct):
    """How one key's sequence runs through a chunk: its first number, at which record, and its last."""

    number: int
    index: int
    last: int


class Chunk(msgspec.Struct):
    """What one run of lines holds, up to its end or to the first line that does not fit the ones before.

    Attributes:
        begin: index that the first line says.
        previous: leaf hash before it as its tail says, in hex; None in schema 1.
        records: lines that fit together.
        leaf: leaf hash of the last of them.
        nodes: compact range over them.
        stops: for each asked size inside, the compact range from the chunk's first record to that size.
        leaves: for each asked index inside, the leaf hash.
        spans: the keys' sequences.
        plain: how many records, from the first, are of schema 1, without `previous`.
        broken: whether the line after the last fitting one does not fit.
    """

    begin: int = 0
    previous: str | None = None
    records: int = 0
    leaf: bytes = b""
    nodes: list[Node] = []
    stops: list[tuple[int, list[Node]]] = []
    leaves: list[tuple[int, bytes]] = []
    spans: dict[str, Span] = {}
    plain: int = 0
    broken: bool = False


def scan(blocks: Iterable[Sequence[bytes]], stops: Sequence[int] = (), asked: Sequence[int] = ()) -> Chunk:
    """Read lines until their end, or until one does not fit the line before it.

    Args:
        blocks: lines without their newlines, in any grouping.
        stops: sizes of the log, ascending, at which the compact range is wanted.
        asked: indexes, ascending, whose leaf hash is wanted.
    """
    loop = _Loop(stops, asked)
    for lines in blocks:
        if not loop.take(lines):
            loop.chunk.broken = True
            break
    return loop.finish()


class _Loop:
    def __init__(self, stops: Sequence[int], asked: Sequence[int]) -> None:
        self.chunk = Chunk(nodes=[], stops=[], leaves=[], spans={})
        self._all_stops = stops
        self._stops: list[int] = []
        self._asked = set(asked)
        self._last: dict[str, int] = {}
        self._range = CompactRange()
        self._leaves: list[bytes] = []
        self._index = self._pause = -1
        self._hex = b""

    def take(self, lines: Sequence[bytes]) -> bool:
        """Take lines, and say whether all of them fit."""
        last, leaves, decode, tail = self._last, self._leaves, KEY_DECODER.decode, _TAIL
        index, hexed, pause = self._index, self._hex, self._pause
        fits = True
        for line in lines:
            try:
                key = decode(line).key_id
            except _FAILURES:
                fits = False
                break
            number = last.get(key)
            # The common case in as few steps as can be: the tail must be exactly this text.
            if number is not None and line.endswith(tail % (index, hexed, number + 1)):
                number += 1
            else:
                self._index, self._hex = index, hexed
                number = self._look(line, key)
                if number is None:
                    fits = False
                    break
                index, pause = self._index, self._pause
            leaf = sha256(b"\x00" + line).digest()
            hexed = leaf.hex().encode()
            leaves.append(leaf)
            last[key] = number
            index += 1
            if index == pause:
                pause = self._rest(index)
        self._index, self._hex = index, hexed
        return fits

    def finish(self) -> Chunk:
        """Return what was read."""
        self._flush()
        chunk = self.chunk
        chunk.records = self._range.end - self._range.begin
        chunk.nodes = self._range.nodes
        chunk.leaf = bytes.fromhex(self._hex.decode())
        for key, number in self._last.items():
            chunk.spans[key].last = number
        return chunk

    def _look(self, line: bytes, key: str) -> int | None:
        """Look at a line whose tail is not the usual next one; return its sequence where it fits, else None."""
        place = read_place(line)
        if place is None:
            return None
        if self._index < 0:
            self._begin(place)
        elif place.index != self._index:
            return None
        elif place.previous is None:
            # Schema 1 stands before schema 2 and never after it.
            if self.chunk.plain != self._index - self._range.begin:
                return None
        elif place.previous != self._hex:
            return None
        if place.previous is None:
            self.chunk.plain += 1
        if key not in self._last:
            self.chunk.spans[key] = Span(place.sequence, place.index, place.sequence)
        elif place.sequence != self._last[key] + 1:
            return None
        return place.sequence

    def _begin(self, place: Place) -> None:
        self._index = place.index
        self._range = CompactRange(place.index)
        self.chunk.begin = place.index
        self.chunk.previous = None if place.previous is None else place.previous.decode()
        self._stops = sorted((stop for stop in self._all_stops if stop > place.index), reverse=True)
        self._rest(place.index)

    def _rest(self, index: int) -> int:
        """Build the tree up to an index, keep what was asked for there, and return where to do so next."""
        self._flush()
        if self._stops and index == self._stops[-1]:
            self.chunk.stops.append((self._stops.pop(), list(self._range.nodes)))
        self._pause = min(self._stops[-1] if self._stops else index + _WIDTH, (index | (_WIDTH - 1)) + 1)
        return self._pause

    def _flush(self) -> None:
        begin = self._range.end
        if self._asked:
            for place, leaf in enumerate(self._leaves, start=begin):
                if place in self._asked:
                    self.chunk.leaves.append((place, leaf))
        self._range.append_leaves(self._leaves)
        self._leaves.clear()
