"""Guards the tokens of a choice's logprobs: what was not released as text is not released token by token either.

The tokens of each list are one run of text, and so are the alternatives of each rank. An entry goes out when the run
has released its token and every alternative has been released by its own run.
"""

from __future__ import annotations

import re
from collections import deque
from typing import Any, Final, NamedTuple, cast

from lukhas.openai.call import AnswerGuard, TextChannel

# A token that is no whole character is written as escapes of its bytes, with or without this prefix.
_PREFIX: Final = "bytes:"
_ESCAPES: Final = re.compile(r"(?:\\x[0-9a-fA-F]{2})+")


class LogprobGuard:
    """The guard of one choice's logprobs.

    Attributes:
        is_blocked: the tokens hold something that ends the choice.
    """

    __slots__ = ("_guard", "_is_dropped", "_runs", "is_blocked")

    def __init__(self, guard: AnswerGuard) -> None:
        self._guard = guard
        self._runs: dict[str, _Run] = {}
        self._is_dropped = False
        self.is_blocked = False

    def feed(self, value: Any) -> dict[str, Any] | None:
        """Take the next logprobs and return those that may be released now; None where there are none.

        Where they are of an unknown form, or redaction has changed their text, all that follow are dropped.
        """
        if self._is_dropped or self.is_blocked:
            return None
        if not isinstance(value, dict):
            self._is_dropped = True
            return None
        released: dict[str, Any] = {}
        for name, entries in cast("dict[str, Any]", value).items():
            if entries is None:
                released[name] = None
                continue
            cleaned = _clean_entries(entries)
            if cleaned is None:
                self._is_dropped = True
                return None
            run = self._runs.get(name)
            if run is None:
                run = self._runs[name] = _Run(self._guard)
            released[name] = run.feed(cleaned)
        return self._settle(released)

    def finish(self) -> dict[str, Any] | None:
        """Say that the choice is over, and return the rest that may be released."""
        if self._is_dropped or self.is_blocked:
            return None
        return self._settle({name: run.finish() for name, run in self._runs.items()})

    def _settle(self, released: dict[str, Any]) -> dict[str, Any] | None:
        for run in self._runs.values():
            self.is_blocked = self.is_blocked or run.is_blocked
            self._is_dropped = self._is_dropped or run.is_changed
        if self.is_blocked or self._is_dropped or not any(released.values()):
            return None
        return released


class _Waiting(NamedTuple):
    entry: dict[str, Any]
    ends: list[int]


class _Column:
    """One run: the tokens, or the alternatives of one rank."""

    __slots__ = ("_channel", "_pending", "fed_chars", "released_chars")

    def __init__(self, channel: TextChannel) -> None:
        self._channel = channel
        self._pending = ""
        self.fed_chars = 0
        self.released_chars = 0

    @property
    def is_blocked(self) -> bool:
        return self._channel.is_blocked

    def feed(self, text: str) -> bool:
        """Take text; return whether what came out is what went in."""
        self.fed_chars += len(text)
        self._pending += text
        return self._take(self._channel.feed(text))

    def finish(self) -> bool:
        return self._take(self._channel.finish()) and not self._pending

    def _take(self, released: str) -> bool:
        if self._channel.is_blocked or not self._pending.startswith(released):
            return False
        self._pending = self._pending[len(released) :]
        self.released_chars += len(released)
        return True


class _Run:
    """One list of entries."""

    __slots__ = ("_columns", "_guard", "_has_alternatives", "_waiting", "is_blocked", "is_changed")

    def __init__(self, guard: AnswerGuard) -> None:
        self._guard = guard
        self._columns = [_Column(guard.open("logprobs"))]
        self._waiting: deque[_Waiting] = deque()
        self._has_alternatives = True
        self.is_blocked = False
        self.is_changed = False

    def feed(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        columns, texts = self._columns, [""] * len(self._columns)
        for entry in entries:
            alternatives: list[dict[str, Any]] = entry.get("top_logprobs") or []
            if not self._has_alternatives and alternatives:
                entry["top_logprobs"] = alternatives = []
            while len(columns) <= len(alternatives):
                columns.append(_Column(self._guard.open("logprobs")))
                texts.append("")
            for rank, token in enumerate((entry["token"], *(one["token"] for one in alternatives))):
                texts[rank] += token
            fed = [column.fed_chars + len(text) for column, text in zip(columns, texts, strict=True)]
            self._waiting.append(_Waiting(entry, fed[: len(alternatives) + 1]))
        results = [column.feed(text) if text else True for column, text in zip(columns, texts, strict=True)]
        return self._release(results)

    def finish(self) -> list[dict[str, Any]]:
        return self._release([column.finish() for column in self._columns])

    def _release(self, results: list[bool]) -> list[dict[str, Any]]:
        if not results[0]:
            self.is_blocked = self._columns[0].is_blocked
            self.is_changed = True
            return []
        if not all(results) and self._has_alternatives:
            # What might have been said is no answer: it goes, and the answer stays.
            self._has_alternatives = False
            for waiting in self._waiting:
                waiting.entry["top_logprobs"] = []
        released: list[dict[str, Any]] = []
        while self._waiting and self._is_free(self._waiting[0]):
            released.append(self._waiting.popleft().entry)
        return released

    def _is_free(self, waiting: _Waiting) -> bool:
        if not self._has_alternatives:
            return waiting.ends[0] <= self._columns[0].released_chars
        return all(end <= column.released_chars for end, column in zip(waiting.ends, self._columns, strict=False))


def _clean_entries(entries: Any) -> list[dict[str, Any]] | None:
    """Return entries with the known members only; None where they are of another form."""
    if not isinstance(entries, list):
        return None
    cleaned: list[dict[str, Any]] = []
    for entry in cast("list[Any]", entries):
        one = _clean_entry(entry)
        if one is None:
            return None
        alternatives: Any = entry.get("top_logprobs")
        if alternatives is not None:
            if not isinstance(alternatives, list):
                return None
            inner = [_clean_entry(each) for each in cast("list[Any]", alternatives)]
            if None in inner:
                return None
            one["top_logprobs"] = inner
        cleaned.append(one)
    return cleaned


def _clean_entry(entry: Any) -> dict[str, Any] | None:
    if not isinstance(entry, dict):
        return None
    members = cast("dict[str, Any]", entry)
    token: Any = members.get("token")
    if not isinstance(token, str):
        return None
    # Numbers pass; strings and lists that nobody knows do not.
    cleaned = {name: value for name, value in members.items() if not isinstance(value, (str, list, dict))}
    ordered: dict[str, Any] = {"token": token}
    if "bytes" in members:
        ordered["bytes"] = members["bytes"] if _encodes(token, members["bytes"]) else None
    return {**ordered, **{name: value for name, value in cleaned.items() if name not in ordered}}


def _encodes(token: str, given: Any) -> bool:
    """Say whether bytes are those of a token, so that they say nothing that the token does not."""
    if not isinstance(given, list):
        return False
    try:
        if given == list(token.encode()):
            return True
    except UnicodeEncodeError:
        return False
    escapes = token.removeprefix(_PREFIX)
    if not _ESCAPES.fullmatch(escapes):
        return False
    written = bytes.fromhex(escapes.replace("\\x", ""))
    # Nothing that could be written as plain characters may hide in escapes.
    return list(written) == given and all(byte >= 0x80 for byte in written)
