"""The proof's process: whatever goes wrong in it ends in 'not proved', with the reason, and never in 'proved'."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from lukhas.errors import Overloaded, PolicyError
from lukhas.modulation import prover
from lukhas.modulation.policy_reader import load_policy, read_packaged_text
from lukhas.modulation.prover import prove

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")

CLAIMS = json.dumps({"solver": "z3 0", "claims": [["a", "first"], ["b", "second"]]})
PROVED = [
    json.dumps({"statement": {"id": name, "text": name, "result": "proved", "counterexample": None, "seconds": 0.1}})
    for name in ("a", "b")
]
DONE = json.dumps({"done": True})


@pytest.fixture
def pretend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run a shell script in the worker's place."""

    def write(script: str) -> None:
        path = tmp_path / "worker"
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o700)
        monkeypatch.setattr(prover.sys, "executable", str(path))

    return write


def say(*lines: str) -> str:
    return "\n".join(f"echo '{line}'" for line in lines)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        pytest.param(say(CLAIMS, *PROVED) + "\nkill -9 $$", "ended by itself with status -9", id="killed-at-the-end"),
        pytest.param(say(CLAIMS, PROVED[0]) + "\nkill -9 $$", "ended by itself", id="killed-half-way"),
        pytest.param(say(CLAIMS, *PROVED) + "\nexec sleep 60", "not done in time", id="hangs"),
        pytest.param("exec sleep 60", "not done in time", id="hangs-at-once"),
        pytest.param("exit 3", "status 3", id="fails-at-once"),
        pytest.param(say(CLAIMS, *PROVED), "ended by itself with status 0", id="ends-without-saying-so"),
        pytest.param(say(CLAIMS, PROVED[0], DONE), "", id="one-statement-left-out"),
        pytest.param(say(DONE), "", id="nothing-but-done"),
        pytest.param(say(CLAIMS, *PROVED, "null", DONE), "cannot be understood", id="no-object"),
        pytest.param(say(CLAIMS, "{", *PROVED, DONE), "cannot be understood", id="no-json"),
        pytest.param(say(CLAIMS, '{"statement": {"id": 1}}', DONE), "cannot be understood", id="no-statement"),
        pytest.param(say(CLAIMS, *PROVED) + f"\nprintf '%s' '{DONE}'", "ended by itself", id="last-line-cut"),
    ],
)
def test_prover_with_a_worker_that_fails_is_not_proved(pretend, script: str, reason: str) -> None:
    """A kill, a hang, silence, nonsense or a part of the answer is no proof."""
    pretend(script)
    started = time.monotonic()
    found = prove(read_packaged_text(), deadline_s=0.5)
    assert found.result == "not proved"
    assert any(reason in warning for warning in found.warnings) or not reason
    assert time.monotonic() - started < 10


def test_prover_with_a_worker_that_answers_all_is_proved(pretend) -> None:
    """The pretended worker is believed where it is whole, so the tests above fail for the right reason."""
    pretend(say(CLAIMS, *PROVED, DONE))
    found = prove(read_packaged_text(), deadline_s=5)
    assert (found.result, found.solver) == ("proved", "z3 0")


def test_prover_with_a_worker_that_reads_nothing_is_not_proved(pretend) -> None:
    """A policy larger than any pipe's buffer does not block on a worker that hangs."""
    pretend("exec sleep 60")
    found = prove(read_packaged_text() + "# padding\n" * 50_000, deadline_s=0.3)
    assert found.result == "not proved"


def test_prover_without_time_is_not_proved() -> None:
    """A deadline that is over before the solver is there ends the proof."""
    found = prove(read_packaged_text(), deadline_s=0.05)
    assert found.result == "not proved"
    assert found.policy == load_policy().id


def test_prover_without_memory_is_not_proved() -> None:
    """The worker's address space is bounded; what does not fit ends it, and only it."""
    found = prove(read_packaged_text(), deadline_s=20, memory_bytes=60_000_000)
    assert found.result == "not proved"
    assert any("out of memory" in warning for warning in found.warnings)


def test_prover_without_solver_is_not_proved_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """No solver, no statement, no name of one."""
    monkeypatch.setattr(prover, "is_solver_installed", lambda: False)
    found = prove(read_packaged_text())
    assert (found.result, found.solver, found.statements) == ("not proved", "", ())
    assert "pip install 'lukhas-pwm[verify]'" in found.warnings[0]


def test_prover_text_that_is_no_policy_is_refused_before_any_process(pretend) -> None:
    """Mistakes are reported as everywhere, with their places."""
    pretend("exec sleep 60")
    with pytest.raises(PolicyError) as wrong:
        prove("version: 1\n", source="mine.yaml")
    assert wrong.value.mistakes


