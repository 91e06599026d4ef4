"""`lukhas audit list` and `lukhas audit reindex`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lukhas.audit.record import AuditRecord
from lukhas.audit.search_index import FILE_NAME
from lukhas.audit.store import AuditStore
from lukhas.cli.main import app
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with 30 notes in it, of two tenants."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path))
    database = open_database(f"sqlite:///{tmp_path}/lukhas.db")
    migrate.upgrade(database)
    writer = GroupCommitWriter(database, max_rows=100)
    writer.start()
    store = AuditStore(database, writer, SystemClock())
    for number in range(30):
        tenant = ("acme", "other")[number % 2]
        body = {"text": f"heron {number}"}
        store.append_sync(AuditRecord("note", make_id("aud"), tenant, "key_1", None, number, None, None, body))
    writer.close(10)
    database.close()
    return tmp_path


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["audit", *arguments])


def test_list_is_the_same_before_and_after_reindex(folder: Path) -> None:
    """The index makes it faster, and nothing else."""
    question = ("list", "--tenant", "acme", "--text", "heron", "--limit", "10", "--json")
    before = json.loads(run(*question).stdout)
    assert [row["index"] for row in before["records"]] == list(range(28, 8, -2)) and before["more"] is True
    assert not (folder / FILE_NAME).exists()
    made = run("reindex", "--json")
    assert made.exit_code == 0 and json.loads(made.stdout) == {"records": 30}
    assert (folder / FILE_NAME).exists()
    assert json.loads(run(*question).stdout) == before


def test_list_for_people_names_the_records_or_says_there_are_none(folder: Path) -> None:
    """A table with ids, and the way to what is older."""
    shown = run("list", "--limit", "2")
    assert shown.exit_code == 0 and shown.stdout.count("aud_") == 2 and "--until" in shown.stdout
    assert run("list", "--text", "nothing").stdout == "There are no such records.\n"


@pytest.mark.parametrize(
    "arguments",
    [("--since", "yesterday"), ("--session", "sub_1"), ("--limit", "0"), ("--text", "x" * 501)],
    ids=["time", "subject", "limit", "text"],
)
def test_list_with_a_wrong_option_is_a_usage_error(folder: Path, arguments: tuple[str, ...]) -> None:
    """A filter that is not understood lists nothing."""
    assert run("list", *arguments).exit_code == 2


def test_list_and_reindex_without_a_database_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is made by looking."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "none"))
    assert run("list").exit_code == run("reindex").exit_code == 3
    assert not (tmp_path / "none").exists()
