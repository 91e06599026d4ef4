"""A changed policy file takes effect whole; a broken one leaves the last good one in force."""

from __future__ import annotations

import threading
from importlib import resources
from pathlib import Path

import pytest
from conftest import Gateway, Serve, wait_until

PACKAGED = resources.files("lukhas.modulation").joinpath("modulation_policy.yaml").read_text("utf-8")
STRESS = "temperature: max(0.1, 0.7 - 0.6 * x)"


def version(number: int) -> str:
    """Return a policy under which stress sends this temperature, in hundredths, and as many tokens."""
    text = PACKAGED.replace(STRESS, f"temperature: {number / 100}")
    return text.replace("max_output_tokens: round(1400 - 600 * x)", f"max_output_tokens: {1000 + number}")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(version(10), "utf-8")
    return path


def replace(path: Path, text: str) -> None:
    """Swap the file in one step, as editors and deployments do."""
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.replace(path)


def policy_of(gateway: Gateway) -> str:
    return gateway.runtime.policies.policy.id


def test_changed_file_takes_effect_and_is_on_record(serve: Serve, file: Path) -> None:
    """The next call is decided by it, and the log knew it before."""
    gateway = serve(policy=file)
    first = gateway.chat(None, {"X-Lukhas-Signals": "stress=0.7"}).headers["x-lukhas-policy"]
    replace(file, version(20))
    wait_until(lambda: policy_of(gateway) != first)
    answer = gateway.chat(None, {"X-Lukhas-Signals": "stress=0.7"})
    assert answer.headers["x-lukhas-policy"] == policy_of(gateway) != first
    assert gateway.sent()["temperature"] == 0.2
    assert f'"before":"{first}"'.encode() in gateway.everything_recorded()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(PACKAGED.replace("1 - 0.85 * x", "1 - 0.85 * y"), id="unknown-name"),
        pytest.param("version: [", id="no-yaml"),
        pytest.param("", id="empty"),
        pytest.param(None, id="gone"),
        pytest.param(PACKAGED + "\x00", id="control-character"),
        pytest.param(PACKAGED.replace("tighter: lower}", "tighter: sideways}", 1), id="wrong-direction"),
    ],
)
def test_broken_file_keeps_the_last_good_policy(serve: Serve, file: Path, text: str | None) -> None:
    """Calls go on, readyz says degraded and why, and mending the file mends that."""
    gateway = serve(policy=file)
    before = policy_of(gateway)
    if text is None:
        file.unlink()
    else:
        replace(file, text)
    ready = wait_until(lambda: (found := gateway.http("GET", "/readyz", key=None)).json["status"] != "ok" and found)
    assert ready.status == 200 and ready.json["status"] == "degraded"
    assert not ready.json["checks"]["policy"]["ok"] and ready.json["checks"]["policy"]["problem"]
    assert policy_of(gateway) == before and gateway.chat().status == 200
    status = gateway.http("GET", "/api/v1/policy").json
    assert status["policy"] == before and status["problem"]
    replace(file, version(30))
    wait_until(lambda: policy_of(gateway) != before)
    assert gateway.http("GET", "/readyz", key=None).json["status"] == "ok"


def test_policy_that_is_broken_at_start_serves_nothing(serve: Serve, tmp_path: Path) -> None:
    """Without a policy there is no gateway."""
    from lukhas.errors import PolicyError

    path = tmp_path / "policy.yaml"
    path.write_text("version: 1\n", "utf-8")
    with pytest.raises(PolicyError):
        serve(policy=path)


def test_no_decision_mixes_two_revisions(serve: Serve, file: Path) -> None:
    """Under load, each call's temperature, token limit and policy id are of one and the same file."""
    gateway = serve(policy=file)
    seen: list[tuple[str, float, int]] = []
    stop = threading.Event()
    wrong: list[object] = []

    def call() -> None:
        while not stop.is_set():
            answer = gateway.chat(None, {"X-Lukhas-Signals": "stress=0.7"})
            if answer.status != 200:
                wrong.append(answer)
                return
            written = gateway.document(answer.headers["x-lukhas-audit-id"])["decision"]["written"]
            seen.append((answer.headers["x-lukhas-policy"], written["temperature"], written["max_tokens"]))

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in (20, 30):
        before = policy_of(gateway)
        replace(file, version(number))
        wait_until(lambda before=before: policy_of(gateway) != before)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not wrong
    by_policy = {policy: (temperature, tokens) for policy, temperature, tokens in seen}
    assert all(by_policy[policy] == (temperature, tokens) for policy, temperature, tokens in seen)
    assert all(round(temperature * 100) == tokens - 1000 for temperature, tokens in by_policy.values())
    assert len(by_policy) >= 2
