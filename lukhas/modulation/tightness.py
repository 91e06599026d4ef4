"""What 'tighter' means for each kind of parameter (invariant I1 is stated in these terms)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

from lukhas.modulation.compile import DECIMALS
from lukhas.modulation.policy import ParameterSpec, Policy


def is_looser(spec: ParameterSpec, value: Any, than: Any) -> bool:
    """Return whether a value is looser than another; never for a parameter without direction."""
    if spec.tighter is None:
        return False
    if spec.tighter == "lower":
        return value > than
    if spec.tighter == "higher":
        return value < than
    if spec.tighter == "first":
        return spec.values.index(value) > spec.values.index(than)
    return not set(cast("Sequence[str]", value)) <= set(cast("Sequence[str]", than))


def tighten(policy: Policy, parameter: str, value: Any, cap: Any) -> Any:
    """Return the tighter of a value and a cap; for tools, what both admit."""
    spec = policy.parameters[parameter]
    if spec.kind == "tools":
        return list(policy.meet_tools(value, cap))
    return cap if is_looser(spec, value, cap) else value


def settle(spec: ParameterSpec, value: float) -> float | int:
    """Make a number fit its parameter: whole, in the tighter direction, or rounded to 9 decimals.

    Never decreasing in `value`, so it cannot break I1.
    """
    rounded = round(value, DECIMALS) + 0.0
    if spec.kind != "integer":
        return rounded
    if spec.tighter == "lower":
        return math.floor(rounded)
    return math.ceil(rounded) if spec.tighter == "higher" else round(rounded)
