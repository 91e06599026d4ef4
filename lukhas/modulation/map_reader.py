"""The deciding sections of a policy: maps from signals to parameters, and the rules that choose a style."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final, cast

from lukhas.errors import ExpressionError
from lukhas.modulation.compile import compile_condition, compile_map
from lukhas.modulation.document import MistakeList, Table, nearest
from lukhas.modulation.expression import Kind, Level, Node, Number, Scope, Tools, parse_expression, uses_current, walk
from lukhas.modulation.interval import Domain, NotTotal, check_total
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, ParameterSpec, Rule, SignalSpec, StyleRule, Value
from lukhas.modulation.yaml_source import Item, Place

_INTEGER: Final = {"lower": "floor", "higher": "ceil", None: "round"}
_GRID: Final = 128
_CORNERS: Final = 8


def read_maps(
    table: Table | None,
    signals: Mapping[str, SignalSpec],
    parameters: Mapping[str, ParameterSpec],
    known_tools: frozenset[str],
    mistakes: MistakeList,
    *,
    is_draft: bool = False,
) -> dict[tuple[str, str], Rule]:
    """Read `maps`: signal -> parameter -> expression. A draft's expressions need not be seen to be total."""
    rules: dict[tuple[str, str], Rule] = {}
    if table is None:
        return rules
    for signal in table.entries:
        entry = table.table(signal)
        if entry is None:
            continue
        if signal not in signals:
            mistakes.add(entry.item, f"'{signal}' is not a signal of this policy{nearest(signal, signals)}", key=True)
            continue
        for parameter, item in entry.entries.items():
            if parameter not in parameters:
                hint = nearest(parameter, parameters)
                mistakes.add(item, f"'{parameter}' is not a parameter of this policy{hint}", key=True)
                continue
            spec = parameters[parameter]
            if signals[signal].role == "guard" and spec.tighter is None:
                mistakes.add(item, f"a guard cannot map '{parameter}', which has no tighter direction", key=True)
                continue
            rule = _read_rule(signals[signal], spec, item, signals, known_tools, mistakes, is_draft)
            if rule is not None:
                rules[signal, parameter] = rule
    return rules


def _read_rule(
    signal: SignalSpec,
    spec: ParameterSpec,
    item: Item,
    signals: Mapping[str, SignalSpec],
    known_tools: frozenset[str],
    mistakes: MistakeList,
    is_draft: bool,
) -> Rule | None:
    kind: Kind = "number" if spec.kind in ("number", "integer") else spec.kind
    guards = {name for name, other in signals.items() if other.role == "guard"}
    hidden: dict[str, str] = {}
    if signal.role == "style":
        hidden = dict.fromkeys(guards, "a style signal's map cannot depend on a guard")
    scope = Scope(kind, frozenset(signals) - set(hidden), members=spec.values, hidden=hidden)
    text = _text_of(item)
    node = None if text is None else _parse(text, scope, item, mistakes)
    if text is None:
        mistakes.add(item, "must be an expression, such as 1 - 0.85 * x")
    if text is None or node is None:
        return None
    for part in walk(node):
        for name in part.names if isinstance(part, Tools) else ():
            if name not in known_tools:
                mistakes.add(item, f"'{name}' is no tool class and no listed function{nearest(name, known_tools)}")
    domain = Domain(own=(signal.min_level, 1.0), current=(spec.low, spec.high) if kind == "number" else (0.0, 0.0))
    try:
        check_total(node, domain)
    except NotTotal as wrong:
        if not is_draft:
            mistakes.add(item, f"the expression is not total: {wrong}")
            return None
    integer = _INTEGER[cast("str | None", spec.tighter)] if spec.kind == "integer" else None
    function = compile_map(node, kind, integer=integer)
    return Rule(signal.name, spec.name, text, item.place, node, function, uses_current(node))


def read_style_rules(
    item: Item | None,
    styles: set[str],
    signals: Mapping[str, SignalSpec],
    parameters: Mapping[str, ParameterSpec],
    mistakes: MistakeList,
    *,
    is_draft: bool = False,
) -> list[StyleRule]:
    """Read `style_rules`; the last one, and only the last one, must have no condition."""
    rules: list[StyleRule] = []
    if item is None:
        return rules
    entries = item.value if isinstance(item.value, list) else []
    if not entries:
        mistakes.add(item, "must be a list of rules such as {style: strict, when: safety_mode == strict}")
        return rules
    modes = {name: spec.values for name, spec in parameters.items() if spec.kind == "enum"}
    scope = Scope("condition", frozenset(signals), modes=modes, has_own=False)
    for position, part in enumerate(entries):
        table = Table(part, mistakes)
        style = table.word("style", sorted(styles))
        when = table.get("when")
        table.close()
        is_last = position == len(entries) - 1
        if (when is None) != is_last:
            mistakes.add(
                part,
                "the last rule must hold always (no 'when')" if is_last else "only the last rule may leave out 'when'",
            )
            continue
        if when is None:
            rules.append(StyleRule(style, "", part.place, None, None))
            continue
        if not isinstance(when.value, str):
            mistakes.add(when, "must be a condition, such as stress > 0.7")
            continue
        node = _parse(when.value, scope, when, mistakes)
        if node is None:
            continue
        try:
            check_total(node, Domain())
        except NotTotal as wrong:
            if not is_draft:
                mistakes.add(when, f"the condition is not total: {wrong}")
                continue
        rules.append(StyleRule(style, when.value, when.place, node, compile_condition(node)))
    return rules


