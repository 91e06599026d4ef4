"""The policy in force: swapped whole, never half."""

from __future__ import annotations

from typing import Any

import msgspec
import structlog

from lukhas.clock import format_utc
from lukhas.gateway.admission import UNPROVED
from lukhas.modulation.certificate import Certificate
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import Policy
from lukhas.modulation.revision import PolicyEvent
from lukhas.telemetry import Metrics

log = structlog.get_logger("lukhas.policy")


class Active(msgspec.Struct, frozen=True):
    """One revision in force. Whoever reads it once sees one revision throughout.

    Attributes:
        certificate: hash of its certificate; None where there is none.
        proof: 'proved' or 'not proved'.
        warnings: why it is not proved, and what the proof found useless.
        event: what put it in force.
    """

    dispatcher: Dispatcher
    certificate: str | None
    proof: str
    warnings: tuple[str, ...]
    event: PolicyEvent

    @property
    def policy(self) -> Policy:
        """The policy."""
        return self.dispatcher.policy


class PolicyStatus(msgspec.Struct, frozen=True):
    """What is in force, and what was last refused.

    Attributes:
        problem: why the file's present content is not in force though it was to be; None where there is no such.
        proof: 'proved' or 'not proved'.
        certificate: hash of the certificate.
        event: what put it in force: event, who, why, time.
        refused: the newest refusal since then: policy, who, why, time, problem.
        file: the configured file with the policy id that it last had; None for the packaged policy.
    """

    policy: str
    name: str
    source: str
    problem: str | None
    proof: str
    certificate: str | None
    warnings: tuple[str, ...]
    event: dict[str, Any]
    refused: dict[str, Any] | None
    file: dict[str, Any] | None


def activate(policy: Policy, certificate: Certificate | None, event: PolicyEvent) -> Active:
    """Make a policy ready to decide."""
    if certificate is None:
        return Active(Dispatcher(policy), None, UNPROVED, (), event)
    return Active(Dispatcher(policy), certificate.hash, certificate.result, certificate.warnings, event)


class PolicyInForce:
    """Holds the revision that decides.

    Attributes:
        active: swapped as one reference, on the event loop, between two decisions.
        problem: why the file's present content is not in force.
        refused: the newest refusal since the last change.
        file: the configured file and the policy id that it last had.
    """

    def __init__(self, active: Active, metrics: Metrics) -> None:
        self.active = active
        self.problem: str | None = None
        self.refused: PolicyEvent | None = None
        self.file: dict[str, Any] | None = None
        self._metrics = metrics
        metrics.policy_loads.add("loaded")

    @property
    def dispatcher(self) -> Dispatcher:
        """The dispatcher of the policy in force."""
        return self.active.dispatcher

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.active.policy

    def adopt(self, active: Active) -> None:
        """Put a revision in force. Call it where calls are decided, between two of them."""
        log.info(
            "policy_changed",
            before=self.policy.id,
            after=active.policy.id,
            source=active.policy.source,
            proof=active.proof,
            who=active.event.who,
        )
        if active.proof != "proved":
            log.warning("policy_not_proved", policy=active.policy.id, warnings=active.warnings)
        self._metrics.policy_loads.add("loaded")
        self.active = active
        self.refused = None

    def refuse(self, event: PolicyEvent, *, is_file: bool) -> None:
        """Keep what is in force, and remember what was refused."""
        problem = event.details.get("problem", "")
        log.error("policy_refused", policy=event.policy_id, who=event.who, problem=problem, kept=self.policy.id)
        self._metrics.policy_loads.add("refused")
        self.refused = event
        if is_file:
            self.problem = problem

    def status(self) -> PolicyStatus:
        """Return what is in force, and why the file's present content is not, if so."""
        active = self.active
        policy = active.policy
        return PolicyStatus(
            policy=policy.id,
            name=policy.name,
            source=policy.source,
            problem=self.problem,
            proof=active.proof,
            certificate=active.certificate,
            warnings=active.warnings,
            event=describe_event(active.event),
            refused=None if self.refused is None else describe_event(self.refused),
            file=self.file,
        )


def describe_event(event: PolicyEvent) -> dict[str, Any]:
    """Return an event as plain JSON types."""
    return {
        "seq": event.seq,
        "event": event.event,
        "policy": event.policy_id or None,
        "time": format_utc(event.time_ms),
        "who": event.who,
        "why": event.why,
        **{name: value for name, value in event.details.items() if name not in ("seq", "event", "policy")},
    }
