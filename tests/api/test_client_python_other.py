"""The official Python client: embeddings, moderations, models, raw answers, and what the gateway adds."""

from __future__ import annotations

import json
from typing import Any

import client_scene
import openai
import pytest
import upstream_shape as shape
from client_scene import ADMIN_KEY, FORBIDDEN, HIDDEN, HIDDEN_SHOWN, Scene
from conftest import QUESTION

stage, scene = client_scene.stage(), client_scene.scene()
ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": QUESTION}
# Exact in four bytes, so that base64 gives back the very same numbers.
VECTOR = [0.5, -0.25, 0.0, 1.0]


@pytest.mark.parametrize("encoding", [None, "float", "base64"])
def test_embeddings_come_back_as_numbers(scene: Scene, encoding: Any) -> None:
    """The client asks for base64 by itself and decodes it; what was asked for explicitly is left alone."""
    scene.answer(shape.embedding(VECTOR, VECTOR[::-1], as_base64=encoding != "float"))
    more = {} if encoding is None else {"encoding_format": encoding}
    answer = scene.gateway.client().embeddings.create(
        model="text-embedding-3-small", input=["a heron", "a stork"], dimensions=4, **more
    )
    vectors: list[Any] = [entry.embedding for entry in answer.data]
    expected: list[Any] = [VECTOR, VECTOR[::-1]]
    if encoding == "base64":
        expected = [entry["embedding"] for entry in shape.embedding(*expected, as_base64=True)["data"]]
    assert vectors == expected and answer.usage.prompt_tokens == 8
    sent = scene.gateway.sent()
    assert (sent["input"], sent["dimensions"]) == (["a heron", "a stork"], 4)
    assert sent["encoding_format"] == (encoding or "base64")


def test_embedding_input_is_screened(scene: Scene) -> None:
    """Redacted where a rule says so, refused where another does; each text of the list counts."""
    client = scene.gateway.client(max_retries=2)
    scene.answer(shape.embedding(VECTOR, VECTOR, as_base64=True))
    client.embeddings.create(model="text-embedding-3-small", input=["heron", f"the {HIDDEN}"])
    assert scene.gateway.sent()["input"] == ["heron", f"the {HIDDEN_SHOWN}"]
    with pytest.raises(openai.PermissionDeniedError):
        client.embeddings.create(model="text-embedding-3-small", input=["heron", FORBIDDEN])
    assert scene.calls == 1


def test_moderation_verdict_comes_back_whole(scene: Scene) -> None:
    """Flags and scores are the upstream's, under the names with slashes too."""
    scene.answer(shape.moderation())
    (result,) = scene.gateway.client().moderations.create(input="a fight", model="omni-moderation-latest").results
    assert result.flagged and result.categories.violence and not result.categories.hate
    assert result.category_scores.violence == 0.91 and result.category_scores.violence_graphic == 0.0001
    assert scene.gateway.sent() == {"input": "a fight", "model": "omni-moderation-latest"}


def test_moderation_of_forbidden_text_is_not_refused(scene: Scene) -> None:
    """Who asks what a text is must be told, not turned away."""
    scene.answer(shape.moderation())
    assert scene.gateway.client().moderations.create(input=f"a {FORBIDDEN}").results[0].flagged


def test_models_are_listed_and_retrieved(scene: Scene) -> None:
    """The list iterates by itself; a fine-tuned model's name with colons arrives as it is."""
    client = scene.gateway.client()
    scene.answer(shape.models("gpt-4.1", "gpt-4.1-mini"))
    assert [model.id for model in client.models.list()] == ["gpt-4.1", "gpt-4.1-mini"]
    name = "ft:gpt-4.1-mini:acme::9xYz"
    scene.answer(shape.model(name))
    assert client.models.retrieve(name).model_dump(exclude_unset=True) == shape.model(name)


def test_raw_responses_show_what_the_gateway_says(scene: Scene) -> None:
    """Every X-Lukhas header, the upstream's own numbers, and the parsed answer beside them."""
    scene.answer(shape.chat("Hi."), headers={"x-lukhas-mode": "forged", "set-cookie": "a=b"})
    raw = scene.gateway.client().chat.completions.with_raw_response.create(**ASK)
    assert raw.headers["x-lukhas-audit-id"].startswith("aud_") and raw.headers["x-lukhas-policy"].startswith("pol_")
    assert (raw.headers["x-lukhas-mode"], raw.headers["x-lukhas-safety-mode"]) == ("enforce", "balanced")
    assert isinstance(json.loads(raw.headers["x-lukhas-parameters"]), dict)
    assert raw.headers["x-upstream-request-id"] == "req_up_1" and raw.headers["openai-version"] == "2020-10-01"
    assert "set-cookie" not in raw.headers and raw.parse().choices[0].message.content == "Hi."


def test_raw_streamed_response_shows_them_too(scene: Scene) -> None:
    """Headers are there before the first chunk; the stream is parsed from the same answer."""
    scene.stream_response([shape.message("A heron.")])
    raw = scene.gateway.client().responses.with_raw_response.create(model="m", input="Hi", stream=True)
    assert raw.headers["x-lukhas-audit-id"].startswith("aud_")
    assert raw.headers["content-type"].startswith("text/event-stream")
    assert [event.type for event in raw.parse()][-1] == "response.completed"
    assert scene.outcome(raw.headers["x-lukhas-audit-id"])["usage"]["total_tokens"] == 123


def test_streaming_response_reads_lines_until_done(scene: Scene) -> None:
    """`with_streaming_response` sees whole events, [DONE] last."""
    scene.stream_chat("A ", "heron.")
    with scene.gateway.client().chat.completions.with_streaming_response.create(**ASK, stream=True) as response:
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[1][6:])["choices"][0]["delta"] == {"content": "A "}


def test_extra_headers_and_body_steer_the_call(scene: Scene) -> None:
    """Signals by header and body tighten this call; nothing of them reaches the upstream."""
    client = scene.gateway.client(default_headers={"X-Team": "blue", "OpenAI-Project": "proj_1"})
    scene.answer(shape.chat("Hi."))
    raw = client.chat.completions.with_raw_response.create(
        **ASK,
        temperature=0.9,
        extra_headers={"X-Lukhas-Signals": "stress=0.7"},
        extra_body={"lukhas": {"signals": {"alignment_risk": 0.8}}},
    )
    assert raw.headers["x-lukhas-safety-mode"] == "strict"
    received = scene.upstream.requests[-1]
    assert received.json["temperature"] == pytest.approx(0.28)
    assert "lukhas" not in received.json and received.headers["openai-project"] == "proj_1"
    assert not {"x-lukhas-signals", "x-team", "x-stainless-lang"} & received.headers.keys()
    assert ADMIN_KEY not in str(received.headers)


def test_violation_makes_the_next_call_strict(scene: Scene) -> None:
    """The same user's next call is tightened at once; another user's is not."""
    client = scene.gateway.client(scene.gateway.key(tenant="strict-tenant"))
    scene.answer(shape.chat(f"The {FORBIDDEN}."))
    answer = client.chat.completions.create(**ASK, safety_identifier="user-a")
    assert answer.choices[0].finish_reason == "content_filter"
    modes = []
    for user in ("user-a", "user-b"):
        scene.answer(shape.chat("Hi."))
        raw = client.chat.completions.with_raw_response.create(**ASK, safety_identifier=user)
        modes.append(raw.headers["x-lukhas-safety-mode"])
    assert modes == ["strict", "balanced"]