def test_prover_draft_that_does_not_load_is_never_proved() -> None:
    """A division that the solver shows safe, and the loader cannot see to be, does not take effect."""
    text = read_packaged_text().replace(
        "    temperature: min(1, 0.5 + 0.4 * x)", "    temperature: 0.5 / (x * x - 2 * x + 1.5) / 2"
    )
    found = prove(text, deadline_s=30)
    results = {statement.id: statement.result for statement in found.statements}
    assert results["total:trust.temperature"] == "proved"
    assert results["load"] == "not proved"
    assert found.result == "not proved"


def test_prover_runs_one_proof_at_a_time(pretend, tmp_path: Path) -> None:
    """Beside a proof another is refused at once, or waits for it to end."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pretend(f"read line < {gate}\n" + say(CLAIMS, *PROVED, DONE))
    first = threading.Thread(target=prove, args=(read_packaged_text(),), kwargs={"deadline_s": 20})
    first.start()
    with gate.open("w") as open_gate:  # opens when the first worker reads
        with pytest.raises(Overloaded):
            prove(read_packaged_text(), wait=False)
        open_gate.write("go\n")
    first.join(20)
    assert not first.is_alive()
    pretend(say(CLAIMS, *PROVED, DONE))
    assert prove(read_packaged_text(), wait=False).result == "proved"


def test_prover_stopped_is_not_proved_at_once(pretend, tmp_path: Path) -> None:
    """A shutdown does not wait for the deadline of a proof."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    pretend(f"echo > {gate}\nexec sleep 60")
    found: list[str] = []
    proof = threading.Thread(target=lambda: found.append(prove(read_packaged_text(), deadline_s=50).result))
    proof.start()
    gate.read_text()  # returns when the worker runs
    end = time.monotonic() + 10
    while proof.is_alive() and time.monotonic() < end:  # the worker may run before its proof has noted it
        prover.stop()
        proof.join(0.05)
    assert found == ["not proved"]
    prover.stop()


def test_prover_reports_progress_up_to_the_last_statement() -> None:
    """Each settled statement is counted, of all of them."""
    seen: list[tuple[int, int]] = []
    found = prove(read_packaged_text(), deadline_s=30, on_progress=lambda done, span: seen.append((done, span)))
    counts = [done for done, _ in seen]
    assert counts == sorted(counts)
    assert seen[-1] == (len(found.statements), len(found.statements))


def test_prover_gives_the_worker_none_of_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret in the environment does not reach a process that needs none."""
    monkeypatch.setenv("LUKHAS_ADMIN_KEY", "secret")
    assert not [name for name in prover._environment() if name.startswith("LUKHAS_")]


def test_worker_started_by_hand_answers_line_by_line() -> None:
    """Its protocol is lines of JSON: the claims, each statement, and that it is done."""
    order = {"text": read_packaged_text(), "deadline_s": 30, "memory_bytes": 2_000_000_000}
    command = [sys.executable, "-m", "lukhas.modulation.proof_worker"]
    answer = subprocess.run(command, input=json.dumps(order).encode(), capture_output=True, check=True)
    lines = [json.loads(line) for line in answer.stdout.splitlines()]
    assert {name for name, _ in lines[0]["claims"]} == {line["statement"]["id"] for line in lines[1:-1]}
    assert lines[-1] == {"done": True}


def test_worker_in_this_process_says_claims_statements_and_its_end(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """What the worker writes, line by line, with the limits that it was told to take."""
    import io
    import resource
    import sys
    from types import SimpleNamespace

    import orjson

    from lukhas.modulation import proof_worker
    from lukhas.modulation.policy_reader import read_packaged_text

    taken: dict[int, tuple[int, int]] = {}
    text = read_packaged_text().replace("\nstyle_rules:", "\n  unused: {}\nstyle_rules:")
    order = orjson.dumps({"text": text, "memory_bytes": 10**9, "deadline_s": 30})
    monkeypatch.setattr(resource, "setrlimit", lambda what, limits: taken.__setitem__(what, limits))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(order)))
    proof_worker.main()
    lines = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert taken[resource.RLIMIT_AS] == (10**9, 10**9) and taken[resource.RLIMIT_CPU] == (32, 32)
    assert lines[-1] == {"done": True}
    settled = [line["statement"]["id"] for line in lines if "statement" in line]
    assert sorted(settled) == sorted(claim for claim, _ in lines[0]["claims"])
    assert any("unused" in line["warning"] for line in lines if "warning" in line)
