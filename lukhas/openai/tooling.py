"""Which tools a request offers to the model, and how those that are not allowed are taken out (invariant I4)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec

from lukhas.errors import InvalidRequest

Allows = Callable[[str], bool]


class Stripped(msgspec.Struct, frozen=True):
    """What stripping a request's tools did.

    Attributes:
        offered: names of every tool that the request offered, in order; a hosted tool goes by its type.
        removed: those that were not allowed.
        forced: a removed tool that `tool_choice` forces, else None.
    """

    offered: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    forced: str | None = None


NOTHING = Stripped()
_TOOL_FIELDS = ("tools", "functions", "web_search_options")
# OpenAI's word and Mistral's for: the model must call one.
_MUST_CALL = ("required", "any")


def strip_tools(
    body: dict[str, Any], allows_function: Allows, allows_hosted: Allows
) -> tuple[dict[str, Any], Stripped]:
    """Return a chat request without the tools that are not allowed, and what was taken out.

    The given body is not changed. Where no tool is left, the fields that only steer tools go too.

    Raises:
        InvalidRequest: a tool-bearing field of the wrong shape; what cannot be read cannot be judged.
    """
    if not _offers_tools(body):
        return body, NOTHING
    offered: list[str] = []
    removed: list[str] = []
    kept = dict(body)
    for name in ("tools", "functions"):
        entries = body.get(name)
        if entries is None:
            continue
        left: list[Any] = []
        for entry in _read_list(name, entries):
            tool, is_hosted = _identify(name, entry)
            offered.append(tool)
            if (allows_hosted if is_hosted else allows_function)(tool):
                left.append(entry)
            else:
                removed.append(tool)
        if left or not entries:
            kept[name] = left
        else:
            del kept[name]
    if body.get("web_search_options") is not None:
        offered.append("web_search_options")
        if not allows_hosted("web_search_options"):
            removed.append("web_search_options")
            del kept["web_search_options"]
    forced = _check_choice(kept, removed)
    return kept, Stripped(tuple(offered), tuple(removed), forced)


def _offers_tools(body: dict[str, Any]) -> bool:
    tools, functions, search = _TOOL_FIELDS
    return body.get(tools) is not None or body.get(functions) is not None or body.get(search) is not None


def list_tools(body: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of every tool that a request offers.

    Raises:
        InvalidRequest: a tool-bearing field of the wrong shape.
    """
    return strip_tools(body, _allow, _allow)[1].offered if _offers_tools(body) else ()


def _allow(_: str) -> bool:
    return True


def _read_list(name: str, entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in cast("list[Any]", entries)):
        raise InvalidRequest(f"'{name}' must be a list of objects.", param=name)
    return cast("list[dict[str, Any]]", entries)


def _identify(field: str, entry: dict[str, Any]) -> tuple[str, bool]:
    """Return a tool's name and whether the provider runs it."""
    kind: Any = "function" if field == "functions" else entry.get("type")
    if not isinstance(kind, str) or not kind:
        raise InvalidRequest(f"Every entry of '{field}' needs a type.", param=field)
    if kind not in ("function", "custom"):
        return kind, True
    holder: Any = entry if field == "functions" else entry.get(kind)
    name: Any = cast("dict[str, Any]", holder).get("name") if isinstance(holder, dict) else None
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"Every {kind} in '{field}' needs a name.", param=field)
    return name, False


def _check_choice(kept: dict[str, Any], removed: list[str]) -> str | None:
    """Return the removed tool that the request forces; drop what steers tools where none is left."""
    if not removed:
        return None
    choices = [_forced_name(kept.get(name)) for name in ("tool_choice", "function_call")]
    for choice in choices:
        if choice is not None and choice in removed:
            return choice
    forced = _narrow_allowed_tools(kept, removed)
    has_tools = bool(kept.get("tools")) or bool(kept.get("functions"))
    if forced is not None or has_tools:
        return forced
    if kept.get("tool_choice") in _MUST_CALL:
        return removed[0]
    for name in ("tool_choice", "function_call", "parallel_tool_calls"):
        kept.pop(name, None)
    return None


def _forced_name(choice: Any) -> str | None:
    if not isinstance(choice, dict):
        return None
    given = cast("dict[str, Any]", choice)
    for holder in (given.get("function"), given.get("custom"), given):
        name: Any = cast("dict[str, Any]", holder).get("name") if isinstance(holder, dict) else None
        if isinstance(name, str):
            return name
    kind = given.get("type")
    return kind if isinstance(kind, str) and kind != "allowed_tools" else None


def _narrow_allowed_tools(kept: dict[str, Any], removed: list[str]) -> str | None:
    """Take removed tools out of `tool_choice: {type: allowed_tools}`, or the upstream refuses the request.

    Returns:
        The first removed tool where the choice forces one of its tools and none of them is left.
    """
    choice: Any = kept.get("tool_choice")
    if not isinstance(choice, dict) or cast("dict[str, Any]", choice).get("type") != "allowed_tools":
        return None
    given = cast("dict[str, Any]", choice)
    nested: Any = given.get("allowed_tools")
    holder = cast("dict[str, Any]", nested) if isinstance(nested, dict) else given
    tools: Any = holder.get("tools")
    if not isinstance(tools, list):
        return None
    left = [tool for tool in cast("list[Any]", tools) if _forced_name(tool) not in removed]
    if not left:
        # The caller kept the other tools from being called, so without this choice they still may not be.
        kept["tool_choice"] = "none"
        return removed[0] if holder.get("mode") in _MUST_CALL else None
    narrowed = {**holder, "tools": left}
    kept["tool_choice"] = {**given, "allowed_tools": narrowed} if holder is not given else narrowed
    return None
