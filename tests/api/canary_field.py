"""Walks the official client's request types and puts one string into every place that they have, one at a time."""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal, NotRequired, Required, Union, get_args, get_origin, get_type_hints

DEEPEST = 9


@cache
def hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def strip(kind: Any) -> tuple[Any, bool]:
    """Return a field's type without its marks, and whether it is required."""
    is_required = False
    while get_origin(kind) in (Required, NotRequired) or hasattr(kind, "__metadata__"):
        is_required = is_required or get_origin(kind) is Required
        kind = get_args(kind)[0]
    return kind, is_required


def is_list(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and origin is not dict and hasattr(origin, "__iter__") and origin is not str


def usual(kind: Any, depth: int = 0) -> Any:
    """Return the plainest value of a type: what is required, and nothing more."""
    kind, _ = strip(kind)
    if kind is str or kind is Any or kind is object:
        return "heron"
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if kind in (int, float):
        return 1
    if kind is bool:
        return False
    if get_origin(kind) in (Union, types.UnionType):
        return usual(get_args(kind)[0], depth)
    if hasattr(kind, "__required_keys__"):
        fields = {name: strip(held) for name, held in hints(kind).items()}
        total = kind.__required_keys__
        return {
            name: usual(held, depth + 1) for name, (held, is_required) in fields.items() if is_required or name in total
        }
    if is_list(kind):
        return [] if depth > DEEPEST else [usual(get_args(kind)[0], depth + 1)]
    if get_origin(kind) is dict or kind is dict:
        return {}
    return None


def salted(kind: Any, salt: str, path: str = "", seen: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Yield every value of a type that holds the salt in one place, with the place's path."""
    kind, _ = strip(kind)
    if kind is str or kind is Any or kind is object or get_origin(kind) is Literal:
        yield path, salt
    elif get_origin(kind) in (Union, types.UnionType):
        for number, arm in enumerate(get_args(kind)):
            yield from salted(arm, salt, f"{path}|{number}", seen)
    elif hasattr(kind, "__required_keys__"):
        if kind in seen or len(seen) > DEEPEST:
            return
        base = usual(kind)
        for name, held in hints(kind).items():
            for place, value in salted(held, salt, f"{path}.{name}", (*seen, kind)):
                yield place, {**base, name: value}
        yield f"{path}.?", {**base, "unheard_of": salt}
        yield f"{path}.??", {**base, salt: "heron"}
    elif is_list(kind):
        for place, value in salted(get_args(kind)[0], salt, f"{path}[]", seen):
            yield place, [value]
    elif get_origin(kind) is dict or kind is dict:
        inner = get_args(kind)[1] if get_args(kind) else object
        yield f"{path}{{}}", {salt: usual(inner)}
        for place, value in salted(inner, salt, f"{path}{{}}", seen):
            yield place, {"heron": value}
