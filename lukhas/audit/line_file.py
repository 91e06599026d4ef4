"""What a file of records says about itself: its first and last whole line, and what a crash left after that."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, NamedTuple

from lukhas.audit.record import LARGEST_RECORD_BYTES

_CHUNK: Final = 65_536
_BEGINNING: Final = b'{"audit_id":"'
_TREE: Final = b',"tree":{"index":"'
_DIGITS: Final = 16


class Ends(NamedTuple):
    """The outer lines of a file.

    Attributes:
        first: the first whole line without its line end; empty where there is none.
        last: the last whole line.
        end: where the last whole line ends, in bytes.
    """

    first: bytes
    last: bytes
    end: int


class Rotated(NamedTuple):
    """A file that is full, with the indexes of its first and last record."""

    path: Path
    first: int
    last: int


def read_index(line: bytes) -> int | None:
    """Return the index that a record's line carries; None where it is no record's."""
    place = line.rfind(_TREE)
    digits = line[place + len(_TREE) : place + len(_TREE) + _DIGITS]
    if place < 0 or len(digits) != _DIGITS or not digits.isdigit() or not line.endswith(b'"}}'):
        return None
    return int(digits) if line.startswith(_BEGINNING) else None


def read_ends(file: int, size: int) -> Ends:
    """Read the outer lines of an open file of `size` bytes, whatever it holds; memory is bounded by a record's size."""
    end = _find_line_end(file, size)
    if end == 0:
        return Ends(b"", b"", 0)
    start = _find_line_end(file, end - 1)
    last = os.pread(file, min(end - 1 - start, LARGEST_RECORD_BYTES + 1), start)
    first, _, _ = os.pread(file, LARGEST_RECORD_BYTES + 1, 0).partition(b"\n")
    return Ends(first, last, end)


def is_torn_record(file: int, start: int, size: int) -> bool:
    """Say whether what follows `start` can be the rest of a write of ours that was cut off: part of a record, zeros."""
    if size - start > 2 * _CHUNK + LARGEST_RECORD_BYTES:
        return False
    rest = os.pread(file, size - start, start).rstrip(b"\0")
    return len(rest) <= LARGEST_RECORD_BYTES and rest[: len(_BEGINNING)] == _BEGINNING[: len(rest)]


def name_rotated(path: Path, first: int, last: int) -> Path:
    """Return what a full file is called: `audit.jsonl` becomes `audit-0000000000000000-0000000000000499.jsonl`."""
    return path.with_name(f"{path.stem}-{first:0{_DIGITS}d}-{last:0{_DIGITS}d}{path.suffix}")


def list_rotated(path: Path) -> list[Rotated]:
    """Return the full files beside `path`, the newest first."""
    pattern = re.compile(re.escape(path.stem) + r"-(\d{16})-(\d{16})" + re.escape(path.suffix))
    found: list[Rotated] = []
    try:
        names = [one.name for one in path.parent.iterdir()]
    except FileNotFoundError:
        return []
    for name in names:
        if match := pattern.fullmatch(name):
            found.append(Rotated(path.with_name(name), int(match[1]), int(match[2])))
    return sorted(found, key=lambda one: (one.last, one.first), reverse=True)


def _find_line_end(file: int, before: int) -> int:
    """Return the place after the last line end before a place; 0 where there is none."""
    end = before
    while end > 0:
        start = max(0, end - _CHUNK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0
