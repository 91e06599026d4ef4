"""The bytes of one audit record: canonical JSON, at most 60,000 bytes, with a fixed-width tail.

These bytes are stored as they are, exported as one JSON line, and hashed as one leaf. The tail names the record's
place, and the leaf hash of the record before it, so that lines alone show which of them was edited. It is spliced in
under the log's lock, so everything else is encoded before; its key, "tree", sorts last. Schema 1 had no "previous".
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec

from lukhas.audit.plain import Plain, encode_sorted, to_plain
from lukhas.clock import format_utc

SCHEMA: Final = 2
LARGEST_RECORD_BYTES: Final = 60_000
NOTHING_BEFORE: Final = "0" * 64
_TAIL: Final = b'%b,"tree":{"index":"%016d","previous":"%b","sequence":"%016d"}}'
_TAIL_BYTES: Final = 145
# A caller's text may stand in the envelope; the body has all the room that these leave.
_LONGEST_NAME: Final = 256
_MOST_ITEMS: Final = (256, 64, 16, 4, 1)
_LONGEST_TEXT: Final = (8_000, 2_000, 500, 120, 40)

Kind = Literal[
    "decision",
    "outcome",
    "refusal",
    "signal",
    "key",
    "policy",
    "limit",
    "note",
    "unrecorded",
    "erasure",
    "access",
    "segment",
]


class AuditRecord(msgspec.Struct, frozen=True, gc=False):
    """What is to be recorded.

    Attributes:
        kind: what happened; a plain word, such as 'decision' or 'outcome'.
        audit_id: `aud_...`; the records of one call share it.
        tenant: whose it is.
        key_id: the API key that acted; its records are numbered without gaps.
        request_id: the HTTP request's id, where there is one.
        time_ms: when, in ms since the epoch.
        session: the session as `sub_...`, never as the caller wrote it.
        user: the end user as `sub_...`.
        body: the rest: Structs, dicts, lists, text, numbers. Already redacted.
    """

    kind: str
    audit_id: str
    tenant: str
    key_id: str
    request_id: str | None
    time_ms: int
    session: str | None
    user: str | None
    body: Any


class Entry(NamedTuple):
    """A record that is encoded but for its tail."""

    audit_id: str
    kind: str
    tenant: str
    key_id: str
    time_ms: int
    head: bytes


class _Envelope(msgspec.Struct, frozen=True, gc=False):
    """The record's top level. Every name sorts before 'tree'."""

    audit_id: str
    body: Any
    end_user: str | None
    key_id: str
    kind: str
    request_id: str | None
    schema: int
    session: str | None
    tenant: str
    time: str


_ENCODER: Final = msgspec.json.Encoder(order="sorted")


def encode_record(record: AuditRecord) -> Entry:
    """Encode a record but for its tail. Never larger than the limit; what is cut leaves its count and SHA-256.

    What JSON cannot hold is written as a marked text (`lukhas.audit.plain`), so this does not fail on any body.
    """
    envelope = _Envelope(
        record.audit_id,
        record.body,
        record.user,
        record.key_id,
        record.kind,
        record.request_id,
        SCHEMA,
        record.session,
        record.tenant,
        _format_time(record.time_ms),
    )
    try:
        encoded = _ENCODER.encode(envelope)
        # The encoder writes NaN and infinities as null, which would lose them.
        fits = len(encoded) <= LARGEST_RECORD_BYTES - _TAIL_BYTES and not (
            encoded.count(b"null") > 3 - _count_names(record) and _holds_odd_number(record.body)
        )
    except (TypeError, ValueError, RecursionError, OverflowError):
        fits = False
        encoded = b""
    if not fits:
        encoded = _encode_with_care(envelope)
    return Entry(record.audit_id, record.kind, record.tenant, record.key_id, record.time_ms, encoded[:-1])


