"""`lukhas policy`: show a policy or its mistakes, and start one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.modulation.policy_reader import load_policy, read_packaged_text


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", *arguments])


def test_policy_show_json_has_the_whole_policy() -> None:
    """Id, source, signals, parameters, maps with their places, styles, tools, feedback."""
    found = json.loads(run("show", "--json").stdout)
    assert found["policy"] == load_policy().id
    assert found["source"] == "packaged"
    assert found["signals"]["alignment_risk"]["role"] == "guard"
    assert found["parameters"]["safety_mode"]["values"] == ["strict", "balanced", "creative"]
    assert found["maps"]["stress"]["temperature"]["rule"] == "max(0.1, 0.7 - 0.6 * x)"
    assert found["maps"]["stress"]["temperature"]["place"]["line"] > 1
    assert found["styles"]["strict"]["moderation"] == "high"
    assert found["style_rules"][-1] == {"style": "balanced", "when": None}
    assert found["tools"]["code_exec"]["risk"] == "high"
    assert found["feedback"]["temperature"]["low"] == -0.2


def test_policy_show_text_has_every_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person finds each signal, parameter, map, style and tool class, on 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    result = run("show")
    policy = load_policy()
    assert result.exit_code == 0
    for name in (*policy.signals, *policy.parameters, *policy.styles, *policy.tool_classes):
        assert name in result.stdout
    assert "max(0.1, 0.7 - 0.6 * x)" in result.stdout
    assert max(len(line) for line in result.stdout.splitlines()) <= 80


def test_policy_show_values_are_never_read_as_markup(tmp_path: Path) -> None:
    """What stands in a policy is shown as it stands; what would steer a terminal is shown by its code."""
    path = tmp_path / "own.yaml"
    text = read_packaged_text().replace("name: lukhas-recommended", 'name: "[red]größe[/red]\\e[31m"')
    path.write_text(text, "utf-8")
    result = run("show", str(path))
    assert "[red]größe[/red]\\x1b[31m" in result.stdout
    assert "\x1b" not in result.stdout


def test_policy_show_broken_file_lists_every_mistake(tmp_path: Path) -> None:
    """Each mistake has its line and column, and the status is 2."""
    path = tmp_path / "broken.yaml"
    path.write_text(read_packaged_text().replace("weight: 1.0", "weight: 7").replace("role: style", "role: stile"))
    result = run("show", str(path), "--json")
    assert result.exit_code == 2
    mistakes = json.loads(result.stdout)["error"]["mistakes"]
    assert len(mistakes) == 6
    for mistake in mistakes:
        assert f"{path}:{mistake['line']}:{mistake['column']}: {mistake['path']}" in result.stderr


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff\xfe", id="not-utf-8"),
        pytest.param(b"a: [", id="not-yaml"),
        pytest.param(b"- 1\n", id="a-list"),
        pytest.param(b"x" * 1_100_000, id="too-large"),
    ],
)
def test_policy_show_no_policy_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    """Whatever the file holds, the answer is a message."""
    path = tmp_path / "policy.yaml"
    path.write_bytes(content)
    result = run("show", str(path))
    assert result.exit_code == 2
    assert str(path) in result.stderr


def test_policy_init_writes_a_policy_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path the usual name in the working directory is taken, and what to do next is said."""
    monkeypatch.chdir(tmp_path)
    result = run("init")
    path = tmp_path / "modulation_policy.yaml"
    assert result.exit_code == 0
    assert path.read_text("utf-8") == read_packaged_text()
    assert load_policy(path).id == load_policy().id
    assert "LUKHAS_POLICY=modulation_policy.yaml lukhas serve" in result.stdout


def test_policy_init_folder_gets_the_usual_name(tmp_path: Path) -> None:
    """A folder is a place to put the file in."""
    found = json.loads(run("init", str(tmp_path), "--json").stdout)
    assert found == {"path": str(tmp_path / "modulation_policy.yaml"), "policy": load_policy().id}


def test_policy_init_never_overwrites_unless_forced(tmp_path: Path) -> None:
    """Work that was done on a policy is not lost by one word too few."""
    path = tmp_path / "own.yaml"
    path.write_text("mine")
    result = run("init", str(path))
    assert result.exit_code == 2
    assert "--force" in result.stderr
    assert path.read_text() == "mine"
    assert run("init", str(path), "--force").exit_code == 0
    assert path.read_text("utf-8") == read_packaged_text()


def test_policy_init_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A wrong folder is an answer, not a traceback."""
    result = run("init", str(tmp_path / "none" / "own.yaml"))
    assert result.exit_code == 2
    assert "No such file or directory" in result.stderr
