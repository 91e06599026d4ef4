"""A violation: something at a call that the policy or a moderation rule forbids. Each becomes one incident."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lukhas.moderation.rule import Severity

Point = Literal["instruction", "input", "tool_result", "output", "advertise", "call", "result", "object"]


class Violation(msgspec.Struct, frozen=True):
    """What was found where, and what was done about it. Holds no text that a caller or a model wrote.

    Attributes:
        incident_id: `inc_...`.
        point: moderation's points, or for tools 'advertise', 'call' and 'result', or 'object' for another tenant's.
        category: the rule's category; `tool` for tool governance; `moderator` for a remote moderator's.
        rule: the rule's id, or what of tool governance it was: 'not_allowed', 'not_offered', 'arguments'.
        action: what was done: 'block', 'tighten', or in shadow mode what would have been.
        tool: the tool's name, redacted; None where none is concerned.
        details: what else an engineer wants to know, as plain JSON; redacted.
    """

    incident_id: str
    point: Point
    category: str
    rule: str
    severity: Severity
    action: Literal["block", "tighten"]
    tool: str | None = None
    details: Mapping[str, Any] = {}
