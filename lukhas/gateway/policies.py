"""The policy in force: swapped whole, never half; a file with mistakes leaves the last good one in force."""

from __future__ import annotations

from pathlib import Path

import msgspec
import structlog

from lukhas.errors import PolicyError
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy
from lukhas.telemetry import Metrics

log = structlog.get_logger("lukhas.policy")


class PolicyStatus(msgspec.Struct, frozen=True):
    """What is in force, and what was last refused.

    Attributes:
        problem: why the file's present content is not in force; None when it is.
    """

    policy: str
    name: str
    source: str
    problem: str | None


class PolicyInForce:
    """Holds one dispatcher; whoever reads `dispatcher` once sees one revision throughout."""

    def __init__(self, path: Path | None, metrics: Metrics) -> None:
        self._path = path
        self._metrics = metrics
        self._seen: tuple[int, int, int] | None = self._look()
        self._problem: str | None = None
        self.dispatcher = Dispatcher(load_policy(path))
        metrics.policy_loads.add("loaded")

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self.dispatcher.policy

    def status(self) -> PolicyStatus:
        """Return what is in force, and why the file's present content is not, if so."""
        policy = self.policy
        return PolicyStatus(policy.id, policy.name, policy.source, self._problem)

    def read_if_changed(self) -> Policy | None:
        """Read the file again where it has changed; return a new valid policy, which is not yet in force.

        Reads the disk: call it outside the event loop. A broken file is logged once and changes nothing.
        """
        seen = self._look()
        if self._path is None or seen == self._seen:
            return None
        self._seen = seen
        try:
            policy = load_policy(self._path)
        except PolicyError as wrong:
            self._problem = wrong.message
            self._metrics.policy_loads.add("refused")
            log.error("policy_refused", source=str(self._path), problem=wrong.message, kept=self.policy.id)
            return None
        self._problem = None
        return None if policy.id == self.policy.id else policy

    def adopt(self, policy: Policy) -> None:
        """Put a policy in force. Call it where calls are decided, between two of them."""
        log.info("policy_changed", before=self.policy.id, after=policy.id, source=policy.source)
        self._metrics.policy_loads.add("loaded")
        self.dispatcher = Dispatcher(policy)

    def _look(self) -> tuple[int, int, int] | None:
        if self._path is None:
            return None
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return found.st_mtime_ns, found.st_size, found.st_ino
