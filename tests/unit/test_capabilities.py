"""What each model takes: which field, which word, or nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lukhas.errors import ConfigurationError, InvalidRequest
from lukhas.openai.capabilities import decode, is_foreign_word, load_capabilities


@pytest.mark.parametrize(
    ("model", "temperature", "limit", "effort"),
    [
        pytest.param("gpt-4o-mini", "temperature", "max_tokens", None, id="gpt-4o-mini"),
        pytest.param("GPT-4O", "temperature", "max_tokens", None, id="upper-case"),
        pytest.param("o1-mini", None, "max_completion_tokens", None, id="o1-mini"),
        pytest.param("o3", None, "max_completion_tokens", "reasoning_effort", id="o3"),
        pytest.param("openai/o4-mini", None, "max_completion_tokens", "reasoning_effort", id="prefix"),
        pytest.param("gpt-5", None, "max_completion_tokens", "reasoning_effort", id="gpt-5"),
        pytest.param("gpt-5-chat-latest", "temperature", "max_completion_tokens", None, id="gpt-5-chat"),
        pytest.param("gpt-5.2", None, "max_completion_tokens", "reasoning_effort", id="gpt-5.2"),
        pytest.param("my-own-model", "temperature", "max_tokens", None, id="unknown"),
        pytest.param("", "temperature", "max_tokens", None, id="empty"),
    ],
)
def test_packaged_table_knows_the_fields(model: str, temperature: str | None, limit: str, effort: str | None) -> None:
    """The first row whose pattern matches holds."""
    found = load_capabilities().find(model)
    assert found.chat_field("temperature") == temperature
    assert found.chat_field("max_output_tokens") == limit
    assert found.chat_field("reasoning_effort") == effort
    assert found.chat_field("retrieval_k") is None


@pytest.mark.parametrize(
    ("model", "value", "word"),
    [
        pytest.param("gpt-5", 0.0, "minimal", id="least"),
        pytest.param("gpt-5", 0.11, "low", id="rounded-up"),
        pytest.param("gpt-5", 0.33, "low", id="exact"),
        pytest.param("gpt-5", 0.34, "medium", id="just-above"),
        pytest.param("gpt-5", 0.9, "high", id="high"),
        pytest.param("gpt-5", 1.0, "high", id="past-the-strongest"),
        pytest.param("o3", 0.0, "low", id="weakest-that-it-has"),
        pytest.param("gpt-5.1", 0.0, "none", id="none"),
    ],
)
def test_effort_becomes_a_word_that_is_never_looser(model: str, value: float, word: str) -> None:
    """Higher is tighter, so a number is rounded up to the next word."""
    assert load_capabilities().find(model).encode("reasoning_effort", value) == word


def test_verbosity_becomes_the_nearest_word() -> None:
    """It has no tighter direction."""
    found = load_capabilities().find("gpt-5")
    assert [found.encode("verbosity", value) for value in (0, 0.24, 0.26, 0.8, 1)] == [
        "low",
        "low",
        "medium",
        "high",
        "high",
    ]


@pytest.mark.parametrize(
    ("parameter", "field", "value", "expected"),
    [
        pytest.param("temperature", "temperature", 1, 1, id="whole"),
        pytest.param("temperature", "temperature", 0.5, 0.5, id="fraction"),
        pytest.param("max_output_tokens", "max_tokens", 5, 5, id="tokens"),
        pytest.param("reasoning_effort", "reasoning_effort", "high", 0.9, id="word"),
        pytest.param("reasoning_effort", "reasoning_effort", 0.4, 0.4, id="effort-as-a-number"),
        pytest.param("temperature", "temperature", True, None, id="bool"),
        pytest.param("temperature", "temperature", "1", None, id="text"),
        pytest.param("temperature", "temperature", None, None, id="null"),
        pytest.param("temperature", "temperature", float("nan"), None, id="nan"),
        pytest.param("temperature", "temperature", float("inf"), None, id="inf"),
        pytest.param("temperature", "temperature", -1e300, None, id="out-of-range"),
        pytest.param("max_output_tokens", "max_tokens", 5.0, None, id="tokens-fraction"),
        pytest.param("max_output_tokens", "max_tokens", 10**30, None, id="tokens-endless"),
        pytest.param("reasoning_effort", "reasoning_effort", "ultra", None, id="unknown-word"),
        pytest.param("reasoning_effort", "reasoning_effort", ["high"], None, id="list"),
    ],
)
def test_callers_value_is_read_or_refused(parameter: str, field: str, value: Any, expected: float | None) -> None:
    """A refusal names the field as the caller wrote it."""
    if expected is not None:
        assert decode(parameter, field, value) == expected
        return
    with pytest.raises(InvalidRequest) as caught:
        decode(parameter, field, value)
    assert caught.value.param == field


def test_word_of_another_provider_is_told_apart() -> None:
    """Only parameters that take words have foreign ones."""
    assert is_foreign_word("reasoning_effort", "ultra") and not is_foreign_word("reasoning_effort", "low")
    assert not is_foreign_word("temperature", "hot")


def test_operators_rows_come_first(tmp_path: Path) -> None:
    """A row of one's own overrides the packaged ones, for numbers too."""
    path = tmp_path / "own.yaml"
    path.write_text('models:\n  - {match: "gpt-4o*", refuses: [top_p], reasoning_effort: number}\n', "utf-8")
    table = load_capabilities(path)
    assert table.find("gpt-4o").chat_field("top_p") is None
    assert table.find("gpt-4o").encode("reasoning_effort", 0.42) == 0.42
    assert table.find("gpt-5").chat_field("temperature") is None


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("models: [", id="no-yaml"),
        pytest.param("", id="empty"),
        pytest.param("models: 5", id="number"),
        pytest.param("models:\n  - {}", id="without-match"),
        pytest.param("models:\n  - {match: x, refuse: [top_p]}", id="unknown-field"),
        pytest.param("models:\n  - {match: x, refuses: [top_k]}", id="unknown-parameter"),
        pytest.param("models:\n  - {match: x, reasoning_effort: [mighty]}", id="unknown-word"),
        pytest.param("models:\n  - {match: x, reasoning_effort: [high, low]}", id="words-out-of-order"),
        pytest.param("models:\n  - {match: x, max_output_tokens: tokens}", id="unknown-limit-field"),
        pytest.param(None, id="absent"),
    ],
)
def test_wrong_capability_file_is_refused(tmp_path: Path, text: str | None) -> None:
    """At load, not at the first call."""
    path = tmp_path / "own.yaml"
    if text is not None:
        path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError):
        load_capabilities(path)
