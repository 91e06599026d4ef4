"""Collects what a request brings before a model: every string with its place, media, and objects named by id.

Whatever is not known to be structure is text, so that a field that nobody has heard of is moderated like any other.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final, Literal, cast

import msgspec

from lukhas.openai.call import Media, ObjectRef, Path, RequestPoint, Text
from lukhas.openai.wire import encode_json

MediaKind = Literal["image", "audio", "video", "file"]

# Members whose value, where it is a plain word or an id, says what something is and not what it says.
_ENUMS: Final = frozenset(
    (
        *("type", "role", "format", "mode", "detail", "effort", "ttl", "voice", "search_context_size", "strict"),
        *("reasoning_effort", "verbosity", "service_tier", "tool_choice", "function_call", "prompt_cache_retention"),
        *("modalities", "truncation", "encoding_format", "syntax", "required"),
    )
)
_IDS: Final = frozenset(("id", "tool_call_id"))
# Narrow on purpose: what looks like a key, an address or a sentence is text wherever it stands.
_is_word: Final = re.compile(r"[a-z][a-z0-9_]{0,39}").fullmatch
_STRUCTURE: Final = _ENUMS | _IDS
# What nearly every one of them says.
_COMMON_WORDS: Final = frozenset(("function", "object", "string", "integer", "number", "boolean", "array", "text"))
_is_id: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}").fullmatch

_MEDIA: Final[dict[str, MediaKind]] = {"image": "image", "audio": "audio", "video": "video"}
_FILES: Final = ("file", "document", "pdf")
# Where media stands written out; a data URL anywhere in a media part counts too.
_PAYLOADS: Final = frozenset(("data", "file_data", "b64_json", "bytes", "base64"))
_OBJECTS: Final = {
    "file_id": "file",
    "file_ids": "file",
    "vector_store_id": "vector_store",
    "vector_store_ids": "vector_store",
    "container_id": "container",
    "container": "container",
    "conversation": "conversation",
    "conversation_id": "conversation",
    "previous_response_id": "response",
}


# Applications offer the same tools with every call, so what stands in them is remembered.
_REMEMBERED_LISTS: Final = 128
_LARGEST_REMEMBERED_BYTES: Final = 65_536
# Their groups are apart from all others.
_TOOL_GROUPS: Final = 1 << 32


class RequestText:
    """What was found so far, in order.

    Attributes:
        group: the number of the group that the next text belongs to.
    """

    __slots__ = ("group", "media", "objects", "texts")

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.media: list[Media] = []
        self.objects: list[ObjectRef] = []
        self.group = 0

    def add(self, point: RequestPoint, path: Path, text: str) -> None:
        """Take one string that stands for itself."""
        self.texts.append(Text(point, path, text, self.group))
        self.group += 1

    def gather(self, point: RequestPoint, path: Path, value: Any, *, is_known: bool, is_one: bool = False) -> None:
        """Take every string of a JSON value.

        Args:
            point: where moderation meets the strings.
            path: where the value stands.
            value: any JSON value.
            is_known: it is of a known structure, in which types, ids and the like are no text.
            is_one: its strings stand next to each other in the model's eyes, and are read as one too.
        """
        texts, group, step = self.texts, self.group, 0 if is_one else 1
        waiting: list[tuple[Path, str, Any]] = [(path, str(path[-1]), value)]
        while waiting:
            place, holder, one = waiting.pop()
            inner: list[tuple[Path, str, Any]] = []
            # An object's own strings come before those further in: that saves the hot path a step for each.
            if isinstance(one, dict):
                for name, member in cast("dict[str, Any]", one).items():
                    if isinstance(member, str):
                        if member and not (is_known and name in _STRUCTURE and _is_structure(name, member)):
                            texts.append(Text(point, (*place, name), member, group))
                            group += step
                    elif member and isinstance(member, (dict, list)):
                        inner.append(((*place, name), name, cast("Any", member)))
            elif isinstance(one, list):
                for index, member in enumerate(cast("list[Any]", one)):
                    if isinstance(member, str):
                        if member and not (is_known and holder in _STRUCTURE and _is_structure(holder, member)):
                            texts.append(Text(point, (*place, index), member, group))
                            group += step
                    elif member and isinstance(member, (dict, list)):
                        inner.append(((*place, index), holder, cast("Any", member)))
            elif isinstance(one, str) and one and not (is_known and _is_structure(holder, one)):
                texts.append(Text(point, place, one, group))
                group += step
            if len(inner) > 1:
                inner.reverse()
            waiting += inner
        self.group = group + 1

    def gather_tools(self, name: str, tools: Any) -> None:
        """Take every string of the tools that a request offers: they instruct the model."""
        try:
            written = encode_json(tools)
            if len(written) <= _LARGEST_REMEMBERED_BYTES:
                self.texts += _read_tools(name, written)
                return
        except RecursionError:
            pass  # nested deeper than is written at once; read here step by step
        self.gather("instruction", (name,), tools, is_known=True)

    def gather_parts(self, point: RequestPoint, path: Path, parts: Any) -> None:
        """Take the content of one message that is no plain string: its strings are one group, its media are noted."""
        texts, group = self.texts, self.group
        entries = cast("list[Any]", parts) if isinstance(parts, list) else [parts]
        for index, part in enumerate(entries):
            place = (*path, index) if isinstance(parts, list) else path
            if isinstance(part, str):
                texts.append(Text(point, place, part, group))
            elif isinstance(part, dict):
                members = cast("dict[str, Any]", part)
                text: Any = members.get("text")
                if len(members) == 2 and members.get("type") == "text" and isinstance(text, str):
                    texts.append(Text(point, (*place, "text"), text, group))
                else:
                    self._gather_part(point, place, members)
            elif isinstance(part, list):
                self.gather(point, place, part, is_known=False, is_one=True)
            self.group = group
        self.group = group + 1

    def _gather_part(self, point: RequestPoint, path: Path, part: dict[str, Any]) -> None:
        kind = _media_kind(part)
        if kind is None:
            self.gather(point, path, part, is_known=True, is_one=True)
            return
        self.media.append(Media(kind, path))
        waiting: list[tuple[Path, str, Any]] = [(path, "", part)]
        while waiting:
            place, holder, one = waiting.pop()
            if isinstance(one, dict):
                waiting += [((*place, name), name, member) for name, member in cast("dict[str, Any]", one).items()]
            elif isinstance(one, list):
                waiting += [((*place, index), holder, member) for index, member in enumerate(cast("list[Any]", one))]
            elif isinstance(one, str) and one:
                if holder in _OBJECTS:
                    self.objects.append(ObjectRef(_OBJECTS[holder], one, place))
                elif holder not in _PAYLOADS and not _is_payload(one) and not _is_structure(holder, one):
                    self.texts.append(Text(point, place, one, self.group))

    def gather_object(self, name: str, value: Any) -> bool:
        """Note the objects that a top-level field names by id; return whether it is such a field."""
        kind = _OBJECTS.get(name)
        if kind is None:
            return False
        entries = cast("list[Any]", value) if isinstance(value, list) else [value]
        for index, entry in enumerate(entries):
            place: Path = (name, index) if isinstance(value, list) else (name,)
            if isinstance(entry, dict):
                entry, place = cast("dict[str, Any]", entry).get("id"), (*place, "id")
            if isinstance(entry, str) and entry:
                self.objects.append(ObjectRef(kind, entry, place))
        return True


def _is_payload(value: str) -> bool:
    # A sentence that begins with `data:` is a sentence.
    return value.startswith("data:") and " " not in value


@lru_cache(_REMEMBERED_LISTS)
def _read_tools(name: str, written: bytes) -> tuple[Text, ...]:
    found = RequestText()
    found.group = _TOOL_GROUPS
    found.gather("instruction", (name,), msgspec.json.decode(written), is_known=True)
    return tuple(found.texts)


def _is_structure(name: str, value: str) -> bool:
    if name in _ENUMS:
        return value in _COMMON_WORDS or _is_word(value) is not None
    return name in _IDS and _is_id(value) is not None


def _media_kind(part: dict[str, Any]) -> MediaKind | None:
    """Return what a part holds that no text moderator can read, by its type or, with lenient servers, its members."""
    kind: Any = part.get("type")
    names = [kind.casefold()] if isinstance(kind, str) else []
    names += [name.casefold() for name, member in part.items() if isinstance(member, (dict, str)) and name != "type"]
    for name in names:
        for stem, media in _MEDIA.items():
            if stem in name:
                return media
    if any(stem in name for name in names for stem in _FILES) or "source" in part:
        return "file"
    return None
