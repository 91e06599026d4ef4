"""One row against its own bytes, and against what stands before and after it."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from lukhas.audit.merkle import leaf_hash
from lukhas.audit.verify.diagnosis import Scene, diagnose
from lukhas.audit.verify.finding import Finding
from lukhas.audit.verify.line import read_audit_id, read_place
from lukhas.audit.verify.stored import StoredRow
from lukhas.clock import format_utc


class Named(msgspec.Struct, gc=False):
    """The members of a record that have a column of their own, and its key."""

    audit_id: str
    key_id: str
    kind: str
    tenant: str | None
    time: str


NAMED: Final = msgspec.json.Decoder(Named)


def compare_columns(row: StoredRow, named: Named) -> Finding | None:
    """Return what a column says other than the record's bytes; columns are what searches and pages go by."""
    pairs: dict[str, tuple[Any, Any]] = {
        "audit_id": (row.audit_id, named.audit_id),
        "kind": (row.kind, named.kind),
        "tenant": (row.tenant, named.tenant),
        "time_ms": (_format(row.time_ms), named.time),
    }
    for column, (stored, said) in pairs.items():
        if stored != said:
            text = f"Record {row.index} is as it was written, but its column {column} is not: its bytes say {said!r}."
            return Finding("column", text, row.index, None, named.audit_id)
    return None


def judge_hash(row: StoredRow, after: list[StoredRow], tile: bytes | None) -> Finding:
    """Tell which is wrong where a record's bytes do not have the hash that is stored beside them."""
    index, data = row.index, row.data
    if not isinstance(data, bytes):
        return Finding("edited", f"Record {index} was edited: its bytes are not bytes any more.", index)
    leaf = leaf_hash(data)
    witnesses = [tile] if tile is not None else []
    place = read_place(after[0].data) if after and isinstance(after[0].data, bytes) else None
    if place is not None and place.previous is not None and place.index == index + 1:
        witnesses.append(bytes.fromhex(place.previous.decode()))
    if leaf in witnesses and row.leaf_hash not in witnesses:
        text = f"Record {index} is as it was written, but the leaf hash that is stored beside it was changed."
        return Finding("hash", text, index, None, read_audit_id(data))
    text = f"Record {index} was edited: its bytes do not have the hash that was stored with them."
    return Finding("edited", text, index, None, read_audit_id(data))


def judge_place(
    index: int,
    before: bytes | None,
    row: StoredRow,
    after: list[StoredRow],
    number: int | None,
    tiles: tuple[bytes | None, bytes | None],
    is_later: bool,
) -> Finding:
    """Tell what is wrong where a record does not continue the ones before.

    Args:
        index: its index.
        before: the bytes of the record before it.
        row: the row.
        after: the rows after it.
        number: the sequence that its key has come to.
        tiles: the leaf hashes that a stored tile has of the record before and of this one.
        is_later: whether what should stand here stands further on.
    """
    known = tiles[0] is not None and before is not None and leaf_hash(before) == tiles[0]

    def would_fit(one: bytes, two: bytes) -> bool | None:
        return None if None in tiles else (one, two) == tiles

    lines = [one.data for one in after if isinstance(one.data, bytes)]
    return diagnose(Scene(index, before, row.data, lines, number, known, lambda _: is_later, would_fit))


def _format(time_ms: Any) -> str | None:
    try:
        return format_utc(time_ms) if isinstance(time_ms, int) else None
    except (ValueError, OverflowError, OSError):
        return None
