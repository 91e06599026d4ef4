"""`lukhas policy import`: the command around an import."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_policy_import import PRIORITY, WEIGHT
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.modulation.policy_reader import load_policy, read_packaged_text

HOPELESS = "signals: {" + ", ".join(f"s{n}: {{weight: 1}}" for n in range(80)) + "}"


@pytest.fixture(name="folder", autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", "import", *arguments])


@pytest.mark.parametrize("text", [pytest.param(WEIGHT, id="weight"), pytest.param(PRIORITY, id="priority")])
def test_import_writes_a_policy_that_loads(text: str, folder: Path) -> None:
    """The file loads, and what could not come is printed with its place."""
    (folder / "old.yaml").write_text(text, "utf-8")
    result = run("old.yaml", "--out", "new.yaml")
    assert result.exit_code == 0, result.output
    assert load_policy(folder / "new.yaml").signals
    assert "Not carried over:\n  line " in result.stdout
    assert "Wrote new.yaml. Next:" in result.stdout
    assert CliRunner().invoke(app, ["policy", "show", "new.yaml"]).exit_code == 0


def test_import_without_out_prints_the_policy_alone(folder: Path) -> None:
    """Standard output can go into a file: the report is on standard error."""
    (folder / "old.yaml").write_text(PRIORITY, "utf-8")
    result = run("old.yaml")
    (folder / "piped.yaml").write_text(result.stdout, "utf-8")
    assert load_policy(folder / "piped.yaml").name == "imported"
    assert "Not carried over:" in result.stderr


def test_import_json_has_every_part(folder: Path) -> None:
    """Programs get text, places and reasons."""
    (folder / "old.yaml").write_text(PRIORITY, "utf-8")
    found = json.loads(run("old.yaml", "--json", "--out", "new.yaml").stdout)
    assert found["format"] == "priority"
    assert found["text"] == (folder / "new.yaml").read_text("utf-8")
    assert found["policy"] == load_policy(folder / "new.yaml").id
    assert found["mistakes"] == []
    assert {"line", "column", "path", "reason"} == found["left_out"][0].keys()


def test_import_twice_is_refused(folder: Path) -> None:
    """What was imported is of the current schema."""
    (folder / "old.yaml").write_text(WEIGHT, "utf-8")
    assert run("old.yaml", "--out", "new.yaml").exit_code == 0
    result = run("new.yaml", "--out", "newer.yaml")
    assert result.exit_code == 2
    assert "already of the current schema" in result.stderr
    assert not (folder / "newer.yaml").exists()


def test_import_result_that_does_not_load_writes_nothing(folder: Path) -> None:
    """The mistakes are shown; a draft is written only where it is asked for, and says what is wrong with it."""
    (folder / "old.yaml").write_text(HOPELESS, "utf-8")
    result = run("old.yaml", "--out", "new.yaml")
    assert result.exit_code == 2
    assert "more than 64 entries" in result.stderr
    assert "--force-draft" in result.stderr
    assert not (folder / "new.yaml").exists()
    found = json.loads(run("old.yaml", "--out", "new.yaml", "--json").stdout)
    assert found["error"]["mistakes"][0]["message"] == "more than 64 entries"
    assert not (folder / "new.yaml").exists()
    assert run("old.yaml", "--out", "new.yaml", "--force-draft").exit_code == 0
    draft = (folder / "new.yaml").read_text("utf-8")
    assert "# This draft does not load yet:\n#   line " in draft


def test_import_never_overwrites_unless_forced(folder: Path) -> None:
    """Work on an imported policy is not lost by importing again."""
    (folder / "old.yaml").write_text(WEIGHT, "utf-8")
    (folder / "new.yaml").write_text("mine", "utf-8")
    assert run("old.yaml", "--out", "new.yaml").exit_code == 2
    assert (folder / "new.yaml").read_text("utf-8") == "mine"
    assert run("old.yaml", "--out", "new.yaml", "--force").exit_code == 0
    assert load_policy(folder / "new.yaml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\xff\xfe\x00", "not UTF-8", id="not-utf-8"),
        pytest.param(b"a: [", "not valid YAML", id="not-yaml"),
        pytest.param(b"- 1\n", "not a policy of an older format", id="a-list"),
        pytest.param(b"x" * 1_100_000, "larger than", id="too-large"),
        pytest.param(read_packaged_text().encode(), "already of the current schema", id="packaged"),
        pytest.param(None, "No such file", id="missing"),
    ],
)
def test_import_no_older_policy_is_exit_2(content: bytes | None, says: str, folder: Path) -> None:
    """Whatever the file holds, the answer is a message, and in JSON an error object."""
    if content is not None:
        (folder / "old.yaml").write_bytes(content)
    result = run("old.yaml", "--json")
    assert result.exit_code == 2
    assert says in result.stderr
    assert "error" in json.loads(result.stdout)
