"""`lukhas audit show`: what a record says, in words and tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.audit.store import AuditRecord
from lukhas.cli.audit_show import explain
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.ids import make_id
from lukhas.settings import load_settings

DECISION: Mapping[str, Any] = {
    "mode": "enforce",
    "dialect": "chat",
    "model": "[bold]größe[/bold]\x1b[31m",
    "stream": True,
    "inputs": {
        "levels": {"stress": 0.7},
        "evidence": {
            "stress": {"level": 0.7, "scope": "session", "source": "call:key_1"},
            "trust": {"level": 0.1, "scope": "tenant", "source": "api:key_2"},
        },
        "caller": {"temperature": 1.2},
        "tools": ["open_url", "rm_rf"],
        "ignored": [{"signal": "urgency", "level": 0.4, "retry_after_ms": 100}],
    },
    "policy": "pol_1",
    "parameters": {"temperature": 0.28},
    "style": "focused",
    "touched": ["temperature"],
    "trace": [
        {
            "parameter": "temperature",
            "step": "style",
            "before": 0.6,
            "after": 0.28,
            "signal": "stress",
            "level": 0.7,
            "rule": "max(0.1, 0.7 - 0.6 * x)",
            "place": "line 43, column 18",
        }
    ],
    "written": {"temperature": 0.28},
    "stripped": ["rm_rf"],
}
OUTCOME: Mapping[str, Any] = {
    "status": "ok",
    "http_status": 200,
    "attempts": 2,
    "finish_reasons": {"0": "stop", "1": "length"},
    "usage": {"total_tokens": 41},
    "answer_bytes": 580,
    "duration_ms": 12.5,
}


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def write(*bodies: tuple[str, Mapping[str, Any]]) -> str:
    """Write records under one new id, and return it."""
    audit_id = make_id("aud")
    with open_stores(load_settings().settings) as stores:
        for kind, body in bodies:
            fields: dict[str, Any] = {
                "audit_id": audit_id,
                "tenant": "acme",
                "key_id": "key_1",
                "time_ms": 1_800_000_000_000,
            }
            fields |= {"request_id": "req_1", "session": "sub_1", "user": None}
            stores.audit.append_sync(AuditRecord(kind=kind, body=body, **fields))
    return audit_id


def show(audit_id: str, *more: str) -> Result:
    return CliRunner().invoke(app, ["audit", "show", audit_id, *more])


def test_audit_show_explains_a_call() -> None:
    """When, who, which model, which signals from where, what changed and why, tools, outcome and usage."""
    audit_id = write(("decision", DECISION), ("outcome", OUTCOME))
    result = show(audit_id)
    assert result.exit_code == 0
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        f"record {audit_id}",
        "when 2027-01-15T08:00:00.000Z",
        "who key key_1 of tenant acme",
        "session sub_1",
        "policy pol_1",
        "style focused",
        "stress 0.7 session call:key_1",
        "trust 0.1 tenant api:key_2 below its minimum",
        "ignored in its cooldown: urgency 0.4",
        "temperature 0.6 -> 0.28 stress 0.7 max(0.1, 0.7 - 0.6 * x) 43:18",
        "tools offered open_url, rm_rf",
        "tools stripped rm_rf",
        "outcome ok: The model answered.",
        "finish stop, length",
        "usage total_tokens 41",
        "attempts 2",
    ):
        assert line in lines, f"{line!r} is not in\n{result.stdout}"
    assert r"call chat to [bold]größe[/bold]\x1b[31m, streamed" in lines
    assert "\x1b" not in result.stdout


def test_audit_show_json_is_the_document() -> None:
    """Programs get the records verbatim."""
    audit_id = write(("decision", DECISION), ("outcome", OUTCOME))
    found = json.loads(show(audit_id, "--json").stdout)
    assert found["audit_id"] == audit_id
    assert found["decision"] == json.loads(json.dumps(DECISION))
    assert [one["kind"] for one in found["records"]] == ["decision", "outcome"]


def test_audit_show_shadow_says_that_nothing_was_applied() -> None:
    """In shadow mode a reader must not take the changes for done."""
    assert "nothing below was applied" in show(write(("decision", {**DECISION, "mode": "shadow"}))).stdout


def test_audit_show_call_without_an_outcome_says_so() -> None:
    """A call that still runs has no outcome yet."""
    assert "none yet" in show(write(("decision", DECISION))).stdout


@pytest.mark.parametrize("status", ["upstream_error", "denied", "failed", "client_gone", "lost", "something_new"])
def test_audit_show_every_ending_is_explained(status: str) -> None:
    """However a call ended, the record can be read."""
    result = show(write(("decision", {**DECISION, "denied": "no"}), ("outcome", {"status": status})))
    assert result.exit_code == 0
    assert f"outcome   {status}: " in result.stdout


@pytest.mark.parametrize(
    ("kind", "body", "shown"),
    [
        pytest.param("key", {"event": "created", "scopes": ["admin"]}, ["event created", "scopes admin"], id="key"),
        pytest.param("signal", {"signals": [{"name": "stress"}]}, ["signals[0].name stress"], id="signal"),
        pytest.param("note", {"bundle": {}}, ["bundle {}"], id="empty"),
        pytest.param("refusal", {"count": 7}, ["count 7"], id="refusal"),
    ],
)
def test_audit_show_other_records_are_shown_whole(kind: str, body: dict[str, Any], shown: list[str]) -> None:
    """What is no call is shown field by field."""
    result = show(write((kind, body)))
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert kind in lines
    assert set(shown) <= set(lines), result.stdout


@pytest.mark.parametrize(
    "decision",
    [
        pytest.param({}, id="empty"),
        pytest.param({"_cut": {"bytes": 1, "sha256": "x"}}, id="cut-whole"),
        pytest.param({**DECISION, "inputs": "[cut]", "trace": [{"_cut": {}}], "written": None}, id="parts-cut"),
        pytest.param({**DECISION, "inputs": {"evidence": {"stress": None}, "ignored": [None]}}, id="odd-parts"),
    ],
)
def test_audit_show_cut_record_is_still_explained(decision: dict[str, Any]) -> None:
    """A record that was too large has parts cut, and the rest can still be read."""
    result = show(
        write(("decision", decision), ("outcome", {"status": "ok", "usage": "[cut]", "finish_reasons": None}))
    )
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    ("audit_id", "status"),
    [
        pytest.param("aud_01M83A0C6KQVKTD84661Z422C4", 1, id="unknown"),
        pytest.param("key_01M83A0C6KQVKTD84661Z422C4", 2, id="another-kind"),
        pytest.param("foo", 2, id="no-id"),
        pytest.param("", 2, id="empty"),
        pytest.param("aud_01M83A0C6KQVKTD84661Z422C4'--", 2, id="escape"),
        pytest.param("[bold]\x1b[31m", 2, id="control-characters"),
    ],
)
def test_audit_show_id_that_is_none_is_refused(audit_id: str, status: int) -> None:
    """Unknown is a negative answer, another form is wrong use."""
    write(("decision", DECISION))
    result = show(audit_id)
    assert result.exit_code == status
    assert result.stdout == ""
    assert "\x1b" not in result.stderr


def test_audit_show_without_a_database_is_status_3(data: Path) -> None:
    """Where there is no log yet, that is said, and none is made."""
    result = show("aud_01M83A0C6KQVKTD84661Z422C4")
    assert result.exit_code == 3
    assert not data.exists()


def test_explain_document_of_the_http_surface(capsys: pytest.CaptureFixture[str]) -> None:
    """The same words serve for a document that was read over HTTP."""
    audit_id = write(("decision", DECISION), ("outcome", OUTCOME))
    explain(json.loads(show(audit_id, "--json").stdout))
    assert capsys.readouterr().out == show(audit_id).stdout


def test_audit_show_tells_what_moderation_found_and_which_incidents_came_of_it() -> None:
    """Rule and place of each finding, in the request and in the answer, and where to read on."""
    finding = {"rule": "injection.x", "category": "injection", "action": "block", "point": "input", "place": "input[0]"}
    decision = {**DECISION, "denied": "moderation_denied", "moderation": {"findings": [finding, "[cut]"]}}
    outcome = {
        "status": "blocked",
        "finish_reasons": ["stop", "stop", "length"],
        "moderation": {"moderator": "failed", "findings": [{**finding, "point": "output"}]},
        "incidents": ["inc_1", "inc_2"],
    }
    out = show(write(("decision", decision), ("outcome", outcome))).stdout
    assert "found in the request  rule" in out and "found in the answer  rule" in out
    assert out.count("injection.x") == 4 and "input[0]" in out
    assert "The moderation API could not be asked in the answer." in out
    assert "incidents  inc_1, inc_2   (see: lukhas incident show ID)" in out
    assert "finish    stop, length" in out
