"""What has to be computed for one set of present signals, laid out once per set."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from lukhas.modulation.policy import ParameterSpec, Policy, Rule


class Cause(NamedTuple):
    """A rule as the deciding loop needs it, unpacked."""

    signal: str
    function: Any
    text: str
    place: str
    weight: float


class ParameterPlan(NamedTuple):
    """The rules that matter for one parameter.

    Attributes:
        styles: lowest precedence first; only those whose value can matter.
        guards: in the policy's order, which changes the trace and never the value.
        is_blended: whether the styles are blended instead of the highest deciding.
        is_guarded_only: whether only guards map it, so that the caller is held to their cap alone.
        name, low, high, is_lower: the specification's, unpacked.
    """

    spec: ParameterSpec
    styles: tuple[Cause, ...]
    guards: tuple[Cause, ...]
    is_blended: bool
    is_guarded_only: bool
    name: str
    low: float
    high: float
    is_lower: bool


class Plan(NamedTuple):
    """Every parameter that is touched.

    Attributes:
        choices: enum parameters, the safety mode first, and the tools.
        numbers: the rest.
        touched: names, in the policy's order.
        styled: those that not only guards touch.
    """

    choices: tuple[ParameterPlan, ...]
    numbers: tuple[ParameterPlan, ...]
    touched: tuple[str, ...]
    styled: frozenset[str]


def make_plan(policy: Policy, present: Sequence[str]) -> Plan:
    """Lay out what has to be computed where these signals are present, highest precedence first."""
    choices: list[ParameterPlan] = []
    numbers: list[ParameterPlan] = []
    for name, spec in policy.parameters.items():
        rules = [policy.rules[signal, name] for signal in present if (signal, name) in policy.rules]
        if not rules and not policy.touch_all:
            continue
        guards = [rule for rule in rules if policy.signals[rule.signal].role == "guard"]
        styles = [rule for rule in rules if policy.signals[rule.signal].role == "style"]
        is_number = spec.kind in ("number", "integer")
        is_blended = policy.blend and is_number and len(styles) > 1
        if not is_blended:
            # A rule that does not read `current` hides every rule of lower precedence.
            last = next((i for i, rule in enumerate(styles) if not rule.uses_current), len(styles) - 1)
            styles = styles[: last + 1][::-1]
        is_guarded_only = not styles and not policy.touch_all
        part = ParameterPlan(
            spec,
            _causes(policy, styles),
            _causes(policy, guards),
            is_blended,
            is_guarded_only,
            name,
            spec.low,
            spec.high,
            spec.tighter == "lower",
        )
        (numbers if is_number else choices).append(part)
    parts = choices + numbers
    touched = {part.spec.name for part in parts}
    return Plan(
        tuple(choices),
        tuple(numbers),
        tuple(name for name in policy.parameters if name in touched),
        frozenset(part.spec.name for part in parts if not part.is_guarded_only),
    )


def _causes(policy: Policy, rules: Iterable[Rule]) -> tuple[Cause, ...]:
    return tuple(Cause(r.signal, r.function, r.text, str(r.place), policy.signals[r.signal].weight) for r in rules)
