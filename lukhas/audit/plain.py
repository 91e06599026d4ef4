"""Turning any value into plain JSON: text keys, finite numbers, no cycles, nothing lost without a mark."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import math
import uuid
from collections.abc import Callable, Mapping, Sequence, Set
from hashlib import sha256
from pathlib import PurePath
from typing import Any, Final, TypeAlias, cast

import msgspec

from lukhas.audit.pair import hide_items, hide_members

Plain: TypeAlias = Any
"""dict with text keys, list, text, int, float, bool or None, at any depth."""

DEEPEST: Final = 64
_LARGEST_INT: Final = 2**64 - 1
_SMALLEST_INT: Final = -(2**63)


def to_plain(
    value: object,
    *,
    text: Callable[[str], str] | None = None,
    member: Callable[[str, object], str | None] | None = None,
    pair: Callable[[str], str | None] | None = None,
) -> Plain:
    """Return the value as plain JSON.

    What JSON cannot say becomes a marked text: `[nan]`, `[cycle]`, `[too deep]`, `[object:Name]`. Lone surrogates are
    written as their escapes, integers outside 64 bits as their digits, bytes as base64. Where texts are mapped, bytes
    are taken as UTF-8 text so that nothing hides in them, or become `[bytes:12:sha256...]`.

    Args:
        value: anything.
        text: maps every text, keys included.
        member: given a mapping's key and value, returns a text that replaces the value, or None.
        pair: given the name in a pair of a name and its value (`lukhas.audit.pair`), returns the kind of the value
            where it is to be replaced, or None.
    """
    return _Walk(text, member, pair).visit(value, 0)


def encode_sorted(value: Plain) -> bytes:
    """Encode plain JSON with sorted keys and without spaces."""
    return _ENCODER.encode(value)


_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class _Walk:
    def __init__(
        self,
        text: Callable[[str], str] | None,
        member: Callable[[str, object], str | None] | None,
        pair: Callable[[str], str | None] | None,
    ) -> None:
        self._map_text = text
        self._member = member
        self._pair = pair
        self._above: set[int] = set()

    def visit(self, value: object, depth: int) -> Plain:
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, enum.Enum):
            return self.visit(value.value, depth)
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int):
            return int(value) if _SMALLEST_INT <= value <= _LARGEST_INT else _describe_int(value)
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else f"[{float(value)}]"
        if isinstance(value, (bytes, bytearray, memoryview)):
            return self._bytes(bytes(cast(bytes, value)))
        if isinstance(value, (datetime.date, datetime.time, datetime.timedelta, uuid.UUID, decimal.Decimal)):
            return msgspec.to_builtins(value, str_keys=True)
        if isinstance(value, PurePath):
            return self._text(str(value))
        return self._container(value, depth)

    def _bytes(self, value: bytes) -> str:
        if self._map_text is None:
            return base64.b64encode(value).decode()
        try:
            return self._text(value.decode())
        except UnicodeDecodeError:
            return f"[bytes:{len(value)}:{sha256(value).hexdigest()}]"

    def _container(self, value: object, depth: int) -> Plain:
        if depth >= DEEPEST:
            return "[too deep]"
        identity = id(value)
        if identity in self._above:
            return "[cycle]"
        self._above.add(identity)
        try:
            return self._open(value, depth)
        finally:
            self._above.discard(identity)

    def _open(self, value: object, depth: int) -> Plain:
        if isinstance(value, Mapping):
            return self._mapping(cast(Mapping[object, object], value), depth)
        if isinstance(value, msgspec.Struct):
            return self._mapping({name: getattr(value, name, None) for name in value.__struct_fields__}, depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
            return self._mapping(fields, depth)
        if isinstance(value, Set):
            return sorted(self._items(list(cast(Set[object], value)), depth), key=encode_sorted)
        if isinstance(value, Sequence):
            return self._items(cast(Sequence[object], value), depth)
        return f"[object:{type(value).__name__}]"

    def _items(self, value: Sequence[object], depth: int) -> list[Plain]:
        if self._pair is not None:
            value = hide_items(value, self._pair)
        return [self.visit(one, depth + 1) for one in value]

    def _mapping(self, value: Mapping[Any, object], depth: int) -> dict[str, Plain]:
        plain: dict[str, Plain] = {}
        if self._pair is not None:
            value = hide_members(value, self._pair)
        for raw, item in value.items():
            name = raw if isinstance(raw, str) else _name_key(raw)
            key = self._text(name)
            replaced = self._member(name, item) if self._member is not None else None
            if key in plain:
                key = _free_name(key, plain)
            plain[key] = self.visit(item, depth + 1) if replaced is None else replaced
        return plain

    def _text(self, value: str) -> str:
        if not value.isascii():
            value = _escape_surrogates(value)
        return self._map_text(value) if self._map_text is not None else str(value)


def _escape_surrogates(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _name_key(raw: object) -> str:
    if isinstance(raw, enum.Enum):
        return _name_key(raw.value)
    if isinstance(raw, str):
        return raw
    if raw is None:
        return "null"
    if isinstance(raw, bool):
        return "true" if raw else "false"
    if isinstance(raw, int):
        return _describe_int(raw)
    if isinstance(raw, tuple):
        return encode_sorted(to_plain(cast(object, raw))).decode()
    plain = to_plain(raw)
    return plain if isinstance(plain, str) else encode_sorted(plain).decode()


def _describe_int(value: int) -> str:
    # Python refuses to write out very long integers, since that takes quadratic time.
    return str(value) if value.bit_length() < 10_000 else f"[integer:{value.bit_length()} bits]"


def _free_name(key: str, taken: Mapping[str, object]) -> str:
    number = 2
    while f"{key}#{number}" in taken:
        number += 1
    return f"{key}#{number}"
