"""What two policies make of the same levels: sampled decisions, compared parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from lukhas.modulation.decision import Decision
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.expression import Level, Node, Number, walk
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, Policy
from lukhas.modulation.sweep import make_grid, sweep
from lukhas.modulation.wording import Change, say_corner, say_span, show_text

_STYLE: Final = "style"
Decide = Callable[[float], Decision]


def read_changes(a: Policy, b: Policy) -> Iterator[Change]:
    """Yield each map that was rewritten, and each range of a level over which a decision changes."""
    first, second = Dispatcher(a), Dispatcher(b)
    for signal in dict.fromkeys([*a.signals, *b.signals]):
        # Below both least levels the signal is absent, and what changes there is no doing of its own.
        lowest = min(policy.signals[signal].min_level for policy in (a, b) if signal in policy.signals)
        grid = [x for x in make_grid(_list_landmarks(signal, a, b)) if x >= lowest]
        deciding: dict[str, tuple[Decide, Decide]] = {}

        def decide_with(other: str, signal: str = signal, known: dict[str, Any] = deciding) -> tuple[Decide, Decide]:
            if other not in known:
                context = {other: 1.0} if other else {}
                known[other] = _remember(first, signal, context), _remember(second, signal, context)
            return known[other]

        for parameter in _list_mapped(signal, a, b):
            found = list(_compare_parameter(signal, parameter, a, b, grid, decide_with))
            yield from _say_map(signal, parameter, a, b, has_effect=bool(found))
            yield from found
        before, after = decide_with("")
        for span in sweep(lambda x, d=before: d(x).style, lambda x, d=after: d(x).style, grid):
            yield say_span(_STYLE, signal, span, is_limit=False)
    yield from _compare_corner(first, second)


def _compare_parameter(
    signal: str,
    parameter: str,
    a: Policy,
    b: Policy,
    grid: list[float],
    decide_with: Callable[[str], tuple[Decide, Decide]],
) -> Iterator[Change]:
    if parameter not in a.parameters or parameter not in b.parameters:
        return
    is_limit = signal in a.guards and signal in b.guards and parameter not in (SAFETY_MODE, TOOLS)
    named = [other for other in _list_named(signal, parameter, a, b) if other != signal]
    for other in ["", *named]:
        before, after = decide_with(other)
        spans = sweep(_reader(before, parameter, is_limit), _reader(after, parameter, is_limit), grid)
        for span in spans:
            context = f"and {show_text(other)} at 1" if other else ""
            yield say_span(parameter, signal, span, is_limit=is_limit, context=context)
        if spans:
            return  # with others absent is what people ask first; the rest is asked where that shows nothing


def _compare_corner(first: Dispatcher, second: Dispatcher) -> Iterator[Change]:
    before = first.decide(dict.fromkeys(first.policy.signals, 1.0))
    after = second.decide(dict.fromkeys(second.policy.signals, 1.0))
    for name, value in before.parameters.items():
        if name in after.parameters and after.parameters[name] != value:
            yield say_corner(name, value, after.parameters[name])
    if before.style != after.style:
        yield say_corner(_STYLE, before.style, after.style)


def _remember(dispatcher: Dispatcher, signal: str, context: Mapping[str, float]) -> Decide:
    known: dict[float, Decision] = {}
    declared = dispatcher.policy.signals

    def decide(x: float) -> Decision:
        found = known.get(x)
        if found is None:
            levels = {name: level for name, level in {**context, signal: x}.items() if name in declared}
            found = known[x] = dispatcher.decide(levels)
        return found

    return decide


def _reader(decide: Decide, parameter: str, is_limit: bool) -> Callable[[float], Any]:
    if is_limit:
        return lambda x: decide(x).limits.get(parameter)
    return lambda x: decide(x).parameters[parameter]


def _list_mapped(signal: str, a: Policy, b: Policy) -> list[str]:
    names = dict.fromkeys([*a.parameters, *b.parameters])
    return [name for name in names if (signal, name) in a.rules or (signal, name) in b.rules]


def _nodes(signal: str, parameter: str, a: Policy, b: Policy) -> list[Node]:
    return [rule.node for policy in (a, b) if (rule := policy.rules.get((signal, parameter))) is not None]


def _list_named(signal: str, parameter: str, a: Policy, b: Policy) -> list[str]:
    found: dict[str, None] = {}
    for node in _nodes(signal, parameter, a, b):
        found |= dict.fromkeys(part.signal for part in walk(node) if isinstance(part, Level))
    return list(found)


def _list_landmarks(signal: str, a: Policy, b: Policy) -> Iterator[float]:
    """Yield every number at which something may begin or end: least levels, and those that rules name."""
    for policy in (a, b):
        spec = policy.signals.get(signal)
        if spec is not None:
            yield spec.min_level
        nodes = [rule.node for (name, _), rule in policy.rules.items() if name == signal]
        for node in [*nodes, *(rule.node for rule in policy.style_rules if rule.node is not None)]:
            yield from (float(part.value) for part in walk(node) if isinstance(part, Number) and 0 <= part.value <= 1)


def _say_map(signal: str, parameter: str, a: Policy, b: Policy, *, has_effect: bool) -> Iterator[Change]:
    before, after = a.rules.get((signal, parameter)), b.rules.get((signal, parameter))
    name = f"map {show_text(signal)} -> {show_text(parameter)}"
    if before is None and after is not None:
        yield Change("map", parameter, f"{name}: new, {show_text(after.text)}", signal, after=after.text)
    elif after is None and before is not None:
        yield Change("map", parameter, f"{name}: removed, {show_text(before.text)}", signal, before=before.text)
    elif before is not None and after is not None and before.node != after.node:
        text = f"{name}: {show_text(before.text)} -> {show_text(after.text)}"
        text += "" if has_effect else " (no level was found that it changes)"
        yield Change("map", parameter, text, signal, before=before.text, after=after.text)
