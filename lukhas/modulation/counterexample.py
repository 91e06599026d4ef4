"""A counterexample: found by the solver over exact reals, made short, and replayed through the real dispatcher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final, cast

from lukhas.modulation import tightness
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.expression import Arithmetic, Node, walk
from lukhas.modulation.interpret import Point, evaluate
from lukhas.modulation.interval import LARGEST
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, UNKNOWN_CLASS, Policy, Rule

_DIGITS: Final = (1, 2, 3, 4, 6, 9)
# How a draft's expression can fail: by zero, beyond a float, or at the difference of two such.
_NO_VALUE: Final = (ZeroDivisionError, OverflowError, ValueError)


@dataclass(frozen=True, slots=True)
class Inputs:
    """What to replay: levels, the same with one guard raised, the caller's values, feedback."""

    levels: Mapping[str, float]
    raised: Mapping[str, float] = field(default_factory=dict[str, float])
    caller: Mapping[str, Any] = field(default_factory=dict[str, Any])
    nudges: Mapping[str, float] = field(default_factory=dict[str, float])


@dataclass(frozen=True, slots=True)
class Sight:
    """What a replay showed: the value before and after, and whether it is the value in force or the caller's limit."""

    what: str
    before: Any
    after: Any


Replay = Callable[[Inputs], Sight | None]


def describe(parameter: str, found: Inputs, sight: Sight | None, replay: Replay, current: Any = None) -> dict[str, Any]:
    """Return the document of a counterexample, shortened as far as it still shows the same.

    Args:
        parameter: the parameter, or the style rule, that it is about.
        found: the solver's point, in floats.
        sight: what the solver computed, for a point that no float shows.
        replay: shows the failure at a point, or None where there is none.
        current: what the map reads as `current`, for a statement about a map alone.
    """
    confirmed = _confirm(found, replay)
    if confirmed is not None:
        found, sight = _shorten(*confirmed, replay)
    return {
        "parameter": parameter,
        "levels": dict(found.levels),
        "raised": dict(found.raised),
        "caller": dict(found.caller),
        "nudge": dict(found.nudges),
        "current": _plain(current),
        "what": sight.what if sight else "value",
        "before": _plain(sight.before) if sight else None,
        "after": _plain(sight.after) if sight else None,
        "confirmed": confirmed is not None,
    }


def inputs_of(document: Mapping[str, Any]) -> Inputs:
    """Return what a counterexample's document says to replay."""
    return Inputs(document["levels"], document["raised"], document["caller"], document["nudge"])


def replay_raise(dispatcher: Dispatcher, parameter: str) -> Replay:
    """Return the replay for I1: does raising the guard loosen the value, or what the caller may keep?"""
    policy = dispatcher.policy

    def replay(at: Inputs) -> Sight | None:
        options: dict[str, Any] = {"caller": at.caller, "nudges": at.nudges}
        try:
            before = dispatcher.decide(at.levels, **options)
            after = dispatcher.decide({**at.levels, **at.raised}, **options)
        except _NO_VALUE:
            return None
        a, b = before.parameters[parameter], after.parameters[parameter]
        if is_looser(policy, parameter, b, a):
            return Sight("value", a, b)
        limit, raised = before.limits.get(parameter), after.limits.get(parameter)
        if limit is not None and (raised is None or is_looser(policy, parameter, raised, limit)):
            return Sight("limit", limit, raised)
        return None

    return replay


def replay_map(policy: Policy, rule: Rule, current: Any) -> Replay:
    """Return the replay for one guard's map: does its own cap, or what it makes of `current`, loosen?"""
    spec = policy.parameters[rule.parameter]

    def cap(levels: Mapping[str, float]) -> Any:
        full = _full(policy, levels)
        value = rule.function(full[rule.signal], current, full)
        if spec.kind in ("number", "integer"):
            value = min(max(value, spec.low), spec.high)
        return tightness.tighten(policy, spec.name, current, value) if rule.uses_current else value

    def replay(at: Inputs) -> Sight | None:
        if rule.signal not in at.levels or at.levels[rule.signal] < policy.signals[rule.signal].min_level:
            return None
        try:
            before, after = cap(at.levels), cap({**at.levels, **at.raised})
        except _NO_VALUE:
            return None
        return Sight("map", before, after) if is_looser(policy, spec.name, after, before) else None

    return replay


def replay_range(dispatcher: Dispatcher, rule: Rule) -> Replay:
    """Return the replay for a style's map: does its own value leave the bounds?"""
    policy = dispatcher.policy
    spec = policy.parameters[rule.parameter]

    def replay(at: Inputs) -> Sight | None:
        try:
            trace = dispatcher.decide(at.levels).trace
        except _NO_VALUE:
            return None
        steps = [step for step in trace if step.parameter == spec.name]
        for made, bounded in pairwise(steps):
            if (made.step, made.signal, bounded.step) == ("style", rule.signal, "bounds"):
                return Sight("value", bounded.before, bounded.after)
        if rule.signal in at.levels:  # a blend shows the mean alone, and a higher signal hides the map
            value = rule.function(at.levels[rule.signal], spec.default, _full(policy, at.levels))
            within = min(max(value, spec.low), spec.high)
            return Sight("value", value, within) if value != within else None
        return None

    return replay


