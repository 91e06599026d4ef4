"""Strict YAML for rules, with the place of every value.

At most 1 MB and 16 levels; no anchors, aliases, tags or duplicate keys. A scalar stays a text unless it is plain
`true`, `false`, `null` or a whole number, so that no pattern is ever read as something else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, TypeGuard, cast

import msgspec
import yaml

MAX_BYTES: Final = 1_000_000
_MAX_DEPTH: Final = 16
# The parser in C, where PyYAML was built with it, is eight times as fast and sets the same marks.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,15}\Z")
_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None, "~": None, "": None}

Plain = str | int | bool | None


class RuleMistake(msgspec.Struct, frozen=True, order=True):
    """One thing wrong in a file of rules.

    Attributes:
        line, column: where, from 1.
        path: the keys that lead there, such as `rules[2].pattern`; empty for the whole file.
        message: what is wrong, and what would be right.
    """

    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.path + ': ' if self.path else ''}{self.message}"


class SourceMistake(Exception):
    """The text is not YAML of this strict form."""

    def __init__(self, mistake: RuleMistake) -> None:
        super().__init__(str(mistake))
        self.mistake = mistake


class Node(msgspec.Struct, frozen=True):
    """A value with its place and path. `value` is a scalar, a list of nodes, or a dict of nodes by key."""

    value: Any
    line: int
    column: int
    path: str

    def mistake(self, message: str) -> RuleMistake:
        """Return a mistake at this place."""
        return RuleMistake(self.line, self.column, self.path, message)


def is_mapping(value: object) -> TypeGuard[dict[str, Node]]:
    """Whether a node's value is a mapping."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Node]]:
    """Whether a node's value is a list."""
    return isinstance(value, list)


def parse_source(text: str) -> Node:
    """Parse one document; a byte order mark before it is skipped.

    Raises:
        SourceMistake: with its place.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SourceMistake(RuleMistake(1, 1, "", f"the file is larger than {MAX_BYTES:,} bytes"))
    try:
        return _Builder(yaml.parse(text.removeprefix("\ufeff"), Loader=_LOADER)).build()
    except yaml.MarkedYAMLError as wrong:
        mark = cast(Any, wrong.problem_mark or wrong.context_mark)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        problem = " ".join(part for part in (wrong.context, wrong.problem) if part)
        raise SourceMistake(RuleMistake(line, column, "", f"not valid YAML: {problem}")) from None
    except (yaml.YAMLError, RecursionError, ValueError):
        raise SourceMistake(RuleMistake(1, 1, "", "not valid YAML: a character that may not stand in it")) from None


class _Builder:
    """Makes nodes of a parser's events in one pass, so that nothing refused is ever held."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events

    def build(self) -> Node:
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise SourceMistake(RuleMistake(1, 1, "", "the file is empty"))
        root = self._node(next(self._events), "", 1)
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise _refuse(after, "", "there may be one document only (a second '---')")
        return root

    def _node(self, event: yaml.Event, path: str, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _refuse(event, path, "anchors and aliases (& and *) are not allowed; quote a value that begins so")
        if getattr(event, "tag", None):
            raise _refuse(event, path, "tags (!) are not allowed; quote a value that begins so")
        if isinstance(event, yaml.ScalarEvent):
            value: Any = event.value if event.style else _type_plain(event.value)
        elif depth > _MAX_DEPTH:
            raise _refuse(event, path, f"nested deeper than {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.MappingStartEvent):
            value = self._entries(path, depth)
        else:
            value = self._items(path, depth)
        mark = cast(Any, event.start_mark)
        return Node(value, mark.line + 1, mark.column + 1, path)

    def _items(self, path: str, depth: int) -> list[Node]:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, f"{path}[{len(items)}]", depth + 1))
        return items

    def _entries(self, path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            self._node(event, path, depth + 1)
            if not isinstance(event, yaml.ScalarEvent):
                raise _refuse(event, path, "a key must be a plain word")
            key = event.value
            inside = f"{path}.{key[:64]}" if path else key[:64]
            if key in entries:
                raise _refuse(event, inside, f"the key stands twice (first at line {entries[key].line})")
            entries[key] = self._node(next(self._events), inside, depth + 1)
        return entries


def _refuse(event: yaml.Event, path: str, message: str) -> SourceMistake:
    mark = cast(Any, event.start_mark)
    return SourceMistake(RuleMistake(mark.line + 1, mark.column + 1, path, message))


def _type_plain(value: str) -> Plain:
    if value in _CONSTANTS:
        return _CONSTANTS[value]
    return int(value) if _INTEGER.match(value) else value
