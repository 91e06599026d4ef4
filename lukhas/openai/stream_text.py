"""Puts the text of a streamed answer together again, from the events that its caller got."""

from __future__ import annotations

from typing import Any, Final, cast

import orjson

from lukhas.openai.sse import SseSplitter, event_data

# Said once for each part, however often they are repeated.
_NAMES: Final = frozenset(("id", "role", "type", "name", "object"))
_DEEPEST: Final = 8


class StreamText:
    """Joins the pieces of each run of text in a stream, in any dialect, up to a limit.

    Where a run stands reads like `choices.0.content` or `output.0.0.output_text`.

    Attributes:
        is_full: whether the limit was reached, and the rest left out.
    """

    def __init__(self, most_chars: int) -> None:
        self.is_full = False
        self._pieces: dict[str, list[str]] = {}
        self._left = most_chars
        self._splitter = SseSplitter()

    @property
    def runs(self) -> dict[str, str]:
        """The text so far, by where it stands."""
        return {name: "".join(pieces) for name, pieces in self._pieces.items()}

    def take(self, block: bytes) -> None:
        """Take what was released next, whole events."""
        if self.is_full:
            return
        for raw in self._splitter.feed(block):
            data = event_data(raw)
            if data is None or data == b"[DONE]":
                continue
            try:
                value: Any = orjson.loads(data)
            except orjson.JSONDecodeError:
                continue
            if isinstance(value, dict):
                self._take_event(cast("dict[str, Any]", value))

    def _take_event(self, event: dict[str, Any]) -> None:
        kind: Any = event.get("type")
        if isinstance(kind, str) and kind.startswith("response."):
            self._take_response(kind, event)
            return
        choices: Any = event.get("choices")
        for position, choice in enumerate(cast("list[Any]", choices) if isinstance(choices, list) else []):
            if isinstance(choice, dict):
                fields = cast("dict[str, Any]", choice)
                place = f"choices.{_index(fields, position)}"
                self._walk(place, fields.get("delta"), 0)
                self._add(f"{place}.text", fields.get("text"))
        self._walk("error", event.get("error"), 0)

    def _take_response(self, kind: str, event: dict[str, Any]) -> None:
        place = ".".join(["output", *(str(event[name]) for name in ("output_index", "content_index") if name in event)])
        delta: Any = event.get("delta")
        if kind.endswith(".delta") and isinstance(delta, str):
            self._add(f"{place}.{kind[len('response.') : -len('.delta')]}", delta)
        elif kind == "response.output_item.added" and isinstance(event.get("item"), dict):
            self._add(f"{place}.name", cast("dict[str, Any]", event["item"]).get("name"))
        elif kind in ("response.failed", "response.incomplete") and isinstance(event.get("response"), dict):
            self._walk("error", cast("dict[str, Any]", event["response"]).get("error"), 0)

    def _walk(self, place: str, value: Any, depth: int) -> None:
        if isinstance(value, str):
            self._add(place, value)
        elif isinstance(value, dict) and depth < _DEEPEST:
            for name, part in cast("dict[str, Any]", value).items():
                inner = f"{place}.{name}"
                if name not in _NAMES or inner not in self._pieces:
                    self._walk(inner, part, depth + 1)
        elif isinstance(value, list) and depth < _DEEPEST:
            for position, part in enumerate(cast("list[Any]", value)):
                at = _index(cast("dict[str, Any]", part), position) if isinstance(part, dict) else position
                self._walk(f"{place}.{at}", part, depth + 1)

    def _add(self, place: str, text: Any) -> None:
        if not isinstance(text, str) or not text or self.is_full:
            return
        # Names cost room too: a stream may make up as many as it likes.
        cost = len(text) + (0 if place in self._pieces else len(place))
        if cost > self._left:
            text = text[: max(0, self._left)]
            self.is_full = True
        self._left -= cost
        if text:
            self._pieces.setdefault(place, []).append(text)


def _index(part: dict[str, Any], position: int) -> int:
    index: Any = part.get("index", position)
    return index if type(index) is int else position
