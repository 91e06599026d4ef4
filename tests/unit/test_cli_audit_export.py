"""`lukhas audit export` and `lukhas audit verify`, from one database to the file and back."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.audit.moment import parse_moment
from lukhas.audit.store import AuditRecord
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.errors import InvalidRequest
from lukhas.ids import make_id
from lukhas.settings import load_settings

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def fill(count: int, step_ms: int = DAY_MS) -> None:
    """Write records, one each day."""
    with open_stores(load_settings().settings) as stores:
        for number in range(count):
            moment = START_MS + number * step_ms
            stores.audit.append_sync(
                AuditRecord("note", make_id("aud"), "acme", "key_1", None, moment, None, None, {"n": number})
            )


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def run_json(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json").stdout)


def key() -> str:
    return run("key").stdout.split("\n")[0]


def stored() -> list[bytes]:
    with open_stores(load_settings().settings) as stores:
        return [data for _, data in stores.audit.source.read(0, 1_000)]


def test_export_is_the_records_verbatim_and_verifies_with_the_key_alone(tmp_path: Path) -> None:
    """The file holds the stored bytes, a line each, and its proof file a checkpoint over the last of them."""
    fill(12)
    file = tmp_path / "log.jsonl"
    document = run_json("export", "--out", file)
    assert (document["from"], document["to"], document["records"]) == (0, 12, 12)
    assert file.read_bytes() == b"".join(line + b"\n" for line in stored()[:12])
    assert file.stat().st_size == document["bytes"] and document["problem"] is None
    report = run_json("verify", "--export", file, "--key", key())
    assert report["ok"] and report["anchored"] >= 12 and report["warnings"] == []
    assert run("verify", "--export", file, "--key", key(), "--strict").exit_code == 0


@pytest.mark.parametrize(("first", "to"), [(0, 12), (1, 12), (5, 9), (0, 1), (11, 12), (4, 4), (8, 11)])
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_export_of_a_part_is_anchored_by_its_proof_file(tmp_path: Path, first: int, to: int, suffix: str) -> None:
    """What lies left and right of the range is proved by hashes; an edit inside is found, the last record's too."""
    fill(12)
    file = tmp_path / f"part.{suffix}"
    assert run("export", "--out", file, "--from", first, "--to", to).exit_code == 0
    report = run_json("verify", "--export", file, "--key", key())
    assert report["ok"] and (report["records"], report["first"]) == (to - first, first), report
    assert report["anchored"] >= 12 and report["warnings"] == []
    if to == first:
        return
    raw = gzip.decompress(file.read_bytes()) if suffix.endswith("gz") else file.read_bytes()
    edited = raw.replace(b'"n":%d}' % (to - 1), b'"n":77}')
    assert edited != raw
    file.write_bytes(gzip.compress(edited) if suffix.endswith("gz") else edited)
    failed = run("verify", "--export", file, "--key", key(), "--json")
    assert failed.exit_code == 4
    assert json.loads(failed.stdout)["findings"][0]["index"] == to - 1


def test_export_by_time_takes_one_run_of_records(tmp_path: Path) -> None:
    """`--since` is the first record of that time on, `--until` the first that is not wanted any more."""
    fill(10)
    since, until = "2023-11-17", "2023-11-20T00:00:00Z"
    document = run_json("export", "--out", tmp_path / "part", "--since", since, "--until", until)
    days = [START_MS + number * DAY_MS for number in range(10)]
    low, high = (parse_moment(text, 0, "x") for text in (since, until))
    assert document["from"] == sum(day < low for day in days)
    assert document["to"] == sum(day < high for day in days)
    nothing = run_json("export", "--out", tmp_path / "none", "--until", "1970-01-02")
    assert nothing["records"] == 0


