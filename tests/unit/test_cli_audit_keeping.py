"""`lukhas audit segments|seal|archive|prune`: from the command line, with what each says and its exit code."""

from __future__ import annotations

import json
from calendar import timegm
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.audit.store import AuditRecord
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.ids import encode_base32, make_id
from lukhas.settings import load_settings

OLD = [(2020, 1, 300), (2020, 3, 20)]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["audit", *arguments])


def read(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fill a log with two old months, and name a folder for their archives."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LUKHAS_AUDIT_ARCHIVE", (tmp_path / "archive").as_uri())
    with open_stores(load_settings().settings) as stores:
        for year, month, count in OLD:
            for second in range(count):
                time_ms = timegm((year, month, 2, 0, 0, 0)) * 1000 + second
                record = AuditRecord(
                    "note", make_id("aud"), "default", "key_1", None, time_ms, None, None, {"n": second}
                )
                stores.audit.append_sync(record)
    return tmp_path / "archive"


def test_months_from_sealed_to_pruned(archive: Path) -> None:
    """Each step says what it did, again does nothing, and an archive verifies offline with the log's key alone."""
    assert "No month is sealed" in run("segments").stdout
    assert [one["name"] for one in read("seal")["sealed"]] == ["2020-01", "2020-03"]
    assert read("seal") == {"sealed": []}
    key = read("key")["key"] if "key" in read("key") else run("key").stdout.strip()
    run("checkpoint")
    assert [one["name"] for one in read("archive")["archived"]] == ["2020-01", "2020-03"]
    assert "Nothing to archive" in run("archive").stdout
    for name in ("audit-2020-01.jsonl.gz", "audit-2020-03.jsonl.gz"):
        verified = run("verify", "--export", str(archive / name), "--key", key)
        assert verified.exit_code == 0, verified.output
    (archive / "copy.jsonl.gz").write_bytes((archive / "audit-2020-03.jsonl.gz").read_bytes())
    planned = read("prune", "--older-than", "12", "--dry-run")
    assert (planned["months"], planned["pruned"]) == (["2020-01", "2020-03"], False)
    assert len(read("segments")["segments"]) == 2
    done = run("prune", "--older-than", "12", "--yes")
    assert done.exit_code == 0 and "Every proof still holds" in done.stdout
    assert all(one["pruned_ms"] for one in read("segments")["segments"])
    assert "2020-03" in run("segments").stdout
    assert "Nothing to prune" in run("prune", "--older-than", "12", "--yes").stdout
    gone = run("show", make_old_id(timegm((2020, 1, 9, 0, 0, 0)) * 1000))
    assert gone.exit_code == 1 and "archive audit-2020-01.jsonl.gz" in gone.stderr
    assert "archive" not in run("show", make_id("aud")).stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        pytest.param(["prune", "--older-than", "5", "--yes"], 2, "younger than 6 months", id="under-the-minimum"),
        pytest.param(["prune", "--older-than", "-1", "--yes"], 2, "younger than 6 months", id="negative"),
        pytest.param(["prune", "--yes"], 2, "no retention is set", id="no-age"),
        pytest.param(["prune", "--older-than", "six"], 2, "valid", id="no-number"),
        pytest.param(["prune", "--older-than", "12"], 2, "nobody is here to confirm", id="nobody-to-ask"),
    ],
)
def test_prune_that_may_not_be_is_refused(archive: Path, arguments: list[str], code: int, says: str) -> None:
    """Nothing is deleted without an age, a yes and an archive, and the error says what to do."""
    read("archive")
    result = run(*arguments)
    assert result.exit_code == code
    assert says in result.stderr
    assert all(one["pruned_ms"] is None for one in read("segments")["segments"])


def test_archive_without_a_place_says_which_setting(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither archive nor prune does anything without one."""
    monkeypatch.setenv("LUKHAS_AUDIT_ARCHIVE", "")
    result = run("archive")
    assert result.exit_code == 2 and "LUKHAS_AUDIT_ARCHIVE" in result.stderr
    read("seal")
    assert "not archived" in run("prune", "--older-than", "12", "--dry-run").stdout


def test_damage_is_exit_4(archive: Path) -> None:
    """A changed archive stops pruning."""
    read("archive")
    path = archive / "audit-2020-01.jsonl.gz"
    path.write_bytes(path.read_bytes()[:-1])
    result = run("prune", "--older-than", "12", "--yes")
    assert result.exit_code == 4
    assert "hash is another" in result.stderr


def make_old_id(time_ms: int) -> str:
    return f"aud_{encode_base32(time_ms << 80)}"
