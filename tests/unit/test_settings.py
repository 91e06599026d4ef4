"""Settings: where values come from, what is refused, and what is never shown."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest

from lukhas.errors import SettingsError
from lukhas.settings import Secret, Settings, describe_settings, load_settings

SECRET = "canary-secret-0123456789abcdef0123456789"


def test_settings_without_anything_are_the_defaults() -> None:
    """An empty environment and no file give every documented default."""
    loaded = load_settings({})
    assert loaded.settings == Settings()
    assert set(loaded.origins.values()) == {"default"} and loaded.file is None


def test_settings_prefer_arguments_then_environment_then_file(tmp_path: Path) -> None:
    """The strongest source wins, and each value says where it came from."""
    path = tmp_path / "lukhas.toml"
    path.write_text('port = 1\nhost = "127.0.0.3"\nmode = "shadow"\n', "utf-8")
    environ = {"LUKHAS_CONFIG": str(path), "LUKHAS_PORT": "2", "LUKHAS_HOST": "127.0.0.2"}
    loaded = load_settings(environ, overrides={"port": "3"})
    assert (loaded.settings.port, loaded.settings.host, loaded.settings.mode) == (3, "127.0.0.2", "shadow")
    assert [loaded.origins[name] for name in ("port", "host", "mode", "auth")] == [
        "argument",
        "environment",
        "file",
        "default",
    ]


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        pytest.param("LUKHAS_PROT", "LUKHAS_PORT", id="swapped-letters"),
        pytest.param("LUKHAS_UPSTREAM_URL", "LUKHAS_UPSTREAM_BASE_URL", id="shortened"),
        pytest.param("LUKHAS_ADMINKEY", "LUKHAS_ADMIN_KEY", id="without-underscore"),
        pytest.param("LUKHAS_port", "LUKHAS_PORT", id="lower-case"),
        pytest.param("LUKHAS_", "LUKHAS_", id="prefix-alone"),
    ],
)
def test_settings_with_a_misspelt_variable_name_its_nearest(name: str, nearest: str) -> None:
    """The error helps, and never shows the value."""
    with pytest.raises(SettingsError) as caught:
        load_settings({name: SECRET})
    assert nearest in str(caught.value) and SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("LUKHAS_FLAG_BROWSER_TOOL", id="flag"),
        pytest.param("LUKHAS_TEST_REQUIRE", id="test"),
        pytest.param("LUKHAS_API_KEY", id="client"),
        pytest.param("LUKHASX", id="other-program"),
        pytest.param("PORT", id="no-prefix"),
    ],
)
def test_settings_leave_other_programs_variables_alone(name: str) -> None:
    """What the house's other programs read is no mistake here."""
    assert load_settings({name: "anything"}).settings == Settings()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        pytest.param("LUKHAS_PORT", "65536", id="port-too-high"),
        pytest.param("LUKHAS_PORT", "-1", id="port-negative"),
        pytest.param("LUKHAS_PORT", "80.5", id="port-fraction"),
        pytest.param("LUKHAS_PORT", "http", id="port-text"),
        pytest.param("LUKHAS_HOST", "a b", id="host-with-blank"),
        pytest.param("LUKHAS_MODE", "observe", id="mode"),
        pytest.param("LUKHAS_AUTH", "maybe", id="auth"),
        pytest.param("LUKHAS_LOG_LEVEL", "loud", id="log-level"),
        pytest.param("LUKHAS_UPSTREAM_BASE_URL", "ftp://x/v1", id="scheme"),
        pytest.param("LUKHAS_UPSTREAM_BASE_URL", "api.example.com/v1", id="no-scheme"),
        pytest.param("LUKHAS_UPSTREAM_BASE_URL", "https://", id="no-host"),
        pytest.param("LUKHAS_UPSTREAM_BASE_URL", f"https://u:{SECRET}@x/v1", id="password-in-url"),
        pytest.param("LUKHAS_UPSTREAM_BASE_URL", f"https://x/v1?key={SECRET}", id="query-in-url"),
        pytest.param("LUKHAS_UPSTREAM_BASE_URL", "https://x:99999/v1", id="port-out-of-range"),
        pytest.param("LUKHAS_MODERATION_URL", "echo", id="moderation-echo"),
        pytest.param("LUKHAS_MODERATION_URL", "https://x:port/v1", id="moderation-port-text"),
        pytest.param("LUKHAS_MODERATION_URL", "https://x:0/v1", id="moderation-port-0"),
        pytest.param("LUKHAS_MODERATION_URL", "https://[::1/v1", id="moderation-bracket-open"),
        pytest.param("LUKHAS_MODERATION_URL", "https://a b/v1", id="moderation-blank"),
        pytest.param("LUKHAS_MODERATION_URL", f"https://u:{SECRET}@x/v1", id="moderation-password"),
        pytest.param("LUKHAS_UPSTREAM_READ_TIMEOUT_S", "nan", id="timeout-nan"),
        pytest.param("LUKHAS_UPSTREAM_READ_TIMEOUT_S", "0", id="timeout-zero"),
        pytest.param("LUKHAS_UPSTREAM_READ_TIMEOUT_S", "inf", id="timeout-endless"),
        pytest.param("LUKHAS_MAX_BODY_BYTES", "10MB", id="bytes-with-unit"),
        pytest.param("LUKHAS_ADMIN_KEY", "short", id="admin-key-short"),
        pytest.param("LUKHAS_ADMIN_KEY", f" {SECRET}", id="admin-key-with-blank"),
        pytest.param("LUKHAS_ADMIN_KEY", SECRET + "\u00e9", id="admin-key-not-ascii"),
    ],
)
def test_settings_with_a_wrong_value_name_the_variable_only(variable: str, value: str) -> None:
    """Which variable and what it must be; never what it was."""
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})
    assert variable in str(caught.value) and caught.value.param == variable
    assert SECRET not in str(caught.value) and "short" not in str(caught.value)


