"""What 'tighter' means for each kind of parameter (invariant I1 is stated in these terms)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, cast

from lukhas.errors import InvalidRequest
from lukhas.modulation.compile import round_value
from lukhas.modulation.policy import ParameterSpec, Policy

# Far beyond any parameter, and small enough that adding to it cannot overflow.
LARGEST: Final = 1e280


def is_looser(spec: ParameterSpec, value: Any, than: Any) -> bool:
    """Return whether a number or an enum's member is looser than another; lists of tools only meet."""
    if spec.tighter == "lower":
        return value > than
    if spec.tighter == "higher":
        return value < than
    return spec.values.index(value) > spec.values.index(than)


def loosens(spec: ParameterSpec, delta: float) -> bool:
    """Return whether adding `delta` to a number moves it in the looser direction."""
    return delta > 0.0 if spec.tighter == "lower" else delta < 0.0 if spec.tighter == "higher" else False


def tighten(policy: Policy, parameter: str, value: Any, cap: Any) -> Any:
    """Return the tighter of a value and a cap; for tools, what both admit."""
    spec = policy.parameters[parameter]
    if spec.kind == "tools":
        return policy.meet_tools(value, cap)
    return cap if is_looser(spec, value, cap) else value


def check_value(spec: ParameterSpec, value: Any) -> Any:
    """Return a caller's value, refusing what cannot be compared with the policy's.

    Raises:
        InvalidRequest: not a finite number, not a member of the enum, or not a list of texts.
    """
    if spec.kind == "enum":
        if isinstance(value, str) and value in spec.values:
            return value
        wanted = f"one of {', '.join(spec.values)}"
    elif spec.kind == "tools":
        entries = cast("Sequence[object]", value) if isinstance(value, (list, tuple)) else [None]
        if all(isinstance(entry, str) for entry in entries):
            return entries
        wanted = "a list of tool classes and names"
    else:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST:
            return value
        wanted = "a finite number"
    raise InvalidRequest(f"'{spec.name}' must be {wanted}.", param=spec.name)


def settle(spec: ParameterSpec, value: float) -> float | int:
    """Make a number fit its parameter: whole, in the tighter direction, or rounded to 9 decimals.

    Never decreasing in `value`, so it cannot break I1.
    """
    rounded = round_value(value)
    if spec.kind != "integer":
        return rounded
    if spec.tighter == "lower":
        return math.floor(rounded)
    return math.ceil(rounded) if spec.tighter == "higher" else round(rounded)
