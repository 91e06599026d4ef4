"""API keys."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from lukhas.access.keys import KeyStore, write_admin_key_file
from lukhas.access.ring import ApiKey
from lukhas.access.scope import SCOPES
from lukhas.errors import InvalidId, InvalidRequest, NotFound, Unauthenticated
from lukhas.ids import check_id, make_id
from lukhas.settings import Secret, Settings
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter


class FrozenClock:
    def __init__(self, now_ms: int) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def monotonic_ms(self) -> int:
        return self.ms


NOW = 1_767_323_045_678


class Opened:
    """A key store with what it stands on."""

    def __init__(self, folder: Path) -> None:
        self.database: Database = open_database(f"sqlite:///{folder}/lukhas.db")
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=100)
        self.writer.start()
        self.store = KeyStore(self.database, self.writer, FrozenClock(NOW))

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


def is_valid(store: KeyStore, secret: str, now_ms: int = NOW) -> bool:
    try:
        store.ring.authenticate(secret, now_ms)
    except Unauthenticated:
        return False
    return True


def test_create_then_authenticate_gives_the_key(opened: Opened) -> None:
    """The secret works at once and stands for exactly what was asked."""
    key, secret = opened.store.create("ci", "acme", ["signals", "audit"], NOW + 1000)
    assert secret.startswith("lk_") and len(secret) >= 46
    check_id("key", key.key_id)
    assert opened.store.ring.authenticate(secret, NOW) == key
    assert opened.store.list() == [key]
    assert (key.tenant, key.scopes, key.expires_ms, key.is_admin) == ("acme", {"signals", "audit"}, NOW + 1000, False)
    assert key.allows("audit") and not key.allows("policy") and not key.allows("admin")


def test_admin_key_allows_every_scope(opened: Opened) -> None:
    """Admin implies all."""
    key, _ = opened.store.create("root", "default", ["admin"])
    assert all(key.allows(scope) for scope in SCOPES)


def test_create_stores_only_a_hash(opened: Opened, tmp_path: Path) -> None:
    """Who reads the database cannot call."""
    _, secret = opened.store.create("ci", "acme", [])
    opened.close()
    files = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert secret.encode() not in files and secret.removeprefix("lk_").encode() not in files
    assert hashlib.sha256(secret.encode()).digest() in files


@pytest.mark.parametrize(
    "secret",
    ["", "lk_", "lk_" + "A" * 43, "x" * 2_000_000, "\ud800", "é" * 50, "\x00", "Bearer x", " "],
    ids=["empty", "prefix", "unknown", "huge", "surrogate", "unicode", "nul", "scheme", "space"],
)
def test_authenticate_unknown_secret_is_refused(opened: Opened, secret: str) -> None:
    """Whatever is sent in place of a key is refused in the same words."""
    _, right = opened.store.create("ci", "acme", [])
    for wrong in (secret, right + secret + "x", right[:-1], right.lower(), f" {right}"):
        with pytest.raises(Unauthenticated) as caught:
            opened.store.ring.authenticate(wrong, NOW)
        assert caught.value.message == "This API key is not valid."


def test_authenticate_expired_and_revoked_are_refused_without_the_reason(opened: Opened) -> None:
    """A key ends at its expiry to the millisecond, or when it is revoked, and the caller is not told which."""
    expiring, secret = opened.store.create("ci", "acme", [], NOW + 1000)
    assert is_valid(opened.store, secret, NOW + 999)
    assert not is_valid(opened.store, secret, NOW + 1000)
    revoked = opened.store.revoke(expiring.key_id)
    assert revoked.revoked_ms == NOW
    assert opened.store.revoke(expiring.key_id) == revoked
    messages = set[str]()
    for moment in (NOW, NOW + 1000):
        with pytest.raises(Unauthenticated) as caught:
            opened.store.ring.authenticate(secret, moment)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_refresh_after_another_process_changed_keys_sees_it(opened: Opened, tmp_path: Path) -> None:
    """A key made or revoked elsewhere is known after the next refresh, and other writes cause no reload."""
    other = Opened(tmp_path)
    key, secret = other.store.create("ci", "acme", [])
    assert not is_valid(opened.store, secret)
    assert opened.store.refresh_if_changed() is True
    assert is_valid(opened.store, secret)
    assert opened.store.refresh_if_changed() is False
    with other.database.writer.begin() as connection:
        connection.exec_driver_sql("INSERT INTO audit_sequence VALUES ('x', 1)")
    ring = opened.store.ring
    assert opened.store.refresh_if_changed() is False
    assert opened.store.ring is ring
    other.store.revoke(key.key_id)
    assert opened.store.refresh_if_changed() is True
    assert not is_valid(opened.store, secret)
    other.close()


@pytest.mark.parametrize(
    ("change", "param"),
    [
        pytest.param({"name": ""}, "name", id="no-name"),
        pytest.param({"name": "  "}, "name", id="blank-name"),
        pytest.param({"name": "x" * 101}, "name", id="long-name"),
        pytest.param({"name": "a\nb"}, "name", id="name-with-newline"),
        pytest.param({"tenant": ""}, "tenant", id="no-tenant"),
        pytest.param({"tenant": "Acme"}, "tenant", id="upper-case-tenant"),
        pytest.param({"tenant": "a" * 65}, "tenant", id="long-tenant"),
        pytest.param({"tenant": "acme\n"}, "tenant", id="tenant-with-newline"),
        pytest.param({"scopes": ["sginals"]}, "scopes", id="misspelt-scope"),
        pytest.param({"scopes": "admin"}, "scopes", id="scopes-as-text"),
        pytest.param({"expires_ms": NOW}, "expires_ms", id="expired"),
        pytest.param({"expires_ms": 2**60}, "expires_ms", id="too-late"),
    ],
)
def test_create_with_a_wrong_field_is_refused(opened: Opened, change: dict[str, Any], param: str) -> None:
    """A mistake names its field, and nothing is stored."""
    given: dict[str, Any] = {"name": "ci", "tenant": "acme", "scopes": [], "expires_ms": None} | change
    with pytest.raises(InvalidRequest) as caught:
        opened.store.create(**given)
    assert caught.value.param == param
    assert opened.store.list() == []


def test_create_with_a_misspelt_scope_names_the_nearest(opened: Opened) -> None:
    """The error helps."""
    with pytest.raises(InvalidRequest, match="Did you mean 'signals'"):
        opened.store.create("ci", "acme", ["sginals"])


def test_revoke_unknown_or_wrong_id(opened: Opened) -> None:
    """Unknown and wrong ids are told apart."""
    with pytest.raises(NotFound):
        opened.store.revoke(make_id("key"))
    with pytest.raises(InvalidId):
        opened.store.revoke("key_1")


def test_create_and_revoke_write_their_record_in_the_same_transaction(opened: Opened) -> None:
    """Where the record cannot be written, the change does not happen either."""
    written: list[str] = []

    def record(connection: Connection, payloads: Sequence[str]) -> list[None]:
        if payloads[0] == "fail":
            raise NotFound("no record")
        written.extend(payloads)
        return [None for _ in payloads]

    with pytest.raises(NotFound):
        opened.store.create("ci", "acme", [], also=(record, "fail"))
    assert opened.store.list() == []
    key, secret = opened.store.create("ci", "acme", [], also=(record, "made"))
    with pytest.raises(NotFound):
        opened.store.revoke(key.key_id, also=(record, "fail"))
    assert is_valid(opened.store, secret)
    opened.store.revoke(key.key_id, also=(record, "revoked"))
    opened.store.revoke(key.key_id, also=(record, "again"))
    assert written == ["made", "revoked"]


def test_ensure_admin_first_run_makes_one_and_no_second(opened: Opened, tmp_path: Path) -> None:
    """The first run makes the admin key, also when two start together; revoking it does not bring another."""
    settings = Settings(data_dir=tmp_path)
    made = opened.store.ensure_admin(settings)
    assert made.where == "created" and made.secret is not None and made.secret not in repr(made)
    key = opened.store.ring.authenticate(made.secret, NOW)
    assert key.is_admin and key.tenant == "default"
    path = write_admin_key_file(tmp_path, made.secret)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == made.secret + "\n"
    other = Opened(tmp_path)
    again = other.store.ensure_admin(settings)
    assert (again.where, again.secret, again.path) == ("existing", None, path)
    opened.store.revoke(key.key_id)
    assert opened.store.ensure_admin(settings).where == "existing"
    other.close()


def test_ensure_admin_from_the_environment_is_accepted_and_not_stored(opened: Opened, tmp_path: Path) -> None:
    """The operator's own key works while it is set, under an id that is the same at each start."""
    secret = "an admin key of my own, long enough"
    settings = Settings(data_dir=tmp_path, admin_key=Secret(secret))
    first = opened.store.ensure_admin(settings)
    assert (first.where, first.secret) == ("environment", None)
    key = opened.store.ring.authenticate(secret, NOW)
    assert key.is_admin and key == first.key
    check_id("key", key.key_id)
    opened.store.create("ci", "acme", [])
    assert is_valid(opened.store, secret)
    assert [one.name for one in opened.store.list()] == ["ci"]
    with pytest.raises(NotFound, match="LUKHAS_ADMIN_KEY"):
        opened.store.revoke(key.key_id)
    other = Opened(tmp_path)
    assert not is_valid(other.store, secret)
    again = other.store.ensure_admin(settings).key
    assert isinstance(again, ApiKey) and again.key_id == key.key_id
    other.close()


def test_every_scope_has_a_line_of_documentation() -> None:
    """The table is what the reference shows."""
    assert set(SCOPES) == {
        "admin", "signals", "signals:tenant", "signals:release", "audit", "audit:erase", "policy",
        "feedback", "feedback:on_behalf", "metrics",
    }  # fmt: skip
    assert all(doc.endswith(".") for doc in SCOPES.values())
