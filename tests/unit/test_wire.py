"""Chat requests as they are read and written, and what a record says of an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas.errors import InvalidRequest
from lukhas.openai.chat import ChatDialect
from lukhas.openai.wire import AnswerSummary, encode_json, error_body, parse_json_object

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**200), 2**200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_object_is_written_as_it_was_read(value: dict[str, Any]) -> None:
    """Numbers of any size, any text, any depth: reading and writing change nothing."""
    raw = json.dumps(value).encode()
    assert json.loads(encode_json(parse_json_object(raw))) == json.loads(raw)


@pytest.mark.parametrize("digits", [18, 19, 20, 21, 40])
@pytest.mark.parametrize("sign", ["", "-"])
def test_whole_number_keeps_every_digit(digits: int, sign: str) -> None:
    """On either side of 64 bits."""
    text = sign + "9" * digits
    assert parse_json_object(f'{{"n": {text}}}'.encode())["n"] == int(text)


def test_chat_call_keeps_unknown_fields_and_drops_the_extension() -> None:
    """What is not ours is not touched."""
    raw = {"model": "m", "messages": [{"role": "user"}], "x": {"y": None}, "stream": True, "lukhas": {"task": "t"}}
    call = ChatDialect().parse(json.dumps(raw).encode())
    del raw["lukhas"]
    assert call.body == raw and call.stream and call.extension.task == "t" and call.end_user is None


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        pytest.param({"user": "a"}, "a", id="user"),
        pytest.param({"user": "a", "safety_identifier": "b"}, "b", id="safety-identifier-first"),
        pytest.param({"user": "a", "safety_identifier": ""}, "a", id="empty-is-nobody"),
        pytest.param({"user": "a", "lukhas": {"user": "c"}}, "c", id="extension-first"),
        pytest.param({"user": None}, None, id="null"),
    ],
)
def test_end_user_is_the_nearest_name(fields: dict[str, Any], user: str | None) -> None:
    """Ours, then the newer field, then the older."""
    raw = {"model": "m", "messages": [{"role": "user"}], **fields}
    assert ChatDialect().parse(json.dumps(raw).encode()).end_user == user


def test_half_a_character_names_nobody() -> None:
    """A lone surrogate cannot be stored or sent."""
    from lukhas.openai.wire import check_subject

    with pytest.raises(InvalidRequest):
        check_subject("\ud800", "session")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param([1], id="list"),
        pytest.param({"choices": 5, "usage": [], "model": 7}, id="wrong-types"),
        pytest.param({"choices": [None, 5, {}], "usage": {"a": "b", "c": True, "d" * 65: 1}}, id="wrong-entries"),
    ],
)
def test_summary_of_an_odd_answer_is_empty(value: Any) -> None:
    """An upstream's mistakes do not become ours."""
    summary = AnswerSummary()
    summary.add(value)
    assert not summary.finish_reasons and not summary.usage and summary.model is None


def test_summary_gathers_over_chunks() -> None:
    """Reasons by choice, the last counts, the first model."""
    summary = AnswerSummary()
    summary.add({"model": "m", "choices": [{"index": 1, "finish_reason": "stop"}]})
    summary.add({"model": "n", "choices": [{"finish_reason": "length"}], "usage": {"total_tokens": 1}})
    summary.add({"choices": [{"index": "x", "finish_reason": None}], "usage": None})
    summary.add({"choices": [], "usage": {"total_tokens": 9, "details": {}}})
    assert summary.finish_reasons == {1: "stop", 0: "length"}
    assert summary.usage == {"total_tokens": 9} and summary.model == "m"
    assert AnswerSummary().finish_reasons == {}


def test_error_body_has_four_members() -> None:
    """As OpenAI's clients read it."""
    assert json.loads(error_body("No.", kind="k", code="c")) == {
        "error": {"message": "No.", "type": "k", "param": None, "code": "c"}
    }
