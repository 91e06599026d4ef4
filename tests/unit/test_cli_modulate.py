"""`lukhas modulate`: the decision and its trace, and every wrong way to ask."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.modulation.policy_reader import read_packaged_text


@pytest.fixture(autouse=True)
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def run(*arguments: str, text: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["modulate", *arguments], input=text)


def ask(*arguments: str, text: str | bytes | None = None) -> dict[str, Any]:
    """Return the JSON of a command that succeeds."""
    result = run(*arguments, "--json", text=text)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_modulate_json_has_the_decision_and_its_trace() -> None:
    """The contract's five keys are there, with the packaged policy's values."""
    found = ask("--signal", "stress=0.7", "--signal", "novelty=0.9", "--model", "gpt-4o-mini")
    assert found["parameters"]["temperature"] == 0.28
    assert found["parameters"]["planner_beam"] == 6
    assert found["style"] == "creative"
    assert found["tools"] == ["retrieval", "browser"]
    assert found["policy"].startswith("pol_")
    step = next(step for step in found["trace"] if step["parameter"] == "temperature")
    assert (step["before"], step["after"], step["signal"], step["level"]) == (0.6, 0.28, "stress", 0.7)
    assert step["rule"] == "max(0.1, 0.7 - 0.6 * x)"
    assert step["place"].startswith("line ")


def test_modulate_text_shows_values_defaults_and_reasons() -> None:
    """A person sees each parameter beside its default, and each change with its signal, rule and place."""
    result = run("-s", "stress=0.7")
    assert result.exit_code == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert ["temperature", "0.28", "0.6", "yes"] in lines
    assert ["verbosity", "0.5", "0.5"] in lines
    change = next(line for line in result.stdout.splitlines() if line.startswith("temperature") and "->" in line)
    assert "0.6 -> 0.28" in change
    assert "stress 0.7" in change
    assert "max(0.1, 0.7 - 0.6 * x)" in change
    assert "\x1b" not in result.stdout


def test_modulate_80_columns_break_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a usual terminal no line is too long, and parameters can still be searched for."""
    monkeypatch.setenv("COLUMNS", "80")
    result = run("-s", "stress=0.7", "-s", "alignment_risk=0.9", "-s", "novelty=0.9")
    assert max(len(line) for line in result.stdout.splitlines()) <= 80
    assert result.stdout.count("max_output_tokens") >= 2


def test_modulate_no_signal_is_the_defaults() -> None:
    """Without signals nothing changes, and that is what is said."""
    assert ask()["trace"] == []
    assert "Nothing changed." in run().stdout


def test_modulate_signals_may_be_joined_by_commas() -> None:
    """One option may carry several signals, as the header does."""
    assert ask("-s", "stress=0.7,novelty=0.9")["levels"] == {"stress": 0.7, "novelty": 0.9}


def test_modulate_model_decides_what_is_written() -> None:
    """A model that refuses temperature gets none, and another name for the limit."""
    assert ask("-s", "stress=0.7", "--model", "gpt-5")["written"] == {"max_completion_tokens": 980}
    assert ask("-s", "stress=0.7")["model"] == "gpt-4o-mini"


def test_modulate_request_is_shown_changed_from_file_and_standard_input(own_data: Path) -> None:
    """A request comes back as it would go upstream, whatever is in its text."""
    body = {
        "model": "gpt-4o",
        "temperature": 2.0,
        "messages": [{"role": "user", "content": "[bold]Größe[/bold]"}],
        "tools": [{"type": "function", "function": {"name": "rm_rf"}}],
        "unknown_field": {"kept": True},
    }
    path = own_data / "request.json"
    path.write_text(json.dumps(body), "utf-8")
    found = ask("-s", "alignment_risk=0.8", "--request", str(path))
    assert found["request"]["temperature"] == 0.32
    assert found["request"]["unknown_field"] == {"kept": True}
    assert "tools" not in found["request"]
    assert found["stripped"] == ["rm_rf"]
    assert found["model"] == "gpt-4o"
    assert ask("-s", "alignment_risk=0.8", "--request", "-", text=path.read_bytes()) == found
    assert "[bold]Größe[/bold]" in run("--request", str(path)).stdout


def test_modulate_request_brings_its_own_signals() -> None:
    """What stands in the request's lukhas field counts, as the gateway would count it."""
    body = {"messages": [{"role": "user", "content": "x"}], "lukhas": {"signals": {"stress": 0.7}}}
    found = ask("-s", "novelty=0.9", "--request", "-", text=json.dumps(body))
    assert found["levels"] == {"stress": 0.7, "novelty": 0.9}
    assert "lukhas" not in found["request"]
    assert run("-s", "stress=0.1", "--request", "-", text=json.dumps(body)).exit_code == 2


