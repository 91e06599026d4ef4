"""`lukhas serve` as its users run it: a process, a port, signals, and the admin key of the first run."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

DEADLINE_S = 30
COMMAND = (sys.executable, "-m", "lukhas.cli.main")
ADMIN_KEY = "an-admin-key-of-the-tests-0123456789"
QUESTION = {"model": "echo-1", "messages": [{"role": "user", "content": "Hello"}]}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return the environment of a fresh installation."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
    return kept | {"LUKHAS_DATA_DIR": str(folder / "data"), "LUKHAS_PORT": "0"} | more


class Served:
    """A running `lukhas serve --json`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [*COMMAND, "serve", "--json"],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1]
        self.facts: dict[str, Any] = json.loads(line)
        self.port = int(self.facts["url"].rpartition(":")[2])

    def call(self, key: str, body: Any = QUESTION, **headers: str) -> tuple[int, Mapping[str, str], Any]:
        """Make one chat call, and return status, headers and the JSON body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        try:
            sent = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", **headers}
            connection.request("POST", "/v1/chat/completions", json.dumps(body), sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, json.loads(answer.read())
        finally:
            connection.close()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str, str]:
        """Send a signal and return status, the rest of standard output, and the log."""
        self.process.send_signal(number)
        out, log = self.process.communicate(timeout=DEADLINE_S)
        return self.process.returncode, out, log


@contextlib.contextmanager
def serving(folder: Path, **more: str) -> Iterator[Served]:
    served = Served(environment(folder, **more))
    try:
        yield served
    finally:
        if served.process.poll() is None:
            served.process.kill()
            served.process.communicate()


def run(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], env=dict(environ), capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_serve_signal_ends_it_cleanly(number: signal.Signals, tmp_path: Path) -> None:
    """Told to stop, it ends within seconds, with status 0, everything written, and can start again."""
    for _ in range(2):
        with serving(tmp_path, LUKHAS_ADMIN_KEY=ADMIN_KEY) as served:
            assert served.call(ADMIN_KEY)[0] == 200
            began = time.monotonic()
            status, _, log = served.stop(number)
            assert status == 0, log
            assert time.monotonic() - began < 10
            assert json.loads(log.splitlines()[-1]) | {"event": "gateway_stopped", "flushed": True} == json.loads(
                log.splitlines()[-1]
            )
    assert run(environment(tmp_path), "db", "check").returncode == 0


def test_serve_sigterm_lets_a_running_call_end(tmp_path: Path) -> None:
    """A call that is under way when the signal comes gets its whole answer, and its record has an outcome."""
    arrived, go_on = threading.Event(), threading.Event()

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            arrived.set()
            go_on.wait(DEADLINE_S)
            body = b'{"id": "x", "object": "chat.completion", "model": "m", "choices": []}'
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                + f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        with serving(tmp_path, LUKHAS_ADMIN_KEY=ADMIN_KEY, LUKHAS_UPSTREAM_BASE_URL=url) as served:
            got: list[tuple[int, Mapping[str, str], Any]] = []
            caller = threading.Thread(target=lambda: got.append(served.call(ADMIN_KEY)))
            caller.start()
            assert arrived.wait(DEADLINE_S)
            served.process.send_signal(signal.SIGTERM)
            with contextlib.suppress(OSError):
                while True:  # until the listener is closed, so that the answer surely comes in the drain
                    socket.create_connection(("127.0.0.1", served.port), timeout=1).close()
                    time.sleep(0.02)
            go_on.set()
            caller.join(DEADLINE_S)
            _, log = served.process.communicate(timeout=DEADLINE_S)
            assert served.process.returncode == 0, log
    ((status, headers, body),) = got
    assert (status, body["id"]) == (200, "x")
    shown = run(environment(tmp_path), "audit", "show", headers["x-lukhas-audit-id"], "--json")
    assert json.loads(shown.stdout)["outcome"]["status"] == "ok"


def test_serve_second_on_the_same_directory_is_refused(tmp_path: Path) -> None:
    """One directory has one gateway; the second says who has it, ends with 2, and disturbs nothing."""
    with serving(tmp_path, LUKHAS_ADMIN_KEY=ADMIN_KEY) as served:
        second = run(environment(tmp_path), "serve")
        assert second.returncode == 2
        assert str(served.process.pid) in second.stderr
        assert "LUKHAS_DATA_DIR" in second.stderr
        assert "Traceback" not in second.stderr
        assert served.call(ADMIN_KEY)[0] == 200


def test_serve_port_taken_is_refused(tmp_path: Path) -> None:
    """A taken port is named, before anything is made."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ran = run(environment(tmp_path, LUKHAS_PORT=str(port)), "serve")
    assert ran.returncode == 2
    assert f"port {port}" in ran.stderr
    assert "LUKHAS_PORT" in ran.stderr
    assert not (tmp_path / "data").exists()


