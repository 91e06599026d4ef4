"""Flags from the environment and from code."""

from collections.abc import Iterator

import pytest

from lukhas.errors import SettingsError
from lukhas.flags import NAMED_FLAGS, is_enabled, reload, snapshot


@pytest.fixture(autouse=True)
def fresh_flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test a process that has read no flag yet, and leave none behind."""
    monkeypatch.setattr(snapshot, "_snapshot", None)
    for name in NAMED_FLAGS:
        monkeypatch.delenv(f"LUKHAS_FLAG_{name}", raising=False)
    yield


@pytest.mark.parametrize("text", ["1", "true", "TRUE", "Yes", "on", " on "])
def test_is_enabled_word_for_on_turns_on(text: str) -> None:
    """Every usual word for on is taken, in any case."""
    reload({"LUKHAS_FLAG_BROWSER_TOOL": text})
    assert is_enabled("BROWSER_TOOL")


@pytest.mark.parametrize("text", ["0", "false", "False", "NO", "off"])
def test_is_enabled_word_for_off_turns_off(text: str) -> None:
    """Every usual word for off is taken, in any case."""
    reload({"LUKHAS_FLAG_TOOL_ANALYTICS": text})
    assert not is_enabled("TOOL_ANALYTICS", default=True)


@pytest.mark.parametrize("key", ["tool_analytics", "TOOL_ANALYTICS", "Tool-Analytics", "tool-analytics"])
def test_is_enabled_any_spelling_finds_the_flag(key: str) -> None:
    """Case and hyphens make no difference."""
    reload({"LUKHAS_FLAG_TOOL_ANALYTICS": "0"})
    assert not is_enabled(key, default=True)


@pytest.mark.parametrize("name", list(NAMED_FLAGS))
def test_is_enabled_unset_named_flag_has_its_own_default(name: str) -> None:
    """A named flag's default goes before the question's."""
    reload({})
    assert is_enabled(name, default=not NAMED_FLAGS[name].default) is NAMED_FLAGS[name].default


@pytest.mark.parametrize("default", [True, False])
def test_is_enabled_unknown_flag_takes_the_questions_default(default: bool) -> None:
    """A name that nothing sets answers what the caller expects."""
    reload({})
    assert is_enabled("MY_OWN", default) is default


def test_is_enabled_own_flag_is_read_from_the_environment() -> None:
    """Users' own names work like the named ones."""
    reload({"LUKHAS_FLAG_MY_OWN": "yes"})
    assert is_enabled("my_own")


@pytest.mark.parametrize("text", ["", "  "], ids=["empty", "blank"])
def test_is_enabled_empty_variable_is_unset(text: str) -> None:
    """An empty variable is an unset one, as compose files write it."""
    reload({"LUKHAS_FLAG_TOOL_ANALYTICS": text})
    assert is_enabled("TOOL_ANALYTICS")


@pytest.mark.parametrize(("text", "on"), [("legacy", False), ("DNA", True)])
def test_is_enabled_flag_with_words_takes_its_words(text: str, on: bool) -> None:
    """A flag written as a choice is on for its second word."""
    reload({"LUKHAS_FLAG_DNA_CUTOVER_READ_FROM": text})
    assert is_enabled("DNA_CUTOVER_READ_FROM") is on


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        pytest.param("LUKHAS_FLAG_BROWSER_TOOL", "s3cret", id="word"),
        pytest.param("LUKHAS_FLAG_MY_OWN", "2", id="number"),
        pytest.param("LUKHAS_FLAG_DNA_CUTOVER_READ_FROM", "both", id="choice"),
        pytest.param("LUKHAS_FLAG_BROWSER_TOOL", "\u0661", id="arabic-digit"),
    ],
)
def test_reload_wrong_value_names_the_variable_and_keeps_what_was(variable: str, text: str) -> None:
    """A wrong value is refused by name, never shown, and changes nothing."""
    reload({"LUKHAS_FLAG_STRICT_DEFAULT": "1"})
    with pytest.raises(SettingsError) as refusal:
        reload({variable: text, "LUKHAS_FLAG_STRICT_DEFAULT": "0"})
    assert variable in str(refusal.value)
    assert text not in str(refusal.value).replace("1, true", "")
    assert is_enabled("STRICT_DEFAULT")


def test_is_enabled_wrong_value_at_first_load_raises_once_then_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question tells of the mistake; later ones answer, a safety flag with its strict value."""
    monkeypatch.setenv("LUKHAS_FLAG_STRICT_DEFAULT", "perhaps")
    monkeypatch.setenv("LUKHAS_FLAG_CODE_EXEC_TOOL", "perhaps")
    with pytest.raises(SettingsError, match="LUKHAS_FLAG_"):
        is_enabled("TOOL_ANALYTICS")
    assert is_enabled("STRICT_DEFAULT")
    assert not is_enabled("CODE_EXEC_TOOL")
    assert is_enabled("TOOL_ANALYTICS")


def test_is_enabled_environment_changed_later_waits_for_reload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags are read once; a reload reads them again."""
    assert not is_enabled("BROWSER_TOOL")
    monkeypatch.setenv("LUKHAS_FLAG_BROWSER_TOOL", "on")
    assert not is_enabled("BROWSER_TOOL")
    reload()
    assert is_enabled("BROWSER_TOOL")
