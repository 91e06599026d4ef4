"""Reads and writes the events of a Responses stream, and keeps their numbers in order."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, cast

import orjson

from lukhas.errors import UpstreamBroken
from lukhas.openai.response_item import Item, is_id
from lukhas.openai.sse import event_data
from lukhas.openai.wire import encode_json

LIFECYCLE: Final = frozenset(("response.created", "response.in_progress", "response.queued"))
ENDINGS: Final = frozenset(("response.completed", "response.incomplete", "response.failed", "response.cancelled"))
KEEP_ALIVE: Final = b":\n\n"
_LONGEST_TYPE_CHARS: Final = 128
_NUMBERS: Final = ("sequence_number", "output_index", "content_index", "summary_index")


def read_event(raw: bytes) -> tuple[Item | None, bool]:
    """Return an event's JSON object, and whether its bytes hold nothing beside it; no object where it has no data.

    Raises:
        UpstreamBroken: data that is not a JSON object with a type.
    """
    is_plain = True
    if raw.startswith(b"event: "):
        cut = raw.find(b"\n", 7)
        data: bytes | None = raw[cut + 7 : -2]
        if raw[cut + 1 : cut + 7] != b"data: " or raw.find(b"\n", cut + 7) != len(raw) - 2 or b"\r" in raw:
            data, is_plain = event_data(raw), False
    else:
        cut = -1
        data = event_data(raw)
        is_plain = data is not None and len(data) + 8 == len(raw)
    if data is None:
        return None, False
    try:
        event: Any = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise UpstreamBroken("The upstream sent an event that is not JSON.") from None
    if not isinstance(event, dict):
        raise UpstreamBroken("The upstream sent an event that is not a JSON object.")
    fields = cast("Item", event)
    kind: Any = fields.get("type")
    if not isinstance(kind, str):
        if "error" not in fields:
            raise UpstreamBroken("The upstream sent an event without a type.")
        # Some servers write their errors as they do in chat.
        fields["type"] = "error"
        return fields, False
    name = _encode_type(kind)
    return fields, is_plain and (cut < 0 or raw[7:cut] == name)


def clean_event(event: Item) -> Item:
    """Return an event without those of its usual fields that are not of their form; itself where all are."""
    wrong = [name for name in _NUMBERS if name in event and type(event[name]) is not int]
    for name in ("item_id", "obfuscation"):
        if name in event and not is_id(event[name]):
            wrong.append(name)
    return {name: value for name, value in event.items() if name not in wrong} if wrong else event


@lru_cache(maxsize=256)
def _encode_type(kind: str) -> bytes:
    if len(kind) > _LONGEST_TYPE_CHARS or not kind.isascii() or not kind.isprintable() or " " in kind:
        raise UpstreamBroken("The upstream sent an event of an unreadable type.")
    return kind.encode()


class EventWriter:
    """Writes a stream's events with numbers that rise by one, and keeps them until they are drained.

    As long as nothing was changed these are upstream's own numbers, and its bytes go on as they came.
    """

    __slots__ = ("_has_names", "_number", "_out", "_seen")

    def __init__(self) -> None:
        self._number: int | None = None
        self._has_names = False
        self._seen = False
        self._out: list[bytes] = []

    def emit(self, event: Item) -> None:
        """Add an event that was made or changed here."""
        self._out.append(self.write(event))

    def relay(self, raw: bytes, old: Item, new: Item, is_plain: bool) -> None:
        """Add an event of upstream's: as it came where the new one is the old one."""
        self._out.append(self.pass_on(raw, old, is_plain=is_plain) if new is old else self.write(new))

    def drain(self) -> list[bytes]:
        """Return what was added since the last time."""
        out, self._out = self._out, []
        return out

    def drain_last(self) -> bytes:
        """Return what was added last, and keep the rest."""
        return self._out.pop()

    def note(self, raw: bytes) -> None:
        """See from the stream's first event whether its events have names."""
        if not self._seen:
            self._seen = True
            self._has_names = raw.startswith((b"event:", b"\xef\xbb\xbfevent:"))

    def pass_on(self, raw: bytes, event: Item, *, is_plain: bool) -> bytes:
        """Return an unchanged event: its own bytes where its number is the next one."""
        number: Any = event.get("sequence_number")
        last = self._number
        if is_plain:
            if last is None and (number is None or type(number) is int):
                self._number = number
                return raw
            if last is not None and number == last + 1 and type(number) is int:
                self._number = number
                return raw
        return self.write(event)

    def write(self, event: Item) -> bytes:
        """Return an event's bytes, numbered if upstream numbers its events."""
        number: Any = event.get("sequence_number")
        if self._number is not None:
            number = self._number + 1
        if isinstance(number, int):
            self._number = number
            event = {**event, "sequence_number": number}
        data = encode_json(event)
        if not self._has_names:
            return b"data: " + data + b"\n\n"
        return b"event: " + _encode_type(event["type"]) + b"\ndata: " + data + b"\n\n"
