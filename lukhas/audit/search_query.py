"""What is searched for, and what a record says to it: one reading of a record for the index and for a scan alike.

A filter is an exact match of a facet, such as the model; a text is looked for in the record's words. Ids of sessions
and end users are facets by their hash alone, and no words.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

import msgspec

from lukhas.audit.record import parse_record
from lukhas.errors import InvalidRequest

LARGEST_PAGE: Final = 500
LONGEST_TEXT: Final = 500
_MOST_WORD_BYTES: Final = 4_000
_MOST_FACETS: Final = 512
_LONGEST_WORD: Final = 64
_LONGEST_REMEMBERED: Final = 200
# Places in a policy and hashes: long in every decision, and nothing that anybody searches.
_WORDLESS: Final = frozenset(("trace", "certificate"))
_WORD: Final = re.compile(r"[^\W_]+")
_PART: Final = re.compile(r'"([^"]*)"(\*?)|([^\s"]+)')
_SUBJECT: Final = re.compile(r"sub_[0-9A-Z]{26}")
# Between two texts of a record, so that no phrase reaches from one into the next; no query has it, it is no letter.
_BORDER: Final = "\ue000"
_TOOL_NAMES: Final = frozenset(("tool", "tools", "stripped", "called", "blocked_tools"))
_SIGNAL_NAMES: Final = frozenset(("signal", "signals", "levels"))
# What a policy allows is neither offered nor called.
_NO_TOOLS_BELOW: Final = frozenset(("parameters", "trace"))


@dataclass(frozen=True, slots=True)
class Query:
    """What is searched for; every part that is given must hold.

    Attributes:
        since_ms, until_ms: from this moment on, and before this one, in ms since the epoch.
        session, user: `sub_...` ids.
        mode: the safety mode, or `enforce` or `shadow`.
        signal: one that was active in a decision, or that was sent or released.
        tool: one that was offered, stripped or called.
        text: words that all occur; "several words" in a row; a beginning*.
        limit: most rows of a page, 1 to 500.
        cursor: where a page before ended; None for the first.

    Raises:
        InvalidRequest: the limit or the text's length is out of range.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    tenant: str | None = None
    key: str | None = None
    session: str | None = None
    user: str | None = None
    kind: str | None = None
    mode: str | None = None
    signal: str | None = None
    tool: str | None = None
    model: str | None = None
    policy: str | None = None
    status: str | None = None
    text: str | None = None
    limit: int = 50
    cursor: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= LARGEST_PAGE:
            raise InvalidRequest(f"A page has 1 to {LARGEST_PAGE} rows.", param="limit")
        if self.text is not None and len(self.text) > LONGEST_TEXT:
            raise InvalidRequest(f"A text to search has at most {LONGEST_TEXT} characters.", param="text")

    def filters(self) -> dict[str, str]:
        """Return the exact filters that are given, by name."""
        return {name: value for name in FILTERS if (value := getattr(self, name)) is not None}


FILTERS: Final = ("tenant", "key", "session", "user", "kind", "mode", "signal", "tool", "model", "policy", "status")


class Term(NamedTuple):
    """Words that stand in a row; with `is_prefix` the last one is the beginning of a word."""

    words: tuple[str, ...]
    is_prefix: bool


class Facts(NamedTuple):
    """What a record says to a search.

    Attributes:
        facets: hashed tokens of letters and digits.
        words: in order, lower case, each between two blanks.
        time_ms: when; None where the record does not say.
        document: the record.
    """

    facets: frozenset[str]
    words: str
    time_ms: int | None
    document: dict[str, Any]


class Condition:
    """A query, made ready to be held against records."""

    def __init__(self, query: Query) -> None:
        self.since_ms = query.since_ms
        self.until_ms = query.until_ms
        self.facets = frozenset(facet(name, value) for name, value in query.filters().items())
        self.terms = parse_text(query.text or "")
        # Of signs alone: it is in no record, and to leave it out would find every one.
        self.is_impossible = not self.terms and bool((query.text or "").strip())

    def admits(self, found: Facts) -> bool:
        """Say whether a record is what is searched for."""
        if self.is_impossible or not self.facets <= found.facets:
            return False
        if self.since_ms is not None and (found.time_ms is None or found.time_ms < self.since_ms):
            return False
        if self.until_ms is not None and (found.time_ms is None or found.time_ms >= self.until_ms):
            return False
        return all(f" {' '.join(term.words)}{'' if term.is_prefix else ' '}" in found.words for term in self.terms)


@lru_cache(maxsize=8_192)
def facet(name: str, value: str) -> str:
    """Return the token of a filter's name and value."""
    return "f" + blake2b(f"{name}\0{value}".encode("utf-8", "replace"), digest_size=8).hexdigest()


def parse_text(text: str) -> tuple[Term, ...]:
    """Return the terms of a text as people write it. Never fails: whatever is no word only separates words."""
    terms: dict[Term, None] = {}
    for quoted, star, plain in _PART.findall(text):
        words = split_words(quoted or plain)
        if words:
            terms[Term(tuple(words), bool(star) or (plain.endswith("*") and len(plain) > 1))] = None
    return tuple(terms)


