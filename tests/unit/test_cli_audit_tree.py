"""`lukhas audit proof` and `lukhas audit tiles`: a receipt and the whole tree, as files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.audit.note import NoteVerifier
from lukhas.audit.proof import root_at
from lukhas.audit.receipt import check_receipt, parse_receipt
from lukhas.audit.signing_key import load_verifiers
from lukhas.audit.store import AuditRecord
from lukhas.audit.tile import tile_path
from lukhas.cli.main import app
from lukhas.cli.output import Exit
from lukhas.cli.store import open_existing, open_stores
from lukhas.ids import make_id
from lukhas.settings import load_settings


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *(str(one) for one in arguments)])


def write(count: int = 1) -> str:
    """Write a call's two records, others before them, and return the call's id."""
    audit_id = make_id("aud")
    fields: dict[str, Any] = {"tenant": "acme", "key_id": "key_1", "time_ms": 1, "request_id": None, "session": None}
    with open_stores(load_settings().settings) as stores:
        for _ in range(count):
            stores.audit.append_sync(AuditRecord(kind="note", audit_id=make_id("aud"), user=None, body={}, **fields))
        for kind in ("decision", "outcome"):
            stores.audit.append_sync(AuditRecord(kind=kind, audit_id=audit_id, user=None, body={}, **fields))
    return audit_id


def keys() -> list[NoteVerifier]:
    with open_existing(load_settings().settings) as database:
        return load_verifiers(database)


def test_audit_proof_writes_a_receipt_that_checks(tmp_path: Path) -> None:
    """Without a checkpoint yet, one is signed; the decision is the default."""
    audit_id = write()
    out = tmp_path / "a.tlog-proof"
    result = run("proof", audit_id, "--out", out)
    assert result.exit_code == 0, result.output
    assert "record 1 (decision)" in result.stdout and "--proof" in result.stdout
    receipt = parse_receipt(out.read_bytes())
    checkpoint = check_receipt(receipt, keys())
    assert (receipt.index, checkpoint.size >= 3) == (1, True)
    assert json.loads(receipt.data)["kind"] == "decision"


def test_audit_proof_prints_the_receipt_where_no_file_is_named() -> None:
    """Nothing else goes to standard output, so that it can be piped."""
    audit_id = write()
    result = run("proof", audit_id, "--record", "outcome")
    receipt = parse_receipt(result.stdout.encode())
    check_receipt(receipt, keys())
    assert json.loads(receipt.data)["kind"] == "outcome"
    document = json.loads(run("proof", audit_id, "--record", "1", "--json").stdout)
    assert parse_receipt(document["receipt"].encode()) == receipt
    assert (document["index"], document["kind"], document["audit_id"]) == (2, "outcome", audit_id)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        pytest.param(["aud_01ARZ3NDEKTSV4RRFFQ69G5FAV"], Exit.NEGATIVE, id="unknown"),
        pytest.param(["x"], Exit.USAGE, id="no-id"),
        pytest.param(["{id}", "--record", "7"], Exit.NEGATIVE, id="no-such-record"),
        pytest.param(["{id}", "--record", "body"], Exit.USAGE, id="no-such-kind"),
        pytest.param(["{id}", "--out", "{taken}"], Exit.USAGE, id="file-is-there"),
        pytest.param(["{id}", "--out", "{taken}/x/y"], Exit.USAGE, id="folder-is-not-there"),
    ],
)
def test_audit_proof_that_cannot_be_made_says_why(tmp_path: Path, arguments: list[str], code: Exit) -> None:
    """One line, one exit code, and no file is replaced."""
    audit_id = write()
    taken = tmp_path / "taken"
    taken.write_text("kept")
    result = run("proof", *(one.replace("{id}", audit_id).replace("{taken}", str(taken)) for one in arguments))
    assert result.exit_code == code, result.output
    assert result.stderr.startswith("lukhas: ") and taken.read_text() == "kept"


def test_audit_proof_without_a_database_says_so() -> None:
    """Nothing is made by looking."""
    assert run("proof", make_id("aud")).exit_code == Exit.UNAVAILABLE
    assert run("tiles", "--out", "nowhere").exit_code == Exit.UNAVAILABLE


def test_audit_tiles_writes_the_tree_and_goes_on_with_it(tmp_path: Path) -> None:
    """Checkpoint, hashes, and with --entries the records; a second run adds what is new."""
    out = tmp_path / "static"
    audit_id = write(300)
    assert run("tiles", "--out", out).exit_code == Exit.NEGATIVE
    assert run("proof", audit_id).exit_code == 0  # signs
    done = json.loads(run("tiles", "--out", out, "--json").stdout)
    assert done["missing"] == done["kept"] == 0 and done["size"] >= 302

    class Folder:
        def read(self, level: int, index: int, width: int) -> bytes:
            return (out / tile_path(level, index, width)).read_bytes()

    assert root_at(Folder(), done["size"]).hex() == done["root"]
    assert not (out / "tile" / "entries").exists()
    again = run("tiles", "--out", out, "--entries")
    assert f"the tree of {done['size']} records" in again.stdout and again.exit_code == 0
    assert (out / "tile" / "entries" / "000").is_file()