def replay_total(policy: Policy, rule: Rule | None, current: Any = None) -> Replay:
    """Return the replay for totality: does the decision, or the rule by itself, have no value at this point?"""

    def replay(at: Inputs) -> Sight | None:
        try:
            Dispatcher(policy).decide(at.levels, caller=at.caller)
            if rule is None or rule.signal not in at.levels:
                return None
            full = _full(policy, at.levels)
            rule.function(full[rule.signal], current, full)
            point = Point(full[rule.signal], current, full)
            if any(_is_huge(node, point) for node in walk(rule.node)):
                return Sight("overflow", None, None)
        except _NO_VALUE as failure:
            return Sight("division" if isinstance(failure, ZeroDivisionError) else "overflow", None, None)
        return None

    return replay


def _is_huge(node: Node, at: Point) -> bool:
    value = evaluate(node, at) if isinstance(node, Arithmetic) else 0.0
    return isinstance(value, (int, float)) and abs(value) > LARGEST


def is_looser(policy: Policy, parameter: str, value: Any, than: Any) -> bool:
    """Return whether a decided value is looser than another; a list of tools is where it admits one more."""
    if parameter != TOOLS:
        return tightness.is_looser(policy.parameters[parameter], value, than)
    return any(_admits(policy, value, entry) and not _admits(policy, than, entry) for entry in value)


def _admits(policy: Policy, allowlist: list[str], entry: str) -> bool:
    if entry in policy.tool_classes or entry == UNKNOWN_CLASS:
        return entry in allowlist
    return policy.allows_tool(allowlist, entry)


def _full(policy: Policy, levels: Mapping[str, float]) -> dict[str, float]:
    return {
        name: level if (level := levels.get(name, -1.0)) >= spec.min_level else 0.0
        for name, spec in policy.signals.items()
    }


def _confirm(found: Inputs, replay: Replay) -> tuple[Inputs, Sight] | None:
    """Replay the point, or one that rounds to it: a real that is no float may show its failure only there."""
    for digits in (None, 12, *reversed(_DIGITS)):
        at = found if digits is None else _rounded(found, digits)
        sight = replay(at)
        if sight is not None:
            return at, sight
    return None


def _rounded(at: Inputs, digits: int) -> Inputs:
    def short(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name: round(v, digits) if isinstance(v, float) else v for name, v in values.items()}

    return Inputs(short(at.levels), short(at.raised), short(at.caller), short(at.nudges))


def _shorten(at: Inputs, sight: Sight, replay: Replay) -> tuple[Inputs, Sight]:
    """Leave out what does not matter, and round what does to few decimals."""
    for candidates in (_smaller, _plainer):
        for change in candidates(at):
            shorter = change(at)
            if shorter is None or not _is_raise(shorter):
                continue
            found = replay(shorter)
            if found is not None:
                at, sight = shorter, found
    return at, sight


def _is_raise(at: Inputs) -> bool:
    # The same for levels near a signal's least: what falls below counts as absent, which is lower still.
    return all(0.0 <= at.levels.get(name, 0.0) <= level <= 1.0 for name, level in at.raised.items())


Change = Callable[[Inputs], Inputs | None]


def _smaller(at: Inputs) -> Iterator[Change]:
    yield lambda now: replace(now, nudges={}) if now.nudges else None
    yield lambda now: replace(now, caller={}) if now.caller else None
    for name in at.caller:
        yield lambda now, name=name: replace(now, caller=_without(now.caller, name)) if name in now.caller else None
    for name in at.levels:
        yield lambda now, name=name: replace(now, levels=_without(now.levels, name))


def _plainer(at: Inputs) -> Iterator[Change]:
    for part in ("levels", "raised", "caller", "nudges"):
        for name, value in cast("Mapping[str, Any]", getattr(at, part)).items():
            if not isinstance(value, float):
                continue
            for digits in reversed(_DIGITS):
                yield lambda now, part=part, name=name, digits=digits: _with_digits(now, part, name, digits)


def _with_digits(now: Inputs, part: str, name: str, digits: int) -> Inputs:
    values = cast("Mapping[str, Any]", getattr(now, part))
    return replace(now, **{part: {**values, name: round(values[name], digits)}})


def _without(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


def _plain(value: Any) -> Any:
    return list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value


def in_words(document: Mapping[str, Any]) -> str:
    """Return a counterexample as a sentence."""
    levels, raised = document["levels"], document["raised"]
    parameter, what = document["parameter"], document["what"]
    at = _levels_in_words(levels)
    given = [f"the caller's {name} {value}" for name, value in document["caller"].items()]
    given += [f"feedback {delta:+g}" for delta in document["nudge"].values()]
    also = f", {' and '.join(given)}" * bool(given)
    doubt = "" if document["confirmed"] else " (over exact reals; no float shows it)"
    if what in ("division", "overflow"):
        fails = "divides by zero" if what == "division" else "grows beyond what a number holds"
        return f"with {at}{also} the rule {fails}{doubt}"
    if not raised:
        return f"with {at}{also} the map gives {parameter} {document['before']}, outside its bounds{doubt}"
    if what == "map":
        parameter = f"{parameter} cap"
    verb = "may be" if what == "limit" else "is"
    up = " and ".join(
        f"raised to {level:g}" if len(levels) == 1 and name in levels else f"{name} raised to {level:g}"
        for name, level in raised.items()
    )
    after = "anything" if document["after"] is None else document["after"]
    if parameter == SAFETY_MODE:
        parameter = "safety mode"
    return f"with {at}{also} the {parameter} {verb} {document['before']}; {up} it {verb} {after}{doubt}"


def _levels_in_words(levels: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {level:g}" for name, level in levels.items()) or "no signal"
