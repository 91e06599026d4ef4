"""The process in which the solver runs, so that its memory and its time can be bounded from outside.

Reads one JSON object from standard input and writes one per line: the statements that will be proved, then each as it
is settled, the warnings, and last that it is done. What was written before a kill still counts.
"""

from __future__ import annotations

import resource
import sys
import time
from typing import Any, Final

import msgspec
import orjson

from lukhas.modulation.policy_reader import parse_policy

# Of the whole time, what is kept for the warnings, which prove nothing.
_FOR_WARNINGS: Final = 0.1


def run(text: str, deadline_s: float) -> None:
    """Prove a policy and write what is found."""
    from lukhas.modulation.proof import Proof
    from lukhas.modulation.reachability import find_warnings

    end = time.monotonic() + deadline_s
    proof = Proof(parse_policy(text, is_draft=True))
    _write({"solver": proof.solver, "claims": [[claim.id, claim.text] for claim in proof.claims]})
    for statement in proof.run(end - deadline_s * _FOR_WARNINGS):
        _write({"statement": statement})
    for warning in find_warnings(proof.ground, end):
        _write({"warning": warning})
    _write({"done": True})


def _write(message: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(msgspec.to_builtins(message)) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Take the limits and the policy from standard input, and prove it."""
    order = orjson.loads(sys.stdin.buffer.read())
    memory, seconds = order["memory_bytes"], int(order["deadline_s"]) + 2
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    run(order["text"], order["deadline_s"])


if __name__ == "__main__":
    main()
