"""`lukhas config show`, `lukhas version`, and what every command does with wrong settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lukhas import __version__
from lukhas.cli.main import app
from lukhas.cli.setting import hide_password
from lukhas.settings import describe_settings

HEAVY = (
    "sqlalchemy",
    "fastapi",
    "starlette",
    "uvicorn",
    "aiohttp",
    "yaml",
    "structlog",
    "msgspec",
    "alembic",
    "openai",
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_config_show_has_every_setting_with_its_origin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where each value comes from is said: environment over file over default."""
    file = tmp_path / "lukhas.toml"
    file.write_text('port = 9000\nmode = "shadow"\n')
    monkeypatch.setenv("LUKHAS_PORT", "9001")
    found = json.loads(run("config", "show", "--config", str(file), "--json").stdout)
    settings = {one["name"]: one for one in found["settings"]}
    assert found["file"] == str(file)
    assert list(settings) == [doc.name for doc in describe_settings()]
    assert (settings["port"]["value"], settings["port"]["origin"]) == (9001, "environment")
    assert (settings["mode"]["value"], settings["mode"]["origin"]) == ("shadow", "file")
    assert (settings["host"]["value"], settings["host"]["origin"]) == ("127.0.0.1", "default")
    assert all(one["doc"] for one in settings.values())


def test_config_show_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret appears, wherever it stands."""
    monkeypatch.setenv("LUKHAS_ADMIN_KEY", "hunter2" * 8)
    monkeypatch.setenv("LUKHAS_UPSTREAM_API_KEY", "sk-hunter2")
    monkeypatch.setenv("LUKHAS_DATABASE_URL", "postgresql://app:hunter2@db/lukhas?sslpassword=hunter2")
    for arguments in (("config", "show"), ("config", "show", "--json")):
        result = run(*arguments)
        assert result.exit_code == 0
        assert "hunter2" not in result.output
        assert "***" in result.stdout
        assert "postgresql://app:***@db/lukhas" in result.stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        pytest.param("", "", id="empty"),
        pytest.param("sqlite:////data/a@b/lukhas.db", "sqlite:////data/a@b/lukhas.db", id="file"),
        pytest.param("postgresql://u@h/db", "postgresql://u@h/db", id="no-password"),
        pytest.param("postgresql://u:p@h:5432/db", "postgresql://u:***@h:5432/db", id="password"),
        pytest.param("postgresql://u:p%40x@h/db", "postgresql://u:***@h/db", id="quoted"),
        pytest.param("postgresql://u:p@x@h/db", "postgresql://u:***@h/db", id="at-in-password"),
        pytest.param("postgresql://u:p/x@h/db", "postgresql://***", id="slash-in-password"),
        pytest.param("postgresql://u:p?x@h/db", "postgresql://***", id="question-mark-in-password"),
        pytest.param("postgresql://u:p#x@h/db", "postgresql://***", id="hash-in-password"),
        pytest.param("postgresql://h/db?user=u&password=p", "postgresql://h/db?user=u&password=***", id="parameter"),
        pytest.param("postgresql://[h/db", "***", id="not-a-url"),
        pytest.param("secret", "***", id="no-scheme"),
    ],
)
def test_hide_password_url_is_shown_without_it(url: str, shown: str) -> None:
    """A URL stays useful, and its password unseen."""
    assert hide_password(url) == shown


COMMANDS = (
    pytest.param(("serve",), id="serve"),
    pytest.param(("modulate", "-s", "stress=0.7"), id="modulate"),
    pytest.param(("policy", "show"), id="policy-show"),
    pytest.param(("key", "list"), id="key-list"),
    pytest.param(("key", "create"), id="key-create"),
    pytest.param(("audit", "show", "aud_01M83A0C6KQVKTD84661Z422C4"), id="audit-show"),
    pytest.param(("db", "upgrade"), id="db-upgrade"),
    pytest.param(("db", "check"), id="db-check"),
    pytest.param(("config", "show"), id="config-show"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_command_misspelt_variable_is_named_with_the_right_one(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command that reads settings refuses a name that is none, and never prints its value."""
    monkeypatch.setenv("LUKHAS_UPSTREAM_BASE_ULR", "hunter2")
    result = run(*command)
    assert result.exit_code == 2
    assert "LUKHAS_UPSTREAM_BASE_ULR" in result.stderr
    assert "Did you mean LUKHAS_UPSTREAM_BASE_URL?" in result.stderr
    assert "hunter2" not in result.output


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        pytest.param("a.yaml", "port: [", "not valid YAML", id="broken-yaml"),
        pytest.param("a.toml", "port = ", "not valid TOML", id="broken-toml"),
        pytest.param("a.yaml", "prot: 1", "Did you mean port?", id="unknown-name"),
        pytest.param("a.txt", "", ".toml, .yaml or .yml", id="other-kind"),
    ],
)
def test_command_broken_settings_file_is_refused(
    command: tuple[str, ...], name: str, text: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A settings file with a mistake stops every command, with the reason."""
    (tmp_path / name).write_text(text)
    monkeypatch.setenv("LUKHAS_CONFIG", str(tmp_path / name))
    result = run(*command)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.values[0][0] in ("serve", "key", "db", "audit")])
def test_command_data_directory_that_cannot_be_is_an_answer(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file stands in the way of the data directory, each command says so."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("LUKHAS_DATA_DIR", str(tmp_path / "file" / "data"))
    monkeypatch.setenv("LUKHAS_PORT", "0")
    result = run(*command)
    assert result.exit_code in (2, 3)
    assert str(tmp_path / "file") in result.stderr
    assert isinstance(result.exception, SystemExit)


def test_version_says_what_runs() -> None:
    """The version is there as a command and as an option."""
    found = json.loads(run("version", "--json").stdout)
    assert found["lukhas"] == __version__
    assert set(found) == {"lukhas", "python", "sqlite"}
    assert run("version").stdout.startswith(f"lukhas {__version__} (Python 3.")
    assert run("--version").stdout == f"lukhas {__version__}\n"


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("nope",), id="unknown-command"),
        pytest.param(("policy", "nope"), id="unknown-subcommand"),
        pytest.param(("version", "--nope"), id="unknown-option"),
        pytest.param(("key", "revoke"), id="missing-argument"),
        pytest.param(("serve", "--port", "many"), id="wrong-type"),
        pytest.param(("serve", "--port", "99999"), id="port-out-of-range"),
        pytest.param(("serve", "--host", "not a host"), id="host-with-spaces"),
    ],
)
def test_command_wrong_use_is_status_2(arguments: tuple[str, ...]) -> None:
    """Usage errors have one status, and go to standard error."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


def test_command_line_loads_nothing_that_help_does_not_need() -> None:
    """Asking for help must not wait for the database, the web framework or the policy's parser."""
    code = f"import lukhas.cli.main, sys; print([m for m in {HEAVY!r} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_output_character_that_cannot_be_shown_is_no_traceback(tmp_path: Path) -> None:
    """Where the terminal's encoding has no such character, its code is shown."""
    file = tmp_path / "größe.toml"
    file.write_text("")
    ran = subprocess.run(
        [sys.executable, "-m", "lukhas.cli.main", "config", "show", "--config", str(file)],
        env=os.environ | {"PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert r"gr\xf6\xdfe.toml" in ran.stdout
