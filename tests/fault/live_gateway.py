"""The live gateway of tests/api for the fault tests, and faults that are done to it from outside."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

_HOLD = """
import sqlite3, sys
try:
    import pysqlite3 as sqlite3
except ImportError:
    pass
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def _load() -> ModuleType:
    # Several folders have a conftest, so the name alone would not say which one is meant.
    place = Path(__file__).resolve().parent.parent / "api" / "conftest.py"
    spec = importlib.util.spec_from_file_location("live_gateway_of_api", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


_api: Any = _load()
ADMIN_KEY: str = _api.ADMIN_KEY
Gateway: Any = _api.Gateway
start_gateway: Any = _api.start_gateway
wait_until: Any = _api.wait_until


@contextlib.contextmanager
def locked(database: Path) -> Iterator[None]:
    """Keep a database's write lock in another process while the block runs; in this one, it would not count."""
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(database)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None and holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait(10)
        holder.stdout.close()


@contextlib.contextmanager
def moved_away(database: Path) -> Iterator[None]:
    """Take a database's files out of their directory while the block runs."""
    aside = database.parent.with_name("aside")
    aside.mkdir()
    names = [f"{database.name}{end}" for end in ("", "-wal", "-shm")]
    for name in names:
        database.with_name(name).replace(aside / name)
    try:
        yield
    finally:
        # The main file last: whoever opens it before its log is there makes a new log, over which the old one comes.
        for name in reversed(names):
            if (aside / name).exists():
                (aside / name).replace(database.with_name(name))
        aside.rmdir()


def ready(gateway: Any) -> tuple[int, str, set[str]]:
    """Return what `/readyz` says: status, word, and the names of the checks that are not well."""
    answer = gateway.http("GET", "/readyz", key=None)
    return answer.status, answer.json["status"], {name for name, one in answer.json["checks"].items() if not one["ok"]}


def metric(gateway: Any, line: str) -> float:
    """Return a metric by its name with labels; 0 where it is not there yet."""
    text = gateway.http("GET", "/metrics").body.decode()
    return next((float(one.rpartition(" ")[2]) for one in text.splitlines() if one.startswith(f"{line} ")), 0.0)


class ModerationServer:
    """A moderation API that does as it is told.

    Attributes:
        mode: 'pass', 'flag', 'error' (status 500), 'garbage' or 'hang'.
        only: what a text must hold to be flagged.
    """

    def __init__(self) -> None:
        self.mode, self.only = "pass", ""
        self.answered = 0
        self._hold = threading.Event()
        self._port = 0
        self.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self) -> None:
        """Listen, on the same port each time."""
        told = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                texts = json.loads(self.rfile.read(int(self.headers["content-length"])))["input"]
                told.answer(self, texts)

            def log_message(self, *_: object) -> None:
                pass

        self._hold.clear()
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop listening: whoever connects is refused."""
        self._hold.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, request: BaseHTTPRequestHandler, texts: list[str]) -> None:
        if self.mode == "hang":
            self._hold.wait(2)
        is_flagged = [self.mode == "flag" and self.only in text for text in texts]
        results = [{"flagged": one, "categories": {"violence": one}, "category_scores": {}} for one in is_flagged]
        body = b"<html>" if self.mode == "garbage" else json.dumps({"results": results}).encode()
        with contextlib.suppress(OSError):
            request.send_response(500 if self.mode == "error" else 200)
            request.send_header("content-length", str(len(body)))
            request.end_headers()
            request.wfile.write(body)
        self.answered += 1


@dataclass(frozen=True)
class Told:
    """What one call was told, and how long that took."""

    status: int
    headers: dict[str, str]
    body: bytes
    took_s: float

    @property
    def audit_id(self) -> str:
        return self.headers.get("x-lukhas-audit-id", "")

    @property
    def is_whole(self) -> bool:
        """Whether an answer came, to its end."""
        is_stream = self.headers.get("content-type", "").startswith("text/event-stream")
        return self.status == 200 and (self.body.endswith(b"data: [DONE]\n\n") or not is_stream)

    @property
    def is_unrecorded(self) -> bool:
        return self.headers.get("x-lukhas-unrecorded") == "true"


@dataclass
class Served:
    """`lukhas serve` as a process of its own."""

    process: subprocess.Popen[bytes]
    port: int

    def call(self, method: str, path: str, body: Any = None, timeout_s: float = 20) -> tuple[int, Any]:
        """Send one request; return status and JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        fields = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), fields)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def chat(self, text: str = "What is a heron?", timeout_s: float = 20, **more: Any) -> tuple[int, Any]:
        """Make one chat call."""
        message = {"role": "user", "content": text}
        return self.call("POST", "/v1/chat/completions", {"model": "echo-1", "messages": [message], **more}, timeout_s)

    def ask(self, stream: bool, key: str = ADMIN_KEY, session: str | None = None) -> Told:
        """Make one chat call, plain or streamed, and return what came of it."""
        body = {"model": "echo-1", "messages": [{"role": "user", "content": "What is a heron?"}], "stream": stream}
        fields = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if session is not None:
            fields["x-lukhas-session"] = session
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        began = time.monotonic()
        try:
            connection.request("POST", "/v1/chat/completions", json.dumps(body), fields)
            answer = connection.getresponse()
            text = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return Told(answer.status, headers, text, time.monotonic() - began)
        finally:
            connection.close()

    def kill(self) -> None:
        """End it by force, as a power cut would."""
        self.process.kill()
        self.process.wait(10)


@contextlib.contextmanager
def served(folder: Path, **more: str) -> Iterator[Served]:
    """Run `lukhas serve` with the echo upstream until the block ends, unless it was killed before."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
    environ |= {"LUKHAS_DATA_DIR": str(folder), "LUKHAS_PORT": "0", "LUKHAS_ADMIN_KEY": ADMIN_KEY}
    environ |= {"LUKHAS_POLICY_PROOF_TIMEOUT_S": "0", "LUKHAS_LOG_LEVEL": "error", "LUKHAS_AUDIT_RESERVE_BYTES": "0"}
    environ |= more
    command = [sys.executable, "-m", "lukhas.cli.main", "serve", "--json"]
    process = subprocess.Popen(command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        facts = json.loads(process.stdout.readline())
        yield Served(process, int(facts["url"].rpartition(":")[2]))
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(20)
        process.stdout.close()
