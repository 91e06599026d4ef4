"""Who may call: keys that are missing, wrong, expired or revoked, and authentication switched off."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from conftest import ADMIN_KEY, Gateway, Serve, wait_until

from lukhas.access.keys import KeyStore
from lukhas.clock import SystemClock
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import FrozenClock


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="missing"),
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="no-key"),
        pytest.param("Bearer ", id="blank-key"),
        pytest.param(ADMIN_KEY, id="without-bearer"),
        pytest.param(f"Basic {ADMIN_KEY}", id="basic"),
        pytest.param("Bearer lk_wrong", id="wrong"),
        pytest.param(f"Bearer {ADMIN_KEY[:-1]}", id="one-character-short"),
        pytest.param(f"Bearer {ADMIN_KEY}x", id="one-character-long"),
        pytest.param(f"Bearer {ADMIN_KEY.upper()}", id="other-case"),
        pytest.param(f"Bearer {ADMIN_KEY} {ADMIN_KEY}", id="twice"),
        pytest.param("Bearer " + "x" * 10_000, id="endless"),
        pytest.param("Bearer \xff\xfe", id="no-text"),
        pytest.param("Bearer key_01", id="an-id-for-a-key"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        pytest.param("POST", "/v1/chat/completions", id="chat"),
        pytest.param("GET", "/v1/models", id="models"),
        pytest.param("GET", "/v1/unlisted", id="unlisted"),
        pytest.param("GET", "/api/v1/audit/aud_00000000000000000000000000", id="audit"),
        pytest.param("POST", "/api/v1/signals", id="emit"),
        pytest.param("GET", "/api/v1/signals", id="levels"),
        pytest.param("POST", "/api/v1/modulate", id="modulate"),
        pytest.param("GET", "/api/v1/policy", id="policy"),
    ],
)
def test_request_without_a_valid_key_is_a_401(gateway: Gateway, value: str | None, method: str, path: str) -> None:
    """One answer for all of them, which tells nobody which part was right."""
    body = {"model": "m", "messages": [{"role": "user", "content": "x"}], "signals": {}} if method == "POST" else None
    headers: Mapping[str, str] = {} if value is None else {"authorization": value}
    answer = gateway.http(method, path, body, headers, key=None)
    assert answer.status == 401
    assert answer.error["code"] == "invalid_api_key" and answer.error["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer" and answer.headers["x-should-retry"] == "false"
    assert not gateway.upstream.requests


def test_key_works_whatever_the_case_of_bearer(gateway: Gateway) -> None:
    """The scheme's name has no case (RFC 9110, section 11.1)."""
    assert gateway.chat(None, {"authorization": f"bEARER   {ADMIN_KEY}"}, key=None).status == 200


def test_revoked_key_is_refused_at_once(gateway: Gateway) -> None:
    """The process that revokes a key refuses it from then on."""
    key, secret = gateway.runtime.keys.create("to be revoked", "default", [])
    assert gateway.chat(key=secret).status == 200
    gateway.runtime.keys.revoke(key.key_id)
    assert gateway.chat(key=secret).status == 401


def test_key_that_another_process_makes_and_revokes_is_noticed_within_a_second(gateway: Gateway) -> None:
    """The command line works on the same file as the server."""
    database = open_database(gateway.runtime.settings.sqlalchemy_url)
    writer = GroupCommitWriter(database, max_rows=100)
    writer.start()
    try:
        store = KeyStore(database, writer, SystemClock())
        key, secret = store.create("of another process", "default", [])
        wait_until(lambda: gateway.chat(key=secret).status == 200, 1.0)
        store.revoke(key.key_id)
        revoked_at = time.monotonic()
        wait_until(lambda: gateway.chat(key=secret).status == 401, 1.0)
        assert time.monotonic() - revoked_at < 1.0
    finally:
        writer.close(5)
        database.close()


def test_key_ends_at_its_expiry_to_the_millisecond(serve: Serve) -> None:
    """Valid one millisecond before, refused at the moment itself."""
    clock = FrozenClock()
    gateway = serve(overrides={"clock": clock})
    secret = gateway.key(expires_ms=clock.now_ms() + 5000)
    clock.advance(4999)
    assert gateway.chat(key=secret).status == 200
    clock.advance(1)
    assert gateway.chat(key=secret).status == 401


def test_refusals_without_a_key_are_one_record_together(serve: Serve) -> None:
    """A flood of wrong keys must not fill the log: they are counted and summarised."""
    gateway = serve()
    before = gateway.count("refusal")
    for _ in range(20):
        gateway.chat(key="lk_wrong")
    gateway.http("GET", "/api/v1/policy", key=None)
    assert gateway.count("refusal") == before
    gateway.runtime._tasks[0].get_loop()
    import asyncio

    loop = gateway.runtime._tasks[0].get_loop()
    asyncio.run_coroutine_threadsafe(gateway.runtime._summarise(), loop).result(5)
    asyncio.run_coroutine_threadsafe(gateway.runtime._summarise(), loop).result(5)
    assert gateway.count("refusal") == before + 1
    assert b'"count":21' in gateway.everything_recorded()
    assert b"lk_wrong" not in gateway.everything_recorded()


@pytest.fixture(scope="module")
def is_open(tmp_path_factory: pytest.TempPathFactory) -> Gateway:  # type: ignore[misc]
    from conftest import start_gateway

    from lukhas.testing import FakeUpstream

    with FakeUpstream() as upstream:
        gateway = start_gateway(tmp_path_factory.mktemp("open"), upstream, {"auth": "off"})
        yield gateway  # type: ignore[misc]
        gateway.stop()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        pytest.param({}, 200, id="local"),
        pytest.param({"host": "localhost:8080"}, 200, id="localhost"),
        pytest.param({"host": "[::1]:8080"}, 200, id="ipv6"),
        pytest.param({"host": "LOCALHOST"}, 200, id="upper-case"),
        pytest.param({"origin": "http://localhost:3000"}, 200, id="local-page"),
        pytest.param({"host": "evil.example"}, 403, id="rebound-name"),
        pytest.param({"host": "127.0.0.1.evil.example"}, 403, id="look-alike"),
        pytest.param({"host": "evil.example:127.0.0.1"}, 403, id="address-as-port"),
        pytest.param({"host": "localhost@evil.example"}, 403, id="user-info"),
        pytest.param({"host": ""}, 403, id="empty-host"),
        pytest.param({"origin": "https://evil.example"}, 403, id="foreign-page"),
        pytest.param({"origin": "null"}, 403, id="sandboxed-page"),
        pytest.param({"origin": "http://localhost.evil.example"}, 403, id="look-alike-page"),
        pytest.param({"origin": "http://["}, 403, id="origin-that-is-none"),
        pytest.param({"authorization": "Bearer anything"}, 200, id="any-key"),
    ],
)
def test_without_authentication_only_this_machine_is_answered(
    is_open: Gateway, headers: dict[str, str], status: int
) -> None:
    """A page of another site can reach loopback; its Host and Origin give it away, on both surfaces."""
    assert is_open.chat(None, headers, key=None).status == status
    assert is_open.http("GET", "/api/v1/policy", None, headers, key=None).status == status
    assert is_open.http("GET", "/v1/models", None, headers, key=None).status == status
