"""One passage over an export: every chunk in order, and what to go back to where something does not fit."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from lukhas.audit.record import NOTHING_BEFORE
from lukhas.audit.verify.chunk import Chunk, scan
from lukhas.audit.verify.compact import CompactRange
from lukhas.audit.verify.export_file import ExportFile
from lukhas.audit.verify.line import read_place
from lukhas.audit.verify.trail import Trail
from lukhas.audit.verify.worker import Job, Task, scan_all

Progress: TypeAlias = Callable[[int, int], None]
"""Told of bytes, or records, done and of all that there are."""

_CHUNK_BYTES: Final = 16 << 20


class Mark(NamedTuple):
    """Where a chunk begins, and the compact range over everything before it."""

    offset: int
    range: CompactRange


class Passage:
    """Reads an export up to its end or to the first line that does not fit.

    Attributes:
        file: what is read.
        trail: what is known so far.
        marks: the chunks' beginnings, to read parts again.
        broken_at: index that should stand where the lines stop to fit; None where all fit.
    """

    def __init__(self, file: ExportFile, trail: Trail) -> None:
        self.file = file
        self.trail = trail
        self.marks: list[Mark] = []
        self.broken_at: int | None = None

    def run(self, asked: Sequence[int], processes: int, progress: Progress) -> None:
        """Read the whole file, or as far as lines fit."""
        trail, size = self.trail, self.file.size
        trail.compare_here()
        for offset, end, chunk in self._scan(asked, processes):
            self.marks.append(Mark(offset, trail.range.copy()))
            if not trail.fits(chunk):
                jump = trail.find_jump(chunk)
                begins_here = chunk.begin == trail.range.end
                probe = chunk.previous is None or trail.leaf is None or chunk.previous == trail.leaf.hex()
                self.broken_at = jump[0] if jump and begins_here and probe else trail.range.end
                return
            trail.take(chunk)
            progress(min(end, size), size)
            if chunk.broken:
                self.broken_at = trail.range.end
                return
        trail.compare_here()
        progress(size, size)

    def read_from(self, index: int) -> Iterator[tuple[int, bytes]]:
        """Yield lines again with the indexes that should stand there, from one of a chunk before on.

        The first is that of the chunk that comes before the one with `index`, so that a line before is always there.
        """
        mark = self.marks[self._place(index)]
        at = mark.range.end
        for lines in self.file.read_blocks(mark.offset):
            for line in lines:
                yield at, line
                at += 1

    def range_before(self, index: int) -> CompactRange:
        """Return the compact range that `read_from` begins after."""
        return self.marks[self._place(index)].range.copy()

    def _place(self, index: int) -> int:
        found = bisect_right(self.marks, index, key=lambda mark: mark.range.end) - 1
        return max(0, found - 1)

    def _scan(self, asked: Sequence[int], processes: int) -> Iterator[tuple[int, int, Chunk]]:
        task = Task(str(self.file.path.absolute()), list(self.trail.stops), list(asked))
        if self.file.is_gzip:
            yield from self._scan_stream(task)
            return
        end = self.file.find_end()
        jobs: list[Job] = []
        begin = 0
        while begin < end:
            following = min(self.file.find_line(begin + _CHUNK_BYTES), end)
            jobs.append(Job(begin, following))
            begin = following
        for job, chunk in scan_all(task, jobs, processes):
            yield job.begin, job.end, chunk

    def _scan_stream(self, task: Task) -> Iterator[tuple[int, int, Chunk]]:
        begin = end = 0
        group: list[Sequence[bytes]] = []
        for lines in self.file.read_blocks(0):
            group.append(lines)
            end += sum(map(len, lines)) + len(lines)
            if end - begin >= _CHUNK_BYTES:
                yield begin, end, scan(group, task.stops, task.asked)
                begin, group = end, []
        if group:
            yield begin, end, scan(group, task.stops, task.asked)


def find_first(path: Path) -> int:
    """Return the index that an export without a proof file begins at, going by its first lines.

    One edited index among them does not mislead.
    """
    lines: list[bytes] = []
    for block in ExportFile(path).read_blocks(0):
        lines += block[:3]
        if len(lines) >= 3:
            break
    places = [read_place(line) for line in lines[:3]]
    if any(place is not None and place.previous == NOTHING_BEFORE.encode() for place in places):
        return 0
    said = [place.index - step for step, place in enumerate(places) if place is not None]
    said = [index for index in said if index >= 0]
    return max(said, key=said.count) if said else 0
