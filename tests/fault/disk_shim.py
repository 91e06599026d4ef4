"""Builds the shim that makes a disk fail, and switches its faults on and off while a program runs."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "shim" / "disk_fault.c"
_CONTROL_BYTES = 256
_HEAD = struct.Struct("<BBHIIQ")


def compiler() -> str | None:
    """Return the C compiler's path, None where there is none."""
    return shutil.which("cc")


@cache
def build(folder: Path) -> Path:
    """Compile the shim into a folder."""
    library = folder / "disk_fault.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-o", str(library), str(SOURCE)]
    subprocess.run([*command, "-ldl", "-lpthread"], check=True, timeout=60)
    return library


@dataclass
class DiskShim:
    """One shim for any number of processes.

    Attributes:
        match: files whose path holds this text are concerned.
        traces: whether what reaches the files is written down.
    """

    folder: Path
    match: str
    traces: bool = False
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        control = self.folder / "control"
        control.write_bytes(bytes(_CONTROL_BYTES))
        with control.open("r+b") as file:
            self._control = mmap.mmap(file.fileno(), _CONTROL_BYTES)
        self.trace = self.folder / "trace"
        self.report = self.folder / "report"
        self.report.touch()
        self.environ = {
            "LD_PRELOAD": str(build(self.folder)),
            "DISK_SHIM_MATCH": self.match,
            "DISK_SHIM_CONTROL": str(control),
            "DISK_SHIM_REPORT": str(self.report),
        }
        if self.traces:
            self.trace.touch()
            self.environ["DISK_SHIM_TRACE"] = str(self.trace)

    def fail(self, words: str) -> None:
        """Let operations fail from now on: an error (EIO, ENOSPC, EROFS) and operations (open write fsync truncate)."""
        text = words.encode()
        # The first byte goes last: it is what switches a half-written text on.
        self._control[0:1] = b"\0"
        self._control[1:] = (b" " + text).ljust(_CONTROL_BYTES - 1, b"\0")
        self._control[0:1] = b" "

    def heal(self) -> None:
        """Let everything succeed again."""
        self._control[0:1] = b"\0"

    def reports(self, what: str) -> list[str]:
        """Return the report's lines of one kind: 'failed', or 'again'."""
        return [line for line in self.report.read_text().splitlines() if line.startswith(f"{what} ")]


@dataclass(frozen=True)
class Operation:
    """One entry of a trace; `end` is where it ends in the trace."""

    kind: str
    path: Path
    offset: int
    data: bytes
    end: int


def read_trace(path: Path) -> Iterator[Operation]:
    """Yield a trace's operations in their order."""
    names: dict[tuple[int, int], Path] = {}
    raw: Any = path.read_bytes()
    place = 0
    while place < len(raw):
        kind, number, _, process, size, offset = _HEAD.unpack_from(raw, place)
        data = raw[place + _HEAD.size : place + _HEAD.size + size]
        place += _HEAD.size + size
        if chr(kind) == "P":
            names[process, number] = Path(data.decode())
        else:
            yield Operation(chr(kind), names[process, number], offset, data, place)