def test_modulate_policy_file_and_setting_decide(own_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy file given wins over the setting's, and the setting's over the packaged one."""
    given, setting = own_data / "given.yaml", own_data / "setting.yaml"
    given.write_text(read_packaged_text().replace("0.7 - 0.6 * x", "0.8 - 0.6 * x"), "utf-8")
    setting.write_text(read_packaged_text().replace("0.7 - 0.6 * x", "0.9 - 0.6 * x"), "utf-8")
    monkeypatch.setenv("LUKHAS_POLICY", str(setting))
    assert ask("-s", "stress=0.5")["parameters"]["temperature"] == 0.6
    assert ask("-s", "stress=0.5", "--policy", str(given))["parameters"]["temperature"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["-s", "stress"], "'stress' is not a signal", id="no-level"),
        pytest.param(["-s", "=0.5"], "is not a signal", id="no-name"),
        pytest.param(["-s", "stress="], "is not a signal", id="empty-level"),
        pytest.param(["-s", ""], "is not a signal", id="empty"),
        pytest.param(["-s", "stress=2"], "must be a number in [0, 1]", id="level-2"),
        pytest.param(["-s", "stress=-0.1"], "must be a number in [0, 1]", id="negative"),
        pytest.param(["-s", "stress=nan"], "must be a number in [0, 1]", id="nan"),
        pytest.param(["-s", "stress=inf"], "must be a number in [0, 1]", id="infinity"),
        pytest.param(["-s", "stress=high"], "must be a number in [0, 1]", id="word"),
        pytest.param(["-s", "stress=\u0663"], "must be a number in [0, 1]", id="other-digits"),
        pytest.param(["-s", "stress=1_0"], "must be a number in [0, 1]", id="underscore"),
        pytest.param(["-s", "strss=0.5"], "declares no signal 'strss'", id="unknown-name"),
        pytest.param(["-s", "stress=0.5", "-s", "stress=0.6"], "stands twice", id="twice"),
        pytest.param(["--policy", "/nope.yaml"], "cannot be read", id="no-policy-file"),
        pytest.param(["--policy", "/"], "cannot be read", id="policy-is-a-folder"),
        pytest.param(["--request", "/nope.json"], "cannot be read", id="no-request-file"),
    ],
)
def test_modulate_wrong_question_is_refused_with_status_2(arguments: list[str], said: str) -> None:
    """A usage error says what is wrong on standard error, and never as a traceback."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    error = json.loads(run(*arguments, "--json").stdout)["error"]
    assert said in error["message"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(b"", "not JSON", id="empty"),
        pytest.param(b"[1]", "JSON object", id="list"),
        pytest.param(b"{", "not JSON", id="cut"),
        pytest.param(b"\xff\xfe", "not JSON", id="not-utf-8"),
        pytest.param(b'{"temperature": "hot"}', "temperature", id="wrong-type"),
        pytest.param(b'{"messages": 7}', "messages", id="messages-are-no-list"),
        pytest.param(b'{"lukhas": {"signals": {"stress": 7}}}', "In the request", id="wrong-signal-inside"),
    ],
)
def test_modulate_wrong_request_is_refused_with_status_2(text: bytes, said: str) -> None:
    """A request that cannot be understood is refused as the gateway would refuse it."""
    result = run("-s", "stress=0.5", "--request", "-", text=text)
    assert result.exit_code == 2, result.output
    assert said in result.stderr


def test_modulate_request_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of the gateway holds here too."""
    monkeypatch.setenv("LUKHAS_MAX_BODY_BYTES", "1000")
    result = run("--request", "-", text=b" " * 2000)
    assert result.exit_code == 2
    assert "larger than 1000 bytes" in result.stderr


def test_modulate_forced_tool_is_a_negative_answer() -> None:
    """What the policy denies is no usage error: status 1, with the change that would allow it."""
    body = {
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "rm_rf"}}],
        "tool_choice": {"type": "function", "function": {"name": "rm_rf"}},
    }
    result = run("--request", "-", text=json.dumps(body))
    assert result.exit_code == 1
    assert "rm_rf" in result.stderr
    assert "lukhas policy init" in result.stderr


def test_modulate_broken_policy_lists_its_mistakes(own_data: Path) -> None:
    """A broken policy is shown with the place of each mistake, in JSON too."""
    path = own_data / "broken.yaml"
    path.write_text(read_packaged_text().replace("1 - 0.85 * x", "1 - 0.85 * y"), "utf-8")
    result = run("--policy", str(path), "--json")
    assert result.exit_code == 2
    (mistake,) = json.loads(result.stdout)["error"]["mistakes"]
    assert mistake["path"] == "maps.alignment_risk.temperature"
    assert f"{path}:{mistake['line']}:{mistake['column']}" in result.stderr
