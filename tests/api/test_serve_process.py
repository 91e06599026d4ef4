"""The server of `lukhas serve` and `lukhas demo` in this process: it closes what it opens, and prints what is true."""

from __future__ import annotations

import gc
import json
import signal
import socket
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from lukhas.access.keys import AdminKey
from lukhas.cli.main import app
from lukhas.cli.server import bind, serve_until_stopped, serving_beside
from lukhas.cli.serving import describe, print_banner
from lukhas.errors import ConfigurationError, PolicyError
from lukhas.gateway.runtime import Runtime
from lukhas.settings import Secret, Settings
from lukhas.storage.serving import ServingLock

KEY = Secret("an-admin-key-of-the-tests-0123456789")


@pytest.fixture(autouse=True)
def untouched(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep the logging and the collector of the test run as they are."""
    monkeypatch.setattr("lukhas.cli.log.configure_logging", lambda _: None)
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


def settings_in(folder: Path, **more: Any) -> Settings:
    return Settings(**{"port": 0, "data_dir": folder / "data", "admin_key": KEY, **more})


def is_serving(folder: Path) -> bool:
    """Say whether anybody holds the lock of a data directory."""
    lock = ServingLock(folder / "data")
    try:
        lock.acquire()
    except ConfigurationError:
        return True
    lock.release()
    return False


def test_serve_until_stopped_answers_and_leaves_nothing(tmp_path: Path) -> None:
    """From the call of `started` on it serves; a signal ends it, and lock, port and collector are as before."""
    seen: list[int] = []

    def started(runtime: Runtime, port: int) -> None:
        seen.append(port)
        assert is_serving(tmp_path)
        assert not runtime.is_draining
        signal.raise_signal(signal.SIGTERM)

    assert serve_until_stopped(settings_in(tmp_path), started) is True
    assert not is_serving(tmp_path)
    assert gc.isenabled()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", seen[0]))


def test_serve_until_stopped_failure_closes_what_was_open(tmp_path: Path) -> None:
    """Where the start fails, port and lock are free again."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(PolicyError):
        serve_until_stopped(settings_in(tmp_path, port=port, policy=tmp_path / "none.yaml"), lambda *_: None)
    assert not is_serving(tmp_path)
    assert gc.isenabled()
    bind("127.0.0.1", port).close()


def test_serving_beside_ends_with_its_block(tmp_path: Path) -> None:
    """The gateway answers inside the block, and no thread outlives it, even where the block fails."""
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), serving_beside(settings_in(tmp_path)) as (_, port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=10) as answer:
            assert json.loads(answer.read()) == {"status": "ok"}
        _ = 1 / 0
    assert not is_serving(tmp_path)
    assert threading.active_count() == before


def test_serve_command_announces_itself_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command prints one line that a program can read."""
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "data"))

    def serve(settings: Settings, started: Any) -> bool:
        started(_runtime(AdminKey("lk_new", "created", None)), 1234)
        return settings.host == "127.0.0.1"

    monkeypatch.setattr("lukhas.cli.server.serve_until_stopped", serve)
    result = CliRunner().invoke(app, ["serve", "--json", "--port", "0"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["base_url"] == "http://127.0.0.1:1234/v1"
    assert (tmp_path / "data" / "admin.key").read_text() == "lk_new\n"
    assert CliRunner().invoke(app, ["serve", "--host", "localhost"]).exit_code == 3


def test_demo_command_runs_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo needs no second process, in text and in JSON."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = CliRunner().invoke(app, ["demo"])
    assert text.exit_code == 0, text.output
    assert "6. The caller is stricter" in text.stdout
    out = CliRunner().invoke(app, ["demo", "--json"]).stdout
    # Log lines stand around it here, where logging is left as it is.
    assert len(json.loads(out[out.index("{") : out.rindex("}") + 1])["situations"]) == 8
    assert list(tmp_path.iterdir()) == []


def _runtime(admin: AdminKey) -> Any:
    return SimpleNamespace(admin=admin, policies=SimpleNamespace(policy=SimpleNamespace(id="pol_1", source="packaged")))


@pytest.mark.parametrize(
    ("admin", "more", "where", "line", "bearer"),
    [
        pytest.param(
            AdminKey(None, "environment", None),
            {},
            "environment",
            "LUKHAS_ADMIN_KEY",
            "$LUKHAS_ADMIN_KEY",
            id="environment",
        ),
        pytest.param(
            AdminKey(None, "existing", Path("/d/admin.key")),
            {},
            "file",
            "in /d/admin.key",
            "$(cat '/d/admin.key')",
            id="file",
        ),
        pytest.param(
            AdminKey(None, "existing", None),
            {},
            "as shown at first run",
            "lukhas key create --scope admin",
            "$LUKHAS_ADMIN_KEY",
            id="shown-long-ago",
        ),
        pytest.param(
            AdminKey(None, "existing", None), {"auth": "off"}, "off", "anybody on this machine", "any", id="off"
        ),
    ],
)
def test_banner_tells_where_the_admin_key_is(
    admin: AdminKey, more: dict[str, Any], where: str, line: str, bearer: str, tmp_path: Path, capsys: Any
) -> None:
    """Whoever starts the gateway learns how to call it."""
    settings = settings_in(tmp_path, **more)
    facts = describe(settings, _runtime(admin), 8080)
    assert facts["admin_key"]["where"] == where
    print_banner(settings, facts)
    out = capsys.readouterr().out
    assert line in out
    assert f'"Authorization: Bearer {bearer}"' in out
    assert "echo: no model is called" in out


def test_banner_real_upstream_and_ipv6_are_shown(tmp_path: Path, capsys: Any) -> None:
    """An IPv6 address stands in brackets, as a URL wants it."""
    settings = settings_in(tmp_path, host="::1", upstream_base_url="https://api.example.com/v1")
    facts = describe(settings, _runtime(AdminKey(None, "environment", None)), 8080)
    assert facts["url"] == "http://[::1]:8080"
    print_banner(settings, facts)
    out = capsys.readouterr().out
    assert "https://api.example.com/v1" in out
    assert "gpt-4o-mini" in out


@pytest.mark.parametrize(
    "host", [pytest.param("no.such.host.invalid", id="unknown"), pytest.param("192.0.2.1", id="not-ours"), "a" * 70]
)
def test_bind_address_that_cannot_be_had_is_refused(host: str) -> None:
    """A wrong address is named."""
    with pytest.raises(ConfigurationError, match="Cannot listen on"):
        bind(host, 0)
