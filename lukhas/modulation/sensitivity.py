"""How one parameter answers to the signals: by itself along each, and over the plane of any two.

Everything is read off the dispatcher, so a point shows what a call without values of its own would get there.
"""

from __future__ import annotations

import math
from typing import Any, Final, cast

import msgspec

from lukhas.errors import InvalidRequest, UnknownSignal
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.document import nearest
from lukhas.modulation.expression import Number, walk

# Points along a line, beside those at which an expression may jump; and along each side of a plane.
LINE_STEPS: Final = 100
PLANE_STEPS: Final = 50
UNITS: Final = {"max_output_tokens": "tokens", "retrieval_k": "documents", "planner_beam": "branches"}


class Line(msgspec.Struct, frozen=True):
    """The parameter along one signal, all others absent.

    Attributes:
        role: 'guard' or 'style'.
        min_level: below it the signal counts as absent.
        maps: the map's text, or None where the signal does not map the parameter.
        levels: where it was decided, rising, each a ratio in [0, 1].
        values: what was decided there.
        limits: the loosest value that a caller may keep there; None where nothing limits the caller.
    """

    signal: str
    role: str
    min_level: float
    maps: str | None
    levels: list[float]
    values: list[Any]
    limits: list[Any]


class Plane(msgspec.Struct, frozen=True):
    """The parameter over two signals, all others absent; `values[row][column]` is at (y[row], x[column])."""

    x_signal: str
    y_signal: str
    x: list[float]
    y: list[float]
    values: list[list[Any]]


class Sensitivity(msgspec.Struct, frozen=True):
    """What a parameter does under a policy.

    Attributes:
        kind: 'number', 'integer', 'enum' or 'tools'.
        unit: what a number counts; empty for a ratio or a plain number.
        bounds: lowest and highest number; None for other kinds.
        members: an enum's members in the policy's order.
        tighter: 'lower', 'higher', 'first', 'subset' or None.
    """

    policy: str
    name: str
    parameter: str
    kind: str
    unit: str
    default: Any
    bounds: tuple[float, float] | None
    members: tuple[str, ...]
    tighter: str | None
    lines: list[Line]
    plane: Plane | None


def measure_sensitivity(
    dispatcher: Dispatcher, parameter: str, x: str | None = None, y: str | None = None
) -> Sensitivity:
    """Measure a parameter along every signal, along `x` alone, or over the plane of `x` and `y`.

    Raises:
        InvalidRequest: no such parameter, `y` without `x`, or the same signal twice.
        UnknownSignal: a name that the policy does not declare.
    """
    policy = dispatcher.policy
    spec = policy.parameters.get(parameter)
    if spec is None:
        raise InvalidRequest(
            f"The policy has no parameter '{parameter[:64]}'{nearest(parameter[:64], policy.parameters)}.",
            hint=f"It has: {', '.join(policy.parameters)}.",
            param="parameter",
        )
    for place, signal in (("x", x), ("y", y)):
        if signal is not None and signal not in policy.signals:
            raise UnknownSignal(
                f"The policy declares no signal '{signal[:64]}'{nearest(signal[:64], policy.signals)}.",
                hint=f"It has: {', '.join(policy.signals)}.",
                param=place,
            )
    if y is not None and x is None:
        raise InvalidRequest("A second signal needs a first.", param="x")
    if y is not None and x == y:
        raise InvalidRequest("A plane needs two different signals.", param="y")
    is_number = spec.kind in ("number", "integer")
    signals = list(policy.signals) if x is None else [x] if y is None else [x, y]
    return Sensitivity(
        policy=policy.id,
        name=policy.name,
        parameter=parameter,
        kind=spec.kind,
        unit=UNITS.get(parameter, ""),
        default=_plain(spec.default),
        bounds=(spec.low, spec.high) if is_number else None,
        members=spec.values,
        tighter=spec.tighter,
        lines=[_measure_line(dispatcher, parameter, signal) for signal in signals],
        plane=None if x is None or y is None else _measure_plane(dispatcher, parameter, x, y),
    )


def _measure_line(dispatcher: Dispatcher, parameter: str, signal: str) -> Line:
    policy = dispatcher.policy
    spec = policy.signals[signal]
    rule = policy.rules.get((signal, parameter))
    levels = _list_levels(dispatcher, signal)
    values: list[Any] = []
    limits: list[Any] = []
    for level in levels:
        decision = dispatcher.decide({signal: level})
        values.append(_plain(decision.parameters[parameter]))
        limits.append(_plain(decision.limits.get(parameter)))
    return Line(signal, spec.role, spec.min_level, None if rule is None else rule.text, levels, values, limits)


def _measure_plane(dispatcher: Dispatcher, parameter: str, x: str, y: str) -> Plane:
    steps = [step / PLANE_STEPS for step in range(PLANE_STEPS + 1)]
    values = [[_plain(dispatcher.decide({x: across, y: up}).parameters[parameter]) for across in steps] for up in steps]
    return Plane(x, y, steps, steps, values)


def _list_levels(dispatcher: Dispatcher, signal: str) -> list[float]:
    """Return an even grid, and both sides of each level at which a value may jump."""
    policy = dispatcher.policy
    levels = {step / LINE_STEPS for step in range(LINE_STEPS + 1)}
    jumps = {policy.signals[signal].min_level}
    for (_, _), rule in policy.rules.items():
        if rule.signal == signal:
            jumps |= {float(part.value) for part in walk(rule.node) if isinstance(part, Number)}
    for jump in jumps:
        levels |= {near for near in (math.nextafter(jump, 0.0), jump, math.nextafter(jump, 1.0)) if 0.0 <= near <= 1.0}
    return sorted(levels)


def _plain(value: Any) -> Any:
    return list(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
