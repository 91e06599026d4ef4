"""Issuing receipts: which record is meant, which checkpoint covers it, and the proof between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from lukhas.audit.checkpoint import read_checkpoint
from lukhas.audit.merkle import verify_inclusion
from lukhas.audit.proof import prove_inclusion
from lukhas.audit.receipt import Receipt
from lukhas.audit.record import parse_record
from lukhas.audit.tile import TileReader
from lukhas.errors import IntegrityError, InvalidRequest, NotFound

if TYPE_CHECKING:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.audit.store import StoredRecord

_LONGEST_NUMBER: Final = 9
_LOST: Final = "lost"


def choose_record(records: Sequence[StoredRecord], which: str | None) -> StoredRecord:
    """Return the record of one audit id that is meant.

    Args:
        records: all of the id's, in the log's order; at least one.
        which: 'decision', 'outcome' (the last, and one that says 'lost' only where there is no other), or the record's
            place among them, from 0; None means the decision, else the first record.

    Raises:
        NotFound: the id has no such record.
        InvalidRequest: `which` has another form.
    """
    if which is None:
        return next((one for one in records if one.kind == "decision"), records[0])
    if which == "decision":
        found = [one for one in records if one.kind == which]
    elif which == "outcome":
        found = [one for one in records if one.kind == which][::-1]
        found.sort(key=_is_lost)  # stable: the last stays the first
    elif which.isascii() and which.isdigit() and len(which) <= _LONGEST_NUMBER:
        found = records[int(which) : int(which) + 1]
    else:
        raise InvalidRequest(
            "There is no such kind of record.", hint="Ask for decision, outcome, or a number from 0.", param="record"
        )
    if not found:
        raise NotFound(
            f"There is no record '{which}' of {records[0].audit_id}.", hint=f"It has {len(records)}, counted from 0."
        )
    return found[0]


def issue_receipt(
    record: StoredRecord, tiles: TileReader, checkpoints: CheckpointStore, *, sign: bool = True
) -> Receipt:
    """Make a record's receipt, from the first checkpoint that covers it; blocks.

    Args:
        record: as it was read from the log.
        tiles: the log's tiles.
        checkpoints: the log's checkpoints.
        sign: whether to sign a checkpoint where none covers the record yet.

    Raises:
        NotFound: no checkpoint covers the record, and none is to be signed.
        IntegrityError: the proof does not lead from the record to the checkpoint: the log is damaged.
        StorageUnavailable: the database cannot be read or written.
    """
    found = checkpoints.first_covering(record.index)
    if found is None and sign:
        found = checkpoints.sign()
    if found is None:
        raise NotFound(
            f"No checkpoint covers record {record.index} yet.",
            hint="A running gateway signs one every few seconds; or run: lukhas audit checkpoint",
        )
    checkpoint = read_checkpoint(found.note)
    if checkpoint.size <= record.index:
        raise IntegrityError(f"The newest checkpoint is of {checkpoint.size} records, without record {record.index}.")
    proof = prove_inclusion(tiles, record.index, checkpoint.size)
    # A receipt is kept for years, and opened when it is too late to ask for another.
    if not verify_inclusion(record.leaf_hash, record.index, checkpoint.size, proof, checkpoint.root):
        raise IntegrityError(
            f"Record {record.index} cannot be proved to be in the log that was signed.",
            hint="Run: lukhas audit verify",
        )
    return Receipt(record.data, record.index, proof, found.note)


def _is_lost(record: StoredRecord) -> bool:
    body = parse_record(record.data)["body"]
    return isinstance(body, dict) and cast("dict[str, Any]", body).get("status") == _LOST
