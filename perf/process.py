"""Starting what a bench needs on loopback, reading what it costs, and stopping it by its id."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
SERVE = (sys.executable, "-m", "lukhas.cli.main", "serve")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A process that listens on loopback.

    Attributes:
        name: what it is, with its kind where that matters.
        port: the port on 127.0.0.1.
        pid: the process that was started; its children are counted with it.
        key: the bearer key it takes; empty for none.
    """

    name: str
    port: int
    pid: int
    key: str = ""

    def cpu_s(self) -> float:
        """Return CPU time used so far, user and system, in s."""
        ticks = 0
        for pid in self._tree():
            fields = _read(f"/proc/{pid}/stat").rpartition(") ")[2].split()
            if fields:
                ticks += int(fields[11]) + int(fields[12])
        return ticks / TICKS_PER_S

    def rss_mb(self) -> float:
        """Return resident memory, in MB (10^6 bytes)."""
        total = 0
        for pid in self._tree():
            for line in _read(f"/proc/{pid}/status").splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1]) * 1024
        return total / 1e6

    def _tree(self) -> list[int]:
        parents: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                fields = _read(f"/proc/{entry.name}/stat").rpartition(") ")[2].split()
                if fields:
                    parents.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self.pid]
        for pid in found:
            found += parents.get(pid, [])
        return found


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def free_port() -> int:
    """Return a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def run_process(command: Sequence[str], env: dict[str, str] | None = None) -> Iterator[tuple[int, Path]]:
    """Run a command, give its process id and log file, and stop it at the end: politely, after 10 s by force."""
    with tempfile.NamedTemporaryFile(prefix="bench-", suffix=".log") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True)
        try:
            yield process.pid, Path(log.name)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def call(
    port: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    """Make one HTTP call on loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body or None, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_until_ready(port: int, path: str, pid: int, log: Path, *, timeout_s: float = 30) -> None:
    """Wait until a GET answers 200, else stop the bench with the server's own words."""
    end = time.monotonic() + timeout_s
    last = "nothing listens"
    while time.monotonic() < end:
        # A child that has ended stays as a zombie until it is waited for.
        if ") Z" in _read(f"/proc/{pid}/stat"):
            break
        try:
            status, body = call(port, "GET", path)
        except OSError:
            time.sleep(0.02)
            continue
        if status == 200:
            return
        last = f"{status} {body[:300].decode(errors='replace')}"
        time.sleep(0.05)
    raise SystemExit(f"The server on port {port} did not become ready: {last}\n{log.read_text()[-3000:]}")


@contextlib.contextmanager
def start_mock() -> Iterator[Server]:
    """Start the mock upstream: nginx where it is installed, else a small uvicorn application."""
    port = free_port()
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        command = [sys.executable, "-m", "uvicorn", "app:app", "--app-dir", str(HERE / "mock_upstream")]
        command += ["--port", str(port), "--log-level", "warning", "--no-access-log"]
        with run_process(command) as (pid, log):
            wait_until_ready(port, "/v1/models", pid, log)
            yield Server("uvicorn", port, pid)
        return
    with tempfile.TemporaryDirectory(prefix="bench-nginx-") as folder:
        Path(folder).chmod(0o755)
        answer = json.dumps(json.loads((HERE / "mock_upstream" / "answer.json").read_text()))
        text = (HERE / "mock_upstream" / "nginx.conf").read_text()
        for name, value in (("@PORT@", str(port)), ("@DIR@", folder), ("@ANSWER@", answer)):
            text = text.replace(name, value)
        config = Path(folder, "nginx.conf")
        config.write_text(text)
        command = [nginx, "-p", folder, "-c", str(config), "-e", f"{folder}/error.log", "-g", "daemon off;"]
        with run_process(command) as (pid, log):
            wait_until_ready(port, "/v1/models", pid, log)
            yield Server("nginx", port, pid)


def gateway_environment(upstream_url: str, port: int, key: str, folder: str) -> dict[str, str]:
    """Return the environment for a gateway of its own: nothing of the caller's LUKHAS_* settings."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
    return env | {
        "LUKHAS_ADMIN_KEY": key,
        "LUKHAS_PORT": str(port),
        "LUKHAS_DATA_DIR": folder,
        "LUKHAS_UPSTREAM_BASE_URL": upstream_url,
    }


@contextlib.contextmanager
def start_gateway(
    upstream_url: str,
    command: Sequence[str] = SERVE,
    data_dir: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start the gateway with auth on, in a data directory of its own, and wait for `/readyz`."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as temporary:
        port, key = free_port(), secrets.token_hex(24)
        env = gateway_environment(upstream_url, port, key, str(data_dir or temporary)) | dict(environment or {})
        with run_process(command, env) as (pid, log):
            wait_until_ready(port, "/readyz", pid, log)
            yield Server("gateway", port, pid, key)
