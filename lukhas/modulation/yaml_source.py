"""Strict YAML with the place of every value.

At most 1 MB; no anchors, aliases, tags or duplicate keys; plain scalars are typed as YAML 1.2's core schema does
(`true` and `false` are the only booleans, so `off` and `no` are words). Source: https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import yaml

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 32

# The parser in C, where PyYAML was built with it, is eight times as fast and sets the same marks.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Source: https://yaml.org/spec/1.2.2/#51-character-set
_CONTROL: Final = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

_INTEGER: Final = re.compile(r"[-+]?[0-9]+\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", re.ASCII)
_CONSTANTS: Final[dict[str, bool | None]] = {
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "null": None,
    "Null": None,
    "NULL": None,
    "~": None,
    "": None,
}

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A 1-based line and column in a file."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One thing wrong in a file.

    Attributes:
        place: where.
        path: the keys that lead there, such as `signals.stress.ttl_ms`; empty for the whole file.
        message: what is wrong, and what would be right.
    """

    place: Place
    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.path + ': ' if self.path else ''}{self.message}"


class YamlMistake(Exception):
    """The text is not YAML of this strict form."""

    def __init__(self, mistake: Mistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


@dataclass(frozen=True, slots=True)
class Item:
    """A value with its place and path.

    Attributes:
        value: a scalar, a list of items, or a dict of items by key.
        key_place: where the key stands, for a value of a mapping.
        inline: whether a scalar stands on one line as its source shows it, so that columns inside it are exact.
    """

    value: Scalar | list[Item] | dict[str, Item]
    place: Place
    path: str
    key_place: Place
    inline: bool = True


def parse_yaml(text: str) -> Item:
    """Parse one document; a byte order mark before it is skipped.

    Raises:
        YamlMistake: with its place.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlMistake(Mistake(Place(1, 1), "", f"the file is larger than {MAX_BYTES:,} bytes"))
    text = text.removeprefix("\ufeff")
    control = _CONTROL.search(text)
    if control is not None:
        before = text[: control.start()]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise YamlMistake(Mistake(place, "", f"the control character U+{ord(control[0]):04X} is not allowed"))
    try:
        return _Builder(yaml.parse(text, Loader=_LOADER)).build()
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        place = _place(mark) if mark else Place(1, 1)
        problem = " ".join(part for part in (wrong.context, wrong.problem) if part)
        raise YamlMistake(Mistake(place, "", f"not valid YAML: {problem}")) from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise YamlMistake(Mistake(Place(1, 1), "", "the file is malformed")) from None


class _Builder:
    """Makes items of a parser's events in one pass, so that nothing refused is ever held."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events

    def build(self) -> Item:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise YamlMistake(Mistake(Place(1, 1), "", "the file is empty"))
        root = self._item(next(self._events), "", None, 1)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise YamlMistake(Mistake(_place(after.start_mark), "", "there may be one document only (a second '---')"))
        return root

    def _item(self, event: yaml.Event, path: str, key_place: Place | None, depth: int) -> Item:
        place = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlMistake(Mistake(place, path, "anchors and aliases (& and *) are not allowed"))
        if getattr(event, "tag", None):
            raise YamlMistake(Mistake(place, path, "tags (!) are not allowed"))
        own = key_place or place
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event, place, path, own)
        if depth > MAX_DEPTH:
            raise YamlMistake(Mistake(place, path, f"nested deeper than {MAX_DEPTH} levels"))
        if isinstance(event, yaml.MappingStartEvent):
            return Item(self._entries(path, depth), place, path, own)
        items: list[Item] = []
        while not isinstance(part := next(self._events), yaml.SequenceEndEvent):
            items.append(self._item(part, f"{path}[{len(items)}]", None, depth + 1))
        return Item(items, place, path, own)

    def _entries(self, path: str, depth: int) -> dict[str, Item]:
        entries: dict[str, Item] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            found = self._item(event, path, None, depth + 1)
            at = found.key_place
            if not isinstance(event, yaml.ScalarEvent):
                raise YamlMistake(Mistake(at, path, "a key must be a plain word"))
            key = event.value
            if key in entries:
                first = entries[key].key_place
                raise YamlMistake(Mistake(at, path, f"the key '{key[:64]}' stands twice (first at line {first.line})"))
            entries[key] = self._item(next(self._events), f"{path}.{key[:64]}" if path else key[:64], at, depth + 1)
        return entries


def _place(mark: Any) -> Place:  # PyYAML has one class of marks for each of its two parsers
    return Place(mark.line + 1, mark.column + 1)


def _scalar(event: yaml.ScalarEvent, place: Place, path: str, own: Place) -> Item:
    value, style = event.value, event.style
    start, end = cast(Any, event.start_mark), cast(Any, event.end_mark)
    inline = start.line == end.line and style not in ("|", ">")
    if not style:
        return Item(_type_plain(value), place, path, own, inline)
    return Item(value, Place(place.line, place.column + 1) if inline else place, path, own, inline)


def _type_plain(value: str) -> Scalar:
    if value in _CONSTANTS:
        return _CONSTANTS[value]
    if _INTEGER.match(value) and len(value) <= 20:
        return int(value)
    if _FLOAT.match(value):
        number = float(value)
        return number if math.isfinite(number) else value
    return value