def test_settings_with_an_empty_variable_take_the_default() -> None:
    """Compose files write unset variables as empty ones."""
    loaded = load_settings({"LUKHAS_PORT": "", "LUKHAS_ADMIN_KEY": "", "LUKHAS_ADMIN_KEY_FILE": ""})
    assert loaded.settings == Settings()


def test_settings_read_a_secret_from_its_file(tmp_path: Path) -> None:
    """`LUKHAS_ADMIN_KEY_FILE` names a file; its last line end does not count."""
    path = tmp_path / "key"
    path.write_text(SECRET + "\n", "utf-8")
    settings = load_settings({"LUKHAS_ADMIN_KEY_FILE": str(path)}).settings
    assert settings.admin_key is not None and settings.admin_key.reveal() == SECRET


def test_settings_with_a_secret_twice_or_unreadable_are_refused(tmp_path: Path) -> None:
    """Two sources for one secret are a mistake; so is a file that is not there, or no text."""
    path = tmp_path / "key"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="both set"):
        load_settings({"LUKHAS_ADMIN_KEY": SECRET, "LUKHAS_ADMIN_KEY_FILE": str(path)})
    for name in (path, tmp_path / "absent", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            load_settings({"LUKHAS_UPSTREAM_API_KEY_FILE": str(name)})
    with pytest.raises(SettingsError):
        load_settings({"LUKHAS_PORT_FILE": str(path)})


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        pytest.param("127.0.0.1", True, id="ipv4"),
        pytest.param("127.8.8.8", True, id="whole-net"),
        pytest.param("::1", True, id="ipv6"),
        pytest.param("[::1]", True, id="ipv6-brackets"),
        pytest.param("localhost", True, id="name"),
        pytest.param("0.0.0.0", False, id="everywhere"),
        pytest.param("::", False, id="everywhere-ipv6"),
        pytest.param("192.168.0.1", False, id="private-net"),
        pytest.param("localhost.example.com", False, id="look-alike"),
    ],
)
def test_settings_allow_no_authentication_on_loopback_only(host: str, allowed: bool) -> None:
    """Never open by default, nor by mistake."""
    environ = {"LUKHAS_AUTH": "off", "LUKHAS_HOST": host}
    if allowed:
        assert load_settings(environ).settings.is_loopback
    else:
        with pytest.raises(SettingsError, match="loopback"):
            load_settings(environ)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        pytest.param("a.toml", "port = ", "TOML", id="toml-broken"),
        pytest.param("a.yaml", "port: [", "YAML", id="yaml-broken"),
        pytest.param("a.yaml", "- port", "table", id="yaml-list"),
        pytest.param("a.yaml", "port: {a: 1}", "plain value", id="nested"),
        pytest.param("a.yaml", "port:", "plain value", id="null"),
        pytest.param("a.yaml", "prot: 1", "port", id="misspelt"),
        pytest.param("a.yaml", "port: 1\nLUKHAS_PORT: 2", "twice", id="twice"),
        pytest.param("a.json", "{}", "must end in", id="another-format"),
    ],
)
def test_settings_file_with_a_mistake_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    """The error names the file and what is wrong in it."""
    path = tmp_path / name
    path.write_text(text, "utf-8")
    with pytest.raises(SettingsError, match=message):
        load_settings({}, config_path=path)


def test_settings_file_reads_booleans_as_words(tmp_path: Path) -> None:
    """YAML 1.1 reads `auth: off` as false; the word is meant."""
    path = tmp_path / "a.yml"
    path.write_text("auth: off\nlukhas_port: 5\n", "utf-8")
    settings = load_settings({}, config_path=path).settings
    assert (settings.auth, settings.port) == ("off", 5)
    path.write_text("", "utf-8")
    assert load_settings({}, config_path=path).settings == Settings()
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, config_path=tmp_path / "absent.yaml")


def test_secret_is_not_shown_by_accident() -> None:
    """Printing, formatting, copying into JSON or a pickle: none gives it away."""
    secret = Secret(SECRET)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>50}", repr(Settings(admin_key=secret))]
    assert not any(SECRET in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    assert copy.copy(secret) is secret
    with pytest.raises(TypeError):
        json.dumps(secret)
    assert secret == Secret(SECRET) != Secret("other") and hash(secret) == hash(Secret(SECRET)) and secret != SECRET


def test_every_setting_is_described_with_its_variable() -> None:
    """The reference page is made of these."""
    described = describe_settings()
    assert {one.variable for one in described} >= {"LUKHAS_HOST", "LUKHAS_ADMIN_KEY", "LUKHAS_MODE"}
    assert all(one.doc.endswith(".") for one in described)
    assert {one.name for one in described if one.secret} == {
        "admin_key",
        "audit_key",
        "moderation_api_key",
        "upstream_api_key",
    }
