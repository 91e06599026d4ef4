"""Tools of an older policy: which there are, which are allowed, and the gates that take some away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from lukhas.modulation.import_text import Map, NewPolicy
from lukhas.modulation.old_policy import Format, OldPolicy, Remark, entries, items, number
from lukhas.modulation.policy import TOOLS, UNKNOWN_CLASS, ToolClass
from lukhas.modulation.policy_reader import load_policy
from lukhas.modulation.yaml_source import Item

# What the older programs allowed where the file did not say.
DEFAULTS: Final[Mapping[Format, tuple[str, ...]]] = {
    "weight": ("retrieval", "browser"),
    "priority": ("search", "retrieval"),
}
_ALLOWED: Final = ("allowed_tools", "allow", "allowed", "tools", "allowlist")
_BLOCKED: Final = ("blocked_tools", "block", "blocked", "deny", "denied")
_THRESHOLD: Final = ("threshold", "above", "at", "level", "min_level")
_CLASS: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)
_TOOL: Final = re.compile(r"[A-Za-z0-9_.\-]{1,64}\Z", re.ASCII)
_NO_LIST: Final = "a gate names signals with their thresholds, and the tools that are left"


def carry_tools(
    old: OldPolicy, new: NewPolicy, changed: list[Remark], kind: Format, mapped: Iterable[str] = ()
) -> None:
    """Carry over the allowlist, the gates, and a class for each tool that is named.

    Args:
        mapped: tools that stand in expressions.
    """
    section, bound = old.sections.get("tools"), entries(old.sections.get("bounds")).get("tool_allowlist")
    offered = _read_list(section, old) or _read_list(bound, old)
    said = old.sections.get("allowlist") or next(
        (item for key, item in entries(old.sections.get("defaults")).items() if key in ("tools", "tool_allowlist")),
        None,
    )
    default: list[str] = _read_list(said, old)
    if not default and said is None:
        default = offered if kind == "priority" and section is not None and offered else list(DEFAULTS[kind])
        if section is not None and default == offered:
            changed.append(
                Remark(
                    section.key_place, section.path, "all of these are allowed by default, as before: shorten the list"
                )
            )
    used = dict.fromkeys([*default, *offered, *mapped])
    for name, item in _list_gates(old.sections.get("gates")):
        used |= dict.fromkeys(_carry_gate(name, item, default, old, new, changed))
    new.default_tools = default
    _make_classes(used, old, new, changed)


def _read_list(item: Item | None, old: OldPolicy) -> list[str]:
    if item is None:
        return []
    names = list(entries(item)) or [part.value for part in items(item)]
    if isinstance(item.value, dict):
        for inner in item.value.values():
            if inner.value is not None:
                old.leave(inner, "a tool is known by its name alone")
    found: dict[str, None] = {}
    for name in names:
        if isinstance(name, str) and _TOOL.match(name) and name != UNKNOWN_CLASS:
            found[name] = None
        else:
            old.leave(item, f"'{str(name)[:64]}' cannot name a tool")
    return list(found)


def _list_gates(section: Item | None) -> list[tuple[str, Item]]:
    named = [(name, item) for name, item in entries(section).items()]
    return named + [(str(place), item) for place, item in enumerate(items(section))]


def _carry_gate(
    name: str, item: Item, default: list[str], old: OldPolicy, new: NewPolicy, changed: list[Remark]
) -> list[str]:
    """Make a gate a map of the tools for each of its signals; return the tools that it names."""
    table = entries(item)
    allowed = next((table[key] for key in _ALLOWED if key in table), None)
    blocked = next((table[key] for key in _BLOCKED if key in table), None)
    left = _read_list(allowed, old) if allowed is not None else default
    if blocked is not None:
        gone = _read_list(blocked, old)
        left = [tool for tool in left if tool not in gone]
    thresholds = _read_thresholds(name, table, old)
    taken = {id(one) for one in (allowed, blocked) if one is not None}
    for key, inner in table.items():
        if (
            key not in thresholds
            and id(inner) not in taken
            and key not in (*_THRESHOLD, "signal", "description", "name")
        ):
            old.leave(inner, _NO_LIST if key not in old.signals else "it must be a level from 0 to 1")
    if not thresholds or (allowed is None and blocked is None):
        old.leave(item, _NO_LIST)
        return []
    for signal, level in thresholds.items():
        ceiling = number(old.signals[signal].fields.get("max_level"))
        if ceiling is not None and ceiling < level:
            old.leave(item, f"it was never reached: max_level of {signal} is {ceiling:g}")
            continue
        listed = "[" + ", ".join(map(repr, left)) + "]"
        held = new.maps.get((signal, TOOLS))
        if held is not None and held.text.count(" if ") and not held.text.endswith(" current"):
            old.leave(item, f"{signal} maps the tools already")
            continue
        rest = "current" if held is None else held.text
        # The first gate that held was the one that counted, so a later one stands in the earlier one's else.
        own = f"{listed} if x >= {level:g} else current"
        text = own if held is None else f"{rest.removesuffix('current')}({own})"
        new.maps[signal, TOOLS] = Map(text, item.key_place.line)
        changed.append(Remark(item.key_place, item.path, f"a map of {signal}: {text}"))
    return left


def _read_thresholds(name: str, table: Mapping[str, Item], old: OldPolicy) -> dict[str, float]:
    found: dict[str, float] = {}
    for key, item in table.items():
        level = number(item)
        if key in old.signals and level is not None and 0 <= level <= 1:
            found[key] = level
    said = table.get("signal")
    signal = said.value if said is not None else name
    level = next((number(table[key]) for key in _THRESHOLD if key in table), None)
    if isinstance(signal, str) and signal in old.signals and level is not None and 0 <= level <= 1:
        found.setdefault(signal, level)
    return found


def _make_classes(used: Iterable[str], old: OldPolicy, new: NewPolicy, changed: list[Remark]) -> None:
    packaged = load_policy().tool_classes
    names = list(used)
    known = [name for name in names if name in packaged]
    new.tool_classes = {name: packaged[name] for name in known}
    listed = {function for name in known for function in packaged[name].functions}
    loose: list[str] = []
    for name in names:
        if name in packaged or name in listed:
            continue
        if _CLASS.match(name):
            new.tool_classes[name] = ToolClass(name, functions=(name,))
        else:
            loose.append(name)
        reason = f"the class '{name}' has the function of that name alone: the older file does not say more"
        where = old.sections.get("tools") or old.sections.get("bounds") or old.sections.get("signals")
        if where is not None:
            changed.append(Remark(where.key_place, where.path, reason))
    if loose:
        new.tool_classes["imported"] = ToolClass("imported", functions=tuple(loose))
