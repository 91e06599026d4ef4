"""Prefixed identifiers: `aud_` and 26 characters of Crockford base32.

The 26 characters hold 48 bits of time in ms and 80 random bits, laid out as a ULID, so that ids
sort by the time they were made. Source: https://github.com/ulid/spec.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import Final

from lukhas.errors import InvalidId

PREFIXES: Final = frozenset({"aud", "req", "pol", "key", "sub", "inc"})

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)
_FORM: Final = re.compile(r"([a-z]{3})_[0-7][0-9A-HJKMNP-TV-Z]{25}\Z", re.ASCII)


def encode_base32(value: int) -> str:
    """Encode the low 130 bits of `value` as 26 Crockford base32 characters."""
    pairs = _PAIRS
    return "".join([pairs[value >> shift & 1023] for shift in range(120, -1, -10)])


class _Randomness(threading.local):
    """The system's random bytes, drawn 4 kB at a time: each draw lets go of the interpreter lock."""

    def __init__(self) -> None:
        self.pool = b""
        self.used = 0

    def draw(self) -> bytes:
        start = self.used
        if start + 10 > len(self.pool):
            self.pool, start = os.urandom(4000), 0
        self.used = start + 10
        return self.pool[start : start + 10]


_RANDOMNESS: Final = _Randomness()
# A forked child would otherwise make its parent's ids again.
os.register_at_fork(after_in_child=lambda: _RANDOMNESS.__init__())


def make_id(prefix: str) -> str:
    """Make a new id: `prefix` + `_` + 26 characters, ordered by time, with 80 random bits."""
    moment = time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF
    return f"{prefix}_{encode_base32(moment << 80 | int.from_bytes(_RANDOMNESS.draw(), 'big'))}"


def check_id(prefix: str, text: str) -> str:
    """Return `text` where it has the form of an id with this prefix.

    Raises:
        InvalidId: any other form.
    """
    found = _FORM.match(text)
    if found is None or found[1] != prefix:
        shown = text if len(text) <= 40 and text.isprintable() else "the given text"
        raise InvalidId(
            f"'{shown}' is not a valid id.",
            hint=f"An id of this kind is '{prefix}_' and 26 characters from 0-9 and A-Z without I, L, O, U.",
            param=f"{prefix}_id",
        )
    return text
