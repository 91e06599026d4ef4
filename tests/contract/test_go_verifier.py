"""What the log gives out is verified by implementations that are not ours: tests/go, built from two Go libraries."""

from __future__ import annotations

import base64
import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.issuing import issue_receipt
from lukhas.audit.note import NoteSigner
from lukhas.audit.proof import prove_consistency
from lukhas.audit.record import encode_record
from lukhas.audit.static_tree import export_tree
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter

pytestmark = pytest.mark.requires("go")

SOURCE = Path(__file__).resolve().parents[1] / "go"
SIGNER = NoteSigner("example.com/größe", bytes(range(32)))
OLD, NEW = 300, 700


@dataclass(frozen=True)
class Material:
    """What a log has given out: a folder with two checkpoints, a consistency proof, receipts and the static tree."""

    folder: Path
    verifier: Path

    def run(self, command: str, *names: str, key: str = str(SIGNER.verifier)) -> subprocess.CompletedProcess[str]:
        """Run the independent verifier on files of the folder."""
        arguments = [str(self.verifier), command, key, *(str(self.folder / name) for name in names)]
        return subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)

    def copy(self, to: Path) -> Material:
        """Return the same material elsewhere, to be tampered with."""
        shutil.copytree(self.folder, to)
        return Material(to, self.verifier)


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the verifier from its locked modules."""
    program = tmp_path_factory.mktemp("go") / "verifier"
    if run_go("mod", "download", timeout_s=120).returncode:
        pytest.skip("the locked Go modules of tests/go cannot be fetched")
    built = run_go("build", "-o", str(program), ".", timeout_s=300)
    assert built.returncode == 0, built.stderr
    return program


def run_go(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    # Tests have a home of their own, which would make Go fetch and compile everything anew.
    home = pwd.getpwuid(os.getuid()).pw_dir
    environment = os.environ | {"HOME": home, "GOFLAGS": "-mod=readonly -buildvcs=false", "GOTOOLCHAIN": "local"}
    return subprocess.run(
        ["go", *arguments],
        cwd=SOURCE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


@pytest.fixture(scope="module")
def material(verifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    """Write a log, and take from it what a stranger gets."""
    folder = tmp_path_factory.mktemp("log")
    out = folder / "out"
    out.mkdir()
    database = open_database(f"sqlite:///{folder}/lukhas.db")
    migrate.upgrade(database)
    writer = GroupCommitWriter(database, max_rows=10_000)
    writer.start()
    store = AuditStore(database, writer, SystemClock())
    checkpoints = CheckpointStore(database, writer, SystemClock(), SIGNER)
    append(writer, store, OLD)
    old = checkpoints.sign()
    (out / "old").write_bytes(old.note)
    append(writer, store, NEW - OLD)
    new = checkpoints.sign()
    (out / "new").write_bytes(new.note)
    hashes = [base64.b64encode(one).decode() for one in prove_consistency(store.tiles, OLD, NEW)]
    (out / "consistency").write_text(json.dumps({"from": OLD, "to": NEW, "hashes": hashes}))
    with database.reading() as connection:
        rows = connection.exec_driver_sql("SELECT audit_id FROM audit_record ORDER BY leaf_index").all()
    for index in (0, 255, 256, OLD - 1, OLD, NEW - 1):
        record = store.read(rows[index][0])[0]
        (out / f"{index}.tlog-proof").write_bytes(issue_receipt(record, store.tiles, checkpoints).format())
    export_tree(out / "static", new.note, store.tiles, store.source)
    yield Material(out, verifier)
    writer.close(10)
    database.close()


def append(writer: GroupCommitWriter, store: AuditStore, count: int) -> None:
    fields: Any = {"kind": "note", "tenant": "t", "key_id": "key_1", "request_id": None, "session": None, "user": None}
    records = [AuditRecord(audit_id=make_id("aud"), time_ms=1, body={"größe": n}, **fields) for n in range(count)]
    entries = [encode_record(record) for record in records]
    writer.submit_sync(lambda connection, groups: [store.sink(connection, group) for group in groups], entries, 20)


def assert_right(done: subprocess.CompletedProcess[str], said: str) -> None:
    assert done.returncode == 0 and done.stdout.startswith("right: ") and said in done.stdout, done


def assert_wrong(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 1 and done.stdout.startswith("wrong: "), done


def test_checkpoints_verify_with_gos_signed_notes(material: Material) -> None:
    """Signature, name and key id are those of golang.org/x/mod/sumdb/note."""
    assert_right(material.run("checkpoint", "old"), f"size {OLD}")
    assert_right(material.run("checkpoint", "new"), f"size {NEW}")


@pytest.mark.parametrize("index", [0, 255, 256, OLD - 1, OLD, NEW - 1])
def test_receipt_verifies_with_both_libraries(material: Material, index: int) -> None:
    """Record, index, proof and checkpoint fit for Go's checksum database and for certificate transparency."""
    assert_right(material.run("receipt", f"{index}.tlog-proof"), f"record {index} of {OLD if index < OLD else NEW}")


def test_static_tree_verifies_tile_by_tile(material: Material) -> None:
    """Every hash is read by Go's tile client, which checks it against the checkpoint; every record has its hash."""
    assert_right(material.run("tiles", "static"), f"{NEW} hashes, {NEW} records")


def test_consistency_verifies_with_both_libraries(material: Material) -> None:
    """The newer checkpoint's log continues the older one's."""
    assert_right(material.run("consistency", "old", "new", "consistency"), f"{NEW} continues {OLD}")


def test_checkpoint_of_another_key_is_refused(material: Material) -> None:
    """The same name with another key vouches for nothing."""
    other = NoteSigner("example.com/größe", bytes(32))
    assert_wrong(material.run("checkpoint", "new", key=str(other.verifier)))


def test_material_that_was_tampered_with_is_refused(material: Material, tmp_path: Path) -> None:
    """The independent verifier can say no: a size, a record, a hash of each tile, a record of a bundle, a proof."""
    changed = material.copy(tmp_path / "changed")
    folder = changed.folder
    note = (folder / "new").read_bytes()
    (folder / "new").write_bytes(note.replace(b"\n700\n", b"\n701\n"))
    assert_wrong(changed.run("checkpoint", "new"))
    (folder / "new").write_bytes(Checkpoint("example.com/größe", NEW, bytes(32)).sign(SIGNER))
    assert_wrong(changed.run("consistency", "old", "new", "consistency"))
    (folder / "new").write_bytes(note)
    answer = json.loads((folder / "consistency").read_text())
    (folder / "consistency").write_text(json.dumps(answer | {"hashes": answer["hashes"][1:]}))
    assert_wrong(changed.run("consistency", "old", "new", "consistency"))
    receipt = (folder / "256.tlog-proof").read_bytes()
    (folder / "256.tlog-proof").write_bytes(receipt.replace(b"index 256", b"index 255"))
    assert_wrong(changed.run("receipt", "256.tlog-proof"))
    for name in ("tile/0/000", "tile/0/002.p/188", "tile/1/000.p/2", "tile/entries/001"):
        path = folder / "static" / name
        whole = path.read_bytes()
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
        assert_wrong(changed.run("tiles", "static"))
        path.write_bytes(whole)
    assert_right(changed.run("tiles", "static"), f"{NEW} hashes")
