"""A real S3 server on loopback: `rclone serve s3` over a folder, ended by its process id."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from capability import CAPABILITIES

KEY_ID, SECRET = "test-key-id", "test-secret-key"
BUCKET = "bucket"


@dataclass(frozen=True)
class ObjectStore:
    """A running server.

    Attributes:
        environment: AWS_* variables that lead to it.
        folder: where it keeps its buckets.
        pid: its process.
    """

    environment: dict[str, str]
    folder: Path
    pid: int

    def pause(self) -> None:
        """Let it accept connections and answer nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        os.kill(self.pid, signal.SIGCONT)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def make_environment(port: int) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }


@contextmanager
def run_object_store(folder: Path, port: int = 0) -> Generator[ObjectStore]:
    """Serve a folder, with one bucket in it."""
    program = CAPABILITIES["rclone"].find()
    assert program is not None
    port = port or free_port()
    (folder / BUCKET).mkdir(parents=True, exist_ok=True)
    command = [program, "serve", "s3", str(folder), "--addr", f"127.0.0.1:{port}"]
    command += ["--auth-key", f"{KEY_ID},{SECRET}", "--vfs-cache-mode", "off", "--config", os.devnull]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        _wait_for(port, process)
        yield ObjectStore(make_environment(port), folder, process.pid)
    finally:
        process.kill()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("the object store did not start")
