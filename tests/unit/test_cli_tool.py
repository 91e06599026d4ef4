"""`lukhas tools`: what is registered, what was blocked, and proposals that allow nothing by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner, Result

from lukhas.audit.store import AuditRecord
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.cli.tool_proposal import NAME, Seen, propose, write_yaml
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.openai.tooling import load_registry
from lukhas.settings import load_settings
from lukhas.storage.metadata import INCIDENT

NOW_MS = SystemClock().now_ms()
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["tools", *arguments])


def run_json(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def decide(tools: list[Any], stripped: list[Any], time_ms: int = NOW_MS) -> None:
    """Write a decision as the gateway records it."""
    body: dict[str, Any] = {
        "inputs": {"levels": {}, "caller": {}, "tools": tools},
        "policy": "pol_1",
        "parameters": {},
        "style": "balanced",
        "touched": [],
        "trace": [],
        "stripped": stripped,
    }
    names: dict[str, Any] = {"tenant": "acme", "key_id": "key_1", "request_id": None, "session": None, "user": None}
    record = AuditRecord(kind="decision", audit_id=make_id("aud"), time_ms=time_ms, body=body, **names)
    with open_stores(load_settings().settings) as stores:
        stores.audit.append_sync(record)


def happen(tool: str | None, *, category: str = "tool", point: str = "call", tenant: str = "acme", ago: int = 0) -> str:
    """Store an incident as the gateway does, and return its id."""
    incident_id = make_id("inc")
    row = {
        "incident_id": incident_id,
        "audit_id": make_id("aud"),
        "tenant": tenant,
        "key_id": "key_1",
        "time_ms": NOW_MS - ago,
        "point": point,
        "category": category,
        "rule": "not_allowed",
        "severity": "medium",
        "action": "block",
        "tool": tool,
        "details": "{}",
        "raised": "[]",
        "until_ms": NOW_MS,
    }
    with open_stores(load_settings().settings) as stores, stores.database.writer.begin() as connection:
        connection.execute(insert(INCIDENT).values(row))
    return incident_id


def test_tools_list_shows_class_risk_and_verdict() -> None:
    """The packaged policy allows retrieval and the browser."""
    shown = run_json("list")
    assert {tool["name"]: (tool["class"], tool["risk"], tool["allowed"]) for tool in shown["tools"]} == {
        "retrieve_knowledge": ("retrieval", "low", True),
        "open_url": ("browser", "medium", True),
        "schedule_task": ("scheduler", "medium", False),
        "exec_code": ("code_exec", "high", False),
    }
    assert shown["allowlist"] == ["retrieval", "browser"]
    text = run("list").stdout
    assert f"The policy {shown['policy']} allows retrieval, browser" in text


def test_tools_list_takes_an_own_registry_and_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of one's own stands in the policy too, where the allowlist speaks of it; a name may stand for itself."""
    registry, policy = tmp_path / "tools.yaml", tmp_path / "policy.yaml"
    registry.write_text("tools:\n  pay: {class: billing, risk: high}\n  ask: {class: billing}\n")
    assert CliRunner().invoke(app, ["policy", "init", str(policy)]).exit_code == 0
    monkeypatch.setenv("LUKHAS_TOOLS", str(registry))
    assert [tool["name"] for tool in run_json("list")["tools"] if tool["allowed"]] == ["retrieve_knowledge", "open_url"]
    text = policy.read_text()
    text = text.replace("\ntools:\n", "\ntools:\n  billing: {risk: high}\n")
    policy.write_text(text.replace("default: [retrieval, browser]", "default: [billing, open_url]"))
    shown = run_json("list", "--policy", str(policy))
    assert [tool["name"] for tool in shown["tools"] if tool["allowed"]] == ["open_url", "pay", "ask"]
    registry.write_text("tools: 5")
    broken = run("list")
    assert broken.exit_code == 2 and "line 1, column 8" in broken.stderr


def test_tools_incidents_are_listed_newest_first() -> None:
    """Governance of tools and what was found in their arguments, and nothing else."""
    old = happen("a", ago=3 * DAY_MS)
    secret = happen("b\x1b[31m", category="secret", ago=2_000)
    forced = happen(None, point="advertise", ago=1_000)
    other = happen("c", tenant="beta")
    happen(None, category="injection", point="input")
    listed = run_json("incidents")["incidents"]
    assert [one["incident_id"] for one in listed] == [other, forced, secret, old]
    assert listed[0]["tool"] == "c" and listed[0]["audit_id"].startswith("aud_")
    assert [one["incident_id"] for one in run_json("incidents", "--tenant", "acme", "--since", "1d")["incidents"]] == [
        forced,
        secret,
    ]
    assert len(run_json("incidents", "--limit", "1")["incidents"]) == 1
    text = run("incidents").stdout
    assert secret in text and "\x1b" not in text


