"""`lukhas doctor`: what is wrong is found, with what to do, and nothing is changed."""

from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.storage.serving import ServingLock
from lukhas.storage.sqlite import SqliteSafety
from lukhas.testing import FakeUpstream


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet, and a free port."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("LUKHAS_PORT", "0")
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


def examine(status: int) -> dict[str, Any]:
    """Return the checks by name, of an examination that ends with this status."""
    result = run("--json")
    assert result.exit_code == status, result.output
    return {one["check"]: one for one in json.loads(result.stdout)["checks"]}


def test_doctor_new_machine_is_well_and_stays_as_it_was(data: Path) -> None:
    """Before the first start nothing is wrong, and looking makes nothing."""
    checks = examine(0)
    assert set(checks) >= {"python", "sqlite", "data directory", "database", "vault", "vault key", "policy"}
    assert set(checks) >= {"capabilities", "upstream", "port", "clock", "disk space", "flags"}
    assert {one["state"] for one in checks.values()} <= {"ok", "warn"}
    assert not data.exists()


def test_doctor_text_says_what_to_do(data: Path) -> None:
    """A person reads the state of each check, then what to do about the bad ones."""
    data.mkdir(mode=0o755)
    data.chmod(0o755)
    result = run()
    assert result.exit_code == 0
    assert "is open to others (mode 755)" in result.stdout
    assert f"chmod 700 {data}" in result.stdout
    assert "\x1b" not in result.stdout


def test_doctor_used_directory_is_well(data: Path) -> None:
    """With databases in place they are checked too."""
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    checks = examine(0)
    assert checks["database"]["found"] == str(data / "lukhas.db")
    assert checks["vault"]["found"] == str(data / "vault.db")


def test_doctor_damaged_database_is_status_1(data: Path) -> None:
    """A file that is no database is found."""
    data.mkdir(mode=0o700)
    (data / "lukhas.db").write_bytes(b"no database" * 1000)
    checks = examine(1)
    assert checks["database"]["state"] == "fail"
    assert "lukhas db check" in checks["database"]["advice"]


def test_doctor_data_directory_in_the_way_is_status_1(data: Path) -> None:
    """A file where the directory should be is found."""
    data.write_text("in the way")
    assert examine(1)["data directory"]["state"] == "fail"


def test_doctor_broken_policy_and_capabilities_are_status_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that would stop the start are found before it."""
    (tmp_path / "own.yaml").write_text("version: 7")
    monkeypatch.setenv("LUKHAS_POLICY", str(tmp_path / "own.yaml"))
    monkeypatch.setenv("LUKHAS_CAPABILITIES", str(tmp_path / "none.yaml"))
    checks = examine(1)
    assert checks["policy"]["state"] == "fail"
    assert "own.yaml:1:" in checks["policy"]["found"]
    assert checks["capabilities"]["state"] == "fail"


def test_doctor_upstream_out_of_reach_is_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is out of reach has its own status."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        monkeypatch.setenv("LUKHAS_UPSTREAM_BASE_URL", f"http://127.0.0.1:{port}/v1")
        checks = examine(3)
    assert checks["upstream"]["state"] == "fail"
    assert "LUKHAS_UPSTREAM_BASE_URL" in checks["upstream"]["advice"]


def test_doctor_upstream_in_reach_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """An upstream that takes connections is fine; that no key is set is worth a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("LUKHAS_UPSTREAM_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}/v1")
        assert examine(0)["upstream"]["state"] == "warn"
        monkeypatch.setenv("LUKHAS_UPSTREAM_API_KEY", "sk-hunter2")
        result = run("--json")
    assert "hunter2" not in result.output
    assert {one["check"]: one["state"] for one in json.loads(result.stdout)["checks"]}["upstream"] == "ok"


