"""The declaring sections of a policy: signals, parameters, tool classes, the feedback table."""

from __future__ import annotations

import keyword
import re
from typing import Final, cast

from lukhas.modulation.compile import DECIMALS, round_value
from lukhas.modulation.document import MistakeList, Table, nearest
from lukhas.modulation.expression import TOOL_NAME
from lukhas.modulation.policy import (
    UNKNOWN_CLASS,
    Knob,
    ParameterKind,
    ParameterSpec,
    Role,
    SignalSpec,
    Tighter,
    ToolClass,
)
from lukhas.modulation.yaml_source import Item

MAX_ENTRIES: Final = 64
MAX_MS: Final = 366 * 86_400_000
# Violations raise this signal, so a policy without it could not tighten.
VIOLATION_SIGNAL: Final = "alignment_risk"
RESERVED: Final = frozenset({"x", "current", "min", "max", "round", "abs", "clamp"})
# Invariant I2: feedback can move these and nothing else, and each by no more than this.
KNOB_RANGES: Final = {
    "temperature": (-0.2, 0.2),
    "top_p": (-0.2, 0.2),
    "memory_write": (0.0, 0.2),
    "verbosity": (-0.3, 0.3),
}

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z", re.ASCII)
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.\-*?]{1,64}\Z", re.ASCII)


def read_signals(table: Table | None, mistakes: MistakeList) -> dict[str, SignalSpec]:
    """Read `signals`; a guard has no cooldown, since a guard emission is never ignored."""
    signals: dict[str, SignalSpec] = {}
    taken: dict[int, str] = {}
    for name, item, entry in _entries(table, "signal", mistakes):
        role = cast(Role, entry.word("role", ("guard", "style")))
        precedence = entry.integer("precedence", -1000, 1000, default=0 if role == "guard" else None)
        if role == "style" and taken.setdefault(precedence, name) != name:
            mistakes.add(item, f"has the same precedence as '{taken[precedence]}'; each style signal needs its own")
        cooldown = entry.get("cooldown_ms")
        if role == "guard" and cooldown is not None and cooldown.value != 0:
            mistakes.add(cooldown, "a guard has no cooldown: its emissions are never ignored")
        half_life = entry.get("half_life_ms")
        signals[name] = SignalSpec(
            name=name,
            role=role,
            precedence=precedence,
            weight=entry.number("weight", 0.001, 1, default=1.0),
            cooldown_ms=entry.integer("cooldown_ms", 0, MAX_MS, default=0),
            ttl_ms=entry.integer("ttl_ms", 1, MAX_MS, default=60_000),
            max_ttl_ms=entry.integer("max_ttl_ms", 1, MAX_MS, default=86_400_000),
            half_life_ms=None
            if half_life is None or half_life.value is None
            else entry.integer("half_life_ms", 1, MAX_MS, default=1),
            min_level=entry.number("min_level", 0, 1, default=0.05 if role == "guard" else 0.2),
        )
        if signals[name].ttl_ms > signals[name].max_ttl_ms:
            mistakes.add(item, "ttl_ms is longer than max_ttl_ms")
        entry.close()
    if table is not None and isinstance(table.item.value, dict):
        risk = signals.get(VIOLATION_SIGNAL)
        if risk is None or risk.role != "guard":
            mistakes.add(table.item, f"must declare '{VIOLATION_SIGNAL}' with role: guard; violations raise it")
    return signals


def read_parameters(
    table: Table | None, known_tools: frozenset[str], signals: set[str], mistakes: MistakeList
) -> dict[str, ParameterSpec]:
    """Read `parameters`: type, default, bounds and which direction is tighter."""
    parameters: dict[str, ParameterSpec] = {}
    for name, item, entry in _entries(table, "parameter", mistakes):
        if name in signals:
            mistakes.add(item, f"'{name}' is already the name of a signal", key=True)
        kind = cast(ParameterKind, entry.word("type", ("number", "integer", "enum", "tools")))
        if kind in ("number", "integer"):
            parameters[name] = _read_number(name, kind, item, entry, mistakes)
        elif kind == "enum":
            parameters[name] = _read_enum(name, entry, mistakes)
        elif kind == "tools":
            parameters[name] = _read_tools(name, item, entry, known_tools, mistakes)
        entry.close()
    return parameters


def _read_number(name: str, kind: ParameterKind, item: Item, entry: Table, mistakes: MistakeList) -> ParameterSpec:
    tighter = entry.word("tighter", ("lower", "higher"), default="")
    if kind == "integer":
        low: float = entry.integer("min", -1_000_000, 1_000_000)
        high: float = entry.integer("max", -1_000_000, 1_000_000)
        default: float = entry.integer("default", -1_000_000, 1_000_000)
    else:
        low = entry.number("min", -1e6, 1e6)
        high = entry.number("max", -1e6, 1e6)
        default = entry.number("default", -1e6, 1e6)
    for key, value in (("min", low), ("max", high), ("default", default)):
        if round_value(value) != value:
            mistakes.add(entry.entries.get(key, item), f"must have at most {DECIMALS} decimals, as every decision has")
    if low > high:
        mistakes.add(item, f"min {low:g} is above max {high:g}")
    elif not low <= default <= high:
        mistakes.add(entry.entries.get("default", item), f"the default {default:g} is outside [{low:g}, {high:g}]")
    return ParameterSpec(name, kind, default, low, high, cast("Tighter | None", tighter or None))


