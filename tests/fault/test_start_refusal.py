"""Governance that is configured and cannot load refuses the start: never 'no policy, so allow'."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.storage.serving import ServingLock

FILES = {
    "missing": None,
    "empty": b"",
    "only-comments": b"# nothing yet\n",
    "no-yaml": b"a: [1, 2\nb: }",
    "binary": b"\xff\xfe\x00\x01" * 10,
    "other-keys": b"something: else\n",
    "a-list": b"- 1\n- 2\n",
}
VARIABLES = ("LUKHAS_POLICY", "LUKHAS_MODERATION_RULES", "LUKHAS_TOOLS", "LUKHAS_CAPABILITIES")


class Start:
    """Starts a gateway in one data directory, and sees that a refused one leaves nothing behind."""

    def __init__(self, data: Path, patch: pytest.MonkeyPatch) -> None:
        self.data, self._patch = data, patch
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]

    def refused(self, **more: str) -> Result:
        """Start with these variables; return how it was refused."""
        result = self.run(**more)
        assert not isinstance(result.exception, AssertionError), result.output
        assert isinstance(result.exception, SystemExit), result.output
        with socket.socket() as caller:
            assert caller.connect_ex(("127.0.0.1", self.port)) != 0
        lock = ServingLock(self.data)
        lock.acquire()
        lock.release()
        return result

    def run(self, **more: str) -> Result:
        with self._patch.context() as patch:
            variables = {"DATA_DIR": str(self.data), "PORT": str(self.port), "ADMIN_KEY": "k" * 40}
            for name, value in ({f"LUKHAS_{name}": value for name, value in variables.items()} | more).items():
                patch.setenv(name, value)
            return CliRunner().invoke(app, ["serve"])


def serve_nothing(*_: Any, **__: Any) -> None:
    raise AssertionError("it served")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One data directory for all, so that its databases are made once."""
    return tmp_path_factory.mktemp("start") / "data"


@pytest.fixture
def start(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(uvicorn.Server, "run", serve_nothing)
    monkeypatch.setattr("lukhas.cli.log.configure_logging", lambda _: None)
    yield Start(data, monkeypatch)


@pytest.mark.parametrize("content", FILES)
@pytest.mark.parametrize("variable", VARIABLES)
def test_start_with_a_file_that_does_not_load_is_refused(
    start: Start, tmp_path: Path, variable: str, content: str
) -> None:
    """Status 2 and one message that names the file; nothing listens, nothing stays locked."""
    path = tmp_path / "configured.yaml"
    if (written := FILES[content]) is not None:
        path.write_bytes(written)
    result = start.refused(**{variable: str(path)})
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("lukhas: ") and str(path) in result.stderr
    assert result.stderr.count("lukhas: ") == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize("variable", VARIABLES)
def test_start_with_a_file_that_cannot_be_read_is_refused(start: Start, tmp_path: Path, variable: str) -> None:
    """A directory is read by nobody, whoever the process runs as."""
    result = start.refused(**{variable: str(tmp_path)})
    assert result.exit_code == 2 and str(tmp_path) in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        pytest.param("LUKHAS_SENSORS", "stress,no_such", "no_such", id="unknown-sensor"),
        pytest.param("LUKHAS_MODERATION_URL", "not an address", "LUKHAS_MODERATION_URL", id="moderation-no-url"),
        pytest.param("LUKHAS_MODERATION_URL", "http://x:99999/v1", "LUKHAS_MODERATION_URL", id="moderation-port"),
        pytest.param("LUKHAS_MODERATION_PRESET", "mild", "standard, high", id="unknown-preset"),
        pytest.param("LUKHAS_MODERATION_REQUIRED", "perhaps", "true or false", id="required-perhaps"),
        pytest.param("LUKHAS_MODE", "off", "enforce, shadow", id="unknown-mode"),
        pytest.param("LUKHAS_MODERATION_RULE", "rules.yaml", "LUKHAS_MODERATION_RULES", id="misspelt-name"),
    ],
)
def test_start_with_a_wrong_setting_is_refused(start: Start, variable: str, value: str, said: str) -> None:
    """A guard that was meant to be on is never off because of a typing error."""
    result = start.refused(**{variable: value})
    assert result.exit_code == 2 and said in result.stderr


def test_start_with_a_moderation_key_that_no_header_carries_is_refused(start: Start) -> None:
    """The key is not shown."""
    more = {"LUKHAS_MODERATION_URL": "http://127.0.0.1:9/v1", "LUKHAS_MODERATION_API_KEY": "sk-\u00e9-hunter2"}
    result = start.refused(**more)
    assert result.exit_code == 2 and "LUKHAS_MODERATION_API_KEY" in result.stderr and "hunter2" not in result.stderr


def test_start_with_limits_that_cannot_be_read_is_refused(start: Start) -> None:
    """What is stored is not what was written: status 4, and no key is without its limits."""
    start.refused(LUKHAS_TOOLS="/nope.yaml")  # the databases are there now
    path = start.data / "lukhas.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("INSERT INTO limit_rule (holder, document, changed_ms) VALUES ('tenant:x', '{', 1)")
    try:
        result = start.refused()
        assert result.exit_code == 4 and "limits" in result.stderr
    finally:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DELETE FROM limit_rule")


@pytest.mark.parametrize("name", ["lukhas.db", "vault.db"])
def test_start_with_a_damaged_database_is_refused(start: Start, name: str) -> None:
    """Status 3; the file is left as it is, for whoever mends it."""
    start.refused(LUKHAS_TOOLS="/nope.yaml")
    path = start.data / name
    good = path.read_bytes()
    damaged = good[:8192] + bytes(len(good) - 8192)
    path.write_bytes(damaged)
    try:
        result = start.refused()
        assert result.exit_code == 3 and "malformed" in result.stderr, result.output
        assert path.read_bytes() == damaged
    finally:
        for end in ("-wal", "-shm"):
            path.with_name(name + end).unlink(missing_ok=True)
        path.write_bytes(good)