def test_serve_without_terminal_puts_the_admin_key_into_a_private_file(tmp_path: Path) -> None:
    """Where nobody looks, the first run's key goes to a 0600 file, never to a log; a second run makes no other."""
    path = tmp_path / "data" / "admin.key"
    with serving(tmp_path) as served:
        key = path.read_text().strip()
        assert path.stat().st_mode & 0o777 == 0o600
        assert served.facts["admin_key"] == {"where": "file", "file": str(path), "secret": None}
        assert served.call(key)[0] == 200
        assert served.call(key[:-1])[0] == 401
        _, out, log = served.stop()
        assert key not in out + log
    with serving(tmp_path) as served:
        assert path.read_text().strip() == key
        assert served.call(key)[0] == 200
    keys = json.loads(run(environment(tmp_path), "key", "list", "--json").stdout)["keys"]
    assert [one["scopes"] for one in keys] == [["admin"]]


def test_serve_on_a_terminal_shows_the_admin_key_once(tmp_path: Path) -> None:
    """On a terminal the key is shown, in no file, and not again at the next start."""
    environ = environment(tmp_path, TERM="xterm", LUKHAS_LOG_LEVEL="error")
    first = _read_terminal(environ)
    key = next(line.split()[2] for line in first.splitlines() if "shown this once" in line)
    assert key.startswith("lk_")
    assert f'-H "Authorization: Bearer {key}"' in first
    assert not (tmp_path / "data" / "admin.key").exists()
    assert key not in _read_terminal(environ)


def _read_terminal(environ: Mapping[str, str]) -> str:
    """Run `lukhas serve` on a terminal of its own and return what it shows until it has started."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*COMMAND, "serve"], env=dict(environ), stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + DEADLINE_S
    try:
        while b"messages" not in shown and time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                shown += os.read(ours, 65536)
        return shown.decode()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0
        os.close(ours)


def test_serve_admin_key_of_the_environment_is_accepted(tmp_path: Path) -> None:
    """LUKHAS_ADMIN_KEY opens the gateway, is never stored, and no other key is made."""
    with serving(tmp_path, LUKHAS_ADMIN_KEY=ADMIN_KEY) as served:
        assert served.facts["admin_key"] == {"where": "environment", "file": None, "secret": None}
        assert served.call(ADMIN_KEY)[0] == 200
        served.stop()
    assert json.loads(run(environment(tmp_path), "key", "list", "--json").stdout) == {"keys": []}
    assert all(ADMIN_KEY.encode() not in path.read_bytes() for path in (tmp_path / "data").iterdir())


@pytest.mark.parametrize(
    ("more", "said"),
    [
        pytest.param({"LUKHAS_ADMIN_KEY": "short-hunter2"}, "at least 32", id="short-admin-key"),
        pytest.param({"LUKHAS_AUTH": "off", "LUKHAS_HOST": "0.0.0.0"}, "loopback", id="auth-off-in-the-open"),
        pytest.param({"LUKHAS_POLICY": "/nope.yaml"}, "/nope.yaml cannot be read", id="no-policy"),
        pytest.param({"LUKHAS_CAPABILITIES": "/nope.yaml"}, "/nope.yaml cannot be read", id="no-capabilities"),
        pytest.param({"LUKHAS_DATABASE_URL": "mysql://u:hunter2@h/d"}, "not supported", id="other-database"),
        pytest.param({"LUKHAS_HOST": "no.such.host.invalid"}, "no.such.host.invalid", id="unknown-host"),
    ],
)
def test_serve_wrong_setup_is_refused_with_status_2(more: dict[str, str], said: str, tmp_path: Path) -> None:
    """What the operator must change is said, without a traceback and without a secret."""
    ran = run(environment(tmp_path, **more), "serve")
    assert ran.returncode == 2, ran.stderr
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert "hunter2" not in ran.stdout + ran.stderr


def test_serve_auth_off_on_loopback_needs_no_key(tmp_path: Path) -> None:
    """On this machine alone, keys may be off."""
    with serving(tmp_path, LUKHAS_AUTH="off") as served:
        assert served.facts["admin_key"]["where"] == "off"
        assert served.call("anything")[0] == 200


def test_key_commands_reach_a_running_gateway(tmp_path: Path) -> None:
    """A key made beside a running gateway works within a second, and a revoked one no longer."""
    environ = environment(tmp_path)
    with serving(tmp_path, LUKHAS_ADMIN_KEY=ADMIN_KEY) as served:
        made = json.loads(run(environ, "key", "create", "--scope", "signals", "--json").stdout)
        assert _await_status(served, made["secret"], 200) < 2
        status, headers, body = served.call(made["secret"], **{"X-Lukhas-Signals": "stress=0.7"})
        assert (status, body["lukhas_echo"]["temperature"]) == (200, 0.28)
        shown = run(environ, "audit", "show", headers["x-lukhas-audit-id"])
        assert made["key"] in shown.stdout
        assert "stress 0.7" in shown.stdout
        assert run(environ, "key", "revoke", made["key"]).returncode == 0
        assert _await_status(served, made["secret"], 401) < 2
        assert run(environ, "db", "check").returncode == 0


def _await_status(served: Served, key: str, status: int) -> float:
    """Call until a key is answered with this status, and return the seconds that took."""
    began = time.monotonic()
    while served.call(key)[0] != status and time.monotonic() - began < DEADLINE_S:
        time.sleep(0.02)
    return time.monotonic() - began
