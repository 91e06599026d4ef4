"""Alignment risk: moderation found something in this request that did not block it."""

from __future__ import annotations

from typing import Final

from lukhas.gateway.sensor.observation import Observation, Reading
from lukhas.moderation.rule import SEVERITIES, Action, Severity

LEVELS: Final[dict[Severity, float]] = {"low": 0.2, "medium": 0.4, "high": 0.6}
_COUNTED: Final[frozenset[Action]] = frozenset(("tighten", "record"))


class AlignmentRiskSensor:
    """Makes the call that holds a finding stricter itself; violations, which last, are raised elsewhere."""

    name = "alignment_risk"
    signal = "alignment_risk"

    def sense(self, observation: Observation) -> Reading | None:
        """Return 1 - product of (1 - level of each rule that fired), or None where none did.

        Rules count once, however often they fire: ten addresses of one kind are not ten risks.
        """
        fired: dict[str, Severity] = {one.rule: one.severity for one in observation.findings if one.action in _COUNTED}
        if not fired:
            return None
        safe = 1.0
        counts: dict[Severity, int] = dict.fromkeys(SEVERITIES, 0)
        for severity in fired.values():
            safe *= 1.0 - LEVELS[severity]
            counts[severity] += 1
        return Reading(1.0 - safe, {str(severity): count for severity, count in counts.items() if count})
