"""What a request says about which tool must be called, after the tools that are not allowed are gone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, Protocol, cast

# OpenAI's word and Mistral's for: the model must call one.
_MUST_CALL: Final = ("required", "any")
_CHOICES: Final = ("tool_choice", "function_call")
_STEERING: Final = (*_CHOICES, "parallel_tool_calls", "max_tool_calls")
_ALLOWED_TOOLS: Final = "allowed_tools"
_NAMESPACE: Final = "namespace"
_OWN: Final = ("function", "custom")


class Judge(Protocol):
    """Says whether a tool is allowed."""

    def __call__(self, name: str, *, is_hosted: bool) -> bool:
        """Judge one tool by its name."""
        ...


def narrow_choice(
    kept: dict[str, Any], judge: Judge, removed: Sequence[str], namespaces: Collection[str], *, has_tools: bool
) -> tuple[str | None, list[str]]:
    """Bring a request's choice of tools in line with the tools that are left, in place.

    Args:
        kept: the request without the tools that are not allowed.
        judge: whether a tool is allowed.
        removed: the tools that were taken out.
        namespaces: namespaces of which something is left.
        has_tools: whether any tool is left that a choice could steer.

    Returns:
        The tool that the choice forces although it is not allowed, else None; and every tool that the choice names and
        that is not allowed.
    """
    for field in _CHOICES:
        choice: Any = kept.get(field)
        if isinstance(choice, str):
            # Some providers take a tool's name where OpenAI takes 'auto'.
            if choice in removed:
                return choice, [choice]
            continue
        denied = _find_denied(choice, judge, namespaces)
        if denied is not None:
            return denied, [denied]
    forced, named = _narrow_allowed(kept, judge, namespaces)
    gone = [*removed, *named]
    if not gone or forced is not None or has_tools:
        return forced, named
    if kept.get("tool_choice") in _MUST_CALL:
        return gone[0], named
    for field in _STEERING:
        kept.pop(field, None)
    return None, named


def names_tool(body: Mapping[str, Any]) -> bool:
    """Say whether a request's choice names a tool, offered or not."""
    return any(
        _find_denied(body.get(field), _deny, ()) is not None
        or (isinstance(body.get(field), dict) and body[field].get("type") == _ALLOWED_TOOLS)
        for field in _CHOICES
    )


def _deny(name: str, *, is_hosted: bool) -> bool:
    return False


def _find_denied(choice: Any, judge: Judge, namespaces: Collection[str]) -> str | None:
    """Return the first tool that a choice names and that is not allowed."""
    if not isinstance(choice, dict):
        return None
    given = cast("dict[str, Any]", choice)
    kind: Any = given.get("type")
    if isinstance(kind, str) and kind not in (*_OWN, _ALLOWED_TOOLS, _NAMESPACE):
        return None if judge(kind, is_hosted=True) else kind
    for holder in (given.get("function"), given.get("custom"), given):
        name: Any = cast("dict[str, Any]", holder).get("name") if isinstance(holder, dict) else None
        if not isinstance(name, str):
            continue
        is_allowed = name in namespaces if kind == _NAMESPACE else judge(name, is_hosted=False)
        if not is_allowed:
            return name
    return None


def _narrow_allowed(kept: dict[str, Any], judge: Judge, namespaces: Collection[str]) -> tuple[str | None, list[str]]:
    """Take what is not allowed out of `tool_choice: {type: allowed_tools}`, or the upstream refuses the request.

    Returns:
        The first tool taken out where the choice forces one of its tools and none of them is left, else None; and all
        that were taken out.
    """
    choice: Any = kept.get("tool_choice")
    if not isinstance(choice, dict) or cast("dict[str, Any]", choice).get("type") != _ALLOWED_TOOLS:
        return None, []
    given = dict(cast("dict[str, Any]", choice))
    nested: Any = given.get(_ALLOWED_TOOLS)
    holders = [given]
    if isinstance(nested, dict):
        # The form of chat; the Responses API has the same one level higher.
        given[_ALLOWED_TOOLS] = dict(cast("dict[str, Any]", nested))
        holders.append(given[_ALLOWED_TOOLS])
    named: list[str] = []
    for holder in holders:
        tools: Any = holder.get("tools")
        if not isinstance(tools, list):
            continue
        verdicts = [(tool, _find_denied(tool, judge, namespaces)) for tool in cast("list[Any]", tools)]
        denied = [name for _, name in verdicts if name is not None]
        named += denied
        holder["tools"] = [tool for tool, name in verdicts if name is None]
        if denied and not holder["tools"]:
            # The caller kept the other tools from being called, so without this choice they still may not be.
            kept["tool_choice"] = "none"
            return (denied[0] if holder.get("mode") in _MUST_CALL else None), named
    if named:
        kept["tool_choice"] = given
    return None, named
