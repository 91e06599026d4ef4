"""Pairs of a name and its value, as headers and variables are often written.

`{"name": "Authorization", "value": "..."}`, `[["cookie", "..."]]`, `["Cookie", "a=b", "Host", "c"]`, and their like in
tuples and bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, cast

Classify = Callable[[str], str | None]

_NAMES: Final = (
    *("name", "key", "header", "field", "param", "parameter", "variable", "var", "env", "property", "attribute", "k"),
    *("Name", "Key", "Header", "Field", "Parameter", "setting", "label"),
)
_VALUES: Final = frozenset(
    (
        *("value", "values", "val", "v", "Value", "Values", "old", "new", "before", "after", "current", "previous"),
        *("old_value", "new_value", "oldValue", "newValue", "stringValue", "string_value"),
    )
)
_MOST_NAME: Final = 200
_WORD: Final = re.compile(r"[A-Za-z_ ]*\Z")
_DONE: Final = "[redacted:"


def hide_members(value: Mapping[Any, object], classify: Classify) -> Mapping[Any, object]:
    """Return a mapping whose value is replaced where its name is telling; else the mapping itself."""
    if _VALUES.isdisjoint(value):
        return value
    for place in _NAMES:
        name = _read_name(value.get(place))
        kind = classify(name) if name else None
        if kind is not None:
            return {
                one: f"{_DONE}{kind}]" if one in _VALUES and item is not None and not isinstance(item, bool) else item
                for one, item in value.items()
            }
    return value


def hide_items(value: Sequence[object], classify: Classify) -> Sequence[object]:
    """Return a sequence with the values of telling names replaced; else the sequence itself."""
    count = len(value)
    first = value[0] if count else None
    if not isinstance(first, (str, bytes)):
        if not _is_pair(first) or not all(_is_pair(one) for one in value):
            return value
        return [_hide_pair(cast("Sequence[object]", one), classify) for one in value]
    if count % 2 or not all(isinstance(one, (str, bytes)) for one in value):
        return value
    hidden = list(value)
    for place in range(0, count, 2):
        name, held = _read_name(value[place]), _read_name(value[place + 1], 1 << 30)
        kind = classify(name) if name and " " not in name else None
        # A list of words, such as `["email", "name"]`, names fields and holds no value.
        if kind is not None and not _WORD.match(held) and classify(held[:_MOST_NAME]) is None:
            hidden[place + 1] = f"{_DONE}{kind}]"
    return hidden


def _is_pair(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    pair = cast("Sequence[object]", value)
    return len(pair) == 2 and isinstance(pair[0], (str, bytes))


def _hide_pair(pair: Sequence[object], classify: Classify) -> Sequence[object]:
    name = _read_name(pair[0])
    kind = classify(name) if name else None
    if kind is None or pair[1] is None or isinstance(pair[1], bool):
        return pair
    return [pair[0], f"{_DONE}{kind}]"]


def _read_name(value: object, most: int = _MOST_NAME) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value if isinstance(value, str) and len(value) <= most else ""
