"""The policy file: read when asked, and read again once it has changed and is no longer being written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

import msgspec

from lukhas.errors import PolicyError
from lukhas.modulation.policy_reader import read_packaged_text, read_policy_text

PACKAGED: Final = "packaged"
UNREADABLE: Final = "unreadable"

_Look = tuple[int, int, int]


class FileContent(msgspec.Struct, frozen=True):
    """What a policy file holds at one moment.

    Attributes:
        source: the path, or 'packaged'.
        text: None where it cannot be read.
        problem: why it cannot be read.
    """

    source: str
    text: str | None
    problem: PolicyError | None = None

    @property
    def mark(self) -> str:
        """SHA-256 of the text in hex, or a word where it cannot be read: tells one content from another."""
        return UNREADABLE if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()


class PolicyFile:
    """One configured policy file, or the packaged policy, which never changes while the program runs."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: _Look | None = None
        self._settling: _Look | None = None

    @property
    def path(self) -> Path | None:
        """The file; None for the packaged policy."""
        return self._path

    def read(self) -> FileContent:
        """Return the present content, whether or not it has changed. Reads the disk."""
        # Looked at first, so that a change during the read is seen as one.
        self._seen = self._look()
        if self._path is None:
            return FileContent(PACKAGED, read_packaged_text())
        try:
            return FileContent(str(self._path), read_policy_text(self._path))
        except PolicyError as wrong:
            return FileContent(str(self._path), None, wrong)

    def read_if_settled(self) -> FileContent | None:
        """Return the content where it has changed, and stood still from the last look to this one. Reads the disk.

        Half of a file can be a whole policy: what is still being written must not be taken for what was meant.
        """
        look = self._look()
        if look == self._seen:
            self._settling = None
            return None
        if look != self._settling:
            self._settling = look
            return None
        content = self.read()
        if self._look() != look:
            self.forget()
            return None
        return content

    def forget(self) -> None:
        """Take the content for changed at the next look."""
        self._seen = self._settling = None

    def _look(self) -> _Look | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except (OSError, ValueError):
            return (0, 0, 0)
        return found.st_mtime_ns, found.st_size, found.st_ino
