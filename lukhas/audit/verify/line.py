"""Reading one line of the log without trusting it."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from lukhas.audit.record import LARGEST_RECORD_BYTES, encode_again, parse_record

LONGEST_LINE_BYTES: Final = 1_000_000
_PLACE: Final = re.compile(
    rb',"tree":\{"index":"(\d{16})",(?:"previous":"([0-9a-f]{64})",)?"sequence":"(\d{16})"\}\}\Z', re.ASCII
)
_LONGEST_PLACE: Final = 160
_AUDIT_ID: Final = re.compile(rb'\{"audit_id":"([0-9A-Za-z_]{1,64})"')


class Place(msgspec.Struct, frozen=True, gc=False):
    """What a line says of its own place: index, hex of the leaf hash before it (None in schema 1), sequence."""

    index: int
    previous: bytes | None
    sequence: int


class KeyOf(msgspec.Struct, gc=False):
    """The one member that is needed of every record; decoding it also shows that the line is JSON."""

    key_id: str


KEY_DECODER: Final = msgspec.json.Decoder(KeyOf)


def read_place(line: bytes) -> Place | None:
    """Return what the line's tail says; None where it has not the tail's form."""
    found = _PLACE.search(line, max(0, len(line) - _LONGEST_PLACE))
    return None if found is None else Place(int(found[1]), found[2], int(found[3]))


def read_key(line: bytes) -> str | None:
    """Return the record's key id; None where the line is not JSON or has none."""
    try:
        return KEY_DECODER.decode(line).key_id
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def read_audit_id(line: bytes) -> str | None:
    """Return the audit id that the line begins with; None where it cannot be read."""
    found = _AUDIT_ID.match(line)
    return None if found is None else found[1].decode()


def put_place(line: bytes, index: int, previous: bytes, sequence: int | None = None) -> bytes:
    """Return the line as it would be at another place.

    Args:
        line: one whose tail has the right length, whatever stands in it.
        index: the index to write.
        previous: hex of the leaf hash before it.
        sequence: the sequence to write; None keeps the digits.
    """
    digits = b"%016d" % sequence if sequence is not None else line[-19:-3]
    return b'%b,"tree":{"index":"%016d","previous":"%b","sequence":"%b"}}' % (line[:-145], index, previous, digits)


def describe_form(line: bytes) -> str | None:
    """Say what about the line is not as the log writes it; None where its form is right."""
    if len(line) > LARGEST_RECORD_BYTES:
        return f"it has {len(line)} bytes, and no record has more than {LARGEST_RECORD_BYTES}"
    if not line:
        return "the line is empty"
    try:
        document: dict[str, Any] = parse_record(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "it is not JSON"
    if read_place(line) is None:
        return "it does not end as a record of the log does"
    try:
        again = encode_again(document)
    except (ValueError, TypeError, RecursionError):
        return "it is not canonical JSON"
    if again != line:
        return "it is not canonical JSON: the log sorts keys, and writes no spaces and one spelling of each value"
    if not isinstance(document.get("key_id"), str):
        return "it names no key"
    return None
