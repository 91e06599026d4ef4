"""`lukhas key limit`, `key limits` and `tenant limit`: set, shown and taken away, each change on record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert
from typer.testing import CliRunner, Result

from lukhas.access.limit import Holder, Limits, LimitStore
from lukhas.access.usage import day_of
from lukhas.cli.main import app
from lukhas.cli.store import open_stores
from lukhas.settings import load_settings
from lukhas.storage.metadata import USAGE_DAY


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give each test a data directory that is not there yet."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def ask(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def make_key() -> str:
    return ask("key", "create", "--name", "web", "--tenant", "acme")["key"]


def stored(holder: Holder) -> Limits:
    with open_stores(load_settings().settings) as stores:
        return LimitStore(stores.database, stores.writer, stores.clock).rules.find(holder)


def use(holder: Holder, tokens: int, requests: int) -> None:
    with open_stores(load_settings().settings) as stores:
        row = {"holder": holder.text, "day": day_of(stores.clock.now_ms()), "tokens": tokens, "requests": requests}
        with stores.database.writer.connect() as connection, connection.begin():
            connection.execute(insert(USAGE_DAY).values(row))


def test_key_limit_sets_what_is_named_and_keeps_the_rest() -> None:
    """Each option sets its limit; the others stay; the record says what held before, after, and why."""
    key = make_key()
    ask("key", "limit", key, "--requests-per-minute", "60", "--concurrent", "4", "--why", "Trial.")
    made = ask(
        *("key", "limit", key, "--tokens-per-minute", "900", "--requests-per-day", "70", "--tokens-per-day", "8000"),
        *("--concurrent", "5", "--why", "More of it."),
    )
    expected = Limits(
        requests_per_minute=60, concurrent_calls=5, tokens_per_minute=900, requests_per_day=70, tokens_per_day=8000
    )
    assert stored(Holder("key", key)) == expected
    assert made["limits"] == expected.to_dict() and made["changed"]
    (record,) = ask("audit", "show", made["audit_id"])["records"]
    assert (record["kind"], record["tenant"], record["key_id"]) == ("limit", "acme", "cli")
    body = record["body"]
    assert (body["before"]["concurrent_calls"], body["after"]["concurrent_calls"]) == (4, 5)
    assert (body["reason"], body["key"]) == ("More of it.", key)


def test_tenant_limit_holds_for_a_tenant_without_keys() -> None:
    """A tenant can be limited before its first key is made."""
    made = ask("tenant", "limit", "acme", "--tokens-per-day", "5000", "--why", "x")
    assert stored(Holder("tenant", "acme")) == Limits(tokens_per_day=5000)
    assert made["tenant"] == "acme" and made["today"] == {"tokens": 0, "requests": 0}


def test_limit_clear_takes_all_away_first() -> None:
    """With --clear what is named is all that holds; alone it takes everything away."""
    holder = Holder("tenant", "acme")
    ask("tenant", "limit", "acme", "--tokens-per-day", "5000", "--concurrent", "2", "--why", "x")
    ask("tenant", "limit", "acme", "--clear", "--concurrent", "3", "--why", "x")
    assert stored(holder) == Limits(concurrent_calls=3)
    assert ask("tenant", "limit", "acme", "--clear", "--why", "x")["changed"]
    assert stored(holder) == Limits()
    assert not ask("tenant", "limit", "acme", "--clear", "--why", "x")["changed"]


def test_limit_without_options_shows_and_records_nothing() -> None:
    """Looking needs no reason."""
    key = make_key()
    assert ask("key", "limit", key)["audit_id"] is None
    ask("key", "limit", key, "--tokens-per-day", "12000", "--why", "x")
    shown = run("key", "limit", key).stdout
    assert "tokens/day    12,000" in shown and "used today    0 tokens, 0 requests" in shown
    again = run("key", "limit", key, "--tokens-per-day", "12000", "--why", "x").stdout
    assert "Nothing changed" in again and "aud_" not in again


def test_key_limits_lists_everybody_with_todays_usage() -> None:
    """The table has keys and tenants, their limits, and what the database knows of today."""
    assert "No key and no tenant has a limit" in run("key", "limits").stdout
    key = make_key()
    ask("key", "limit", key, "--tokens-per-day", "12000", "--why", "x")
    ask("tenant", "limit", "acme", "--concurrent", "3", "--why", "x")
    use(Holder("key", key), 4321, 7)
    found = ask("key", "limits")["limits"]
    assert [one.get("key") or one.get("tenant") for one in found] == ["acme", key]
    assert [one["today"] for one in found] == [None, {"tokens": 4321, "requests": 7}]
    lines = run("key", "limits").stdout.splitlines()
    assert "tenant acme" in lines[1] and lines[2].startswith(key)
    assert "4,321 tokens, 7 requests" in lines[2] and "12,000" in lines[2]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        pytest.param(("tenant", "limit", "acme", "--concurrent", "1"), 2, "needs a reason", id="no-reason"),
        pytest.param(("tenant", "limit", "acme", "--concurrent", "1", "--why", " "), 2, "reason", id="empty-reason"),
        pytest.param(("tenant", "limit", "acme", "--concurrent", "0", "--why", "x"), 2, "from 1 to", id="zero"),
        pytest.param(("tenant", "limit", "acme", "--concurrent", "-1", "--why", "x"), 2, "from 1 to", id="negative"),
        pytest.param(("tenant", "limit", "A B", "--concurrent", "1", "--why", "x"), 2, "tenant's name", id="no-tenant"),
        pytest.param(("key", "limit", "web", "--concurrent", "1", "--why", "x"), 2, "not a valid id", id="no-key-id"),
        pytest.param(
            ("key", "limit", "key_" + "0" * 26, "--concurrent", "1", "--why", "x"), 1, "no such key", id="unknown-key"
        ),
        pytest.param(("key", "limit", "key_" + "0" * 26), 1, "no such key", id="unknown-key-shown"),
    ],
)
def test_limit_wrong_is_refused_in_words(arguments: tuple[str, ...], code: int, said: str) -> None:
    """Nothing is set, and the message says what is wrong."""
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert said in result.stderr
    assert stored(Holder("tenant", "acme")) == Limits()
