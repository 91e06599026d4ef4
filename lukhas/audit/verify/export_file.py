"""Reading an export: blocks of whole lines between two offsets, from a plain file or a gzip one."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from lukhas.audit.verify.line import LONGEST_LINE_BYTES

# Larger blocks leave the processor's cache, and are a fifth slower here.
_BLOCK_BYTES: Final = 1 << 18
_GZIP_MAGIC: Final = b"\x1f\x8b"
_LINE_END: Final = b"\n"


class ExportFile:
    """An export as it is when it is opened; what is appended later is not looked at.

    Attributes:
        path: the file.
        is_gzip: it is compressed; offsets are then those of the text inside.
        damage: what stopped the reading of a compressed file, where something did.
        rest: bytes behind the last newline, once the end was read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = path.stat().st_size
        with path.open("rb") as file:
            self.is_gzip = file.read(2) == _GZIP_MAGIC
        self.damage = ""
        self.rest = b""

    @property
    def size(self) -> int:
        """Bytes of the file when it was opened."""
        return self._size

    def find_line(self, at: int) -> int:
        """Return where the first line begins that does so at or after an offset; of a plain file."""
        if at <= 0:
            return 0
        with self.path.open("rb") as file:
            at -= 1
            file.seek(at)
            while at < self._size:
                block = file.read(min(_BLOCK_BYTES, self._size - at))
                if not block:
                    break
                found = block.find(_LINE_END)
                if found >= 0:
                    return at + found + 1
                at += len(block)
        return self._size

    def find_end(self) -> int:
        """Return the offset behind the last newline, and keep what stands behind it; of a plain file.

        A line that another process completes in the meantime is not torn.
        """
        with self.path.open("rb") as file:
            at = self._size
            while at > 0:
                start = max(0, at - _BLOCK_BYTES)
                file.seek(start)
                found = file.read(at - start).rfind(_LINE_END)
                if found >= 0:
                    at = start + found + 1
                    break
                at = start
            file.seek(at)
            rest = file.read(min(LONGEST_LINE_BYTES, os.fstat(file.fileno()).st_size - at))
        self.rest = b"" if _LINE_END in rest else rest
        return at

    def read_blocks(self, begin: int, end: int | None = None) -> Iterator[Sequence[bytes]]:
        """Yield lines without their newlines, in blocks; a line longer than any record ends the reading as it is.

        Args:
            begin: where a line begins.
            end: behind a newline; None reads on to the last newline.
        """
        if self.is_gzip:
            yield from self._read_gzip(begin)
            return
        left = (self.find_end() if end is None else end) - begin
        rest = b""
        with self.path.open("rb") as file:
            file.seek(begin)
            while left > 0:
                block = file.read(min(_BLOCK_BYTES, left))
                if not block:
                    break
                left -= len(block)
                lines = (rest + block).split(_LINE_END)
                rest = lines.pop()
                if lines:
                    yield lines
                if len(rest) > LONGEST_LINE_BYTES:
                    yield [rest]
                    return

    def _read_gzip(self, begin: int) -> Iterator[Sequence[bytes]]:
        rest = b""
        self.rest = b""
        with gzip.open(self.path, "rb") as file:
            try:
                file.seek(begin)
                while block := file.read(_BLOCK_BYTES):
                    lines = (rest + block).split(_LINE_END)
                    rest = lines.pop()
                    if lines:
                        yield lines
                    if len(rest) > LONGEST_LINE_BYTES:
                        yield [rest]
                        return
            except (EOFError, gzip.BadGzipFile, zlib.error) as failure:
                self.damage = str(failure)
        self.rest = rest
