"""Policies of the two older formats, read into one form.

One format has signals with `weight` and `cooldown_ms` and writes the signal's level as `x`; the other has `priority`,
`decay_rate` and `max_level`, writes it as `level`, and has `tool_gates`. Neither had a schema, so each section is
taken where people put it, and whatever has no place in the form is left as a remark, never dropped in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from lukhas.modulation.yaml_source import Item, Place

Format = Literal["weight", "priority"]

_MAPS: Final = ("maps", "map", "mappings", "modulation", "modulations", "modulates", "effects")
_SECTIONS: Final = {
    "signals": ("signals",),
    "maps": (*_MAPS, "modulation_maps"),
    "bounds": ("bounds", "limits", "ranges", "parameter_bounds"),
    "defaults": ("defaults", "default", "baseline"),
    "styles": ("prompt_styles", "styles"),
    "tools": ("available_tools", "tools"),
    "allowlist": ("tool_allowlist", "allowed_tools", "allowlist"),
    "gates": ("tool_gates",),
    "feedback": ("feedback_config", "feedback", "style_adjustment_bounds"),
}
_KINDS: Final = {
    **dict.fromkeys(("bounds", "defaults", "styles", "feedback"), (dict,)),
    "tools": (list, dict),
    "allowlist": (list,),
    "gates": (dict, list),
}
_FIELDS: Final = frozenset(
    {"weight", "cooldown_ms", "priority", "decay_rate", "max_level", "ttl_ms", "half_life_ms", "min_level", "role"}
)
_RENAMED: Final = {"max_tokens": "max_output_tokens", "tool_allowlist": "tools", "allowed_tools": "tools"}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)


@dataclass(frozen=True, order=True)
class Remark:
    """Something that did not go over as it stood: where it is in the older file, and why."""

    place: Place
    path: str
    reason: str


@dataclass
class OldSignal:
    """A signal with the fields that the formats know."""

    name: str
    item: Item
    fields: dict[str, Item] = field(default_factory=dict[str, Item])
    description: str = ""


@dataclass
class OldPolicy:
    """An older policy.

    Attributes:
        maps: the expression's item by (signal, parameter), parameters under today's names.
        sections: whole sections by their usual name; their content is read by whoever carries it over.
        left_out: what has no place here.
    """

    name: str = ""
    signals: dict[str, OldSignal] = field(default_factory=dict[str, OldSignal])
    maps: dict[tuple[str, str], Item] = field(default_factory=dict[tuple[str, str], Item])
    sections: dict[str, Item] = field(default_factory=dict[str, Item])
    left_out: list[Remark] = field(default_factory=list[Remark])

    @property
    def format(self) -> Format | None:
        """Which of the two formats it is; None where nothing tells."""
        keys = {key for signal in self.signals.values() for key in signal.fields}
        if "gates" in self.sections or keys & {"priority", "decay_rate", "max_level"}:
            return "priority"
        if keys & {"weight", "cooldown_ms"}:
            return "weight"
        texts = [item.value for item in self.maps.values() if isinstance(item.value, str)]
        if any(re.search(r"\blevel\b", text) for text in texts):
            return "priority"
        return "weight" if any(re.search(r"\bx\b", text) for text in texts) else None

    def leave(self, item: Item, reason: str) -> None:
        """Note something that is not carried over."""
        self.left_out.append(Remark(item.key_place, item.path, reason))


def read_old(root: Item) -> OldPolicy:
    """Read an older policy's tree; takes what it knows, and notes the rest."""
    found = OldPolicy()
    table = _unwrap(root, found)
    known = {key: section for section, keys in _SECTIONS.items() for key in keys}
    for key, item in table.items():
        section = known.get(key)
        if key == "parameters":
            _read_parameters(item, found)
        elif section is not None and section not in found.sections:
            found.sections[section] = item
        elif key in ("name", "title") and isinstance(item.value, str):
            found.name = item.value
        elif section is not None:
            found.leave(item, f"'{found.sections[section].path}' says the same already")
        elif key not in ("version", "schema_version"):
            found.leave(item, "nothing here corresponds to it")
    for section, kinds in _KINDS.items():
        item = found.sections.get(section)
        if item is not None and item.value is not None and not isinstance(item.value, kinds):
            found.leave(item, f"it must be a {' or a '.join('table' if kind is dict else 'list' for kind in kinds)}")
    if (signals := found.sections.get("signals")) is not None:
        for name, item, fields in _list_signals(signals, found):
            _read_signal(name, item, fields, found)
    if (maps := found.sections.get("maps")) is not None:
        _read_maps(maps, found)
    return found


def rename(parameter: str) -> str:
    """Return today's name of a parameter."""
    return _RENAMED.get(parameter, parameter)


def entries(item: Item | None) -> Mapping[str, Item]:
    """Return a table's entries; none where it is no table."""
    return item.value if item is not None and isinstance(item.value, dict) else {}


def items(item: Item | None) -> list[Item]:
    """Return a list's items; none where it is no list."""
    return item.value if item is not None and isinstance(item.value, list) else []