def test_export_keeps_a_file_that_is_there_unless_forced(tmp_path: Path) -> None:
    """Nothing is lost by repeating a command, and no half file stays behind."""
    fill(3)
    file = tmp_path / "log.jsonl"
    file.write_bytes(b"mine")
    assert run("export", "--out", file).exit_code == 2 and file.read_bytes() == b"mine"
    assert run("export", "--out", file, "--force").exit_code == 0 and file.read_bytes() != b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "log.jsonl", "log.jsonl.proof"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_export_to_standard_output_is_the_records_alone() -> None:
    """Nothing else is written there, so it can be piped."""
    fill(3)
    assert run("export").stdout_bytes == b"".join(line + b"\n" for line in stored())
    assert run("export", "--from", 1, "--to", 2).stdout_bytes == stored()[1] + b"\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(["--from", "5"], id="past-the-end"),
        pytest.param(["--from", "2", "--to", "1"], id="turned-round"),
        pytest.param(["--since", "yesterday"], id="no-time"),
        pytest.param(["--since", "1h", "--until", "2h"], id="times-turned-round"),
        pytest.param(["--json"], id="json-beside-records"),
    ],
)
def test_export_of_what_cannot_be_is_a_usage_mistake(arguments: list[str]) -> None:
    """Exit 2, and nothing is written."""
    fill(3)
    assert run("export", *arguments).exit_code == 2


def test_verify_database_is_well_and_finds_what_was_changed_in_it(tmp_path: Path, data: Path) -> None:
    """Without --export the tables themselves are read, beside whoever writes."""
    fill(5)
    key()
    assert run("checkpoint").exit_code == 0
    assert run_json("verify")["ok"]
    from lukhas.storage.sqlite import load_sqlite_module

    connection = load_sqlite_module().connect(data / "lukhas.db")
    connection.execute("UPDATE audit_record SET tenant = 'other' WHERE leaf_index = 3")
    connection.commit()
    connection.close()
    failed = run("verify", "--json")
    found = json.loads(failed.stdout)["findings"][0]
    assert failed.exit_code == 4 and (found["kind"], found["index"]) == ("column", 3)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param([], id="no-key"),
        pytest.param(["--key", "nonsense"], id="not-a-key"),
        pytest.param(["--key", "KEY", "--checkpoint", "nowhere"], id="no-checkpoint"),
        pytest.param(["--key", "KEY", "--tiles", "nowhere"], id="no-tiles"),
        pytest.param(["--key", "KEY", "--proof", "nowhere"], id="no-receipt"),
    ],
)
def test_verify_with_wrong_arguments_is_a_usage_mistake(tmp_path: Path, arguments: list[str]) -> None:
    """Exit 2 is for whoever called, never for the log."""
    fill(2)
    file = tmp_path / "log.jsonl"
    run("export", "--out", file)
    given = [key() if one == "KEY" else one for one in arguments]
    assert run("verify", "--export", file, *given).exit_code == 2
    assert run("verify", "--export", tmp_path / "none", "--key", key()).exit_code == 2


def test_verify_receipt_alone_and_against_an_export(tmp_path: Path) -> None:
    """A caller's receipt verifies by itself, and tells an export that has another record at its place."""
    fill(4)
    file, receipt = tmp_path / "log.jsonl", tmp_path / "one.tlog-proof"
    run("export", "--out", file)
    audit_id = json.loads(stored()[2])["audit_id"]
    made = run("proof", audit_id, "--out", receipt)
    assert made.exit_code == 0, made.output
    assert run("verify", "--proof", receipt, "--key", key()).exit_code == 0
    assert run("verify", "--proof", receipt, "--export", file, "--key", key()).exit_code == 0
    receipt.write_bytes(receipt.read_bytes().replace(b"index 2", b"index 1"))
    assert run("verify", "--proof", receipt, "--key", key()).exit_code == 4


def test_moment_is_an_age_or_a_time() -> None:
    """A time without a zone is UTC."""
    assert parse_moment("24h", DAY_MS, "since") == 0
    assert parse_moment("1970-01-02", 0, "since") == DAY_MS
    assert parse_moment(" 1970-01-02T01:00:00+01:00 ", 0, "since") == DAY_MS
    for text in ("", "24", "h", "-1h", "nan", "99999-01-01", "1h1m"):
        with pytest.raises(InvalidRequest):
            parse_moment(text, 0, "since")
