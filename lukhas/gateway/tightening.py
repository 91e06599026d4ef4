"""From a violation to a raised guard, at once: the next call of the same subject is decided by it (I5)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from lukhas.access.ring import ApiKey
from lukhas.gateway.violation import Violation
from lukhas.modulation.policy import Policy, ViolationSpec
from lukhas.modulation.state import ScopeName, SignalState, Subject

# One for all violations: what a subject holds is one emission that grows, however many incidents feed it.
SOURCE: Final = "violation"


class Raised(msgspec.Struct, frozen=True):
    """What a violation has left at one subject.

    Attributes:
        scope, id: the subject; a `sub_...` or `key_...` id, or a tenant's name.
        level: the level it holds from violations now, a ratio.
        ttl_ms: when that is over, counted from `at_ms`.
        at_ms: when, in ms since the epoch.
        signal: the guard that was raised.
        released_ms: when it was released; None where it was not.
    """

    scope: ScopeName
    id: str
    level: float
    ttl_ms: int
    at_ms: int
    signal: str
    released_ms: int | None = None

    @property
    def subject(self) -> Subject:
        """Whom it concerns."""
        return Subject(self.scope, self.id)


def tighten(
    state: SignalState,
    policy: Policy,
    subjects: Sequence[Subject],
    violations: Sequence[Violation],
    key: ApiKey,
    now_ms: int,
) -> tuple[Raised, ...]:
    """Raise the policy's violation signal for a call's subjects. Counts from the next decision on.

    Session and end user are raised, both where the call names both; with neither, the key. The gravest of the
    violations adds its severity's level to what the subject holds from violations, as 1 - (1 - held) * (1 - level), up
    to the policy's ceiling. Where that takes a subject past `widen_above`, it counts for one scope further too: the
    key, or where the key itself was raised, its tenant. Never for everyone, and never for what is another tenant's.

    Args:
        subjects: the call's, nearest first.
        violations: what was found together in one call, and so counts once; none raises nothing.
        key: the call's key, which pays for the emissions' places.
        now_ms: when, in ms since the epoch.

    Returns:
        What each subject holds afterwards, nearest first.
    """
    if not violations:
        return ()
    spec = policy.violations
    steps = {"low": spec.low, "medium": spec.medium, "high": spec.high}
    own = Subject("key", key.key_id)
    named = [subject for subject in subjects if subject.scope in ("session", "user")] or [own]
    wider = Subject("tenant", key.tenant) if named[0] == own else own
    # Found together they are one act: how many rules a text happens to match must not decide how far it reaches.
    step = max(steps[violation.severity] for violation in violations)
    held = {subject: _add(_held(state, spec, subject, now_ms), step, spec.ceiling) for subject in named}
    if held[named[-1]] > spec.widen_above:
        held[wider] = _add(_held(state, spec, wider, now_ms), step, spec.ceiling)
    raised: list[Raised] = []
    for subject, level in held.items():
        state.emit(subject, spec.signal, level, ttl_ms=spec.ttl_ms, source=SOURCE, owner=key.key_id, now_ms=now_ms)
        raised.append(Raised(subject.scope, subject.id, level, spec.ttl_ms, now_ms, spec.signal))
    return tuple(raised)


def _held(state: SignalState, spec: ViolationSpec, subject: Subject, now_ms: int) -> float:
    return state.held_level(subject, spec.signal, SOURCE, now_ms)


def _add(held: float, step: float, ceiling: float) -> float:
    # In this form a first violation gives its level exactly, which a policy's thresholds are compared with.
    # A ceiling that a new policy has set lower does not lower what is held.
    return max(held, min(ceiling, held + step - held * step))
