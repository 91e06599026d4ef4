"""`lukhas db`: upgrade, and a check that finds what is damaged."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.main import app


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def change(path: Path, *statements: str) -> None:
    """Change a database behind the program's back."""
    connection = sqlite3.connect(path)
    with connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def fill() -> None:
    """Make a database with a few records in its log."""
    for name in ("first", "second", "third"):
        assert run("key", "create", "--name", name).exit_code == 0
    assert run("db", "upgrade").exit_code == 0


def test_db_upgrade_makes_what_is_missing_and_then_nothing(data: Path) -> None:
    """Both databases come up to date, readable by their owner only; a second time changes nothing."""
    first = json.loads(run("db", "upgrade", "--json").stdout)["databases"]
    assert [(one["database"], one["before"]) for one in first] == [("main", None), ("vault", None)]
    assert {path.stat().st_mode & 0o777 for path in data.glob("*.db")} == {0o600}
    again = json.loads(run("db", "upgrade", "--json").stdout)["databases"]
    assert all(one["before"] == one["after"] for one in again)
    assert "up to date" in run("db", "upgrade").stdout
    assert run("db", "check").exit_code == 0


def test_db_check_no_database_is_status_3_and_makes_none(data: Path) -> None:
    """A look never makes what it looks for."""
    result = run("db", "check")
    assert result.exit_code == 3
    assert "lukhas db upgrade" in result.stderr
    assert not data.exists()


def test_db_check_missing_vault_is_a_negative_answer(data: Path) -> None:
    """Keys can be made before the first start makes the vault; and a vault that was lost is not passed over."""
    fill()
    for path in data.glob("vault.db*"):
        path.unlink()
    result = run("db", "check")
    assert result.exit_code == 1
    assert "there is no vault yet" in result.stdout
    assert not (data / "vault.db").exists()


def test_db_check_sound_log_is_ok() -> None:
    """With records in the log the check goes through all of them."""
    fill()
    found = json.loads(run("db", "check", "--json").stdout)
    assert found["ok"] is True
    assert [one["problems"] for one in found["databases"]] == [[], []]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        pytest.param(
            "UPDATE audit_record SET data = replace(data, 'first', 'other')", "not what was written", id="edit"
        ),
        pytest.param(
            "DELETE FROM audit_record WHERE leaf_index = 1", "record 1 of the audit log is missing", id="delete"
        ),
        pytest.param("DELETE FROM audit_record WHERE leaf_index = 2", "counts 3 records", id="truncate"),
        pytest.param(
            "UPDATE audit_record SET leaf_index = leaf_index + 90 WHERE leaf_index < 2",
            "record 0 of the audit log is missing",
            id="move",
        ),
        pytest.param(
            "UPDATE audit_record SET data = cast(replace(data, 'first', 'other') AS BLOB)",
            "not what was written",
            id="edit-in-kind",
        ),
        pytest.param("DELETE FROM audit_head", "head cannot be read", id="no-head"),
        pytest.param("UPDATE audit_head SET frontier = zeroblob(64)", "head does not fit", id="head"),
        pytest.param("DROP INDEX audit_record_by_id", "schema:", id="table-differs"),
    ],
)
def test_db_check_changed_log_is_status_4(data: Path, statement: str, said: str) -> None:
    """Whoever changes the log behind the program's back is found out."""
    fill()
    change(data / "lukhas.db", statement)
    result = run("db", "check")
    assert result.exit_code == 4
    assert said in result.stdout


def _overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database at all" * 1000)


def _damage(path: Path) -> None:
    change(path, "PRAGMA wal_checkpoint(TRUNCATE)")
    raw = bytearray(path.read_bytes())
    raw[4096 * 2 : 4096 * 6] = b"\xff" * (4096 * 4)
    path.write_bytes(raw)


@pytest.mark.parametrize("ruin", [pytest.param(_overwrite, id="overwritten"), pytest.param(_damage, id="pages-lost")])
def test_db_check_damaged_file_is_status_4(data: Path, ruin: Callable[[Path], None]) -> None:
    """A file that is no longer a database is an integrity failure, not a traceback."""
    fill()
    ruin(data / "lukhas.db")
    result = run("db", "check", "--json")
    assert result.exit_code == 4, result.output
    problems: list[Any] = json.loads(result.stdout)["databases"][0]["problems"]
    assert problems[0].startswith("integrity:")


def test_db_check_older_revision_is_a_negative_answer(data: Path) -> None:
    """A database that waits for an upgrade is whole: status 1, with the command."""
    fill()
    change(data / "lukhas.db", "UPDATE alembic_version SET version_num = 'm0000'")
    result = run("db", "check")
    assert result.exit_code == 1
    assert "lukhas db upgrade" in result.stdout
    shown = run("audit", "show", "aud_01M83A0C6KQVKTD84661Z422C4")
    assert shown.exit_code == 3
    assert "lukhas db upgrade" in shown.stderr


def test_db_upgrade_newer_database_is_refused(data: Path) -> None:
    """A newer program's database is left alone."""
    fill()
    change(data / "lukhas.db", "UPDATE alembic_version SET version_num = 'm9999'")
    result = run("db", "upgrade")
    assert result.exit_code == 2
    assert "newer version" in result.stderr


@pytest.mark.parametrize(
    ("url", "status"),
    [
        pytest.param("mysql://u:hunter2@h/db", 2, id="other-database"),
        pytest.param("not a url", 2, id="no-url"),
        pytest.param("sqlite://", 2, id="memory"),
    ],
)
def test_db_url_that_cannot_serve_is_refused_without_showing_it(
    url: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong URL is named by its variable, and a password in it is not repeated."""
    monkeypatch.setenv("LUKHAS_DATABASE_URL", url)
    for command in ("upgrade", "check"):
        result = run("db", command)
        assert result.exit_code == status, result.output
        assert "hunter2" not in result.output