def test_tools_incidents_without_any_says_so(data: Path) -> None:
    """No database is another thing than no incident."""
    assert run("incidents").exit_code == 3
    with open_stores(load_settings().settings):
        pass
    assert run("incidents").stdout == "There are no such incidents.\n"
    assert run("incidents", "--since", "soon").exit_code == 2


def test_tools_learn_counts_functions_that_no_class_knows() -> None:
    """What is registered, classed by the policy or run by a provider is known already."""
    decide(["find_ticket", "find_ticket", "send_money", "open_url", "search_docs_v2"], ["find_ticket", "send_money"])
    decide(["find_ticket", "web_search", "tool_search", "[redacted:email]"], ["find_ticket", "tool_search"])
    decide(["frobnicate", {"_cut": {"count": 3}}], ["frobnicate"], time_ms=NOW_MS - 3 * DAY_MS)
    happen("send_money")
    happen("wipe_disk")
    happen("frobnicate", point="result")
    shown = run_json("learn")
    assert shown["unreadable"] == 1
    assert [tuple(one.values()) for one in shown["proposals"]] == [
        ("find_ticket", "retrieval", "low", 2, 2, 0),
        ("send_money", None, "high", 1, 1, 1),
        ("frobnicate", None, "medium", 1, 1, 0),
        ("wipe_disk", None, "medium", 0, 0, 1),
    ]
    assert [one["name"] for one in run_json("learn", "--since", "1d")["proposals"]] == [
        "find_ticket",
        "send_money",
        "wipe_disk",
    ]


def test_tools_learn_writes_a_file_that_allows_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until a person takes a comment away; and then the function has a class."""
    decide(["find_ticket", "send_money"], ["find_ticket", "send_money"])
    path = tmp_path / "tools.yaml"
    result = run("learn", "--write", str(path))
    assert result.exit_code == 0 and f"Wrote {path}." in result.stdout
    assert load_registry(path).names == load_registry(None).names
    again = run("learn", "--write", str(path))
    assert again.exit_code == 2 and "is there already" in again.stderr
    lines = path.read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if "find_ticket" in line)
    accepted = [line.replace("# ", "", 1) if start <= number < start + 3 else line for number, line in enumerate(lines)]
    path.write_text("\n".join(accepted))
    assert load_registry(path).classify("find_ticket") == "retrieval"
    monkeypatch.setenv("LUKHAS_TOOLS", str(path))
    assert [one["name"] for one in run_json("learn")["proposals"]] == ["send_money"]


def test_tools_learn_prints_its_proposal_or_that_there_is_none() -> None:
    """Without a file the proposal itself is what is printed."""
    decide(["open_url"], [])
    assert run("learn").stdout == "Every function that was seen has a class.\n"
    decide(["send_money"], [])
    text = run("learn").stdout
    assert '  # "send_money":\n  #   class: CHOOSE\n  #   risk: high\n' in text


@pytest.mark.parametrize(
    ("name", "tool_class", "risk"),
    [
        pytest.param("searchTickets", "retrieval", "low", id="camel"),
        pytest.param("get_weather", "retrieval", "low", id="get"),
        pytest.param("crm-lookup", "retrieval", "low", id="lookup"),
        pytest.param("browse_page", "browser", "medium", id="browse"),
        pytest.param("fetchURL", "browser", "medium", id="fetch"),
        pytest.param("RunQuery", "code_exec", "high", id="run"),
        pytest.param("remind_me", "scheduler", "medium", id="remind"),
        pytest.param("get_and_delete_user", None, "high", id="a-change-outweighs-a-look"),
        pytest.param("send_email", None, "high", id="send"),
        pytest.param("payInvoice", None, "high", id="pay"),
        pytest.param("getaway", None, "medium", id="part-of-a-word"),
        pytest.param("42", None, "medium", id="no-word"),
        pytest.param("", None, "medium", id="empty"),
    ],
)
def test_proposal_goes_by_the_words_of_a_name(name: str, tool_class: str | None, risk: str) -> None:
    """A guess for a person to check; what changes something is never guessed to be harmless."""
    found = propose(name, Seen())
    assert (found.tool_class, found.risk) == (tool_class, risk)


def test_proposal_of_a_class_to_choose_is_refused_until_it_is_chosen(tmp_path: Path) -> None:
    """Even with its comment taken away."""
    path = tmp_path / "tools.yaml"
    for name in ("send_money", "yes", "2"):
        assert NAME.match(name)
        lines = write_yaml([propose(name, Seen(1, 1, 0))]).splitlines()
        path.write_text(
            "\n".join(line.replace("  # ", "  ", 1) if number > 5 else line for number, line in enumerate(lines))
        )
        with pytest.raises(Exception, match=rf"tools\.{name}\.class: a class is a word"):
            load_registry(path)
