"""Server-sent events, cut out of a byte stream without losing or changing a byte.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream. Lines end with LF, CRLF
or CR, in any mixture; an empty line ends an event. UTF-8 is never decoded here, so a character may be cut anywhere.
"""

from __future__ import annotations

import re
from typing import Final

from lukhas.errors import UpstreamBroken

_BOM: Final = b"\xef\xbb\xbf"
# One line's end and an empty line behind it. The lookahead keeps a CRLF from being read as two ends.
_EVENT_END: Final = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
DEFAULT_LIMIT_BYTES: Final = 16_000_000


class SseSplitter:
    """Cuts a stream into whole events, whichever way it arrives in chunks.

    The events and the leftover, joined, are the stream byte for byte, and do not depend on where it was cut. An empty
    line that ends nothing is returned as an event of its own, without data.
    """

    __slots__ = ("_at_start", "_has_cr", "_limit_bytes", "_pending", "_scanned")

    def __init__(self, limit_bytes: int = DEFAULT_LIMIT_BYTES) -> None:
        self._pending = bytearray()
        self._scanned = 0
        self._at_start = True
        self._has_cr = False
        self._limit_bytes = limit_bytes

    def feed(self, chunk: bytes) -> list[bytes]:
        r"""Take the next bytes and return the events that they complete, each with its empty line.

        An event that ends in CR is held until the next byte shows whether an LF belongs to it.

        Raises:
            UpstreamBroken: one event is longer than the limit.
        """
        if (
            not self._pending
            and chunk.endswith(b"\n\n")
            and b"\r" not in chunk
            and b"\n\n\n" not in chunk
            and not chunk.startswith((b"\n", b"\xef"))
            and len(chunk) <= self._limit_bytes
        ):
            self._at_start = False
            if chunk.find(b"\n\n") == len(chunk) - 2:
                return [chunk]
            events = chunk.split(b"\n\n")
            events.pop()
            return [event + b"\n\n" for event in events]
        return self._feed_slowly(chunk)

    def flush(self) -> bytes:
        """Return what is left when the stream is over, and forget it.

        It is an unfinished event, or the last one of a stream whose lines end with CR; `event_data` reads either.
        """
        rest = bytes(self._pending)
        self._forget()
        return rest

    def _feed_slowly(self, chunk: bytes) -> list[bytes]:
        pending = self._pending
        pending += chunk
        self._has_cr = self._has_cr or b"\r" in chunk
        size = len(pending)
        events: list[bytes] = []
        start = 0
        # An end that was half seen may begin up to two bytes before what is new.
        position = max(0, self._scanned - 2)
        while True:
            end = self._find_end(start, max(position, start))
            if end < 0 or (end == size and pending[end - 1] == 13):
                break
            if end - start > self._limit_bytes:
                raise self._too_long()
            events.append(bytes(pending[start:end]))
            self._at_start = False
            start = position = end
        if size - start > self._limit_bytes:
            raise self._too_long()
        if start:
            del pending[:start]
            self._has_cr = b"\r" in pending
        self._scanned = len(pending)
        return events

    def _find_end(self, start: int, position: int) -> int:
        pending = self._pending
        first = start + 3 if self._at_start and pending.startswith(_BOM) else start
        blank = _LINE_END.match(pending, first)
        if blank is not None:
            return blank.end()
        if not self._has_cr:
            found = pending.find(b"\n\n", position)
            return found + 2 if found >= 0 else -1
        match = _EVENT_END.search(pending, position)
        return match.end() if match is not None else -1

    def _forget(self) -> None:
        self._pending.clear()
        self._scanned = 0
        self._has_cr = False

    def _too_long(self) -> UpstreamBroken:
        self._forget()
        return UpstreamBroken(f"The upstream sent an event of more than {self._limit_bytes} bytes.")


def event_data(raw: bytes) -> bytes | None:
    r"""Return an event's data: its `data` lines joined by LF; None where it has none, as in a comment."""
    if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and b"\r" not in raw and raw.endswith(b"\n\n"):
        return raw[6:-2]
    lines: list[bytes] = []
    for line in _LINE_END.split(raw.removeprefix(_BOM)):
        name, _, value = line.partition(b":")
        if name == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines) if lines else None


def is_done(data: bytes | None) -> bool:
    """Tell whether an event's data is the chat dialect's last word, `[DONE]`."""
    return data is not None and data.strip() == b"[DONE]"
