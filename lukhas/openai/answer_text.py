"""Finds in an answer every string that a model may have written, and guards each run of them.

What is not known to be written by the server counts as text, so that no field can go round the guard. Strings of one
field that stand in a list, or come one after the other, are judged one by one and then once more as one run: neither a
match inside one of them nor a match over several is missed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, cast

from lukhas.openai.call import AnswerGuard, TextKind

KINDS: Final[dict[str, TextKind]] = {
    "content": "text",
    "text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "reasoning": "reasoning",
    "reasoning_content": "reasoning",
    "reasoning_text": "reasoning",
    "thinking": "reasoning",
    "transcript": "transcript",
    "arguments": "arguments",
}
"""What kind of text stands in which field; all others are 'other'."""

# Written by the server, as long as they read like it.
_SERVER_NAMES: Final = frozenset(
    (
        *("id", "object", "type", "role", "model", "finish_reason", "status", "system_fingerprint", "service_tier"),
        *("severity", "provider", "native_finish_reason", "stop_reason", "obfuscation", "request_id", "event_id"),
        *("format", "encoding_format", "voice"),
    )
)
_is_server_word: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/+=-]{0,199}").fullmatch
# Names of models and companies hold blanks and @.
_is_product: Final = re.compile(r"[A-Za-z0-9_@/.][A-Za-z0-9_.:/@+ -]{0,199}").fullmatch
_PRODUCTS: Final = frozenset(("model", "provider"))
_PAYLOADS: Final = frozenset(("data", "b64_json"))
_URLS: Final = frozenset(("url", "image_url", "audio_url", "video_url", "file_url"))
_MEDIA: Final = ("image", "audio", "video")
_FEW: Final = 8


class Found(NamedTuple):
    """One string of an answer.

    Attributes:
        holder, key: the object or list in which it stands, and where.
        run: the names that lead to it, without places in lists: strings with the same names are one run.
        media: what it is where it is no text, else empty.
    """

    holder: Any
    key: str | int
    text: str
    run: tuple[str, ...]
    media: str = ""


class Outcome(NamedTuple):
    """What guarding some strings did."""

    is_blocked: bool
    is_changed: bool


CLEAN: Final = Outcome(False, False)


def is_server_written(name: str, value: str) -> bool:
    """Say whether a string is one that the server writes: by the field's name, and by how it reads."""
    if name not in _SERVER_NAMES:
        return False
    return not value or (_is_product if name in _PRODUCTS else _is_server_word)(value) is not None


def find_texts(holder: dict[str, Any], name: str, run: tuple[str, ...] = ()) -> list[Found]:
    """Return every string at and below one member of an object that a model may have written, in order.

    Args:
        holder: the object.
        name: the member.
        run: the names that lead to the object.
    """
    found: list[Found] = []
    waiting: list[tuple[Any, str | int, tuple[str, ...]]] = [(holder, name, (*run, name))]
    while waiting:
        place, key, names = waiting.pop()
        value: Any = place[key]
        if isinstance(value, str):
            if value and not is_server_written(names[-1], value):
                found.append(Found(place, key, value, names, _media_kind(names, value)))
        elif isinstance(value, dict):
            members = cast("dict[str, Any]", value)
            waiting += [
                (members, inner, (*names, inner))
                for inner in reversed(members)
                if isinstance(members[inner], (str, dict, list))
            ]
        elif isinstance(value, list):
            entries = cast("list[Any]", value)
            waiting += [
                (entries, index, names)
                for index in range(len(entries) - 1, -1, -1)
                if isinstance(entries[index], (str, dict, list))
            ]
    return found


def _media_kind(names: tuple[str, ...], value: str) -> str:
    if names[-1] in _PAYLOADS:
        return next((kind for kind in _MEDIA for name in names if kind in name), "")
    if names[-1] in _URLS and value.startswith("data:"):
        return next((kind for kind in _MEDIA if value.startswith(f"data:{kind}/")), "file")
    return ""


def guard_texts(guard: AnswerGuard, found: Iterable[Found], admits: Callable[[str], bool]) -> Outcome:
    """Guard strings in place, run by run; stop at the first that is blocked.

    Args:
        guard: what judges them.
        found: as `find_texts` returns them.
        admits: whether media of a kind may pass; media that may not count as blocked.
    """
    is_changed = False
    runs: dict[tuple[str, ...], list[Found]] = {}
    for one in found:
        if not one.media:
            runs.setdefault(one.run, []).append(one)
        elif not admits(one.media):
            return Outcome(True, is_changed)
    for run, members in runs.items():
        if len(members) <= _FEW or not _is_clean(guard, members, run):
            for one in members:
                text = guard_text(guard, one.text, kind_of(run))
                if text is None:
                    return Outcome(True, is_changed)
                if text != one.text:
                    one.holder[one.key] = text
                    is_changed = True
        if len(members) == 1:
            continue
        joined = "".join(one.holder[one.key] for one in members)
        text = guard_text(guard, joined, kind_of(run))
        if text is None:
            return Outcome(True, is_changed)
        if text != joined:
            # Over the seams nothing says which part is whose.
            for one in members:
                one.holder[one.key] = ""
            members[0].holder[members[0].key] = text
            is_changed = True
    return Outcome(False, is_changed)


def _is_clean(guard: AnswerGuard, members: list[Found], run: tuple[str, ...]) -> bool:
    """Say whether none of many strings holds anything: read line by line, which costs far less than one by one."""
    lines = "\n".join(one.text for one in members)
    return guard_text(guard, lines, kind_of(run)) == lines


def guard_text(guard: AnswerGuard, text: str, kind: TextKind) -> str | None:
    """Return one whole text as it may be released; None where it is blocked."""
    channel = guard.open(kind)
    released = channel.feed(text)
    if not channel.is_blocked:
        released += channel.finish()
    return None if channel.is_blocked else released


def kind_of(run: tuple[str, ...]) -> TextKind:
    """Return what kind of text a run is, by the last of its names that says so."""
    for name in reversed(run):
        if name in KINDS:
            return KINDS[name]
    return "other"
