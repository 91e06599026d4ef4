"""Parameters and prompt styles of an older policy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Final, cast

from lukhas.errors import ExpressionError
from lukhas.modulation.expression import Scope, parse_expression
from lukhas.modulation.import_text import NewParameter, NewPolicy
from lukhas.modulation.interpret import Point, evaluate
from lukhas.modulation.old_policy import Format, OldPolicy, Remark, entries, items, number, rename
from lukhas.modulation.parameter_reader import VIOLATION_SIGNAL
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, ParameterSpec, Policy, Style, Tighter
from lukhas.modulation.yaml_source import Item

MODES: Final = ("strict", "balanced", "creative")
# What the program of the format with 'priority' started from; that of the other is what is packaged here.
STARTED_FROM: Final = {
    "temperature": 0.7,
    "max_output_tokens": 2000,
    "top_p": 0.9,
    "frequency_penalty": 0.0,
    "presence_penalty": 0.0,
    "retrieval_k": 5,
    "reasoning_depth": 2,
    "memory_write": 0.5,
}
_RULES: Final = (("focused", "stress", 0.7), ("creative", "novelty", 0.6), ("exploratory", "ambiguity", 0.6))
_STYLE_KEYS: Final = {
    **dict.fromkeys(("system_preamble", "preamble", "system", "system_prompt"), "preamble"),
    **dict.fromkeys(("user_prefix", "prefix"), "prefix"),
    **dict.fromkeys(("stop_sequences", "stop"), "stop"),
    **dict.fromkeys(("moderation_preset", "moderation"), "moderation"),
}
_MOST_STOPS: Final = 4
_SAMPLES: Final = 50


def carry_parameters(old: OldPolicy, new: NewPolicy, changed: list[Remark], packaged: Policy, kind: Format) -> None:
    """Carry over every parameter that the older file bounds, maps or gives a default."""
    bounds = {rename(key): item for key, item in entries(old.sections.get("bounds")).items()}
    defaults = {rename(key): item for key, item in entries(old.sections.get("defaults")).items()}
    names = dict.fromkeys([*bounds, *defaults, *(parameter for _, parameter in new.maps), SAFETY_MODE, TOOLS])
    for name in names:
        if name == TOOLS:
            spec = ParameterSpec(TOOLS, "tools", tuple(new.default_tools), tighter="subset")
            new.parameters[name] = NewParameter(spec, "tools are denied unless they are listed")
        elif name == SAFETY_MODE or _is_words(bounds.get(name)):
            _carry_enum(name, bounds.get(name), defaults.get(name), old, new)
        else:
            _carry_number(name, bounds.get(name), defaults.get(name), old, new, changed, packaged, kind)


def _is_words(item: Item | None) -> bool:
    listed = items(item)
    return bool(listed) and all(isinstance(part.value, str) and number(part) is None for part in listed)


def _carry_enum(name: str, bound: Item | None, default: Item | None, old: OldPolicy, new: NewPolicy) -> None:
    values = [str(part.value) for part in items(bound)] if _is_words(bound) else list(MODES)
    if bound is not None and not _is_words(bound):
        old.leave(bound, "it must be a list of words")
    if name == SAFETY_MODE:
        # Tightest first, whatever order the older file had, where only the names told.
        values = [mode for mode in MODES if mode in values or mode != "creative"] + [
            v for v in values if v not in MODES
        ]
    chosen = str(default.value) if default is not None and default.value in values else ""
    if default is not None and not chosen:
        old.leave(default, f"it must be one of {', '.join(values)}")
    chosen = chosen or ("balanced" if "balanced" in values else values[0])
    spec = ParameterSpec(name, "enum", chosen, tighter="first" if name == SAFETY_MODE else None, values=tuple(values))
    new.parameters[name] = NewParameter(spec, "added" if bound is None else f"line {bound.key_place.line}")


def _carry_number(
    name: str,
    bound: Item | None,
    default: Item | None,
    old: OldPolicy,
    new: NewPolicy,
    changed: list[Remark],
    packaged: Policy,
    kind: Format,
) -> None:
    known = packaged.parameters.get(name)
    known = known if known is not None and known.kind in ("number", "integer") else None
    pair = _read_bounds(bound, old)
    where = bound or default or next((item for (_, p), item in old.maps.items() if p == name), None)
    if pair is None and known is None:
        if where is not None:
            old.leave(where, f"the bounds of '{name}' are not said, so it and its maps cannot be carried over")
        for key in [key for key in new.maps if key[1] == name]:
            gone = new.maps.pop(key)
            old.left_out.append(
                Remark(old.maps[key].place, old.maps[key].path, f"no bounds (it was: {gone.text[:80]})")
            )
        return
    origins = [f"bounds from line {bound.key_place.line}" if pair and bound else "bounds as packaged"]
    low, high = pair or (cast("ParameterSpec", known).low, cast("ParameterSpec", known).high)
    is_whole = known.kind == "integer" if known else isinstance(low, int) and isinstance(high, int) and high - low >= 2
    if is_whole:
        low, high = math.ceil(low), math.floor(high)
    tighter: Tighter | None = known.tighter if known else _direction(name, new)
    start, origin = _start(name, default, old, known, kind, low, high, is_whole)
    origins.append(origin)
    if known is None and where is not None:
        said = f"'{name}' is no parameter of the packaged policy: taken as {'whole number' if is_whole else 'number'}, "
        said += f"tighter: {tighter or 'no direction'}" + (", as its guard has it" if tighter else "")
        changed.append(Remark(where.key_place, where.path, said))
    kind_of = "integer" if is_whole else "number"
    new.parameters[name] = NewParameter(ParameterSpec(name, kind_of, start, low, high, tighter), "; ".join(origins))


def _read_bounds(item: Item | None, old: OldPolicy) -> tuple[float, float] | None:
    if item is None:
        return None
    table = entries(item)
    low, high = number(table.get("min")), number(table.get("max"))
    listed = items(item)
    if len(listed) == 2:
        low, high = number(listed[0]), number(listed[1])
    if low is None or high is None or not -1e6 <= low <= high <= 1e6:
        old.leave(item, "bounds are a pair such as [0, 1], the lower one first")
        return None
    return low, high


def _start(
    name: str,
    default: Item | None,
    old: OldPolicy,
    known: ParameterSpec | None,
    kind: Format,
    low: float,
    high: float,
    is_whole: bool,
) -> tuple[float, str]:
    """Return the default, and where it comes from."""
    value = number(default)
    origin = f"default from line {default.key_place.line}" if default is not None else ""
    if value is None and default is not None:
        old.leave(default, "a default must be a number")
    if value is None and kind == "priority" and name in STARTED_FROM:
        value, origin = STARTED_FROM[name], "default of the older program"
    if value is None and known is not None:
        value, origin = cast(float, known.default), "default as packaged"
    if value is None:
        value, origin = (low + high) / 2, "default in the middle: CHOOSE IT"
    held = min(max(value, low), high)
    if held != value:
        origin += f" ({value:g}, held to the bounds)"
    return (round(held) if is_whole else held), origin


def _direction(name: str, new: NewPolicy) -> Tighter | None:
    """Return the direction in which the guards of an older file move a parameter, where they agree."""
    found: set[Tighter] = set()
    for (signal, parameter), rule in new.maps.items():
        if parameter != name or signal not in new.signals or new.signals[signal].role != "guard":
            continue
        try:
            node = parse_expression(rule.text, Scope("number", frozenset(new.signals)))
            values = [cast(float, evaluate(node, Point(step / _SAMPLES))) for step in range(_SAMPLES + 1)]
        except (ExpressionError, ZeroDivisionError, OverflowError):
            return None
        pairs = list(itertools.pairwise(values))
        if values[0] != values[-1]:
            if all(b <= a for a, b in pairs):
                found.add("lower")
            elif all(b >= a for a, b in pairs):
                found.add("higher")
            else:
                return None
    return found.pop() if len(found) == 1 else None


def carry_styles(old: OldPolicy, new: NewPolicy, changed: list[Remark], added: list[str], kind: Format) -> None:
    """Carry over the prompt styles, with the rules by which the older program chose one."""
    for name, item in entries(old.sections.get("styles")).items():
        new.styles[name] = _read_style(name, item, old)
    modes = new.parameters[SAFETY_MODE].spec.values
    if "balanced" not in new.styles:
        new.styles["balanced"] = Style("balanced")
        added.append("style balanced, which is empty: one must hold where nothing else does")
    chosen: list[tuple[str, str]] = []
    if kind == "weight":
        chosen = [(m, f"{SAFETY_MODE} == {m}") for m in modes if m in new.styles and m != "balanced"]
    else:
        if "strict" in new.styles:
            chosen.append(("strict", f"{SAFETY_MODE} == strict"))
        for style, signal, level in _RULES:
            ceiling = number(old.signals[signal].fields.get("max_level")) if signal in old.signals else None
            if style in new.styles and signal in new.signals and (ceiling is None or ceiling > level):
                chosen.append((style, f"{signal} > {level:g}"))
    unchosen = [name for name in new.styles if name != "balanced" and name not in dict(chosen)]
    for name in unchosen:
        item = entries(old.sections.get("styles"))[name]
        old.leave(item, "nothing says when this style is chosen")
        del new.styles[name]
    new.rules = [*chosen, ("balanced", "")]
    if VIOLATION_SIGNAL in new.signals and (section := old.sections.get("styles")) is not None:
        rules = "; ".join(f"{style} when {when}" for style, when in chosen) or "always balanced"
        changed.append(Remark(section.key_place, section.path, f"chosen as by the older program: {rules}"))


def _read_style(name: str, item: Item, old: OldPolicy) -> Style:
    if isinstance(item.value, str):
        return Style(name, preamble=item.value.strip())
    if item.value is not None and not isinstance(item.value, dict):
        old.leave(item, "a style is a table, or its preamble")
    parts: dict[str, str] = {}
    stops: tuple[str, ...] = ()
    fields: Mapping[str, Item] = entries(item)
    for key, value in fields.items():
        part = _STYLE_KEYS.get(key)
        if part == "stop":
            words = [str(one.value) for one in items(value) if isinstance(one.value, str) and one.value]
            if isinstance(value.value, str) and value.value:
                words = [value.value]
            stops = tuple(dict.fromkeys(words))[:_MOST_STOPS]
            if len(words) != len(stops) or not words:
                old.leave(value, f"stop sequences are at most {_MOST_STOPS} different texts")
        elif part == "moderation" and value.value not in ("standard", "high"):
            old.leave(value, "a moderation preset is standard or high")
        elif part is None or not isinstance(value.value, str):
            old.leave(value, "nothing here corresponds to it" if part is None else "it must be a text")
        else:
            parts[part] = value.value.rstrip("\n") if part == "preamble" else value.value
    return Style(name, parts.get("preamble", ""), parts.get("prefix", ""), stops, parts.get("moderation", "standard"))
