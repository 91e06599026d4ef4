"""Decisions that a real gateway recorded come out byte for byte when they are decided again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from lukhas.audit.merkle import leaf_hash
from lukhas.cli.main import app
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text
from lukhas.replay.report import describe
from lukhas.replay.simulate import simulate
from lukhas.storage.metadata import AUDIT_RECORD

SIGNALS = (
    "",
    "stress=0.8",
    "novelty=0.7, trust=0.333333333333",
    "alignment_risk=0.55, stress=0.4, urgency=0.9",
    "ambiguity=0.9999999, novelty=0.21",
)
TOOLS = [{"type": "function", "function": {"name": name}} for name in ("retrieve_knowledge", "exec_code", "größe_tool")]
FIELDS: tuple[dict[str, Any], ...] = (
    {},
    {"temperature": 0.05, "max_tokens": 5000},
    {"temperature": 1.7, "top_p": 1, "frequency_penalty": -3, "tools": TOOLS},
    {"max_completion_tokens": 10, "max_tokens": 900, "presence_penalty": 17.25},
)


@pytest.fixture(name="recorded")
def recorded_gateway(serve: Any, tmp_path: Path) -> Any:
    """A gateway that has decided calls under two policies."""
    path = tmp_path / "policy.yaml"
    path.write_text(read_packaged_text(), "utf-8")
    gateway = serve(policy=path)
    _call_all(gateway)
    before = gateway.runtime.policies.policy.id
    path.write_text(read_packaged_text().replace("0.7 - 0.6 * x", "0.6 - 0.5 * x"), "utf-8")
    _wait(lambda: gateway.runtime.policies.policy.id != before)
    _call_all(gateway)
    return gateway


def _call_all(gateway: Any) -> None:
    for signals in SIGNALS:
        for fields in FIELDS:
            answer = gateway.chat(fields, {"X-Lukhas-Signals": signals} if signals else None)
            assert answer.status == 200, answer.body
    denied = gateway.chat({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "exec_code"}}})
    assert denied.status == 403


def _wait(look: Any) -> None:
    import time

    end = time.monotonic() + 10
    while not look():
        assert time.monotonic() < end
        time.sleep(0.02)


def _simulate(gateway: Any, text: str | None = None, **more: Any) -> dict[str, Any]:
    candidate = parse_policy(text or read_packaged_text(), "candidate")
    runtime = gateway.runtime
    return describe(simulate(runtime.database, runtime.settings.sqlalchemy_url, candidate, **more))


def _expected() -> int:
    return 2 * (len(SIGNALS) * len(FIELDS) + 1)


def test_replay_recorded_revisions_reproduce_every_decision(recorded: Any) -> None:
    """Callers' values, unicode, denied tools and a policy change in the middle: each decision comes out the same."""
    report = _simulate(recorded)
    check = report["check"]
    assert report["read"] == check["checked"] == _expected()
    assert check["mismatches"] == 0
    assert check["unknown_revisions"] == {}
    assert check["unreadable"] == check["cut"] == 0


def test_replay_candidate_is_compared_with_each_revision(recorded: Any) -> None:
    """The packaged policy differs from the second revision alone, in its temperature under stress."""
    report = _simulate(recorded)
    temperature = report["parameters"]["temperature"]
    assert temperature["changed"] > 0
    assert temperature["tighter"] + temperature["looser"] == temperature["changed"]
    assert {name for name, change in report["parameters"].items() if change["changed"]} == {"temperature"}
    assert report["examples"]


def test_replay_two_processes_count_as_one_does(recorded: Any) -> None:
    """How the log is shared out does not show in the report."""
    assert _simulate(recorded, processes=2) == _simulate(recorded, processes=1)


def test_replay_limit_takes_the_newest(recorded: Any) -> None:
    """With a limit the decisions of the second revision alone are read."""
    report = _simulate(recorded, limit=_expected() // 2)
    assert report["read"] == _expected() // 2
    assert report["parameters"]["temperature"]["changed"] > 0
    assert _simulate(recorded, limit=1)["read"] == 1
    assert _simulate(recorded, limit=10_000)["read"] == _expected()


def test_replay_times_bound_what_is_read(recorded: Any) -> None:
    """Since and until are honoured to the millisecond; a time without decisions is an empty report."""
    with recorded.runtime.database.reading() as connection:
        query = select(AUDIT_RECORD.c.time_ms).where(AUDIT_RECORD.c.kind == "decision")
        times = sorted(int(row[0]) for row in connection.execute(query))
    middle = times[len(times) // 2]
    assert _simulate(recorded, since_ms=middle)["read"] == sum(time >= middle for time in times)
    assert _simulate(recorded, until_ms=middle)["read"] == sum(time < middle for time in times)
    empty = _simulate(recorded, since_ms=times[-1] + 3_600_000)
    assert empty["read"] == empty["changed"] == 0


@pytest.mark.parametrize(
    ("before", "after", "part"),
    [
        pytest.param(b'"safety_mode":"strict"', b'"safety_mode":"creative"', "parameters", id="parameter"),
        pytest.param(b'"style":"strict"', b'"style":"balanced"', "style", id="style"),
        pytest.param(b'"levels":{"alignment_risk":0.55', b'"levels":{"alignment_risk":0.15', "parameters", id="level"),
        pytest.param(b'"step":"guard"', b'"step":"tools"', "trace", id="trace"),
    ],
)
def test_replay_tampered_record_is_found_though_its_hash_was_renewed(
    recorded: Any, before: bytes, after: bytes, part: str
) -> None:
    """Whoever changes a record and its hash together is found out by the decision itself."""
    audit_id = _tamper(recorded, before, after, renew=True)
    check = _simulate(recorded)["check"]
    assert check["mismatches"] == 1
    assert check["listed"][0]["audit_id"] == audit_id
    assert part in check["listed"][0]["differs"]


def test_replay_command_tampered_record_is_exit_4(recorded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A changed byte under the old hash is listed, and the command ends with the status for integrity."""
    settings = recorded.runtime.settings
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("LUKHAS_POLICY", str(settings.policy))
    arguments = ["policy", "simulate", "--policy", str(settings.policy), "--since", "1d"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    audit_id = _tamper(recorded, b'"safety_mode":"strict"', b'"safety_mode":"creative"', renew=False)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 4
    assert audit_id in result.stdout
    assert "1 NOT as recorded" in result.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert found["check"]["listed"][0]["differs"] == ["hash"]


def _tamper(gateway: Any, before: bytes, after: bytes, *, renew: bool) -> str:
    """Change one decision in the database as nobody should be able to; return its audit id."""
    database = gateway.runtime.database
    columns = AUDIT_RECORD.c
    with database.reading() as connection:
        rows = connection.execute(
            select(columns.leaf_index, columns.audit_id, columns.data).where(columns.kind == "decision")
        ).all()
    index, audit_id, data = next(row for row in rows if before in bytes(row[2]))
    changed = bytes(data).replace(before, after, 1)
    values: dict[str, Any] = {"data": changed} | ({"leaf_hash": leaf_hash(changed)} if renew else {})
    with database.writer.begin() as connection:
        connection.execute(update(AUDIT_RECORD).where(columns.leaf_index == index).values(**values))
    return str(audit_id)
