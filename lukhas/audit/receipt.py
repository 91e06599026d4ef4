"""Receipts: one record, its proof of inclusion and a signed checkpoint in one file that is checked offline.

The record's bytes stand in the `extra` line, which nobody vouches for by itself: they count because their hash is the
leaf that the proof leads from.

Source: C2SP tlog-proof, https://c2sp.org/tlog-proof.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from lukhas.audit.checkpoint import Checkpoint, open_checkpoint
from lukhas.audit.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from lukhas.audit.note import NoteVerifier
from lukhas.errors import IntegrityError

RECEIPT_SUFFIX: Final = ".tlog-proof"
_HEADER: Final = b"c2sp.org/tlog-proof@v1"
_LARGEST_RECEIPT_BYTES: Final = 1_500_000
_LONGEST_PROOF: Final = 63
_LONGEST_INDEX: Final = 18
_PLACE: Final = b',"tree":{"index":"'


@dataclass(frozen=True, slots=True)
class Receipt:
    """What shows that one record is in the log.

    Attributes:
        data: the record's bytes as they are stored.
        index: its place in the log, from 0.
        proof: the hashes beside the way from it to the root, its neighbour first.
        note: the signed checkpoint.
    """

    data: bytes
    index: int
    proof: list[bytes]
    note: bytes

    def format(self) -> bytes:
        """Return the receipt's file."""
        lines = [_HEADER, b"extra " + base64.b64encode(self.data), b"index %d" % self.index]
        lines += [base64.b64encode(one) for one in self.proof]
        return b"\n".join([*lines, b"", self.note])


def parse_receipt(raw: bytes) -> Receipt:
    """Read a receipt's file; verifies nothing.

    Raises:
        IntegrityError: it is none.
    """
    wrong = IntegrityError("This is not a receipt.", hint="A receipt begins with the line c2sp.org/tlog-proof@v1.")
    head, gap, note = raw.partition(b"\n\n")
    lines = head.split(b"\n")
    if len(raw) > _LARGEST_RECEIPT_BYTES or not gap or lines[0] != _HEADER or len(lines) < 2:
        raise wrong
    if not lines[1].startswith(b"extra "):
        raise IntegrityError(
            "The receipt does not hold its record.", hint="Fetch it again: GET /api/v1/audit/{id}/proof"
        )
    try:
        data, *proof = [_decode(line) for line in (lines[1].removeprefix(b"extra "), *lines[3:])]
        index = _parse_index(lines[2])
    except (ValueError, IndexError, binascii.Error):
        raise wrong from None
    if len(proof) > _LONGEST_PROOF or any(len(one) != HASH_BYTES for one in proof):
        raise wrong
    return Receipt(data, index, proof, note)


def check_receipt(receipt: Receipt, verifiers: Iterable[NoteVerifier]) -> Checkpoint:
    """Check that the record is in the log that one of these keys vouches for, and return the checkpoint.

    Raises:
        IntegrityError: the checkpoint is none of theirs, or the record is not in it at this place.
    """
    checkpoint = open_checkpoint(receipt.note, verifiers)
    leaf = leaf_hash(receipt.data)
    if not verify_inclusion(leaf, receipt.index, checkpoint.size, receipt.proof, checkpoint.root):
        raise IntegrityError(
            f"The receipt's record is not record {receipt.index} of the log that its checkpoint is of.",
            hint="The record, its index, the proof or the checkpoint was changed.",
        )
    # Quotes inside a text are escaped, so the last such place is the record's own tail.
    _, _, tail = receipt.data.rpartition(_PLACE)
    if tail[:16] != b"%016d" % receipt.index:
        raise IntegrityError(f"Record {receipt.index} of the log says itself that it stands elsewhere.")
    return checkpoint


def _decode(line: bytes) -> bytes:
    decoded = base64.b64decode(line, validate=True)
    if base64.b64encode(decoded) != line:
        raise ValueError("not the one spelling of these bytes")
    return decoded


def _parse_index(line: bytes) -> int:
    digits = line.removeprefix(b"index ")
    if (
        digits == line
        or not digits.isdigit()
        or len(digits) > _LONGEST_INDEX
        or (digits[:1] == b"0" and digits != b"0")
    ):
        raise ValueError("not an index")
    return int(digits)
