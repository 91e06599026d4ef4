"""Prompt styles in the request: the preamble, the prefix and the stop sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import QUESTION, Gateway, Serve

SYSTEM = {"role": "system", "content": "You are a librarian."}
DEVELOPER = {"role": "developer", "content": "Use metric units."}
RISK = {"X-Lukhas-Signals": "alignment_risk=0.5"}


def _roles(gateway: Gateway) -> list[str]:
    return [message["role"] for message in gateway.sent()["messages"]]


def test_preamble_stands_after_the_callers_own_instructions(gateway: Gateway) -> None:
    """The strict style's preamble follows the leading system items, in the role of the last one."""
    gateway.chat({"messages": [SYSTEM, DEVELOPER, *QUESTION]}, RISK)
    messages = gateway.sent()["messages"]
    assert messages[:2] == [SYSTEM, DEVELOPER] and messages[3:] == QUESTION
    assert messages[2]["role"] == "developer"
    assert messages[2]["content"].startswith("Answer with particular care.")


def test_preamble_without_instructions_comes_first(gateway: Gateway) -> None:
    """Where the caller has no system item, the preamble is one."""
    gateway.chat(None, RISK)
    assert _roles(gateway) == ["system", "user"]


def test_preamble_with_only_instructions_comes_last(gateway: Gateway) -> None:
    """A request of nothing but system items keeps their order."""
    gateway.chat({"messages": [SYSTEM]}, RISK)
    assert gateway.sent()["messages"][0] == SYSTEM and len(_roles(gateway)) == 2


def test_later_system_item_is_not_moved(gateway: Gateway) -> None:
    """Only leading instructions count as the caller's own preamble."""
    gateway.chat({"messages": [*QUESTION, SYSTEM, *QUESTION]}, RISK)
    assert _roles(gateway) == ["system", "user", "system", "user"]


@pytest.fixture
def styled(serve: Serve, tmp_path: Path) -> Gateway:
    """A gateway whose focused style has a prefix and stop sequences."""
    from importlib import resources

    text = resources.files("lukhas.modulation").joinpath("modulation_policy.yaml").read_text("utf-8")
    before = "preamble: Be brief. Answer the question first and leave out what it does not need."
    assert before in text
    path = tmp_path / "policy.yaml"
    path.write_text(text.replace(before, 'prefix: "Briefly: "\n    stop: ["END", "###"]'), "utf-8")
    return serve(policy=path, on_unmoderated="record")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        pytest.param([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Briefly: Hi"}], id="text"),
        pytest.param(
            [
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": ""},
            ],
            [
                {"role": "user", "content": "One"},
                {"role": "assistant", "content": "1"},
                {"role": "user", "content": "Briefly: "},
            ],
            id="the-last-user-text",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url"},
                        {"type": "text", "text": "a", "x": 1},
                        {"type": "text", "text": "b"},
                    ],
                }
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url"},
                        {"type": "text", "text": "Briefly: a", "x": 1},
                        {"type": "text", "text": "b"},
                    ],
                }
            ],
            id="first-text-part",
        ),
        pytest.param(
            [{"role": "user", "content": "Hi"}, {"role": "user", "content": [{"type": "image_url"}]}],
            [{"role": "user", "content": "Briefly: Hi"}, {"role": "user", "content": [{"type": "image_url"}]}],
            id="picture-without-text",
        ),
        pytest.param([{"role": "user", "content": None}], [{"role": "user", "content": None}], id="no-content"),
        pytest.param([{"role": "tool", "content": "x"}], [{"role": "tool", "content": "x"}], id="no-user"),
        pytest.param(
            [{"role": "user", "content": [None, 5, {"type": "text", "text": 5}]}],
            [{"role": "user", "content": [None, 5, {"type": "text", "text": 5}]}],
            id="parts-of-odd-shapes",
        ),
    ],
)
def test_prefix_stands_before_the_last_user_text(styled: Gateway, messages: list[Any], expected: list[Any]) -> None:
    """Nothing else of the conversation changes."""
    styled.chat({"messages": messages}, {"X-Lukhas-Signals": "stress=0.9"})
    assert styled.sent()["messages"] == expected


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(None, ["END", "###"], id="none"),
        pytest.param("stop", ["stop", "END", "###"], id="one-text"),
        pytest.param([], ["END", "###"], id="empty"),
        pytest.param(["###"], ["###", "END"], id="same-again"),
        pytest.param(["a", "b", "c"], ["a", "b", "c", "END"], id="room-for-one"),
        pytest.param(["a", "b", "c", "d"], ["a", "b", "c", "d"], id="full"),
        pytest.param(["a", "b", "c", "d", "e"], ["a", "b", "c", "d", "e"], id="too-many-are-the-upstreams-to-judge"),
    ],
)
def test_stop_sequences_of_the_caller_come_first(styled: Gateway, own: Any, expected: list[str]) -> None:
    """Upstreams take four; the style's are added while there is room."""
    styled.chat({"stop": own}, {"X-Lukhas-Signals": "stress=0.9"})
    assert styled.sent()["stop"] == expected
