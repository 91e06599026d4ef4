"""Checkpoints: the log's size and root at one moment, as the body of a signed note.

Source: C2SP tlog-checkpoint, https://c2sp.org/tlog-checkpoint.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from lukhas.audit.merkle import EMPTY_ROOT, HASH_BYTES
from lukhas.audit.note import NoteSigner, NoteVerifier, decode_base64, open_note, split_note
from lukhas.errors import IntegrityError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of a log: its first `size` records, of which `root` is the RFC 6962 root hash."""

    origin: str
    size: int
    root: bytes

    def format(self) -> str:
        """Return the note's text: origin, size and root, a line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    def sign(self, signer: NoteSigner) -> bytes:
        """Return this checkpoint as a signed note."""
        return signer.sign(self.format())


def parse_checkpoint(text: str) -> Checkpoint:
    """Read a checkpoint from a note's text. Lines after the third are allowed, and mean nothing to us.

    Raises:
        IntegrityError: it is none.
    """
    lines = text.split("\n")
    wrong = IntegrityError("The signed note is not a checkpoint of a log.")
    if len(lines) < 4 or lines[-1] or not all(lines[:-1]):
        raise wrong
    origin, number, encoded = lines[:3]
    if not (number.isascii() and number.isdigit()) or len(number) > 18 or (number != "0" and number[0] == "0"):
        raise wrong
    try:
        root = decode_base64(encoded)
    except ValueError:
        raise wrong from None
    size = int(number)
    if len(root) != HASH_BYTES or (size == 0 and root != EMPTY_ROOT):
        raise wrong
    return Checkpoint(origin, size, root)


def open_checkpoint(note: bytes, verifiers: Iterable[NoteVerifier]) -> Checkpoint:
    """Verify a signed checkpoint and return it; its origin must be the name of a key that signed it.

    Raises:
        IntegrityError: it is none, or nobody of these vouches for it.
    """
    known = list(verifiers)
    checkpoint = parse_checkpoint(open_note(note, known))
    own = [one for one in known if one.name == checkpoint.origin]
    if not own:
        raise IntegrityError(f"The checkpoint is of another log: {checkpoint.origin}.")
    if len(own) < len(known):
        open_note(note, own)  # of several logs' keys, those of the others vouch for nothing here
    return checkpoint


def read_checkpoint(note: bytes) -> Checkpoint:
    """Return a signed checkpoint without verifying it.

    Raises:
        IntegrityError: it is none.
    """
    return parse_checkpoint(split_note(note)[0])