def _read_enum(name: str, entry: Table, mistakes: MistakeList) -> ParameterSpec:
    tighter = entry.word("tighter", ("first",), default="")
    words = entry.words("values", required=True, most=MAX_ENTRIES)
    values = tuple(value for value, _ in words)
    for value, item in words:
        if not _NAME.match(value) or value in RESERVED or keyword.iskeyword(value):
            mistakes.add(item, f"'{value}' cannot be a member: use a-z, 0-9 and _, no word of the language")
    if not values:
        mistakes.add(entry.item, "needs at least one value")
    default = entry.word("default", values or None)
    return ParameterSpec(name, "enum", default, tighter=cast("Tighter | None", tighter or None), values=values)


def _read_tools(
    name: str, item: Item, entry: Table, known_tools: frozenset[str], mistakes: MistakeList
) -> ParameterSpec:
    tighter = entry.word("tighter", ("subset",), default="")
    if name != "tools":
        mistakes.add(item, "only the parameter 'tools' can be of type tools", key=True)
    if tighter != "subset":
        mistakes.add(item, "a list of tools needs tighter: subset, since tools are denied by default")
    default = entry.words("default", required=True)
    for tool, at in default:
        if tool not in known_tools:
            mistakes.add(at, f"'{tool}' is no tool class and no listed function{nearest(tool, known_tools)}")
    return ParameterSpec(name, "tools", tuple(tool for tool, _ in default), tighter="subset")


def read_tool_classes(table: Table | None, mistakes: MistakeList) -> dict[str, ToolClass]:
    """Read `tools`: which function names, patterns and hosted types make a class."""
    classes: dict[str, ToolClass] = {}
    owners: dict[tuple[str, str], str] = {}
    for name, item, entry in _entries(table, "tool class", mistakes):
        if name == UNKNOWN_CLASS:
            mistakes.add(item, "'unknown' is what matches no class; it cannot be declared", key=True)
        parts: dict[str, tuple[str, ...]] = {}
        for part, form in (("functions", TOOL_NAME), ("patterns", _PATTERN), ("hosted", TOOL_NAME)):
            words = entry.words(part)
            for word, at in words:
                if not form.match(word):
                    mistakes.add(at, "must be 1 to 64 of A-Z a-z 0-9 _ . -" + " * ?" * (part == "patterns"))
                if owners.setdefault((part, word), name) != name:
                    mistakes.add(at, f"'{word}' already belongs to class '{owners[part, word]}'")
            parts[part] = tuple(word for word, _ in words)
        risk = entry.word("risk", ("low", "medium", "high"), default="medium")
        classes[name] = ToolClass(name, parts["functions"], parts["patterns"], parts["hosted"], cast("object", risk))  # type: ignore[arg-type]
        entry.close()
    return classes


def read_feedback(table: Table | None, parameters: dict[str, ParameterSpec], mistakes: MistakeList) -> dict[str, Knob]:
    """Read `feedback`; invariant I2 limits which parameters it may name and how far each may move."""
    knobs: dict[str, Knob] = {}
    if table is None:
        return knobs
    for name in table.entries:
        entry = table.table(name)
        if entry is None:
            continue
        if name not in KNOB_RANGES:
            mistakes.add(entry.item, f"feedback can move only {', '.join(KNOB_RANGES)}", key=True)
            continue
        if name not in parameters:
            mistakes.add(entry.item, f"'{name}' is not a parameter of this policy", key=True)
        low, high = KNOB_RANGES[name]
        knobs[name] = Knob(
            name,
            low=entry.number("min", low, 0),
            high=entry.number("max", 0, high),
            rating=entry.number("rating", -1, 1, default=0.0),
        )
        entry.close()
    return knobs


def _entries(table: Table | None, what: str, mistakes: MistakeList) -> list[tuple[str, Item, Table]]:
    found: list[tuple[str, Item, Table]] = []
    if table is None:
        return found
    if len(table.entries) > MAX_ENTRIES:
        mistakes.add(table.item, f"more than {MAX_ENTRIES} entries")
    for name, item in list(table.entries.items())[:MAX_ENTRIES]:
        if not _NAME.match(name) or name in RESERVED or keyword.iskeyword(name):
            mistakes.add(item, f"'{name}' cannot name a {what}: use a-z, 0-9 and _, no word of the language", key=True)
        found.append((name, item, Table(item, mistakes)))
    return found
