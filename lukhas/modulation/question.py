"""One question to the solver, with a deadline, and its answer as plain numbers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lukhas.modulation.encode import Term, load_solver

# Fixed, so that one policy gets one answer.
SEED: Final = 20260101


class Undecided(Exception):
    """The solver gave up, or its time was over."""


@dataclass(frozen=True, slots=True)
class Model:
    """A point at which the conditions of a question hold."""

    model: Any

    def holds(self, condition: Term) -> bool:
        """Return whether a boolean is true at the point; one that does not matter is false."""
        return str(self.model.eval(condition)) == "True"

    def number(self, term: Term) -> float:
        """Return the float nearest to a term's value at the point."""
        z3 = load_solver()
        value = self.model.eval(term, model_completion=True)
        if z3.is_algebraic_value(value):
            value = value.approx(20)
        return float(value.as_fraction()) if z3.is_rational_value(value) else float(value.as_long())


class Questioner:
    """Asks the solver, one question at a time.

    Attributes:
        end: the monotonic time, in seconds, at which the present question's time is over.
    """

    def __init__(self) -> None:
        z3 = load_solver()
        self.z3 = z3
        z3.set_param("smt.random_seed", SEED)
        z3.set_param("sat.random_seed", SEED)
        z3.set_param("nlsat.seed", SEED)
        self.end = 0.0

    @property
    def version(self) -> str:
        """The solver's name and version."""
        return f"z3 {self.z3.get_version_string()}"

    def ask(self, conditions: Sequence[Term]) -> Model | None:
        """Return a point at which all conditions hold, or None where there is none.

        Raises:
            Undecided: neither was found in time.
        """
        z3 = self.z3
        left_ms = int((self.end - time.monotonic()) * 1000)
        if left_ms <= 0:
            raise Undecided("no time was left")
        solver = z3.Solver()
        solver.set("timeout", left_ms)
        solver.add(*conditions)
        try:
            answer = solver.check()
        except z3.Z3Exception as failure:
            raise Undecided(str(failure)) from failure
        if answer == z3.unsat:
            return None
        if answer == z3.sat:
            return Model(solver.model())
        raise Undecided(solver.reason_unknown())
