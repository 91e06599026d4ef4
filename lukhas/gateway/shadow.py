"""A candidate policy that decides beside the one in force, on live calls: recorded, never applied."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import structlog

from lukhas.errors import LukhasError, PolicyError
from lukhas.gateway.policy_file import FileContent, PolicyFile
from lukhas.modulation.decision import Decision
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import TOOLS, Policy
from lukhas.modulation.policy_reader import parse_policy
from lukhas.telemetry import Metrics

log = structlog.get_logger("lukhas.policy")


class ShadowStatus(msgspec.Struct, frozen=True):
    """Which candidate decides beside.

    Attributes:
        policy: None where none does.
        problem: why the file's present content is not the candidate.
    """

    path: str
    policy: str | None
    problem: str | None


class ShadowPolicy:
    """Asks a candidate what it would have decided. A candidate that does not load is reported, and serving goes on.

    It sees the levels as the policy in force gathers them: with its half-lives and cooldowns, and without the signals
    that only the candidate declares.
    """

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self._file = PolicyFile(path)
        self._metrics = metrics
        self._dispatcher: Dispatcher | None = None
        self._problem: str | None = None
        if path is not None:
            self.adopt(self._parse(self._file.read()))

    @property
    def is_on(self) -> bool:
        """Whether a candidate is configured, loaded or not."""
        return self._file.path is not None

    @property
    def policy(self) -> Policy | None:
        """The candidate; None where none decides."""
        return None if self._dispatcher is None else self._dispatcher.policy

    def status(self) -> ShadowStatus | None:
        """Return which candidate decides; None where none is configured."""
        policy = self.policy
        if self._file.path is None:
            return None
        return ShadowStatus(str(self._file.path), None if policy is None else policy.id, self._problem)

    def read_if_changed(self) -> Policy | None:
        """Read the file where it has changed; return a new candidate, which does not decide yet. Reads the disk."""
        content = self._file.read_if_settled() if self.is_on else None
        return None if content is None else self._parse(content)

    def adopt(self, policy: Policy | None) -> None:
        """Let a candidate decide from the next call on; None changes nothing."""
        if policy is not None:
            log.info("shadow_policy_changed", policy=policy.id, source=policy.source)
            self._dispatcher = Dispatcher(policy)

    def compare(
        self, decision: Decision, levels: Mapping[str, float], caller: Mapping[str, Any] | None
    ) -> dict[str, Any] | None:
        """Return in what the candidate's decision differs; None where it does not, or there is none.

        Never raises: what goes wrong here is counted, and the call goes on.
        """
        dispatcher = self._dispatcher
        if dispatcher is None:
            return None
        try:
            declared = dispatcher.policy.signals
            theirs = dispatcher.decide({n: level for n, level in levels.items() if n in declared}, caller=caller)
            found = _differ(decision, theirs)
        except Exception as failure:  # noqa: BLE001 - a candidate's mistake must not become a caller's
            self._metrics.shadow_decisions.add("failed")
            return {"policy": dispatcher.policy.id, "failed": type(failure).__name__}
        self._metrics.shadow_decisions.add("different" if found else "same")
        return {"policy": theirs.policy, **found} if found else None

    def _parse(self, content: FileContent) -> Policy | None:
        try:
            if content.text is None:
                raise content.problem or PolicyError("The shadow policy cannot be read.")
            policy = parse_policy(content.text, content.source)
        except LukhasError as wrong:
            self._problem = wrong.message
            log.error("shadow_policy_refused", source=content.source, problem=wrong.message)
            return None
        self._problem = None
        return policy


def _differ(decision: Decision, theirs: Decision) -> dict[str, Any]:
    found: dict[str, Any] = {}
    ours = decision.parameters
    if theirs.parameters != ours:
        names = [*theirs.parameters, *(name for name in ours if name not in theirs.parameters)]
        parameters = {
            n: theirs.parameters.get(n) for n in names if n != TOOLS and theirs.parameters.get(n) != ours.get(n)
        }
        if parameters:
            found["parameters"] = parameters
        if theirs.parameters.get(TOOLS) != ours.get(TOOLS):
            found["tools"] = theirs.parameters.get(TOOLS)
    if theirs.style != decision.style:
        found["style"] = theirs.style
    return found