def number(item: Item | None) -> float | int | None:
    """Return an item's number, also where it stands in quotes."""
    value = None if item is None else item.value
    if isinstance(value, str) and re.fullmatch(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,3})?", value.strip(), re.ASCII):
        value = float(value)
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _unwrap(root: Item, found: OldPolicy) -> Mapping[str, Item]:
    table = entries(root)
    if "signals" in table:
        return table
    for key, item in table.items():
        if "signals" in entries(item):
            for other, beside in table.items():
                if other != key:
                    found.leave(beside, "nothing here corresponds to it")
            return entries(item)
    return table


def _list_signals(section: Item, found: OldPolicy) -> Iterator[tuple[str, Item, Mapping[str, Item]]]:
    for name, item in entries(section).items():
        yield name, item, entries(item)
        if item.value is not None and not isinstance(item.value, dict):
            found.leave(item, "it is not said what this value means")
    for item in items(section):
        table = entries(item)
        named = next((table[key] for key in ("name", "signal", "id") if key in table), None)
        if named is not None and isinstance(named.value, str):
            yield named.value, item, {k: v for k, v in table.items() if v is not named}
        elif isinstance(item.value, str):
            yield item.value, item, {}
        elif len(table) == 1:
            name, inner = next(iter(table.items()))
            yield name, inner, entries(inner)
        else:
            found.leave(item, "a signal without a name")
    if not isinstance(section.value, (dict, list)):
        found.leave(section, "signals are a list or a table")


def _read_signal(name: str, item: Item, fields: Mapping[str, Item], found: OldPolicy) -> None:
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    if not _NAME.match(plain):
        found.leave(item, f"'{name[:64]}' cannot name a signal: use a-z, 0-9 and _")
        return
    if plain in found.signals:
        found.leave(item, f"the signal '{plain}' stands twice; the first one counts")
        return
    signal = found.signals[plain] = OldSignal(plain, item)
    for key, value in fields.items():
        if key in _FIELDS:
            signal.fields[key] = value
        elif key in _MAPS or key == "parameters":
            for parameter, expression in entries(value).items():
                _add_map(plain, parameter, expression, found)
            if not isinstance(value.value, dict):
                found.leave(value, "a signal's maps are a table of parameters")
        elif key in ("description", "desc") and isinstance(value.value, str):
            signal.description = value.value
        elif key.startswith("cooldown"):
            found.leave(value, "write it in milliseconds, as cooldown_ms")
        else:
            found.leave(value, "nothing here corresponds to it")


def _read_maps(section: Item, found: OldPolicy) -> None:
    for entry in items(section):
        table = entries(entry)
        signal, parameter = (table.get(key) for key in ("signal", "parameter"))
        expression = next((table[key] for key in ("expression", "expr", "formula", "value") if key in table), None)
        if signal and parameter and expression:
            _add_map(str(signal.value), str(parameter.value), expression, found)
        else:
            found.leave(entry, "a map names a signal, a parameter and an expression")
    for outer, item in entries(section).items():
        is_by_signal = outer.lower() in found.signals
        inner = entries(item)
        if not is_by_signal and inner and all(key.lower() in found.signals for key in inner):
            for signal, expression in inner.items():
                _add_map(signal, outer, expression, found)
        elif inner:
            for parameter, expression in inner.items():
                _add_map(outer, parameter, expression, found)
        elif item.value is not None:
            found.leave(item, "a signal's maps are a table of parameters")
    if not isinstance(section.value, (dict, list)):
        found.leave(section, "maps are a table of signals")


def _add_map(signal: str, parameter: str, expression: Item, found: OldPolicy) -> None:
    signal = signal.strip().lower()
    inner = entries(expression)
    held = next((inner[key] for key in ("expression", "expr", "formula") if key in inner), None)
    if held is not None and len(inner) == 1:
        expression = held
    key = (signal, rename(parameter))
    if signal not in found.signals:
        found.leave(expression, f"'{signal[:64]}' is no signal that can be carried over")
    elif not _NAME.match(key[1]):
        found.leave(expression, f"'{parameter[:64]}' cannot name a parameter: use a-z, 0-9 and _")
    elif key in found.maps:
        found.leave(expression, f"{signal} maps {parameter} twice; the first map counts")
    else:
        found.maps[key] = expression


def _read_parameters(section: Item, found: OldPolicy) -> None:
    """Take a table of parameters apart: a pair is bounds, a value a default, a table both."""
    bounds: dict[str, Item] = {}
    defaults: dict[str, Item] = {}
    for name, item in entries(section).items():
        if isinstance(item.value, (list, dict)):
            bounds[name] = item
            if (default := entries(item).get("default")) is not None:
                defaults[name] = default
        else:
            defaults[name] = item
    for key, table in (("bounds", bounds), ("defaults", defaults)):
        if table:
            found.sections.setdefault(key, Item(table, section.place, section.path, section.key_place))
    if not isinstance(section.value, dict):
        found.leave(section, "parameters are a table")
