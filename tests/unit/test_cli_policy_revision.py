"""`lukhas policy history|rollback|reload|diff`, without a running gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.cli.store import open_log
from lukhas.modulation.policy import policy_id
from lukhas.modulation.policy_reader import read_packaged_text
from lukhas.settings import load_settings

PACKAGED = read_packaged_text()


def version(number: int) -> str:
    return PACKAGED.replace("max(0.1, 0.7 - 0.6 * x)", f"{number / 100}")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet, a policy file, and no solver."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LUKHAS_POLICY", str(tmp_path / "policy.yaml"))
    monkeypatch.setenv("LUKHAS_POLICY_PROOF_TIMEOUT_S", "0")
    return tmp_path / "data"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_text(version(10), "utf-8")
    return path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", *arguments])


def ask(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def take(file: Path, number: int) -> str:
    """Put a version in force by the file; return its id."""
    file.write_text(version(number), "utf-8")
    found = ask("reload", "--reason", f"version {number}")
    assert found["changed"] and found["policy"] == policy_id(version(number))
    return found["policy"]


def test_policy_history_shows_who_when_and_why(file: Path) -> None:
    """The newest first, and which one is in force now."""
    first = take(file, 10)
    second = take(file, 20)
    found = ask("history")
    assert found["current"] == second
    assert [event["policy"] for event in found["events"]] == [second, first]
    assert found["events"][0]["why"] == "version 20" and found["events"][0]["who"].startswith("cli")
    assert found["events"][0]["before"] == first and found["events"][0]["file"] == str(file)
    text = run("history").stdout
    assert second in text and "in force (now)" in text and "not proved" in text
    assert len(ask("history", "--limit", "1")["events"]) == 1


def test_policy_history_without_a_database_says_what_to_do(data: Path) -> None:
    """To look makes nothing."""
    result = run("history")
    assert result.exit_code == 3 and "lukhas serve" in result.stderr
    assert not data.exists()


def test_policy_rolled_back_is_on_record(file: Path) -> None:
    """The event and the audit record say who and why; a beginning of the id is enough."""
    first = take(file, 10)
    take(file, 20)
    found = ask("rollback", first[:12], "--reason", "It was calmer.")
    assert found["policy"] == first and found["event"] == "rolled_back" and found["why"] == "It was calmer."
    assert ask("history")["current"] == first
    with open_log(load_settings().settings) as log:
        document = log.read_document(found["audit_id"])
    assert document is not None
    (record,) = document["records"]
    assert record["kind"] == "policy" and record["key_id"] == "cli"
    assert record["body"]["why"] == "It was calmer." and record["body"]["policy"] == first


def test_policy_rollback_to_the_packaged_one_works_always(file: Path) -> None:
    """Whatever happened, there is a way back; again changes nothing."""
    take(file, 10)
    assert ask("rollback", "packaged", "--reason", "r")["policy"] == policy_id(PACKAGED)
    assert ask("rollback", "packaged", "--reason", "r") == {"policy": policy_id(PACKAGED), "changed": False}


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["pol_0000", "--reason", "r"], 1, id="unknown"),
        pytest.param(["nonsense!", "--reason", "r"], 2, id="no-id"),
        pytest.param(["packaged", "--reason", " "], 2, id="blank-reason"),
        pytest.param(["packaged"], 2, id="no-reason"),
        pytest.param([], 2, id="nothing"),
    ],
)
def test_policy_rollback_that_cannot_be_is_refused(file: Path, arguments: list[str], code: int) -> None:
    """A wrong name or a missing reason changes nothing."""
    standing = take(file, 10)
    assert run("rollback", *arguments).exit_code == code
    assert ask("history")["current"] == standing


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("version: [", id="no-yaml"),
        pytest.param(PACKAGED.replace("1 - 0.85 * x", "1 - 0.85 * y"), id="unknown-name"),
    ],
)
def test_policy_reload_of_a_broken_file_is_refused_and_on_record(file: Path, text: str) -> None:
    """The last good one stays, and the history has the refusal with its reason."""
    standing = take(file, 10)
    file.write_text(text, "utf-8")
    result = run("reload", "--reason", "try")
    assert result.exit_code == 2 and str(file) in result.stderr
    found = ask("history")
    assert found["current"] == standing
    assert found["events"][0]["event"] == "refused" and str(file) in found["events"][0]["problem"]


def test_policy_reload_of_a_missing_file_is_refused(file: Path) -> None:
    """There is nothing to take up."""
    file.unlink()
    result = run("reload")
    assert result.exit_code == 2 and "cannot be read" in result.stderr


def test_policy_reload_required_proof_is_asked_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the gateway would refuse is refused here too, with what to do."""
    monkeypatch.setenv("LUKHAS_POLICY_REQUIRE_PROOF", "true")
    result = run("reload")
    assert result.exit_code == 2
    assert "LUKHAS_POLICY_REQUIRE_PROOF" in result.stderr and "lukhas-pwm[verify]" in result.stderr


def test_policy_diff_names_files_revisions_and_words(file: Path) -> None:
    """Each way to name a policy finds the same one."""
    first = take(file, 10)
    other = file.with_name("other.yaml")
    other.write_text(version(20), "utf-8")
    by_file = ask("diff", str(file), str(other))
    assert by_file["a"] == first and by_file["b"] == policy_id(version(20))
    assert ask("diff", first[:12], str(other)) == by_file
    assert ask("diff", "current", str(other)) == by_file
    assert ask("diff", first)["same"]
    assert ask("diff", "packaged", "packaged")["same"]
    text = run("diff", str(file), str(other)).stdout
    assert "temperature: for stress 0.20-1.00 higher by 0.1 (0.1 -> 0.2 at " in text


def test_policy_diff_exit_code_only_where_asked(file: Path) -> None:
    """A difference is no failure, unless a script wants to know."""
    assert run("diff", "packaged", str(file)).exit_code == 0
    assert run("diff", "packaged", str(file), "--exit-code").exit_code == 1
    assert run("diff", "packaged", "packaged", "--exit-code").exit_code == 0


def test_policy_diff_needs_no_database(file: Path, data: Path) -> None:
    """Before the first start, 'current' is what the settings name, and no revision is known."""
    assert ask("diff", "packaged", "current")["b"] == policy_id(version(10))
    result = run("diff", "packaged", "pol_0000")
    assert result.exit_code == 1 and "no revision is stored yet" in result.stderr
    assert not data.exists()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        pytest.param("nope.yaml", 2, id="missing-file"),
        pytest.param("pol_0000", 1, id="unknown-revision"),
        pytest.param("", 2, id="empty"),
        pytest.param("x" * 5000, 2, id="too-long"),
        pytest.param("a\x00b", 2, id="null"),
    ],
)
def test_policy_diff_of_nothing_is_refused(file: Path, name: str, code: int) -> None:
    """Whatever is named, the answer is a message."""
    take(file, 10)
    result = run("diff", "packaged", name)
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("lukhas: ")


def test_policy_diff_that_changes_only_words_says_so(file: Path) -> None:
    """Another id without another decision is explained."""
    file.write_text(PACKAGED + "# a comment\n", "utf-8")
    assert "nothing that they say does" in run("diff", "packaged", str(file)).stdout
