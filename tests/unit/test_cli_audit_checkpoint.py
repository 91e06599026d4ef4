"""`lukhas audit checkpoint`, `lukhas audit key`, and what `lukhas doctor` says about them."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.audit.checkpoint import open_checkpoint
from lukhas.audit.note import parse_verifier
from lukhas.cli.main import app
from lukhas.storage.serving import ServingLock
from lukhas.storage.sqlite import SqliteSafety

SEED = bytes(range(32)).hex()


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory with empty databases."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LUKHAS_PORT", "0")
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


def grow() -> None:
    """Let the log grow by one record."""
    assert CliRunner().invoke(app, ["key", "create"]).exit_code == 0


def examine() -> dict[str, dict[str, Any]]:
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["checks"]
    return {one["check"]: one for one in found if one["check"].startswith("audit")}


def edit(data: Path, sql: str) -> None:
    with sqlite3.connect(data / "lukhas.db") as connection:
        connection.execute(sql)
    connection.close()


def test_key_without_a_database_makes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh place both commands say what to do, and leave it as it was."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "none"))
    for command in ("key", "checkpoint"):
        result = run(command)
        assert result.exit_code == 3
        assert "There is no database" in result.stderr and "lukhas serve" in result.stderr
    assert not (tmp_path / "none").exists()


def test_key_is_made_once_and_put_on_record(data: Path) -> None:
    """The first call makes the key, and its record; the second prints the same line."""
    first, second = run("key"), run("key")
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout
    verifier = parse_verifier(first.stdout)
    assert json.loads(run("key", "--json").stdout)["verifier"] == str(verifier)
    signed = json.loads(run("checkpoint", "--json").stdout)
    assert (signed["origin"], signed["size"], signed["problem"]) == (verifier.name, 1, None)
    with sqlite3.connect(data / "lukhas.db") as connection:
        (record,) = connection.execute("SELECT data FROM audit_record WHERE kind = 'log_key'").fetchall()
    connection.close()
    assert json.loads(record[0])["body"] == {"event": "created", "verifier": str(verifier), "replaces": None}


def test_checkpoint_is_the_signed_note_and_grows_with_the_log(data: Path) -> None:
    """Standard output is the note, byte for byte, and nothing else; a grown log gets a new one."""
    verifier = parse_verifier(run("key").stdout)
    first = run("checkpoint")
    assert first.stderr == ""
    assert run("checkpoint").stdout == first.stdout
    grow()
    second = run("checkpoint")
    sizes = [open_checkpoint(one.stdout.encode(), [verifier]).size for one in (first, second)]
    assert sizes[0] < sizes[1]


def test_checkpoint_with_the_key_of_another_environment_prints_the_newest(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that only the gateway is given: the stored checkpoint is printed, and standard error says why."""
    monkeypatch.setenv("LUKHAS_AUDIT_KEY", SEED)
    signed = run("checkpoint")
    monkeypatch.delenv("LUKHAS_AUDIT_KEY")
    grow()
    result = run("checkpoint")
    assert (result.exit_code, result.stdout) == (0, signed.stdout)
    assert "none was signed now" in result.stderr
    assert json.loads(run("checkpoint", "--json").stdout)["problem"]
    assert examine()["audit key"]["state"] == "fail"


def test_checkpoint_beside_a_gateway_that_alone_may_write_prints_the_newest(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this SQLite allows one process only and the gateway is it, nothing is signed, and that is said."""
    signed = run("checkpoint")
    grow()
    unsafe = SqliteSafety("3.40.1", False, "has the WAL-reset bug")
    monkeypatch.setattr("lukhas.storage.engine.sqlite_safety", lambda: unsafe)
    lock = ServingLock(data)
    lock.acquire()
    try:
        result = run("checkpoint")
    finally:
        lock.release()
    assert (result.exit_code, result.stdout) == (0, signed.stdout)
    assert "none was signed now" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("LUKHAS_AUDIT_ORIGIN", "other.example/log", id="another-name"),
        pytest.param("LUKHAS_AUDIT_KEY", "hunter2hunter2hunter2", id="no-key"),
    ],
)
def test_checkpoint_with_a_wrong_setting_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A setting that is wrong is exit 2 and told by its name; its value is not shown where it is secret."""
    run("checkpoint")
    monkeypatch.setenv(name, value)
    result = run("checkpoint")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert name in result.stderr
    assert "hunter2" not in result.output
    assert examine()["audit key"]["state"] == "fail"


def test_checkpoint_of_a_log_that_was_cut_is_status_4(data: Path) -> None:
    """A log that does not continue what was signed is exit 4, and no checkpoint is printed."""
    run("checkpoint")
    edit(data, "UPDATE audit_checkpoint SET size = 99")
    result = run("checkpoint")
    assert result.exit_code == 4
    assert result.stdout == ""
    assert examine()["audit checkpoint"]["state"] == "fail"


def test_key_replaced_all_are_listed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rotation `key` prints the newest, and `--all` every one, newest first."""
    old = run("key").stdout.strip()
    monkeypatch.setenv("LUKHAS_AUDIT_KEY", SEED)
    assert examine()["audit key"]["state"] == "warn"
    assert run("key").stdout.strip() == old
    signed = run("checkpoint")
    listed = run("key", "--all").stdout.split()
    assert len(listed) == 2 and listed[1] == old
    assert run("key").stdout.strip() == listed[0]
    assert open_checkpoint(signed.stdout.encode(), [parse_verifier(listed[0])]).size == 2
    assert [one["verifier"] for one in json.loads(run("key", "--all", "--json").stdout)["keys"]] == listed


def test_key_of_another_vault_is_status_4(data: Path) -> None:
    """With the vault's key lost and another made, nothing is signed under a key that nobody can open."""
    run("key")
    for path in data.glob("vault*"):
        path.unlink()
    assert run("checkpoint").exit_code == 4


def test_doctor_says_how_the_log_is_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, newest checkpoint and the place outside each have a line; looking changes nothing there."""
    run("checkpoint")
    place = tmp_path / "out"
    monkeypatch.setenv("LUKHAS_AUDIT_SHIP", place.as_uri())
    found = examine()
    assert found["audit key"]["state"] == found["audit checkpoint"]["state"] == "ok"
    assert "nothing shipped yet" in found["audit shipping"]["found"]
    assert "same disk" in found["audit shipping"]["found"]
    assert not place.exists()
    place.mkdir()
    (place / "checkpoint").write_bytes(b"something else\n")
    assert examine()["audit shipping"]["state"] == "fail"
    assert (place / "checkpoint").read_bytes() == b"something else\n"


def test_doctor_target_out_of_reach_is_said(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place that cannot be asked is a failure with its reason."""
    run("checkpoint")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LUKHAS_AUDIT_SHIP", (tmp_path / "file" / "out").as_uri())
    assert "cannot be read" in examine()["audit shipping"]["found"]
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 3
