"""What was decided for one call, and the steps that led there."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from lukhas.modulation.policy import SAFETY_MODE, TOOLS


class Step(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One change on the way to a decision.

    Attributes:
        parameter: what changed.
        step: 'style', 'guard', 'bounds', 'nudge', 'caller', 'choose', or, from the gateway, 'capability', 'tools'.
        before, after: its value around this step.
        signal: the signal that caused it, if one did.
        level: that signal's effective level, a ratio in [0, 1].
        rule: the rule's text in the policy, or what was done in words.
        place: where the rule stands in the policy file.
    """

    parameter: str
    step: str
    before: Any
    after: Any
    signal: str = ""
    level: float = -1.0
    rule: str = ""
    place: str = ""


class Decision(msgspec.Struct, gc=False):
    """What to do with one call, and why.

    Attributes:
        policy: id of the policy that decided.
        parameters: the value of every parameter, `safety_mode` and `tools` among them.
        style: the chosen prompt style.
        touched: parameters that are written into the call.
        limits: for each touched parameter with a direction, the loosest value that a caller may keep.
        levels: effective levels of the signals that were present.
        trace: every step that changed something, in order.
    """

    policy: str
    parameters: dict[str, Any]
    style: str
    touched: list[str]
    limits: dict[str, Any]
    levels: dict[str, float]
    trace: list[Step]

    @property
    def tools(self) -> list[str]:
        """The allowlist: tool classes and names."""
        return cast("list[str]", self.parameters[TOOLS])

    @property
    def safety_mode(self) -> str:
        """How strict the call is."""
        return cast(str, self.parameters[SAFETY_MODE])

    def to_dict(self) -> dict[str, Any]:
        """Return the decision as plain JSON types."""
        plain = cast("dict[str, Any]", msgspec.to_builtins(self))
        return {"policy": plain.pop("policy"), "tools": list(self.tools), **plain}