def _text_of(item: Item) -> str | None:
    value = item.value
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, list):  # tools: [retrieval] without quotes is a YAML list of words
        names = [entry.value for entry in value]
        return "[" + ", ".join(map(repr, names)) + "]" if all(isinstance(n, str) for n in names) else None
    return value if isinstance(value, str) else None


def _parse(text: str, scope: Scope, item: Item, mistakes: MistakeList) -> Node | None:
    try:
        return parse_expression(text, scope)
    except ExpressionError as wrong:
        place = item.place
        if item.inline and wrong.line == 1:
            place = Place(place.line, place.column + wrong.column - 1)
        mistakes.add(item, str(wrong), at=place)
        return None


def check_guards_tighten(
    rule: Rule,
    signals: Mapping[str, SignalSpec],
    spec: ParameterSpec,
    known_tools: frozenset[str],
    mistakes: MistakeList,
) -> None:
    """Refuse a guard's map that is seen to loosen as a guard rises (invariant I1).

    A sweep over a grid refutes and never proves: `lukhas policy verify` proves.
    """
    parts = walk(rule.node)
    named = sorted({part.signal for part in parts if isinstance(part, Level)} - {rule.signal})
    least = signals[rule.signal].min_level
    axes = [rule.signal, *(name for name in named if signals[name].role == "guard")]
    corners = list(itertools.islice(itertools.product((0.0, 1.0), repeat=len(named)), _CORNERS))
    corners += [(0.5,) * len(named)] * bool(named)
    currents = _samples(spec, known_tools) if rule.uses_current else [spec.default]
    grid = _grid(parts)
    for axis, corner, current in itertools.product(axes, corners, currents):
        is_own = axis == rule.signal
        own_grid = sorted({max(level, least) for level in grid}) if is_own else grid
        for own in (least,) if is_own else (least, 1.0):
            levels = dict.fromkeys(signals, 0.0) | dict(zip(named, corner, strict=True)) | {rule.signal: own}
            before: Value | None = None
            for level in own_grid:
                levels[axis] = level
                value = _in_force(rule.function(level if is_own else own, current, levels), current, spec)
                if before is not None and value != before and _is_looser(value, before, spec):
                    item = Item(None, rule.place, f"maps.{rule.signal}.{rule.parameter}", rule.place)
                    what = f"loosens at {axis} = {level:g} ({_show(before)} -> {_show(value)})"
                    mistakes.add(item, f"a guard's map may only tighten, and this one {what}")
                    return
                before = value


def _in_force(cap: Value, current: Value, spec: ParameterSpec) -> Value:
    """Return what a cap makes of a value: the tighter of the two, inside the bounds.

    At the default of a parameter that only guards touch, the cap itself is in force: it is the caller's limit.
    """
    if spec.kind in ("number", "integer"):
        cap = min(max(cast(float, cap), spec.low), spec.high)
    is_capped = current == spec.default and spec.name not in (SAFETY_MODE, TOOLS)
    if spec.kind == "tools" or is_capped:
        return cap
    return current if _is_looser(cap, current, spec) else cap


def _grid(parts: Sequence[Node]) -> list[float]:
    """Levels to try: an even grid, and both sides of each number that the expression has."""
    levels = {step / _GRID for step in range(_GRID + 1)}
    for part in parts:
        if isinstance(part, Number) and 0.0 <= part.value <= 1.0:
            near = (math.nextafter(part.value, 0.0), float(part.value), math.nextafter(part.value, 1.0))
            levels.update(near)
    return sorted(levels)


def _samples(spec: ParameterSpec, known_tools: frozenset[str]) -> Sequence[Value]:
    if spec.kind in ("number", "integer"):
        low, high = spec.low, spec.high
        return [cast(float, spec.default), low, high] + [low + (high - low) * part for part in (0.25, 0.5, 0.75)]
    # Lists that loosen under some allowlist also do under the one of everything.
    return spec.values if spec.kind == "enum" else [tuple(sorted(known_tools))]


def _show(value: Value) -> str:
    return f"[{', '.join(value)}]" if isinstance(value, tuple) else str(value)


def _is_looser(value: object, before: object, spec: ParameterSpec) -> bool:
    if spec.kind == "tools":
        return not set(cast("tuple[str, ...]", value)) <= set(cast("tuple[str, ...]", before))
    if spec.kind == "enum":
        return spec.values.index(cast(str, value)) > spec.values.index(cast(str, before))
    a, b = cast(float, value), cast(float, before)
    return a > b if spec.tighter == "lower" else a < b
