"""Proves a policy in a process of its own, and makes the certificate of what came back.

Whatever goes wrong there (no time, no memory, a kill, no solver) ends in 'not proved' with the reason, never in
'proved'.
"""

from __future__ import annotations

import importlib.util
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final

import msgspec
import orjson

from lukhas import __version__
from lukhas.errors import Overloaded, PolicyError
from lukhas.modulation.certificate import SCHEMA, Certificate, Statement, summarize
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import parse_policy

MISSING: Final = "the solver is not installed: pip install 'lukhas-pwm[verify]'"
# What the worker may take over its deadline before it is killed.
GRACE_S: Final = 1.0

Progress = Callable[[int, int], None]

# Two proofs at once would each get half of the time that was promised.
_one_at_a_time = threading.Lock()
# The process of the proof that runs, for whoever must not wait for its end.
_running: list[subprocess.Popen[bytes]] = []


def is_solver_installed() -> bool:
    """Return whether policies can be proved here at all."""
    return importlib.util.find_spec("z3") is not None


def prove(
    text: str,
    *,
    source: str = "text",
    deadline_s: float = 60.0,
    memory_bytes: int = 2_000_000_000,
    on_progress: Progress | None = None,
    wait: bool = True,
) -> Certificate:
    """Prove a policy; blocks until it is done or its time is over.

    Args:
        text: the policy's YAML. It is read as a draft, so that what the loader refuses is refuted by an example.
        source: where it came from, for messages.
        deadline_s: time of the proof, after which what is open is not proved.
        memory_bytes: address space of the worker process.
        on_progress: called with how many statements are settled, and of how many.
        wait: whether to wait, for as long again, where another proof runs in this process.

    Raises:
        PolicyError: the text is not a policy.
        Overloaded: another proof runs.
    """
    policy = parse_policy(text, source, is_draft=True)
    if not _one_at_a_time.acquire(timeout=deadline_s + GRACE_S if wait else -1, blocking=wait):
        raise Overloaded("Another policy is being proved.", hint="One proof runs at a time; try again in a minute.")
    try:
        found = _run(policy, deadline_s, memory_bytes, on_progress)
    finally:
        _one_at_a_time.release()
    return _certify(policy, found)


def stop() -> None:
    """End the proof that runs in this process, if one does: it is not proved. For shutdown."""
    for worker in tuple(_running):
        worker.kill()


@dataclass(slots=True)
class _Finding:
    """What the worker said."""

    solver: str = ""
    claims: dict[str, str] = field(default_factory=dict[str, str])
    statements: dict[str, Statement] = field(default_factory=dict[str, Statement])
    warnings: list[str] = field(default_factory=list[str])
    is_done: bool = False

    def take(self, line: bytes) -> None:
        message: dict[str, Any] = orjson.loads(line)
        if "claims" in message:
            self.solver, self.claims = message["solver"], dict(message["claims"])
        elif "statement" in message:
            statement = msgspec.convert(message["statement"], Statement)
            self.statements[statement.id] = statement
        elif "warning" in message:
            self.warnings.append(message["warning"])
        self.is_done = self.is_done or "done" in message


def _run(policy: Policy, deadline_s: float, memory_bytes: int, on_progress: Progress | None) -> _Finding:
    found = _Finding()
    if not is_solver_installed():
        found.warnings.append(MISSING)
        return found
    order = orjson.dumps({"text": policy.text, "deadline_s": deadline_s, "memory_bytes": memory_bytes})
    end = time.monotonic() + deadline_s + GRACE_S
    command = [sys.executable, "-P", "-m", "lukhas.modulation.proof_worker"]
    # A file, since a pipe would block on a worker that does not read.
    with tempfile.TemporaryFile() as stdin:
        stdin.write(order)
        stdin.seek(0)
        worker = subprocess.Popen(  # noqa: S603 - a fixed command
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=_environment()
        )
    assert worker.stdout is not None
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read, args=(worker.stdout, lines), name="proof", daemon=True)
    reader.start()
    _running.append(worker)
    is_late = False
    try:
        while (line := lines.get(timeout=max(0.0, end - time.monotonic()))) is not None:
            found.take(line)
            if on_progress is not None and found.claims:
                on_progress(len(found.statements), len(found.claims))
    except queue.Empty:
        is_late = True
    except (orjson.JSONDecodeError, msgspec.ValidationError, KeyError, TypeError, ValueError):
        found.warnings.append("the proof's process answered what cannot be understood")
        found.is_done = False
        is_late = True
    finally:
        _running.remove(worker)
        worker.kill()
        status = worker.wait()
        reader.join()
        worker.stdout.close()
    if not found.is_done:
        why = "was not done in time" if is_late else f"ended by itself with status {status} (out of memory or killed)"
        found.warnings.append(f"the proof {why}")
    return found


def _read(stream: IO[bytes], lines: queue.SimpleQueue[bytes | None]) -> None:
    for line in stream:
        # A kill can cut the last line.
        if line.endswith(b"\n"):
            lines.put(line)
    lines.put(None)


def _environment() -> dict[str, str]:
    """Return the worker's environment: ours without our settings and secrets, and with the way to this package."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
    root = str(Path(__file__).resolve().parents[2])
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, (root, kept.get("PYTHONPATH"))))}


def _certify(policy: Policy, found: _Finding) -> Certificate:
    unsettled = (Statement(name, text, "not proved") for name, text in found.claims.items())
    statements = [found.statements.get(open_.id, open_) for open_ in unsettled]
    warnings = list(found.warnings)
    refusal = _refusal(policy)
    if refusal and found.claims:
        warnings.append(f"the file does not load: {refusal}")
        if all(statement.result != "refuted" for statement in statements):
            statements.append(Statement("load", "the loader takes the file", "not proved"))
    return Certificate(
        schema=SCHEMA,
        policy=policy.id,
        sha256=policy.sha256,
        result=summarize((s.result for s in statements), is_complete=found.is_done),
        statements=tuple(statements),
        warnings=tuple(warnings),
        solver=found.solver,
        version=__version__,
        time=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )


def _refusal(policy: Policy) -> str:
    """Return why the policy, which reads as a draft, is refused when it is to be used."""
    try:
        parse_policy(policy.text, policy.source)
    except PolicyError as wrong:
        return wrong.message
    return ""
