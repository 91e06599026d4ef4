"""A small durable value in a file whose room was taken beforehand, so that it can be written on a full disk."""

from __future__ import annotations

import os
import struct
from hashlib import sha256
from pathlib import Path
from typing import Final

from lukhas.storage.reserve import allocate

_HEAD: Final = struct.Struct(">8sQI32s")
_MAGIC: Final = b"LUKSLOT1"


class SlotFile:
    """Two slots that are written in turn and in place; of a write that a power cut tore, the other slot is left.

    Safe for one thread at a time.
    """

    def __init__(self, path: Path, slot_bytes: int = 131_072) -> None:
        """Name the file; nothing is opened yet.

        Args:
            path: where it is, or will be.
            slot_bytes: room for one value and its head of 52 bytes. The file takes twice as much.
        """
        self._path = path
        self._slot_bytes = slot_bytes
        self._handle: int | None = None
        self._number = 0

    def read(self) -> bytes:
        """Return the newest whole value; empty where there is none.

        Raises:
            OSError: the file is there and cannot be read.
        """
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return b""
        found = [self._parse(data[start : start + self._slot_bytes]) for start in (0, self._slot_bytes)]
        self._number, value = max(found)
        return value

    def prepare(self) -> None:
        """Take the file's room.

        Raises:
            OSError: there is none, or the file cannot be opened.
        """
        if self._handle is not None:
            return
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(handle).st_size < 2 * self._slot_bytes:
                allocate(handle, 2 * self._slot_bytes, self._path.parent)
        except BaseException:
            os.close(handle)
            raise
        self._handle = handle

    def write(self, value: bytes) -> None:
        """Replace the value, durably. After a failure the next write uses a new handle.

        Raises:
            ValueError: it does not fit a slot.
            OSError: it could not be written; the value before it still stands.
        """
        if len(value) > self._slot_bytes - _HEAD.size:
            raise ValueError("the value does not fit its slot")
        self.prepare()
        handle = self._handle
        assert handle is not None
        number = self._number + 1
        data = _HEAD.pack(_MAGIC, number, len(value), _digest(number, value)) + value
        try:
            start = (number & 1) * self._slot_bytes
            if os.pwrite(handle, data, start) != len(data):
                raise OSError(28, "a part was not written")
            os.fdatasync(handle)
        except OSError:
            # Whether the kernel keeps the pages of a failed sync is not known, so the same handle is not asked again.
            self.close()
            raise
        self._number = number

    def close(self) -> None:
        """Close the file. It can be used again."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def _parse(self, slot: bytes) -> tuple[int, bytes]:
        if len(slot) < _HEAD.size:
            return 0, b""
        magic, number, size, digest = _HEAD.unpack_from(slot)
        value = slot[_HEAD.size : _HEAD.size + size]
        if magic != _MAGIC or len(value) != size or _digest(number, value) != digest:
            return 0, b""
        return number, value


def _digest(number: int, value: bytes) -> bytes:
    return sha256(number.to_bytes(8, "big") + value).digest()