def split_words(text: str) -> list[str]:
    """Return a text's words: letters and digits, lower case, of one form however they were composed."""
    if text.isascii():
        plain = text.lower()
    else:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return [word[:_LONGEST_WORD] for word in _WORD.findall(plain)]


def facts(data: bytes) -> Facts | None:
    """Return what a record says to a search; None for bytes that are no record."""
    try:
        document = parse_record(data)
    except msgspec.MsgspecError:
        return None
    body = document.get("body")
    named = dict.fromkeys(_name_facets(document, body))
    tokens = [facet(name, value) for name, value in named]
    texts = [value for name, value in named if name not in ("session", "user")]
    texts += [one for one in (document.get("audit_id"), document.get("request_id")) if isinstance(one, str)]
    words = _join_words((*texts, *_texts(body, with_names=document.get("kind") == "note")))
    return Facts(frozenset(tokens[:_MOST_FACETS]), words, _read_time(document.get("time")), document)


def _name_facets(document: dict[str, Any], body: object) -> Generator[tuple[str, str]]:
    for name, part in (
        ("tenant", "tenant"),
        ("key", "key_id"),
        ("kind", "kind"),
        ("session", "session"),
        ("user", "end_user"),
    ):
        if isinstance(value := document.get(part), str):
            yield name, value
    if not isinstance(body, dict):
        return
    table = cast(dict[str, object], body)
    for name in ("mode", "model", "policy", "status"):
        if isinstance(value := table.get(name), str):
            yield name, value
    parameters = table.get("parameters")
    if isinstance(parameters, dict):
        mode = cast(dict[str, object], parameters).get("safety_mode")
        if isinstance(mode, str):
            yield "mode", mode
    yield from _list_deeds(table)


def _list_deeds(body: dict[str, object]) -> Generator[tuple[str, str]]:
    """Yield every signal and tool that the body names, in whichever part of it."""
    waiting: list[tuple[object, bool]] = [(body, True)]
    while waiting:
        value, has_tools = waiting.pop()
        if isinstance(value, list):
            waiting += [(one, has_tools) for one in cast(list[object], value)]
        elif isinstance(value, dict):
            for name, part in cast(dict[str, object], value).items():
                if name in _SIGNAL_NAMES:
                    for one in _names(part):
                        yield "signal", one
                elif has_tools and name in _TOOL_NAMES:
                    for one in _names(part):
                        yield "tool", one
                # The trace names no signal that is not among the levels, and is most of a decision.
                if isinstance(part, (list, dict)) and name not in _WORDLESS:
                    waiting.append((cast(object, part), has_tools and name not in _NO_TOOLS_BELOW))


def _names(value: object) -> Iterable[str]:
    if isinstance(value, str):
        return (value,)
    if isinstance(value, dict):
        table = cast(dict[str, object], value)
        name = table.get("name")
        return (name,) if isinstance(name, str) else tuple(table)
    if isinstance(value, list):
        return [one for one in cast(list[object], value) if isinstance(one, str)] + [
            name
            for one in cast(list[object], value)
            if isinstance(one, dict) and isinstance(name := cast(dict[str, object], one).get("name"), str)
        ]
    return ()


def _texts(value: object, *, with_names: bool) -> Generator[str]:
    """Yield every text in a value in its order; of a note, whose names somebody chose, the names too."""
    waiting: list[object] = [value]
    if isinstance(value, dict) and not with_names:
        table = cast(dict[str, object], value)
        waiting = [part for name, part in reversed(table.items()) if name not in _WORDLESS]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list):
            waiting += reversed(cast(list[object], one))
        elif isinstance(one, dict):
            for name, part in reversed(cast(dict[str, object], one).items()):
                waiting.append(part)
                if with_names:
                    waiting.append(name)


def _join_words(texts: Iterable[str]) -> str:
    joined: list[str] = []
    room = _MOST_WORD_BYTES
    for text in dict.fromkeys(texts):
        words, size = (_list_words if len(text) <= _LONGEST_REMEMBERED else _list_words.__wrapped__)(text)
        if size <= room:
            room -= size
            joined += words
            continue
        for word in words:
            room -= len(word.encode()) + 1
            if room < 0:
                break
            joined.append(word)
        break
    return f" {' '.join(joined)} "


# Most texts of a record are names that stand in thousands of others.
@lru_cache(maxsize=8_192)
def _list_words(text: str) -> tuple[list[str], int]:
    if "sub_" in text:
        text = _SUBJECT.sub(" ", text)
    words = split_words(text[:_MOST_WORD_BYTES])
    if words:
        words.append(_BORDER)
    return words, sum(len(word.encode()) + 1 for word in words)


def _read_time(value: object) -> int | None:
    try:
        return round(datetime.fromisoformat(cast(str, value)).timestamp() * 1000)
    except (TypeError, ValueError, OverflowError):
        return None
