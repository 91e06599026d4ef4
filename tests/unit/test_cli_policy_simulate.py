"""`lukhas policy simulate`: the command around a simulation."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_replay_player import PACKAGED, row
from typer.testing import CliRunner, Result

import lukhas.cli.policy_simulate
from lukhas.audit.record import AuditRecord
from lukhas.cli.main import app
from lukhas.cli.policy_simulate import read_moment
from lukhas.cli.store import open_stores
from lukhas.errors import InvalidRequest
from lukhas.ids import make_id
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import load_policy
from lukhas.settings import load_settings

NOW_MS = 1_800_000_000_000


@pytest.fixture(name="candidate")
def candidate_path(tmp_path: Path) -> str:
    path = tmp_path / "candidate.yaml"
    path.write_text(PACKAGED.replace("0.7 - 0.6 * x", "0.6 - 0.6 * x"), "utf-8")
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", "simulate", *arguments])


def record(*levels: dict[str, float]) -> None:
    """Record decisions of the packaged policy by the real writer."""
    dispatcher = Dispatcher(load_policy())
    with open_stores(load_settings().settings) as stores:
        for own in levels:
            decision = dispatcher.decide(own, caller={})
            body = {
                "inputs": {"levels": decision.levels, "caller": {}, "tools": []},
                "policy": decision.policy,
                "parameters": decision.parameters,
                "style": decision.style,
                "touched": decision.touched,
                "trace": decision.trace,
            }
            now_ms = stores.clock.now_ms()
            audit_id = make_id("aud")
            stores.audit.append_sync(
                AuditRecord("decision", audit_id, "default", "key_1", None, now_ms, None, None, body)
            )


def test_simulate_prints_what_would_have_changed(candidate: str, tmp_path: Path) -> None:
    """A person reads the check, the share, the direction, and where the files are."""
    record({"stress": 0.5}, {"stress": 0.9}, {}, {"trust": 0.5})
    out = tmp_path / "deep" / "report"
    result = run("--policy", candidate, "--out", str(out))
    assert result.exit_code == 0, result.output
    assert "4 decided again by their own revision: all byte for byte as recorded" in result.stdout
    assert "2 calls would have been others (50.0%)" in result.stdout
    line = next(line.split() for line in result.stdout.splitlines() if line.startswith("temperature"))
    assert line[:7] == ["temperature", "2", "50.0%", "2", "0", "0.08", "0.1"]
    assert {path.name for path in out.iterdir()} == {"report.json", "report.html", "report.png"}
    assert json.loads((out / "report.json").read_text("utf-8"))["changed"] == 2
    assert "http" not in (out / "report.html").read_text("utf-8").replace("http-equiv", "")


def test_simulate_json_is_the_report(candidate: str) -> None:
    """Programs get one object on standard output."""
    record({"stress": 0.5})
    found = json.loads(run("--policy", candidate, "--json").stdout)
    assert (found["read"], found["changed"], found["files"]) == (1, 1, [])
    assert found["since"] is None


def test_simulate_without_matplotlib_writes_the_rest(
    candidate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page needs no extra; what is missing is said."""
    record({})
    monkeypatch.setattr(lukhas.cli.policy_simulate, "find_spec", lambda name: None)
    result = run("--policy", candidate, "--out", str(tmp_path / "out"))
    assert result.exit_code == 0
    assert "lukhas-pwm[plot]" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.html"}


def test_simulate_empty_log_is_an_empty_report(candidate: str) -> None:
    """A gateway that has decided nothing yet is no error."""
    record()
    result = run("--policy", candidate, "--since", "7d")
    assert result.exit_code == 0
    assert "nothing to check" in result.stdout


def test_simulate_no_database_is_exit_3(candidate: str) -> None:
    """There is nothing to replay, and nothing is made."""
    result = run("--policy", candidate)
    assert result.exit_code == 3
    assert "no database" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["--since", "yesterday"], "is no time", id="word"),
        pytest.param(["--since", "7"], "is no time", id="number"),
        pytest.param(["--since", ""], "is no time", id="empty"),
        pytest.param(["--until", "9999999d"], "is no time", id="too-long-ago"),
        pytest.param(["--since", "1d", "--until", "2d"], "not after", id="backwards"),
        pytest.param(["--limit", "0"], "--limit", id="limit-of-nothing"),
    ],
)
def test_simulate_wrong_use_is_exit_2(arguments: list[str], says: str, candidate: str) -> None:
    """Times are checked before anything is opened."""
    result = run("--policy", candidate, *arguments)
    assert result.exit_code == 2
    assert says in result.stderr


def test_simulate_broken_candidate_lists_its_mistakes(tmp_path: Path) -> None:
    """A candidate that does not load cannot be tried."""
    path = tmp_path / "broken.yaml"
    path.write_text(PACKAGED.replace("weight: 1.0", "weight: 7"), "utf-8")
    result = run("--policy", str(path), "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout)["error"]["mistakes"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("90s", NOW_MS - 90_000, id="seconds"),
        pytest.param("7d", NOW_MS - 604_800_000, id="days"),
        pytest.param(" 2w ", NOW_MS - 1_209_600_000, id="weeks-with-spaces"),
        pytest.param("2026-12-31", round(datetime(2026, 12, 31, tzinfo=UTC).timestamp() * 1000), id="date"),
        pytest.param("2026-12-31T08:00:00+02:00", 1_798_696_800_000, id="with-a-zone"),
        pytest.param("1970-01-01T00:00:00Z", 0, id="epoch"),
    ],
)
def test_read_moment_forms(text: str, expected: int) -> None:
    """Ages count back from now; a moment without a zone is UTC."""
    assert read_moment(text, NOW_MS, "--since") == expected


def test_read_moment_other_text_names_the_option() -> None:
    """The mistake says which option it is about."""
    with pytest.raises(InvalidRequest) as refused:
        read_moment("soon", NOW_MS, "--until")
    assert refused.value.param == "--until"


def test_row_helper_is_played() -> None:
    """The rows that other tests play are decisions of the packaged policy."""
    assert row({"stress": 0.5}).body is not None
