"""`lukhas audit replay`: a recorded decision comes out the same, or what differs is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import CliRunner, Result

from lukhas.audit.store import AuditRecord
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.ids import make_id
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text
from lukhas.settings import load_settings


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def decide(text: str | None = None, **levels: float) -> dict[str, Any]:
    """Return the body of a decision as the gateway records it."""
    policy = parse_policy(text or read_packaged_text(), "test")
    made = Dispatcher(policy).decide(levels, caller={"temperature": 0.9})
    return {
        "policy": made.policy,
        "inputs": {"levels": made.levels, "caller": {"temperature": 0.9}, "tools": ["open_url"]},
        "parameters": made.parameters,
        "style": made.style,
        "touched": made.touched,
        "trace": [*msgspec.to_builtins(made.trace), {"parameter": "tools", "step": "tools", "before": 1, "after": 0}],
    }


def write(body: Any, kind: str = "decision") -> str:
    """Write one record and return its id."""
    audit_id = make_id("aud")
    with open_stores(load_settings().settings) as stores:
        stores.audit.append_sync(
            AuditRecord(kind, audit_id, "acme", "key_1", None, 1_800_000_000_000, None, None, body)
        )
    return audit_id


def replay(audit_id: str, *more: str) -> Result:
    return CliRunner().invoke(app, ["audit", "replay", audit_id, *more])


@pytest.mark.parametrize("levels", [{}, {"stress": 0.7}, {"alignment_risk": 0.9, "novelty": 1.0, "trust": 0.3}])
def test_audit_replay_of_what_was_decided_is_the_same(levels: dict[str, float]) -> None:
    """Levels, caller values and revision are all that a decision needs."""
    audit_id = write(decide(**levels))
    result = replay(audit_id)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"same: {audit_id}")
    found = json.loads(replay(audit_id, "--json").stdout)
    assert found["same"] is True and found["differences"] == [] and found["audit_id"] == audit_id


def test_audit_replay_of_other_values_lists_each_part() -> None:
    """Every part that differs is told with both values, and the exit code is 1."""
    body = decide(stress=0.8)
    body["parameters"] = {**body["parameters"], "temperature": 0.99}
    body["style"] = "creative"
    body["touched"] = [*body["touched"], "verbosity"]
    body["trace"] = body["trace"][1:]
    audit_id = write(body)
    result = replay(audit_id, "--json")
    assert result.exit_code == 1
    found = {one["part"]: (one["recorded"], one["recomputed"]) for one in json.loads(result.stdout)["differences"]}
    assert found["parameters.temperature"][0] == 0.99 and found["parameters.temperature"][1] < 0.99
    assert found["style"] == ("creative", "focused")
    assert found["touched"][0][-1] == "verbosity" and "trace[0]" in found
    text = replay(audit_id)
    assert text.exit_code == 1 and "parameters.temperature" in text.stdout and "0.99" in text.stdout


def test_audit_replay_of_levels_that_the_policy_refuses_differs() -> None:
    """A record that its own revision would have refused is no record of it."""
    body = decide()
    body["inputs"]["levels"] = {"no_such_signal": 0.5}
    result = replay(write(body), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["differences"][0]["part"] == "inputs"


@pytest.mark.parametrize(
    ("kind", "body", "code", "said"),
    [
        pytest.param("signal", {"signals": []}, 2, "no decision but of kind signal", id="another-kind"),
        pytest.param("decision", {"policy": 7}, 2, "not of a form", id="another-form"),
        pytest.param("decision", {"_cut": {"bytes": 9, "sha256": "x"}}, 2, "cut", id="cut-whole"),
    ],
)
def test_audit_replay_of_what_cannot_be_decided_says_why(kind: str, body: Any, code: int, said: str) -> None:
    """It is neither the same nor another."""
    result = replay(write(body, kind))
    assert result.exit_code == code and said in result.stderr, result.output


def test_audit_replay_of_a_cut_part_says_so() -> None:
    """A trace that was too long to be recorded cannot be compared."""
    body = decide(stress=0.7)
    body["trace"] = [{"_cut": {"count": 400, "sha256": "x"}}]
    result = replay(write(body))
    assert result.exit_code == 2 and "were cut" in result.stderr


def test_audit_replay_of_a_revision_that_is_not_stored_takes_its_file(tmp_path: Path) -> None:
    """The text decides, wherever it comes from; without it that is said."""
    text = read_packaged_text() + "\n# another text, another id\n"
    audit_id = write(decide(text, stress=0.7))
    refused = replay(audit_id)
    assert refused.exit_code == 2 and "is not stored" in refused.stderr and "--policy" in refused.stderr
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    assert replay(audit_id, "--policy", str(path)).exit_code == 0


@pytest.mark.parametrize(
    ("audit_id", "code"), [("aud_01M83A0C6KQVKTD84661Z422C4", 1), ("key_01M83A0C6KQVKTD84661Z422C4", 2), ("x", 2)]
)
def test_audit_replay_of_an_id_that_is_none_is_refused(audit_id: str, code: int) -> None:
    """Unknown is a negative answer, another form is wrong use."""
    write(decide())
    result = replay(audit_id)
    assert result.exit_code == code and result.stdout == ""
