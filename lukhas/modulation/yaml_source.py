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
    """Parse one document.

    Raises:
        YamlMistake: with its place.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise YamlMistake(Mistake(Place(1, 1), "", f"the file is larger than {MAX_BYTES:,} bytes"))
    try:
        _refuse_references(yaml.parse(text, Loader=yaml.SafeLoader))
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        problem = " ".join(part for part in (wrong.context, wrong.problem) if part)
        raise YamlMistake(Mistake(place, "", f"not valid YAML: {problem}")) from None
    except yaml.reader.ReaderError as wrong:
        before = text[: wrong.position]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        raise YamlMistake(Mistake(place, "", "a control character is not allowed")) from None
    except (RecursionError, ValueError):
        raise YamlMistake(Mistake(Place(1, 1), "", "the file is nested too deeply or malformed")) from None
    if root is None:
        raise YamlMistake(Mistake(Place(1, 1), "", "the file is empty"))
    return _convert(root, "", None, 1)


def _refuse_references(events: Iterator[yaml.Event]) -> None:
    depth = 0
    for event in events:
        place = _place(event.start_mark)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlMistake(Mistake(place, "", "anchors and aliases (& and *) are not allowed"))
        if getattr(event, "tag", None):
            raise YamlMistake(Mistake(place, "", "tags (!) are not allowed"))
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise YamlMistake(Mistake(place, "", f"nested deeper than {MAX_DEPTH} levels"))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


def _place(mark: Any) -> Place:  # PyYAML has one class of marks for each of its two parsers
    return Place(mark.line + 1, mark.column + 1)


def _convert(node: yaml.Node, path: str, key_place: Place | None, depth: int) -> Item:
    place = _place(node.start_mark)
    own = key_place or place
    if isinstance(node, yaml.MappingNode):
        entries: dict[str, Item] = {}
        for key_node, value_node in cast(list[tuple[yaml.Node, yaml.Node]], node.value):
            at = _place(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                raise YamlMistake(Mistake(at, path, "a key must be a plain word"))
            key = cast(str, key_node.value)
            if key in entries:
                first = entries[key].key_place
                raise YamlMistake(Mistake(at, path, f"the key '{key}' stands twice (first at line {first.line})"))
            entries[key] = _convert(value_node, f"{path}.{key}" if path else key, at, depth + 1)
        return Item(entries, place, path, own)
    if isinstance(node, yaml.SequenceNode):
        parts = cast(list[yaml.Node], node.value)
        items = [_convert(part, f"{path}[{i}]", None, depth + 1) for i, part in enumerate(parts)]
        return Item(items, place, path, own)
    value = cast(str, node.value)
    style = cast("str | None", getattr(node, "style", None))
    inline = node.start_mark.line == node.end_mark.line and style not in ("|", ">")
    if style is None:
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