def test_doctor_port_taken_by_a_stranger_is_status_1(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    """A taken port is wrong, unless it is our own gateway that serves there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("LUKHAS_PORT", str(server.getsockname()[1]))
        assert examine(1)["port"]["state"] == "fail"
        lock = ServingLock(data)
        lock.acquire()
        try:
            assert "serves this data directory" in examine(0)["port"]["found"]
        finally:
            lock.release()


def test_doctor_flags_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that cannot be read is wrong; one that is not ours is worth a word."""
    monkeypatch.setenv("LUKHAS_FLAG_MY_OWN", "on")
    assert examine(0)["flags"]["state"] == "warn"
    monkeypatch.setenv("LUKHAS_FLAG_STRICT_DEFAULT", "maybe")
    assert examine(1)["flags"]["state"] == "fail"
    monkeypatch.delenv("LUKHAS_FLAG_STRICT_DEFAULT")
    assert examine(0)["flags"]["state"] == "warn"


def test_doctor_missing_vault_key_is_status_1(data: Path) -> None:
    """A vault whose key file is gone is found before a start finds it."""
    from lukhas.storage.engine import open_database
    from lukhas.vault.pepper import load_pepper

    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    database = open_database(f"sqlite:///{data / 'vault.db'}", schema="vault")
    load_pepper(database, data / "vault.key")
    database.close()
    assert examine(0)["vault key"]["state"] == "ok"
    (data / "vault.key").chmod(0o644)
    assert examine(0)["vault key"]["state"] == "warn"
    (data / "vault.key").write_text("00" * 32)
    (data / "vault.key").chmod(0o600)
    assert examine(1)["vault key"]["state"] == "fail"
    (data / "vault.key").unlink()
    assert "is missing" in examine(1)["vault key"]["found"]


def test_doctor_clock_that_is_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that was never set, or that is behind the log, is found."""
    assert CliRunner().invoke(app, ["key", "create"]).exit_code == 0
    now = time.time()
    monkeypatch.setattr("lukhas.cli.examination.time.time", lambda: now - 3600)
    assert "ahead of it" in examine(0)["clock"]["found"]
    monkeypatch.setattr("lukhas.cli.examination.time.time", lambda: 3600.0)
    assert examine(1)["clock"]["state"] == "fail"


def test_doctor_unsafe_sqlite_is_worth_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SQLite that may lose writes is named, with what to install."""
    unsafe = SqliteSafety("3.40.1", False, "has the WAL-reset bug")
    monkeypatch.setattr("lukhas.storage.sqlite.sqlite_safety", lambda: unsafe)
    found = examine(0)["sqlite"]
    assert (found["state"], "pysqlite3" in found["advice"]) == ("warn", True)


def test_doctor_database_server_out_of_reach_is_status_3(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is out of reach, and its password is not shown."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"postgresql://u:hunter2@127.0.0.1:{probe.getsockname()[1]}/db"
        monkeypatch.setenv("LUKHAS_DATABASE_URL", url)
        result = run("--json")
    assert result.exit_code == 3, result.output
    assert "hunter2" not in result.output
    checks = {one["check"]: one for one in json.loads(result.stdout)["checks"]}
    assert checks["database"]["state"] == "fail"


def test_doctor_old_revision_is_worth_a_word(data: Path) -> None:
    """A database that the next start will upgrade is nothing to worry about."""
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    connection = sqlite3.connect(data / "lukhas.db")
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = 'm0000'")
    connection.close()
    assert examine(0)["database"]["state"] == "warn"


@pytest.mark.parametrize(("free_mb", "state"), [(10, "fail"), (500, "warn"), (5000, "ok")])
def test_doctor_disk_space_is_judged(free_mb: int, state: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without room for its record no call is answered, so little room is told in time."""
    usage = SimpleNamespace(free=free_mb * 1_000_000)
    monkeypatch.setattr("lukhas.cli.examination.shutil.disk_usage", lambda _: usage)
    assert examine(int(state == "fail"))["disk space"]["state"] == state


def test_doctor_failure_of_the_system_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that the system refuses is a finding of its own, and the others go on."""

    def refuse(_: object) -> None:
        raise PermissionError(13, "Permission denied", "/data")

    monkeypatch.setattr("lukhas.cli.examination.shutil.disk_usage", refuse)
    checks = examine(1)
    assert checks["space"]["found"] == "/data: Permission denied"
    assert checks["clock"]["state"] == "ok"


def test_doctor_wrong_settings_are_its_first_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the settings cannot be read, that is what is wrong."""
    monkeypatch.setenv("LUKHAS_PROT", "hunter2")
    checks = examine(1)
    assert list(checks) == ["settings"]
    assert "LUKHAS_PORT" in checks["settings"]["advice"]
    assert "hunter2" not in run().output


@pytest.mark.parametrize(
    ("variable", "check"),
    [
        pytest.param("LUKHAS_MODERATION_RULES", "moderation rules", id="rules"),
        pytest.param("LUKHAS_TOOLS", "tools", id="tools"),
        pytest.param("LUKHAS_SENSORS", "sensors", id="sensors"),
    ],
)
def test_doctor_guard_that_would_refuse_the_start_is_status_1(
    variable: str, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What guards calls is loaded as a start loads it."""
    assert examine(0)[check]["state"] == "ok"
    monkeypatch.setenv(variable, "/nope.yaml")
    found = examine(1)[check]
    assert found["state"] == "fail" and "/nope.yaml" in found["found"]


def test_doctor_shadow_policy_that_does_not_load_is_worth_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serving goes on without a candidate, so it is no reason to fail."""
    assert "shadow policy" not in examine(0)
    (tmp_path / "next.yaml").write_text("version: 7")
    monkeypatch.setenv("LUKHAS_SHADOW_POLICY", str(tmp_path / "next.yaml"))
    assert examine(0)["shadow policy"]["state"] == "warn"


def test_doctor_moderation_api_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is required its silence stops every call, else it is worth a word; its key is never shown."""
    verdict = {"results": [{"flagged": False, "categories": {}, "category_scores": {}}]}
    with FakeUpstream() as server:
        server.reply(json=verdict)
        server.reply(status=401, json={"error": {}})
        server.reply(status=401, json={"error": {}})
        monkeypatch.setenv("LUKHAS_MODERATION_URL", server.base_url)
        monkeypatch.setenv("LUKHAS_MODERATION_API_KEY", "sk-hunter2")
        assert examine(0)["moderation API"]["state"] == "ok"
        found = examine(3)["moderation API"]
        assert (found["state"], "status 401" in found["found"]) == ("fail", True)
        monkeypatch.setenv("LUKHAS_MODERATION_REQUIRED", "false")
        assert examine(0)["moderation API"]["state"] == "warn"
    assert "hunter2" not in str(found)


def test_doctor_limits_that_cannot_be_read_are_status_1(data: Path) -> None:
    """Limits that a start would refuse are found before it."""
    assert CliRunner().invoke(app, ["db", "upgrade"]).exit_code == 0
    assert examine(0)["limits"]["found"] == "none are set"
    with contextlib.closing(sqlite3.connect(data / "lukhas.db")) as connection, connection:
        connection.execute("INSERT INTO limit_rule (holder, document, changed_ms) VALUES ('tenant:acme', '{', 1)")
    assert examine(1)["limits"]["state"] == "fail"
