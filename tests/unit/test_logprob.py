"""Logprobs: no token of a match is released, in its text, its bytes or its alternatives."""

from __future__ import annotations

from typing import Any

import pytest
from chat_scene import DONE, MARK, FakeGuard, event, piece, release, run
from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas.openai.chat import ChatDialect
from lukhas.openai.logprob import LogprobGuard

TOKENS = st.lists(st.sampled_from(["S", "SE", "SEC", "RET", "HID", "DEN", "a ", "\u00e9", "T"]), min_size=1, max_size=8)


def entry(token: str, *alternatives: str, **fields: Any) -> dict[str, Any]:
    top = [{"token": one, "bytes": list(one.encode()), "logprob": -2.0} for one in alternatives]
    return {"token": token, "bytes": list(token.encode()), "logprob": -0.5, "top_logprobs": top, **fields}


@settings(max_examples=150)
@given(TOKENS, st.data())
def test_logprob_entries_go_out_with_their_text(tokens: list[str], data: st.DataObject) -> None:
    """At any time the released tokens are the beginning of what may be released; clean ones arrive unchanged."""
    alternatives = data.draw(
        st.lists(st.lists(st.sampled_from(["x", "SEC", "RET"]), max_size=2), min_size=8, max_size=8)
    )
    entries = [entry(token, *more) for token, more in zip(tokens, alternatives, strict=False)]
    guard, released = LogprobGuard(FakeGuard()), []
    for one in entries:
        released += (guard.feed({"content": [one], "refusal": None}) or {}).get("content", [])
        text, _ = release("".join(tokens))
        assert text.startswith("".join(each["token"] for each in released))
        said = "".join((each["top_logprobs"] or [{"token": "|"}])[0]["token"] for each in released)
        assert "SECRET" not in said
    released += (guard.finish() or {}).get("content", [])
    joined = "".join(tokens)
    assert guard.is_blocked is release(joined)[1]
    if release(joined) == (joined, False):
        assert [each["token"] for each in released] == tokens
        if not any("SEC" in more for more in alternatives):
            assert released == entries


@pytest.mark.parametrize(
    ("token", "given_bytes", "kept"),
    [
        pytest.param("é", [0xC3, 0xA9], True, id="its-own"),
        pytest.param("a", [0x62], False, id="another-letter"),
        pytest.param("a", None, False, id="none"),
        pytest.param("a", "a", False, id="text"),
        pytest.param("\\xe2\\x9c", [0xE2, 0x9C], True, id="escape"),
        pytest.param("bytes:\\xe2\\x9c", [0xE2, 0x9C], True, id="escape-with-prefix"),
        pytest.param("\\xe2", [0x53], False, id="escape-of-others"),
        pytest.param("\\x53", [0x53], False, id="escape-of-a-letter"),
    ],
)
def test_logprob_bytes_must_be_those_of_the_token(token: str, given_bytes: Any, kept: bool) -> None:
    """Bytes that say something else would be a text of their own."""
    released = LogprobGuard(FakeGuard()).feed({"content": [{"token": token, "bytes": given_bytes, "logprob": 0.0}]})
    assert released is not None and released["content"][0]["bytes"] == (given_bytes if kept else None)


def test_logprob_alternatives_go_where_they_spell_a_match() -> None:
    """What might have been said ends no answer, and is not told either."""
    guard = LogprobGuard(FakeGuard())
    assert guard.feed({"content": [entry("a", "x", "SEC"), entry("b", "x", "RET")]}) == {
        "content": [entry("a"), entry("b")]
    }
    assert guard.feed({"content": [entry("c", "y")]}) == {"content": [entry("c")]} and not guard.is_blocked


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(["x"], id="list"),
        pytest.param({"content": "SECRET"}, id="text"),
        pytest.param({"tokens": ["a"], "top_logprobs": [{"SECRET": -1.0}]}, id="older-form"),
        pytest.param({"content": [{"token": 5}]}, id="token-number"),
        pytest.param({"content": [{"token": "a", "top_logprobs": [{"SECRET": 1}]}]}, id="alternative-without-token"),
        pytest.param({"content": [{"token": "a", "top_logprobs": {"a": 1}}]}, id="alternatives-no-list"),
    ],
)
def test_logprob_of_another_form_is_dropped(value: Any) -> None:
    """What cannot be read is not passed on, nor is what follows it."""
    guard = LogprobGuard(FakeGuard())
    assert guard.feed(value) is None and guard.feed({"content": [entry("a")]}) is None and guard.finish() is None


def test_logprob_unknown_strings_of_an_entry_go() -> None:
    """Numbers stay."""
    released = LogprobGuard(FakeGuard()).feed({"content": [entry("a", note="SECRET", token_id=7)]})
    assert released == {"content": [entry("a", token_id=7)]}


def test_logprob_stream_is_withheld_with_its_text() -> None:
    """A token that waits keeps its entry waiting; a match ends the choice before either is told."""

    def token(text: str) -> bytes:
        return event(
            [{"index": 0, "delta": {"content": text}, "logprobs": {"content": [entry(text)], "refusal": None}}]
        )

    stream = run([token("a"), token("SEC"), token("OND"), piece({}, reason="stop"), DONE])
    assert stream.events[0] == token("a") and stream.choice()["delta"]["content"] == "aSECOND"
    assert [one["token"] for one in stream.choice()["logprobs"]["content"]] == ["a", "SEC", "OND"]
    stream = run([token("a"), token("SEC"), token("RET"), piece({}, reason="stop"), DONE])
    assert stream.choice()["reasons"] == ["content_filter"] and b"SEC" not in b"".join(stream.events)
    stream = run([token("a"), token("HIDDEN"), token("b"), piece({}, reason="stop"), DONE])
    assert stream.choice()["delta"]["content"] == f"a{MARK}b"
    assert [one["token"] for one in stream.choice()["logprobs"]["content"]] == ["a"]


@pytest.mark.parametrize(
    ("tokens", "reason", "kept"),
    [
        pytest.param(["a", "SE"], "stop", True, id="clean"),
        pytest.param(["HID", "DEN"], "stop", False, id="redacted"),
        pytest.param(["SEC", "RET"], "content_filter", False, id="blocked"),
    ],
)
def test_logprob_of_a_plain_answer_are_guarded(tokens: list[str], reason: str, kept: bool) -> None:
    """Even where the content beside them says nothing."""
    logprobs = {"content": [entry(token) for token in tokens], "refusal": None}
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": ""},
        "logprobs": logprobs,
        "finish_reason": "stop",
    }
    answer: dict[str, Any] = {"choices": [choice]}
    assert ChatDialect().guard_answer(answer, FakeGuard()) is not kept
    assert answer["choices"][0]["finish_reason"] == reason
    assert answer["choices"][0]["logprobs"] == (logprobs if kept else None)
