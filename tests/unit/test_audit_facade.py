"""`audit_log_write` and `audit_log_read`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lukhas
from lukhas.audit.facade import audit_log_read, audit_log_write, close_default
from lukhas.audit.store import AuditRecord, AuditStore
from lukhas.clock import SystemClock
from lukhas.errors import InvalidId, InvalidRequest, StorageUnavailable
from lukhas.ids import make_id
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter


@pytest.fixture(autouse=True)
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path))
    yield tmp_path
    close_default()


def test_write_then_read_gives_the_redacted_bundle() -> None:
    """The bundle's own fields come back at the top, without its secrets."""
    audit_id = lukhas.audit_log_write({"action": "login", "password": "x", "who": {"note": "mail a@example.com"}})
    found = lukhas.audit_log_read(audit_id)
    assert found is not None
    assert found.pop("time").endswith("Z")
    assert found == {
        "audit_id": audit_id,
        "action": "login",
        "password": "[redacted:password]",
        "who": {"note": "mail [redacted:email]"},
    }


def test_write_with_own_id_keeps_it_and_the_newest_wins() -> None:
    """A valid id is used, any other is replaced by a new one."""
    mine = make_id("aud")
    assert audit_log_write({"audit_id": mine, "n": 1, "time": "noon"}) == mine
    assert audit_log_read(mine) == {"audit_id": mine, "n": 1, "time": "noon"}
    assert audit_log_write({"audit_id": mine, "n": 2, "time": "late"}) == mine
    assert audit_log_read(mine) == {"audit_id": mine, "n": 2, "time": "late"}
    for wrong in ("x", 7, None, make_id("req")):
        assert audit_log_write({"audit_id": wrong}) != wrong


def test_write_is_durable_on_return(data_dir: Path) -> None:
    """Another process can read it at once."""
    audit_id = audit_log_write({"n": 1})
    code = f"import lukhas; assert lukhas.audit_log_read('{audit_id}')['n'] == 1"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ})


def test_write_and_exit_at_once_leaves_a_clean_database(data_dir: Path) -> None:
    """A program that writes and ends needs no closing call."""
    code = "import lukhas; print(lukhas.audit_log_write({'n': 2}))"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""
    assert (audit_log_read(done.stdout.strip()) or {})["n"] == 2


def test_write_in_a_forked_child_works_in_both() -> None:
    """A child gets its own connections; its parent's stay whole."""
    first = audit_log_write({"n": 1})
    code = (
        "import os, lukhas\n"
        "lukhas.audit_log_write({'n': 1})\n"
        "child = os.fork()\n"
        "made = lukhas.audit_log_write({'who': child})\n"
        "assert lukhas.audit_log_read(made)['who'] == child\n"
        "if child:\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "    lukhas.audit_log_write({'n': 3})\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert audit_log_read(first) is not None


def test_write_from_many_threads_opens_one_store() -> None:
    """First use from several threads at once is safe."""
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.append(audit_log_write({"n": 1}))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8
    assert all(audit_log_read(audit_id) for audit_id in made)


@pytest.mark.parametrize("bundle", [None, [], "text", 7, {1, 2}])
def test_write_of_no_mapping_is_refused(bundle: Any) -> None:
    """Only a mapping has fields to give back."""
    with pytest.raises(InvalidRequest):
        audit_log_write(bundle)


@pytest.mark.parametrize(
    "bundle",
    [
        pytest.param({}, id="empty"),
        pytest.param({"x": "y" * 10_000_000}, id="huge"),
        pytest.param({1: 2, None: float("nan"), "s": "\ud800", "o": object()}, id="odd"),
        pytest.param({"bundle": {"bundle": 1}, "records": [], "kind": "decision"}, id="own-words"),
    ],
)
def test_write_of_any_mapping_reads_back(bundle: dict[Any, Any]) -> None:
    """Empty, huge and odd bundles are all kept."""
    found = audit_log_read(audit_log_write(bundle))
    assert found is not None
    assert len(found) == len(bundle) + 2


def test_read_wrong_or_unknown_ids() -> None:
    """A wrong form is an error, an unknown id is nothing."""
    for wrong in ("", "aud_", "x" * 1000, 7, None):
        with pytest.raises(InvalidId):
            audit_log_read(wrong)  # type: ignore[arg-type]
    assert audit_log_read(make_id("aud")) is None


def test_read_of_a_gateways_call_gives_the_merged_document(data_dir: Path) -> None:
    """The same function reads what the gateway wrote."""
    audit_log_write({"n": 1})
    database = open_database(f"sqlite:///{data_dir}/lukhas.db")
    writer = GroupCommitWriter(database, max_rows=10)
    writer.start()
    store = AuditStore(database, writer, SystemClock())
    audit_id = make_id("aud")
    for kind in ("decision", "outcome"):
        store.append_sync(AuditRecord(kind, audit_id, "default", "key_1", None, 1, None, None, {"of": kind}))
    document = audit_log_read(audit_id)
    assert document is not None
    assert document["decision"] == {"of": "decision"} and document["outcome"] == {"of": "outcome"}
    writer.close(5)
    database.close()


def test_write_is_in_the_jsonl_file_when_it_returns(data_dir: Path) -> None:
    """A program without a gateway gets its lines too, one for each record."""
    written = [audit_log_write({"n": number}) for number in range(3)]
    lines = (data_dir / "audit.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["audit_id"] for line in lines] == written


@pytest.mark.parametrize(
    ("mode", "fails"),
    [
        pytest.param("best_effort", False, id="best-effort"),
        pytest.param("required", True, id="required"),
        pytest.param("off", False, id="off"),
    ],
)
def test_write_with_a_file_that_fails(data_dir: Path, monkeypatch: pytest.MonkeyPatch, mode: str, fails: bool) -> None:
    """Only a required file counts towards the write; when it works again, nothing is missing from it."""
    monkeypatch.setenv("LUKHAS_AUDIT_JSONL", mode)
    path = data_dir / "audit.jsonl"
    path.mkdir(parents=True)
    if fails:
        with pytest.raises(StorageUnavailable, match="Is a directory"):
            audit_log_write({"n": 1})
    else:
        audit_log_write({"n": 1})
    path.rmdir()
    audit_log_write({"n": 2})
    if mode == "off":
        assert not path.exists()
    else:
        assert len(path.read_bytes().splitlines()) == 2
