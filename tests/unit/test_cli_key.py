"""`lukhas key`: keys are made, listed and revoked in the database, and each change is on record."""

from __future__ import annotations

import json
import sqlite3
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.key import read_expiry
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.errors import InvalidRequest, Unauthenticated
from lukhas.settings import load_settings
from lukhas.storage.serving import ServingLock
from lukhas.storage.sqlite import SqliteSafety

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["key", *arguments])


def ask(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def read_record(audit_id: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["audit", "show", audit_id, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_key_create_makes_a_key_that_works() -> None:
    """The secret opens the gateway with the tenant and scopes that were asked for."""
    made = ask("create", "--name", "web", "--tenant", "acme", "--scope", "signals,audit", "--scope", "policy")
    with open_stores(load_settings().settings) as stores:
        key = stores.keys.ring.authenticate(made["secret"], NOW_MS)
    assert (key.key_id, key.name, key.tenant) == (made["key"], "web", "acme")
    assert key.scopes == {"signals", "audit", "policy"}
    assert made["state"] == "live"


def test_key_create_is_on_record_without_its_secret() -> None:
    """The record names the key, what it may do and who made it; the secret is nowhere."""
    made = ask("create", "--scopes", "signals", "--tenant", "acme", "--expires", "30d")
    record = read_record(made["audit_id"])
    (only,) = record["records"]
    assert (only["kind"], only["key_id"], only["tenant"]) == ("key", "cli", "acme")
    assert only["body"]["event"] == "created"
    assert only["body"]["scopes"] == ["signals"]
    assert made["key"] in json.dumps(only["body"])
    assert made["secret"] not in json.dumps(record)


def test_key_secret_is_printed_once_and_stored_nowhere(data: Path) -> None:
    """Nobody who gets the files gets the keys."""
    result = run("create", "--name", "web")
    secret = next(line.split()[1] for line in result.stdout.splitlines() if line.startswith("secret"))
    assert result.stdout.count(secret) == 1
    assert "shown this once" in result.stdout
    assert all(secret.encode() not in path.read_bytes() for path in data.iterdir())
    assert secret not in run("list").stdout + json.dumps(ask("list"))


def test_key_list_shows_live_expired_and_revoked_keys() -> None:
    """What may be used and what may not is told apart; names are shown as they are."""
    revoked = ask("create", "--name", "[bold]größe")["key"]
    ask("create", "--name", "short", "--expires", "1h")
    run("revoke", revoked)
    states = {one["name"]: one["state"] for one in ask("list")["keys"]}
    assert states == {"[bold]größe": "revoked", "short": "live"}
    assert "[bold]größe" in run("list").stdout


def test_key_list_empty_says_what_to_do() -> None:
    """An empty list is an answer."""
    assert ask("list") == {"keys": []}
    assert "lukhas key create" in run("list").stdout


def test_key_revoke_ends_a_key_and_is_on_record() -> None:
    """A revoked key opens nothing; a second time is no error and no second record."""
    made = ask("create")
    first = ask("revoke", made["key"])
    assert first["changed"] is True
    assert first["state"] == "revoked"
    with open_stores(load_settings().settings) as stores, pytest.raises(Unauthenticated):
        stores.keys.ring.authenticate(made["secret"], NOW_MS)
    body = read_record(first["audit_id"])["records"][0]["body"]
    assert body["event"] == "revoked"
    assert made["key"] in json.dumps(body)
    again = ask("revoke", made["key"])
    assert (again["changed"], again["audit_id"]) == (False, None)
    assert "was revoked before" in run("revoke", made["key"]).stdout


def test_key_change_that_fails_leaves_nothing(data: Path) -> None:
    """Key and record are one transaction: where the log cannot take the record, there is no key."""
    ask("create", "--name", "first")
    with sqlite3.connect(data / "lukhas.db") as connection:
        connection.execute("CREATE TRIGGER full BEFORE INSERT ON audit_record BEGIN SELECT raise(ABORT, 'no'); END")
    connection.close()
    assert run("create", "--name", "second").exit_code != 0
    assert [one["name"] for one in ask("list")["keys"]] == ["first"]


def test_key_sqlite_that_allows_one_process_waits_for_the_gateway(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two writing processes could lose writes, keys change only while no gateway serves."""
    unsafe = SqliteSafety("3.40.1", False, "has the WAL-reset bug")
    monkeypatch.setattr("lukhas.storage.engine.sqlite_safety", lambda: unsafe)
    lock = ServingLock(data)
    lock.acquire()
    refused = run("create")
    assert refused.exit_code == 2
    assert "already serves" in refused.stderr
    lock.release()
    made = ask("create")
    assert ask("revoke", made["key"])["changed"] is True
    assert len(ask("list")["keys"]) == 1


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        pytest.param(["revoke", "foo"], 2, "not a valid id", id="not-an-id"),
        pytest.param(["revoke", "aud_01M83A0C6KQVKTD84661Z422C4"], 2, "not a valid id", id="another-kind-of-id"),
        pytest.param(["revoke", "key_01M83A0C6KQVKTD84661Z422C4"], 1, "no such key", id="unknown-key"),
        pytest.param(["create", "--scope", "signal"], 2, "Did you mean 'signals'", id="misspelt-scope"),
        pytest.param(["create", "--tenant", "A B"], 2, "not a tenant's name", id="wrong-tenant"),
        pytest.param(["create", "--name", ""], 2, "1 to 100 printable", id="empty-name"),
        pytest.param(["create", "--name", "a\nb"], 2, "1 to 100 printable", id="line-end-in-name"),
        pytest.param(["create", "--expires", "2020-01-01"], 2, "in the future", id="past"),
        pytest.param(["create", "--expires", "0d"], 2, "in the future", id="now"),
        pytest.param(["create", "--expires", "soon"], 2, "is not an expiry", id="no-expiry"),
    ],
)
def test_key_wrong_use_is_refused(arguments: list[str], status: int, said: str) -> None:
    """Each wrong use has its status and says what is wrong."""
    result = run(*arguments)
    assert result.exit_code == status
    assert said in result.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("never", None, id="never"),
        pytest.param("30d", NOW_MS + 30 * DAY_MS, id="days"),
        pytest.param("12H", NOW_MS + DAY_MS // 2, id="hours-upper-case"),
        pytest.param("2w", NOW_MS + 14 * DAY_MS, id="weeks"),
        pytest.param("1y", NOW_MS + 365 * DAY_MS, id="year"),
        pytest.param("2099-12-31", round(datetime(2099, 12, 31, tzinfo=UTC).timestamp() * 1000), id="date"),
        pytest.param(
            "2099-12-31T06:00:00+01:00", round(datetime(2099, 12, 31, 5, tzinfo=UTC).timestamp() * 1000), id="moment"
        ),
    ],
)
def test_read_expiry_form_is_understood(text: str, expected: int | None) -> None:
    """A span counts from now, a date begins in UTC."""
    assert read_expiry(text, NOW_MS) == expected


@pytest.mark.parametrize("text", ["", "d", "-1d", "1.5d", "9999999d", "30 d", "2099-13-01", "\u0663d"])
def test_read_expiry_other_text_is_refused(text: str) -> None:
    """Nothing is guessed: a key that lives longer than was meant is a hole."""
    with pytest.raises(InvalidRequest, match="is not an expiry"):
        read_expiry(text, NOW_MS)
