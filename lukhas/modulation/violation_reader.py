"""The policy's section `violations`: how far a violation raises which guard, for how long, and where it widens."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from lukhas.modulation.document import MistakeList, Table, nearest
from lukhas.modulation.parameter_reader import VIOLATION_SIGNAL
from lukhas.modulation.policy import SignalSpec, ViolationSpec
from lukhas.modulation.yaml_source import Item

# What a policy without the section means; the packaged policy spells out the same.
LEVELS: Final[Mapping[str, float]] = {"low": 0.3, "medium": 0.5, "high": 0.8}
CEILING: Final = 0.95
WIDEN_ABOVE: Final = 0.9
TTL_MS: Final = 600_000


def read_violations(table: Table | None, signals: Mapping[str, SignalSpec], mistakes: MistakeList) -> ViolationSpec:
    """Read `violations`; every part has a default, which is fitted to the signal that it raises."""
    if table is None:
        return _fit(VIOLATION_SIGNAL, signals, {}, None, WIDEN_ABOVE, None)
    guards = [name for name, spec in signals.items() if spec.role == "guard"]
    signal = table.word("signal", default=VIOLATION_SIGNAL)
    at = table.entries.get("signal")
    if at is not None and isinstance(at.value, str) and signal not in guards:
        what = "a style signal" if signal in signals else "no signal of this policy"
        mistakes.add(at, f"'{signal[:64]}' is {what}; it must be a guard{nearest(signal[:64], guards)}")
        signal = VIOLATION_SIGNAL
    given: dict[str, float] = {}
    levels = table.table("levels")
    if levels is not None:
        given = {name: levels.number(name, 0, 1, default=LEVELS[name]) for name in LEVELS if _has(levels, name)}
        levels.close()
    ceiling = table.number("ceiling", 0, 1, default=CEILING) if _has(table, "ceiling") else None
    widen_above = table.number("widen_above", 0, 1, default=WIDEN_ABOVE)
    longest = signals[signal].max_ttl_ms if signal in signals else TTL_MS
    ttl_ms = table.integer("ttl_ms", 1, longest, default=min(TTL_MS, longest)) if _has(table, "ttl_ms") else None
    spec = _fit(signal, signals, given, ceiling, widen_above, ttl_ms)
    _check_order(spec, table, levels, signals, mistakes)
    table.close()
    return spec


def _has(table: Table, name: str) -> bool:
    table.get(name)  # so that the key counts as known
    return name in table.entries


def _fit(
    signal: str,
    signals: Mapping[str, SignalSpec],
    given: Mapping[str, float],
    ceiling: float | None,
    widen_above: float,
    ttl_ms: int | None,
) -> ViolationSpec:
    known = signals.get(signal)
    least = 0.0 if known is None else known.min_level
    levels = {name: given.get(name, max(level, least)) for name, level in LEVELS.items()}
    # What is not given gives way to what is.
    if "medium" not in given:
        levels["medium"] = max(levels["medium"], given.get("low", 0.0))
    if "high" not in given:
        levels["high"] = max(levels["high"], levels["medium"])
    return ViolationSpec(
        signal=signal,
        low=levels["low"],
        medium=levels["medium"],
        high=levels["high"],
        ceiling=max(CEILING, levels["high"]) if ceiling is None else ceiling,
        widen_above=widen_above,
        ttl_ms=min(TTL_MS, TTL_MS if known is None else known.max_ttl_ms) if ttl_ms is None else ttl_ms,
    )


def _check_order(
    spec: ViolationSpec, table: Table, levels: Table | None, signals: Mapping[str, SignalSpec], mistakes: MistakeList
) -> None:
    entries: Mapping[str, Item] = {} if levels is None else levels.entries
    home = table.item if levels is None else levels.item
    steps = (("low", spec.low), ("medium", spec.medium), ("high", spec.high))
    for (lower, below), (name, level) in pairwise(steps):
        if level < below:
            mistakes.add(entries.get(name, home), f"'{name}' ({level:g}) is below '{lower}' ({below:g})")
    if spec.ceiling < spec.high:
        at = table.entries.get("ceiling", home)
        mistakes.add(at, f"the ceiling {spec.ceiling:g} is below the level of 'high' ({spec.high:g})")
    known = signals.get(spec.signal)
    for name, level in steps:
        if known is not None and level < known.min_level and name in entries:
            mistakes.add(
                entries[name],
                f"{level:g} is below the min_level {known.min_level:g} of '{spec.signal}', so it would not count",
            )
