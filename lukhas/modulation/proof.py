"""What is proved about a policy, statement by statement (docs/explanation/verification.md).

Each statement is refuted by a point; the solver is asked for one. What it cannot answer in time is not proved.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from lukhas.modulation.bounding import Bounding
from lukhas.modulation.certificate import Result, Statement
from lukhas.modulation.ground import Claim, Document, Ground
from lukhas.modulation.policy import Policy
from lukhas.modulation.question import Undecided
from lukhas.modulation.tightening import Tightening
from lukhas.modulation.totality import Totality

# What a statement gets at first; what is left of the whole time goes to those that need more.
FIRST_S: Final = 3.0


class Proof:
    """The proof of one policy; the solver runs in this process and may take long."""

    def __init__(self, policy: Policy) -> None:
        self.ground = Ground(policy)
        families = (Totality(self.ground), Bounding(self.ground), Tightening(self.ground))
        self.claims: list[Claim] = [claim for family in families for claim in family.claims()]

    @property
    def solver(self) -> str:
        """The solver's name and version."""
        return self.ground.questioner.version

    def run(self, end: float) -> Iterator[Statement]:
        """Check every statement, each at first for a short time; yield each as it is settled.

        Args:
            end: the monotonic time, in seconds, at which what is left is not proved.
        """
        open_claims: list[tuple[Claim, float]] = []
        for claim in self.claims:
            statement = self.check(claim, min(end, time.monotonic() + FIRST_S))
            if statement.result == "not proved":
                open_claims.append((claim, statement.seconds))
            else:
                yield statement
        for position, (claim, spent) in enumerate(open_claims):
            now = time.monotonic()
            share = max(0.0, end - now) / (len(open_claims) - position)
            yield self.check(claim, now + share, spent)

    def check(self, claim: Claim, end: float, spent: float = 0.0) -> Statement:
        """Settle one statement until `end`, or return it as not proved."""
        started = time.monotonic()
        self.ground.questioner.end = end
        found: Document | None = None
        try:
            found = claim.check()
            result: Result = "refuted" if found else "proved"
        except Undecided:
            result = "not proved"
        seconds = round(spent + time.monotonic() - started, 3)
        return Statement(claim.id, claim.text, result, found, seconds)
