"""The official Node client: runs tests/node/suite.mjs against a live gateway, and scripts the upstream for it.

The suite asks for everything it needs at one URL, the desk: what the upstream shall answer next, what it received, how
a call was recorded. A command is the name of a method of `Desk`, its arguments are a JSON object.
"""

from __future__ import annotations

import http.server
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import client_scene
import pytest
import upstream_shape as shape
from capability import CAPABILITIES
from client_scene import ADMIN_KEY, CHAT_TOOLS, EXEC, FORBIDDEN, HIDDEN, HIDDEN_SHOWN, RESPONSE_TOOLS, Scene

FOLDER = Path(__file__).resolve().parent.parent / "node"
LEAST_CASES = 40
DEADLINE_S = 240
CONSTANTS = {
    "forbidden": FORBIDDEN,
    "hidden": HIDDEN,
    "hiddenShown": HIDDEN_SHOWN,
    "chatTools": CHAT_TOOLS,
    "responseTools": RESPONSE_TOOLS,
    "execTool": {"type": "function", "function": EXEC},
}

stage, scene = client_scene.stage(), client_scene.scene()


class Desk:
    """What the suite may ask for; each method is one command."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._upstream = scene.upstream

    def clear(self) -> dict[str, Any]:
        left = len(self._upstream._replies)
        self._scene.clear()
        return {"unused": left}

    def shape(self, name: str, arguments: Sequence[Any] = (), **more: Any) -> Any:
        return getattr(shape, name)(*arguments, **more)

    def answer(self, body: Any, **more: Any) -> None:
        self._scene.answer(body, **more)

    def refuse(self, status: int, body: Any = None, headers: dict[str, str] | None = None) -> None:
        self._scene.refuse(status, body, **(headers or {}))

    def page(self, status: int, text: str) -> None:
        self._upstream.reply(status=status, body=text.encode(), headers={"content-type": "text/html"})

    def chat(self, pieces: Sequence[str] = (), times: int = 1, **more: Any) -> None:
        for _ in range(times):
            self._scene.stream_chat(*pieces, **more)

    def response(self, output: list[Any], **more: Any) -> None:
        self._scene.stream_response(output, **more)

    def events(self, events: Sequence[Any], named: bool = False, **more: Any) -> None:
        wire = shape.encode_events(events) if named else [e.encode() if isinstance(e, str) else e for e in events]
        self._upstream.reply_events(wire, **{"done": False, **more})

    def drop(self, ending: Any) -> None:
        self._upstream.reply_raw([], ending=ending)

    def silence(self, ms: int) -> None:
        self._upstream.reply(delay_ms=ms)

    def requests(self) -> list[dict[str, Any]]:
        return [
            {
                "method": one.method,
                "path": one.path,
                "headers": one.headers,
                "body": json.loads(one.body) if one.body else None,
            }
            for one in self._upstream.requests
        ]

    def closed(self, index: int = 0) -> bool:
        return self._upstream.requests[index].closed.wait(3)

    def outcome(self, audit: str | None = None) -> dict[str, Any]:
        return self._scene.last_outcome() if audit is None else self._scene.outcome(audit)

    def decisions(self) -> int:
        return self._scene.gateway.count("decision")

    def key(self, tenant: str) -> str:
        return self._scene.gateway.key(tenant=tenant)

    def limited(self, **limits: int) -> str:
        return self._scene.limited_key(**limits)


@pytest.fixture
def desk_url(scene: Scene) -> Iterator[str]:
    """Serve a desk on loopback."""
    desk = Desk(scene)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers["content-length"])
            try:
                arguments = json.loads(self.rfile.read(size))
                status, answer = 200, getattr(desk, self.path.strip("/"))(**arguments)
            except Exception as failure:  # noqa: BLE001 - the suite prints it, with the case that asked
                status, answer = 500, f"{type(failure).__name__}: {failure}"
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing: the suite's own output is the report."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="desk")
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.requires("node", "openai-node")
def test_official_node_client_passes_its_suite(scene: Scene, desk_url: str) -> None:
    """Every case passes, none is skipped, and there are as many as promised."""
    node = CAPABILITIES["node"].find()
    assert node is not None
    environ = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environ |= {
        "DESK_URL": desk_url,
        "GATEWAY_URL": scene.gateway.base_url,
        "GATEWAY_KEY": ADMIN_KEY,
        "CONSTANTS": json.dumps(CONSTANTS),
    }
    done = subprocess.run(
        [node, "--test-reporter=tap", "suite.mjs"],
        cwd=FOLDER,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
        check=False,
    )
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    failed = re.findall(r"^not ok \d+ - (.*)$", done.stdout, re.MULTILINE)
    report = "\n".join([f"failed: {failed}", done.stdout[-20_000:], done.stderr[-5_000:]])
    assert done.returncode == 0, report
    assert counts["pass"] == counts["tests"] >= LEAST_CASES, report
    assert counts["fail"] == counts["skipped"] == counts["todo"] == counts["cancelled"] == 0, report


def test_lock_file_names_no_registry() -> None:
    """`npm ci` takes the packages from whatever registry a machine is set up for; hashes hold what they must be."""
    lock = json.loads((FOLDER / "package-lock.json").read_text("utf-8"))
    wanted = json.loads((FOLDER / "package.json").read_text("utf-8"))["dependencies"]
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert {f"node_modules/{name}": version for name, version in wanted.items()}.items() <= {
        name: entry["version"] for name, entry in packages.items()
    }.items()
    for name, entry in packages.items():
        assert "resolved" not in entry, name
        assert entry["integrity"].startswith("sha512-"), name
