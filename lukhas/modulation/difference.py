"""What changes from one policy to another, in words: which parameter, for which range of which signal, by how much."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Final, cast

import msgspec

from lukhas.modulation.policy import ParameterSpec, Policy, Style, StyleRule, ToolClass, ViolationSpec
from lukhas.modulation.reading import read_changes
from lukhas.modulation.wording import Change, show_list, show_span_ms, show_text, show_value

_DURATIONS: Final = {
    "cooldown_ms": "cooldown",
    "ttl_ms": "ttl",
    "max_ttl_ms": "longest ttl",
    "half_life_ms": "half-life",
}
_LONGEST_SHOWN: Final = 160


class Difference(msgspec.Struct, frozen=True):
    """Everything that changes from `a` to `b`.

    Attributes:
        a, b: the policies' ids.
        same: whether they are the same text.
        changes: in the order of the policy file.
    """

    a: str
    b: str
    same: bool
    changes: tuple[Change, ...]


def compare_policies(a: Policy, b: Policy) -> Difference:
    """Say what changes from one policy to another.

    What the maps yield is sampled: each signal over its whole range with the others absent (and with those that a
    map names at 1), and all of them at 1 together.
    """
    if a.text == b.text:
        return Difference(a.id, b.id, True, ())
    changes = [
        *_compare_heads(a, b),
        *_compare_tables("signal", a.signals, b.signals),
        *_compare_tables("parameter", a.parameters, b.parameters),
        *read_changes(a, b),
        *_compare_tables("style", a.styles, b.styles),
        *_compare_style_rules(a.style_rules, b.style_rules),
        *_compare_tables("tool", a.tool_classes, b.tool_classes),
        *_compare_tables("feedback", a.knobs, b.knobs),
        *_compare_violations(a.violations, b.violations),
    ]
    return Difference(a.id, b.id, False, tuple(changes))


def _compare_heads(a: Policy, b: Policy) -> Iterator[Change]:
    pairs = [
        ("name", a.name, b.name),
        ("apply", "all" if a.touch_all else "touched", "all" if b.touch_all else "touched"),
        ("combine", "blend" if a.blend else "precedence", "blend" if b.blend else "precedence"),
    ]
    for name, before, after in pairs:
        if before != after:
            text = f"{name}: {show_text(before)} -> {show_text(after)}"
            yield Change("policy", name, text, before=before, after=after)


def _compare_tables(area: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Change]:
    for name, before in a.items():
        after = b.get(name)
        if after is None:
            yield Change(area, name, f"{area} {show_text(name)}: removed")
        elif after != before:
            yield from _compare_specs(area, name, before, after)
    for name, after in b.items():
        if name not in a:
            yield Change(area, name, f"{area} {show_text(name)}: new ({_describe(after)})")


def _compare_specs(area: str, name: str, before: Any, after: Any) -> Iterator[Change]:
    for title, old, new in _pair_fields(before, after):
        text = f"{area} {show_text(name)}: {title} {old} -> {new}"
        yield Change(area, name, text, before=old, after=new)


def _compare_violations(before: ViolationSpec, after: ViolationSpec) -> Iterator[Change]:
    for title, old, new in _pair_fields(before, after):
        yield Change("violations", title, f"violations: {title} {old} -> {new}", before=old, after=new)


def _pair_fields(before: Any, after: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(before, ParameterSpec):
        old, new = _bounds(before), _bounds(cast(ParameterSpec, after))
        if old != new:
            yield "bounds", old, new
    for field in fields(before):
        if isinstance(before, ParameterSpec) and field.name in ("low", "high", "values"):
            continue
        old, new = getattr(before, field.name), getattr(after, field.name)
        if old == new:
            continue
        if field.name in _DURATIONS:
            yield _DURATIONS[field.name], show_span_ms(old), show_span_ms(new)
        elif isinstance(before, (Style, ToolClass)) and isinstance(old, tuple):
            yield field.name, show_list(cast("tuple[str, ...]", old)), show_list(cast("tuple[str, ...]", new))
        else:
            yield field.name.replace("_", " "), _shorten(old), _shorten(new)


def _bounds(spec: ParameterSpec) -> str:
    if spec.kind == "enum":
        return show_list(spec.values)
    return "" if spec.kind == "tools" else f"{show_value(spec.low)} to {show_value(spec.high)}"


def _describe(spec: Any) -> str:
    said: list[str] = []
    for field in fields(spec):
        value = getattr(spec, field.name)
        if field.name in ("name", "parameter") or value in (None, "", ()):
            continue
        if field.name in _DURATIONS:
            said.append(f"{_DURATIONS[field.name]} {show_span_ms(value)}")
        elif not (isinstance(spec, ParameterSpec) and spec.kind in ("enum", "tools") and field.name in ("low", "high")):
            said.append(f"{field.name.replace('_', ' ')} {_shorten(value)}")
    return ", ".join(said) or "empty"


def _shorten(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return show_list(cast("tuple[str, ...]", value))
    if not isinstance(value, str):
        return show_value(value)
    if not value:
        return "nothing"
    text = show_text(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _compare_style_rules(a: Sequence[StyleRule], b: Sequence[StyleRule]) -> Iterator[Change]:
    before, after = [_say_rule(rule) for rule in a], [_say_rule(rule) for rule in b]
    gone = [rule for rule in before if rule not in after]
    new = [rule for rule in after if rule not in before]
    for rule in gone:
        yield Change("style_rule", rule.split(" ")[0], f"style rule removed: {rule}", before=rule)
    for rule in new:
        yield Change("style_rule", rule.split(" ")[0], f"style rule new: {rule}", after=rule)
    if [rule for rule in before if rule not in gone] != [rule for rule in after if rule not in new]:
        order = ", then ".join(rule.split(" ")[0] for rule in after)
        yield Change("style_rule", "order", f"style rules stand in another order: {order}")


def _say_rule(rule: StyleRule) -> str:
    return (
        f"{show_text(rule.style)} when {rule.text}" if rule.node is not None else f"{show_text(rule.style)} otherwise"
    )
