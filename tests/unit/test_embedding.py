"""Embeddings and moderations: what they bring to a model, and that their answers hold no unguarded string."""

from __future__ import annotations

import json
from typing import Any

import pytest
from chat_scene import MARK, FakeGuard

from lukhas.errors import InvalidRequest, UpstreamBroken
from lukhas.openai.call import Call, Dialect
from lukhas.openai.classification import ClassificationDialect
from lukhas.openai.embedding import EmbeddingDialect
from lukhas.openai.wire import AnswerSummary

EMBEDDING, CLASSIFICATION = EmbeddingDialect(), ClassificationDialect()
BOTH = pytest.mark.parametrize(
    "dialect", [pytest.param(EMBEDDING, id="embeddings"), pytest.param(CLASSIFICATION, id="moderations")]
)


def parse(dialect: Dialect, **fields: Any) -> Call:
    return dialect.parse(json.dumps({"model": "m", **fields}).encode())


@BOTH
@pytest.mark.parametrize(
    ("given", "texts"),
    [
        pytest.param("one text", ["one text"], id="text"),
        pytest.param(["a", "b"], ["a", "b"], id="list"),
        pytest.param([{"type": "text", "text": "a b"}], ["a b"], id="parts"),
        pytest.param([{"unheard": ["of it"]}], ["of it"], id="unknown"),
    ],
)
def test_embedding_and_moderation_input_is_text(dialect: Dialect, given: Any, texts: list[str]) -> None:
    """Every string of the input, and of any other field."""
    call = parse(dialect, input=given, user="jo", other={"x": "more text"}, lukhas={"session": "s"})
    assert [t.text for t in call.texts] == [*texts, "jo", "more text"] and {t.point for t in call.texts} == {"input"}
    assert call.dialect == dialect.name and call.upstream_path == f"/{dialect.name}" and not call.stream
    assert call.end_user == "jo" and call.extension.session == "s" and "lukhas" not in call.body


@pytest.mark.parametrize("given", [[1, 2], [[1, 2], [3]], ["text", [4]]])
def test_embedding_of_tokens_is_media(given: Any) -> None:
    """Numbers stand for text that no moderator can read."""
    assert [media.path for media in parse(EMBEDDING, input=given).media] == [("input",)]


def test_moderation_of_an_image_notes_it() -> None:
    """An address is text as well as media."""
    image = {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}
    call = parse(CLASSIFICATION, input=[{"type": "text", "text": "a"}, image])
    assert [media.kind for media in call.media] == ["image"]
    assert [text.text for text in call.texts] == ["a", "https://example.org/a.png"]


@BOTH
@pytest.mark.parametrize("given", [None, "", [], 5, {"x": 1}])
def test_embedding_and_moderation_without_input_are_refused(dialect: Dialect, given: Any) -> None:
    """Missing, empty, or of another type."""
    with pytest.raises(InvalidRequest) as wrong:
        parse(dialect, input=given)
    assert wrong.value.param == "input"


def test_only_moderation_needs_no_model() -> None:
    """The upstream has one of its own."""
    assert CLASSIFICATION.parse(b'{"input": "a"}').model == ""
    for dialect, raw in ((EMBEDDING, b'{"input": "a"}'), (CLASSIFICATION, b'{"input": "a", "model": 5}')):
        with pytest.raises(InvalidRequest) as wrong:
            dialect.parse(raw)
        assert wrong.value.param == "model"


@BOTH
def test_embedding_and_moderation_take_no_style_and_no_stream(dialect: Dialect) -> None:
    """A prefix would change what is measured; an event stream is nothing that could be guarded."""
    assert dialect.add_style({"input": "a"}, preamble="p", prefix="q", stop=("s",)) == {}
    with pytest.raises(UpstreamBroken):
        dialect.open_stream(FakeGuard(), AnswerSummary())


def test_embedding_answer_keeps_numbers_and_loses_matches() -> None:
    """Numbers as a list or in base64 are no text; a string that nobody knows is."""
    entries = [
        {"object": "embedding", "index": 0, "embedding": [0.5]},
        {"object": "embedding", "index": 1, "embedding": "SECRET"},
        {"object": "embedding", "index": 2, "embedding": "AAAA", "note": "SECRET"},
    ]
    answer = {"object": "list", "data": entries, "model": "m", "usage": {"total_tokens": 3}, "note": "a HIDDEN"}
    assert EMBEDDING.guard_answer(answer, FakeGuard())
    assert answer["data"][1]["embedding"] == "SECRET" and "note" not in answer["data"][2]
    assert answer["data"][2] == {"object": "embedding", "index": 2, "embedding": "AAAA"}
    assert answer["note"] == f"a {MARK}"
    summary = AnswerSummary()
    EMBEDDING.summarise(answer, summary)
    assert summary.usage == {"total_tokens": 3} and summary.model == "m"
    clean = {"object": "list", "data": entries[:2], "model": "m"}
    assert not EMBEDDING.guard_answer(clean, FakeGuard())


@pytest.mark.parametrize("data", ["x", [5], {"a": 1}])
def test_embedding_answer_that_cannot_be_read_is_broken(data: Any) -> None:
    """What cannot be read cannot be guarded."""
    with pytest.raises(UpstreamBroken):
        EMBEDDING.guard_answer({"data": data}, FakeGuard())


def test_moderation_answer_is_guarded_where_it_holds_text() -> None:
    """Categories and scores pass as they are."""
    result = {"flagged": True, "categories": {"hate": True}, "category_applied_input_types": {"hate": ["text"]}}
    answer: dict[str, Any] = {"id": "modr-1", "model": "m", "results": [result]}
    before = json.dumps(answer)
    assert not CLASSIFICATION.guard_answer(answer, FakeGuard()) and json.dumps(answer) == before
    assert CLASSIFICATION.guard_answer(answer | {"x": 1, "explanation": "SECRET"}, FakeGuard())
