"""Which offered tools a policy lets through, told from what a record has of them.

A record names a tool without saying whether it is a function or one that the provider runs. Where the two readings
differ, the one that agrees with what was done is taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from lukhas.modulation.policy import UNKNOWN_CLASS, Policy

_MOST_KEPT: Final = 10_000


class Offer(NamedTuple):
    """The tools of one call, and the allowlists before and after."""

    tools: tuple[str, ...]
    stripped: tuple[str, ...]
    is_denied: bool
    policy: str
    before: tuple[str, ...]
    after: tuple[str, ...]


class Verdict(NamedTuple):
    """What changes for one call."""

    blocked: tuple[str, ...]
    allowed: tuple[str, ...]


class ToolJudge:
    """Judges offers under the recorded revisions and a candidate."""

    def __init__(self, candidate: Policy, revisions: dict[str, Policy]) -> None:
        self._candidate = candidate
        self._revisions = revisions
        self._known: dict[Offer, Verdict] = {}

    def judge(self, offer: Offer) -> Verdict:
        """Return which tools the candidate would newly block and newly allow."""
        found = self._known.get(offer)
        if found is None:
            if len(self._known) >= _MOST_KEPT:
                self._known.clear()
            found = self._known[offer] = self._judge(offer)
        return found

    def _judge(self, offer: Offer) -> Verdict:
        blocked: list[str] = []
        allowed: list[str] = []
        for name in dict.fromkeys(offer.tools):
            was_allowed, is_hosted = self._read(offer, name)
            is_allowed = _allows(self._candidate, offer.after, name, is_hosted)
            if was_allowed and not is_allowed:
                blocked.append(name)
            elif is_allowed and not was_allowed:
                allowed.append(name)
        return Verdict(tuple(blocked), tuple(allowed))

    def _read(self, offer: Offer, name: str) -> tuple[bool, bool]:
        """Return whether a tool was allowed, and whether the provider runs it."""
        revision = self._revisions.get(offer.policy)
        policy = revision or self._candidate
        is_hosted = policy.classify_tool(name) == UNKNOWN_CLASS and policy.classify_hosted(name) != UNKNOWN_CLASS
        was_kept = name not in offer.stripped
        if revision is None:
            return was_kept, is_hosted
        if not offer.is_denied and _allows(revision, offer.before, name, is_hosted) != was_kept:
            is_hosted = not is_hosted
        return _allows(revision, offer.before, name, is_hosted), is_hosted


def could_allow(policy: Policy, allowlist: Sequence[str], name: str) -> frozenset[bool]:
    """Return whether an allowlist lets a tool through, by each reading of its name: a function, or a hosted tool."""
    return frozenset((policy.allows_tool(allowlist, name), policy.allows_hosted(allowlist, name)))


def _allows(policy: Policy, allowlist: Sequence[str], name: str, is_hosted: bool) -> bool:
    return policy.allows_hosted(allowlist, name) if is_hosted else policy.allows_tool(allowlist, name)