def splice_tail(head: bytes, index: int, sequence: int, previous: bytes | None = None) -> bytes:
    """Return the record's final bytes.

    Args:
        head: an `Entry`'s head.
        index: the leaf's index in the log, from 0.
        sequence: the record's number among those of its key, from 1.
        previous: leaf hash of the record before it, 32 bytes; None before the first.
    """
    return _TAIL % (head, index, (previous.hex() if previous else NOTHING_BEFORE).encode(), sequence)


def parse_record(data: bytes) -> dict[str, Any]:
    """Return a stored record as a dict. Encoding it with sorted keys gives the same bytes."""
    return msgspec.json.decode(data, type=dict[str, Any])


def encode_again(document: dict[str, Any]) -> bytes:
    """Return the canonical bytes of a parsed record."""
    return _ENCODER.encode(document)


def _count_names(record: AuditRecord) -> int:
    return (record.request_id is not None) + (record.session is not None) + (record.user is not None)


def _holds_odd_number(value: object) -> bool:
    waiting: list[Any] = [(value,)]
    while waiting:
        one = waiting.pop()
        values: Iterable[object]
        if isinstance(one, dict):
            values = cast(dict[object, object], one).values()
        elif isinstance(one, (list, tuple, set, frozenset)):
            values = cast(list[object], one)
        elif isinstance(one, msgspec.Struct):
            values = msgspec.structs.astuple(one)
        else:
            return True  # something that only the careful path looks into
        for item in values:
            if item is None or isinstance(item, (str, int)):
                continue
            if not isinstance(item, float):
                waiting.append(item)
            elif not math.isfinite(item):
                return True
    return False


def _encode_with_care(envelope: _Envelope) -> bytes:
    room = LARGEST_RECORD_BYTES - _TAIL_BYTES
    plain: dict[str, Any] = to_plain(envelope)
    encoded = encode_sorted(plain)
    if len(encoded) <= room:
        return encoded
    body = plain["body"]
    for name, value in plain.items():
        if name != "body" and isinstance(value, str):
            plain[name] = _cut_text(value, _LONGEST_NAME)
    for items, text in zip(_MOST_ITEMS, _LONGEST_TEXT, strict=True):
        plain["body"] = _cut(body, items, text)
        encoded = encode_sorted(plain)
        if len(encoded) <= room:
            return encoded
    whole = encode_sorted(body)
    plain["body"] = {"_cut": {"bytes": len(whole), "sha256": sha256(whole).hexdigest()}}
    return encode_sorted(plain)


def _cut(value: Plain, items: int, text: int) -> Plain:
    if isinstance(value, str):
        return _cut_text(value, text)
    if isinstance(value, list):
        listed = cast(list[Plain], value)
        kept = [_cut(one, items, text) for one in listed[:items]]
        return [*kept, {"_cut": _account(listed[items:])}] if len(listed) > items else kept
    if isinstance(value, dict):
        members = sorted(cast(dict[str, Plain], value).items())
        shorter = {_cut_text(name, text): _cut(one, items, text) for name, one in members[:items]}
        if len(members) > items:
            shorter[_pick_name(shorter)] = _account(members[items:])
        return shorter
    return value


def _account(gone: list[Any]) -> dict[str, Plain]:
    return {"count": len(gone), "sha256": sha256(encode_sorted(gone)).hexdigest()}


def _pick_name(taken: dict[str, Plain]) -> str:
    name = "_cut"
    while name in taken:
        name = f"_{name}"
    return name


def _cut_text(value: str, longest: int) -> str:
    if len(value) <= longest:
        return value
    gone = value[longest:].encode()
    return f"{value[:longest]}[cut:{len(gone)} bytes:{sha256(gone).hexdigest()}]"


def _format_time(ms: int) -> str:
    seconds, millis = divmod(ms, 1000)
    return f"{_format_second(seconds)}.{millis:03d}Z"


@lru_cache(maxsize=8)
def _format_second(seconds: int) -> str:
    return format_utc(seconds * 1000)[:-5]
