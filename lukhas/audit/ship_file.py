"""Shipping to a folder: another disk, or a mount of another machine."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path

from lukhas.audit.ship_target import LARGEST_BYTES, refuse_other
from lukhas.errors import StorageUnavailable


class FileTarget:
    """A folder. Each file is written beside its place, synced and renamed, so that readers see it whole."""

    def __init__(self, root: Path) -> None:
        """Name the folder. It is made at the first `put`; where it vanishes later, it is not made again."""
        self._root = root
        self._was_there = False

    def __str__(self) -> str:
        return str(self._root)

    def put(self, path: str, data: bytes, immutable: bool) -> None:
        """Store bytes durably; partial tiles of a tile that is full now are removed.

        Raises:
            IntegrityError: something else is there, and it is immutable.
            StorageUnavailable: the folder is gone, full or not writable.
        """
        place = self._root / path
        try:
            if immutable and (there := self._read(place)) is not None:
                if there != data:
                    raise refuse_other(self, path)
                return
            self._make_root()
            _make_folder(place.parent, self._root)
            _write(place, data)
            partial = place.with_name(f"{place.name}.p")
            if partial.is_dir():
                shutil.rmtree(partial)
        except OSError as failure:
            raise StorageUnavailable(f"{self} cannot be written: {failure.strerror}.") from failure

    def get(self, path: str) -> bytes | None:
        """Return a file's bytes; None where it is not there.

        Raises:
            StorageUnavailable: the folder is gone, or the file cannot be read.
        """
        try:
            found = self._read(self._root / path)
            if found is None and self._was_there:
                self._root.stat()
        except OSError as failure:
            raise StorageUnavailable(f"{self} cannot be read: {failure.strerror}.") from failure
        self._was_there = self._was_there or found is not None
        return found

    @staticmethod
    def _read(place: Path) -> bytes | None:
        try:
            with place.open("rb") as file:
                return file.read(LARGEST_BYTES + 1)
        except FileNotFoundError:
            return None

    def _make_root(self) -> None:
        if not self._was_there:
            self._root.mkdir(parents=True, exist_ok=True)
            self._was_there = True
        self._root.stat()


def _make_folder(folder: Path, root: Path) -> None:
    if folder.is_dir() or folder == root:
        return
    _make_folder(folder.parent, root)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _write(place: Path, data: bytes) -> None:
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    try:
        with draft.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
