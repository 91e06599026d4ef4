"""Strings in stream events that this dialect does not know: each kind of event and place is a run of its own."""

from __future__ import annotations

from typing import Any, Final

from lukhas.openai.call import AnswerGuard, Path, TextChannel, replace_values, walk_strings
from lukhas.openai.response_guard import AnswerPass
from lukhas.openai.response_item import Item, is_server_word

_MOST_RUNS: Final = 256
_OWN_FIELDS: Final = frozenset(("type", "item_id", "sequence_number", "obfuscation", "event_id", "response_id"))


class LooseStrings:
    """Guards the strings of unknown events.

    Attributes:
        is_blocked: whether one of them may not pass.
    """

    def __init__(self, guard: AnswerGuard, one: AnswerPass) -> None:
        self._guard = guard
        self._pass = one
        self._channels: dict[tuple[str, Path], TextChannel] = {}
        self._last: dict[str, Item] = {}
        self.is_blocked = False

    def guard(self, event: Item) -> Item | None:
        """Return an event with what may be released of its strings now; itself where that is all.

        None where it holds media that may not pass.
        """
        edits: dict[Path, str] = {}
        kind = event["type"]
        for path, text in walk_strings(event, skip=lambda place: len(place) == 1 and place[0] in _OWN_FIELDS):
            if not text or (len(path) == 1 and is_server_word(str(path[0]), text)):
                continue
            media = self._pass.find_media(str(path[-1]), text)
            if media is not None:
                if not self._pass.admit(media):
                    return None
                continue
            out = self._feed(kind, path, text)
            if out != text:
                edits[path] = out
            if self.is_blocked:
                return None
        new = replace_values(event, edits)
        if self._channels:
            self._last[kind] = new
        return new

    def _feed(self, kind: str, path: Path, text: str) -> str:
        channel = self._channels.get((kind, path))
        if channel is None:
            if len(self._channels) >= _MOST_RUNS:
                # Not without bound: what comes after is judged piece by piece.
                out = self._pass.text("other", text)
                self.is_blocked = self.is_blocked or self._pass.take_hit()
                return out
            channel = self._channels[kind, path] = self._guard.open("transcript" if "transcript" in kind else "other")
        out = channel.feed(text)
        self.is_blocked = self.is_blocked or channel.is_blocked
        return out

    def finish(self, only: str | None = None) -> list[Item]:
        """Return events with the rest of every run, or of those of one kind of event.

        Each is its kind's last event over again, with nothing but the rest in it.
        """
        tails: dict[str, dict[Path, Any]] = {}
        ended = [key for key in self._channels if only is None or key[0] == only]
        for kind, path in ended:
            channel = self._channels[kind, path]
            tail = channel.finish()
            self.is_blocked = self.is_blocked or channel.is_blocked
            if tail:
                tails.setdefault(kind, {})[path] = tail
        events: list[Item] = []
        for kind, edits in tails.items():
            last = self._last.get(kind)
            if last is None:
                continue
            blank: dict[Path, Any] = {
                path: edits.get(path, "") for of, path in self._channels if of == kind and _holds(last, path)
            }
            events.append(replace_values(last, blank))
        for key in ended:
            del self._channels[key]
        return events


def _holds(event: Item, path: Path) -> bool:
    return any(place == path for place, _ in walk_strings(event, skip=lambda place: path[: len(place)] != place))
