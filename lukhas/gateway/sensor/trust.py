"""Trust: a subject's calls without violations, its violations, and what it said of the answers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import msgspec

from lukhas.gateway.sensor.observation import Observation, Reading
from lukhas.modulation.state import Subject

MAX_SUBJECTS: Final = 20_000
# Calls without violation after which trust is one half.
HALF_CALLS: Final = 20.0
# Past calls count at most so much, so that no length of good conduct makes a violation small.
MAX_CALLS: Final = 400.0
# One violation weighs as many calls, and leaves a quarter of the calls before it.
VIOLATION_CALLS: Final = 200.0
KEPT_SHARE: Final = 0.25
# A violation loses half its weight in this time.
HALF_LIFE_MS: Final = 86_400_000
# Full satisfaction counts as so many calls; full dissatisfaction weighs against as many.
FEEDBACK_CALLS: Final = 20.0
# Below this there is nothing to say: trust is neutral, which is to say absent.
MIN_CALLS: Final = 5.0


class Conduct(msgspec.Struct, frozen=True):
    """What is known of one subject.

    Attributes:
        calls: without violation.
        violations: weighed by age, as of `at_ms`.
    """

    calls: float = 0.0
    violations: float = 0.0
    at_ms: int = 0


class TrustSensor:
    """Follows the conduct of each end user, else session, else key, since this process began.

    Args:
        max_subjects: whose conduct is remembered; the one unheard of for longest is forgotten first.
    """

    name = "trust"
    signal = "trust"

    def __init__(self, *, max_subjects: int = MAX_SUBJECTS) -> None:
        self._max_subjects = max(1, max_subjects)
        self._conduct: OrderedDict[Subject, Conduct] = OrderedDict()

    def __len__(self) -> int:
        return len(self._conduct)

    def sense(self, observation: Observation) -> Reading | None:
        """Return the trust of this subject; None where it is neutral. See `trust_level`."""
        subject = _find_person(observation)
        known = self._conduct.get(subject, Conduct()) if subject is not None else Conduct()
        known = _age(known, observation.now_ms)
        # What others have recorded, another replica or before a restart, counts where it is more than is known here.
        known = msgspec.structs.replace(known, violations=max(known.violations, float(observation.violations)))
        feedback = observation.feedback or 0.0
        if known.calls + FEEDBACK_CALLS * abs(feedback) < MIN_CALLS and known.violations == 0:
            return None
        evidence: dict[str, float] = {"calls": round(known.calls), "violations": round(known.violations, 2)}
        if observation.feedback is not None:
            evidence["feedback"] = round(feedback, 2)
        return Reading(trust_level(known, feedback), evidence)

    def learn(self, observation: Observation) -> None:
        """Take in how the call ended: `observation.is_violation`."""
        subject = _find_person(observation)
        if subject is None:
            return
        known = _age(self._conduct.get(subject, Conduct()), observation.now_ms)
        if observation.is_violation:
            known = Conduct(known.calls * KEPT_SHARE, known.violations + 1, known.at_ms)
        else:
            known = msgspec.structs.replace(known, calls=min(MAX_CALLS, known.calls + 1))
        self._conduct[subject] = known
        self._conduct.move_to_end(subject)
        while len(self._conduct) > self._max_subjects:
            self._conduct.popitem(last=False)


def trust_level(conduct: Conduct, feedback: float) -> float:
    """Return the mean of a Beta estimate: good / (good + HALF_CALLS + bad).

    Never rises with violations, never falls with calls without one, nor with better feedback.

    Args:
        feedback: satisfaction in [-1, 1].
    """
    good = conduct.calls + FEEDBACK_CALLS * max(0.0, feedback)
    bad = VIOLATION_CALLS * conduct.violations + FEEDBACK_CALLS * max(0.0, -feedback)
    return good / (good + HALF_CALLS + bad)


def _find_person(observation: Observation) -> Subject | None:
    by_scope = {subject.scope: subject for subject in reversed(observation.subjects)}
    # Not the nearest: a user who begins a new session is the same user.
    return by_scope.get("user") or by_scope.get("session") or by_scope.get("key")


def _age(conduct: Conduct, now_ms: int) -> Conduct:
    age_ms = max(0, now_ms - conduct.at_ms)
    if not conduct.violations:
        return msgspec.structs.replace(conduct, at_ms=now_ms)
    return Conduct(conduct.calls, conduct.violations * 2.0 ** (-age_ms / HALF_LIFE_MS), max(now_ms, conduct.at_ms))
