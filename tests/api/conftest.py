"""A live gateway: the real application behind uvicorn on loopback, a scripted upstream behind it."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import pytest
import uvicorn

from lukhas.app import serve_runtime
from lukhas.gateway.runtime import Runtime, open_runtime
from lukhas.modulation.state import Subject
from lukhas.settings import Secret, Settings
from lukhas.testing import FakeUpstream

ADMIN_KEY = "admin-key-of-the-tests-0123456789abcdef"
QUESTION = [{"role": "user", "content": "What is a heron?"}]


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, headers by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


@dataclass
class Gateway:
    """A running gateway and what tests do with it."""

    runtime: Runtime
    port: int
    upstream: FakeUpstream
    server: uvicorn.Server
    thread: threading.Thread
    clients: list[openai.OpenAI] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    def client(self, key: str = ADMIN_KEY, **options: Any) -> openai.OpenAI:
        """Return the official client; it does not retry unless told to."""
        made = openai.OpenAI(base_url=self.base_url, api_key=key, **{"max_retries": 0, "timeout": 10, **options})
        self.clients.append(made)
        return made

    def key(self, *scopes: str, tenant: str = "default", expires_ms: int | None = None) -> str:
        """Make a key and return its secret."""
        return self.runtime.keys.create("of a test", tenant, scopes, expires_ms)[1]

    def http(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        key: str | None = ADMIN_KEY,
    ) -> Answer:
        """Send one plain request; a body that is not bytes goes as JSON."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        fields = {} if content is None else {"content-type": "application/json"}
        if key is not None:
            fields["authorization"] = f"Bearer {key}"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, content, {**fields, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def chat(
        self, fields: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Answer:
        """Send one chat completion as plain HTTP."""
        body = {"model": "gpt-4o-mini", "messages": QUESTION, **(fields or {})}
        return self.http("POST", "/v1/chat/completions", body, headers, **more)

    def sent(self) -> Any:
        """Return the body of the newest request that reached the upstream."""
        return self.upstream.requests[-1].json

    def document(self, audit_id: str) -> dict[str, Any]:
        """Return what the log holds of one call."""
        document = self.runtime.audit.read_document(audit_id)
        assert document is not None, f"{audit_id} is not in the log"
        return document

    def wait_for(self, audit_id: str, part: str = "outcome") -> Any:
        """Return a part of a call's document as soon as it is there."""
        return wait_until(lambda: (self.runtime.audit.read_document(audit_id) or {}).get(part))

    def last_audit_id(self) -> str:
        """Return the audit id of the newest decision."""
        with self.runtime.database.reading() as connection:
            query = "SELECT audit_id FROM audit_record WHERE kind = 'decision' ORDER BY leaf_index DESC LIMIT 1"
            return str(connection.exec_driver_sql(query).scalar_one())

    def everything_recorded(self) -> bytes:
        """Return every record's bytes, joined."""
        with self.runtime.database.reading() as connection:
            rows = connection.exec_driver_sql("SELECT data FROM audit_record ORDER BY leaf_index").all()
        return b"\n".join(bytes(row[0]) for row in rows)

    def count(self, kind: str) -> int:
        """Return how many records of a kind there are."""
        with self.runtime.database.reading() as connection:
            query = f"SELECT count(*) FROM audit_record WHERE kind = '{kind}'"
            return int(connection.exec_driver_sql(query).scalar_one())

    def connect(self, request: bytes) -> socket.socket:
        """Open a connection and send raw bytes."""
        conn = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        conn.sendall(request)
        return conn

    def raw(self, request: bytes) -> bytes:
        """Send raw bytes that ask for the connection's end, and return everything that comes back."""
        with self.connect(request) as conn:
            return read_all(conn)

    def relax(self) -> None:
        """Forget what violations of earlier tests have raised at the admin key and its tenant."""
        key = self.runtime.keys.ring.authenticate(ADMIN_KEY, self.runtime.clock.now_ms())
        for subject in (Subject("key", key.key_id), Subject("tenant", key.tenant)):
            self.runtime.state.release(subject, "alignment_risk", self.runtime.clock.now_ms() + 1)

    def stop(self) -> None:
        """Shut down gracefully."""
        for client in self.clients:
            client.close()
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive()


def read_all(conn: socket.socket) -> bytes:
    """Read until the other side closes."""
    parts: list[bytes] = []
    while part := conn.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def wait_until(look: Callable[[], Any], timeout_s: float = 5.0) -> Any:
    """Return the first true value of `look`; fail where none comes in time."""
    end = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.005)
    return found


def raw_chat(body: bytes, *, headers: str = "", key: str = ADMIN_KEY) -> bytes:
    """Return a chat request as raw bytes."""
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n{headers}"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def start_gateway(data_dir: Path, upstream: FakeUpstream, options: Mapping[str, Any], **overrides: Any) -> Gateway:
    """Open a runtime and serve it in a thread, as `lukhas serve` does."""
    base = {"data_dir": data_dir, "upstream_base_url": upstream.base_url, "admin_key": Secret(ADMIN_KEY)}
    base["policy_proof_timeout_s"] = 0.0  # a proof takes seconds; tests of proofs ask for one
    base["audit_reserve_bytes"] = 0
    runtime = open_runtime(Settings(**{**base, **options}), **overrides)
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        serve_runtime(runtime),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=3,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="gateway", daemon=True)
    thread.start()
    wait_until(lambda: server.started or not thread.is_alive())
    return Gateway(runtime, listener.getsockname()[1], upstream, server, thread)


Serve = Callable[..., Gateway]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start gateways with settings of the test's own; all are stopped at its end."""
    with contextlib.ExitStack() as stack:

        def start(
            *, overrides: Mapping[str, Any] | None = None, data_dir: Path | None = None, **options: Any
        ) -> Gateway:
            upstream = stack.enter_context(FakeUpstream())
            gateway = start_gateway(data_dir or tmp_path / "data", upstream, options, **(overrides or {}))
            stack.callback(gateway.stop)
            return gateway

        yield start


@pytest.fixture(scope="session")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with FakeUpstream() as upstream:
        gateway = start_gateway(
            tmp_path_factory.mktemp("shared"),
            upstream,
            # Pictures pass here, on record; what the packaged setting does has tests of its own.
            {"upstream_read_timeout_s": 5.0, "upstream_max_retries": 1, "on_unmoderated": "record"},
        )
        yield gateway
        gateway.stop()


@pytest.fixture
def gateway(shared_gateway: Gateway) -> Iterator[Gateway]:
    """The gateway that most tests share, with the packaged policy and an upstream that has seen nothing yet."""
    shared_gateway.upstream.requests.clear()
    shared_gateway.relax()
    yield shared_gateway
    left = len(shared_gateway.upstream._replies)
    shared_gateway.upstream._replies.clear()
    assert left == 0, "the test scripted answers that nobody asked for"
    for client in shared_gateway.clients:
        client.close()
    shared_gateway.clients.clear()
