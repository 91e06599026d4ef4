"""The official Python client, chat completions: every call here goes through a live gateway."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import client_scene
import openai
import pydantic
import pytest
import upstream_shape as shape
from client_scene import ADMIN_KEY, CHAT_TOOLS, EXEC, FORBIDDEN, HIDDEN, HIDDEN_SHOWN, Scene
from conftest import QUESTION

stage, scene = client_scene.stage(), client_scene.scene()
ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "messages": QUESTION}
HERON = shape.tool_call("retrieve_knowledge", {"query": "heron", "k": 3}, "call_1")
PAGE = shape.tool_call("open_url", {"url": "https://birds.example/heron"}, "call_2")
PROGRAM = shape.tool_call("exec_code", {"source": "print(1)"}, "call_3")


class Bird(pydantic.BaseModel):
    name: str
    wingspan_cm: int


def text_of(chunks: list[Any], index: int = 0) -> str:
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index)


def test_plain_answer_keeps_every_field(scene: Scene) -> None:
    """Id, model, usage with its details, tier and fingerprint come back as OpenAI sent them."""
    scene.answer(shape.chat("A heron is a bird."))
    answer = scene.gateway.client().chat.completions.create(**ASK)
    assert answer.model_dump(exclude_unset=True) == shape.chat("A heron is a bird.")
    assert answer._request_id is not None and answer._request_id.startswith("req_")


def test_several_choices_come_back_in_order(scene: Scene) -> None:
    """`n` is sent on, and each choice is its own."""
    scene.answer(shape.chat(choices=[shape.choice(f"Heron {i}.", i) for i in range(3)]))
    answer = scene.gateway.client().chat.completions.create(**ASK, n=3)
    assert [(c.index, c.message.content) for c in answer.choices] == [(i, f"Heron {i}.") for i in range(3)]
    assert scene.gateway.sent()["n"] == 3


def test_one_blocked_choice_leaves_the_others_whole(scene: Scene) -> None:
    """The blocked one is refused with content_filter; its neighbours are not touched."""
    texts = ["A grey heron.", f"Here: {FORBIDDEN}.", "A night heron."]
    scene.answer(shape.chat(choices=[shape.choice(text, i) for i, text in enumerate(texts)]))
    first, blocked, last = scene.gateway.client().chat.completions.create(**ASK, n=3).choices
    assert (first.message.content, last.message.content) == (texts[0], texts[2])
    assert (first.finish_reason, blocked.finish_reason) == ("stop", "content_filter")
    assert blocked.message.content is None and "forbidden-bird" in (blocked.message.refusal or "")


def test_logprobs_come_back_token_by_token(scene: Scene) -> None:
    """Tokens, numbers, bytes and alternatives are unchanged."""
    tokens = [shape.logprob("A", "An"), shape.logprob(" heron", " bird")]
    scene.answer(shape.chat("A heron", logprobs={"content": tokens, "refusal": None}))
    answer = scene.gateway.client().chat.completions.create(**ASK, logprobs=True, top_logprobs=2)
    found = answer.choices[0].logprobs
    assert found is not None and [entry.model_dump() for entry in found.content or []] == tokens


def test_stream_gives_each_chunk_and_the_usage(scene: Scene) -> None:
    """Text, finish reason and the usage chunk without choices arrive in order."""
    scene.stream_chat("A ", "grey ", "heron.", usage=True)
    stream = scene.gateway.client().chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert text_of(chunks) == "A grey heron."
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump(exclude_unset=True) == shape.CHAT_USAGE
    assert {chunk.id for chunk in chunks} == {shape.CHAT_ID}


def test_streamed_choices_are_told_apart(scene: Scene) -> None:
    """Chunks of two choices, interleaved, keep their index."""
    one, two = shape.chat_chunks("grey ", "heron"), shape.chat_chunks("night ", "heron", index=1)
    scene.upstream.reply_events([chunk for pair in zip(one, two, strict=True) for chunk in pair])
    chunks = list(scene.gateway.client().chat.completions.create(**ASK, n=2, stream=True))
    assert (text_of(chunks), text_of(chunks, 1)) == ("grey heron", "night heron")


def test_streamed_logprobs_go_with_their_tokens(scene: Scene) -> None:
    """The tokens of the log probabilities spell the text."""
    scene.stream_chat("A", " grey", " heron", logprobs=True)
    chunks = list(scene.gateway.client().chat.completions.create(**ASK, stream=True, logprobs=True))
    entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content or []]
    assert "".join(entry.token for entry in entries) == text_of(chunks) == "A grey heron"


def test_stream_helper_accumulates_text(scene: Scene) -> None:
    """`chat.completions.stream` ends with the completion that its events were made of."""
    scene.stream_chat("A ", "grey ", "heron.", usage=True)
    with scene.gateway.client().chat.completions.stream(**ASK, stream_options={"include_usage": True}) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert "".join(deltas) == final.choices[0].message.content == "A grey heron."
    assert final.usage is not None and final.usage.total_tokens == 29


def test_plain_tool_calls_in_parallel_reach_the_caller(scene: Scene) -> None:
    """Two allowed calls come with their ids and arguments, byte for byte."""
    scene.answer(shape.chat(tool_calls=[HERON, PAGE]))
    answer = scene.gateway.client().chat.completions.create(**ASK, tools=CHAT_TOOLS, parallel_tool_calls=True)
    calls = answer.choices[0].message.tool_calls
    assert calls is not None and [call.model_dump(exclude_unset=True) for call in calls] == [HERON, PAGE]
    assert answer.choices[0].finish_reason == "tool_calls"


def test_streamed_tool_calls_are_assembled_by_the_helper(scene: Scene) -> None:
    """Arguments that came in pieces of four characters are whole, for both calls."""
    scene.stream_chat(tool_calls=[HERON, PAGE])
    with scene.gateway.client().chat.completions.stream(**ASK, tools=CHAT_TOOLS) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion().choices[0]
    assert [(event.name, event.arguments) for event in done] == [
        (call["function"]["name"], call["function"]["arguments"]) for call in (HERON, PAGE)
    ]
    assert final.finish_reason == "tool_calls"
    assert [call.id for call in final.message.tool_calls or []] == ["call_1", "call_2"]


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_blocked_tool_call_is_left_out_and_said(scene: Scene, stream: bool) -> None:
    """The call that is not allowed is gone, the other stays, and the refusal names what was blocked."""
    client = scene.gateway.client()
    if stream:
        scene.stream_chat(tool_calls=[PROGRAM, HERON])
        with client.chat.completions.stream(**ASK, tools=CHAT_TOOLS) as events:
            choice: Any = events.until_done().get_final_completion().choices[0]
    else:
        scene.answer(shape.chat(tool_calls=[PROGRAM, HERON]))
        choice = client.chat.completions.create(**ASK, tools=CHAT_TOOLS).choices[0]
    assert [call.id for call in choice.message.tool_calls or []] == ["call_1"]
    assert choice.message.tool_calls[0].function.arguments == HERON["function"]["arguments"]
    assert "exec_code" in choice.message.refusal and choice.finish_reason == "tool_calls"
    (blocked,) = scene.last_outcome()["moderation"]["blocked_calls"]
    assert blocked == {"tool": "exec_code", "rule": "not_allowed", "call_id": "call_3"}


def test_answer_of_blocked_calls_alone_is_filtered(scene: Scene) -> None:
    """No call and no text is left, so the answer ends as content_filter."""
    scene.answer(shape.chat(tool_calls=[PROGRAM]))
    choice = scene.gateway.client().chat.completions.create(**ASK, tools=CHAT_TOOLS).choices[0]
    assert not choice.message.tool_calls and choice.finish_reason == "content_filter"
    assert "exec_code" in (choice.message.refusal or "")


def test_stripped_tool_is_named_in_the_headers(scene: Scene) -> None:
    """The caller's own function outside the allowlist is not advertised, and the caller is told."""
    scene.answer(shape.chat("Hi."))
    tools = [*CHAT_TOOLS, {"type": "function", "function": EXEC}]
    raw = scene.gateway.client().chat.completions.with_raw_response.create(**ASK, tools=tools)
    assert raw.headers["x-lukhas-tools-stripped"] == "exec_code"
    assert scene.gateway.sent()["tools"] == CHAT_TOOLS
    assert raw.parse().choices[0].message.content == "Hi."


def test_tool_results_go_round(scene: Scene) -> None:
    """The model's call, its result and the final answer: one loop as applications write it."""
    client = scene.gateway.client()
    scene.answer(shape.chat(tool_calls=[HERON]))
    first = client.chat.completions.create(**ASK, tools=CHAT_TOOLS).choices[0].message
    messages: list[Any] = [
        *QUESTION,
        first.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": "call_1", "content": f"A wader, unlike the {HIDDEN}."},
    ]
    scene.answer(shape.chat("It wades."))
    second = client.chat.completions.create(model="gpt-4.1-mini", messages=messages, tools=CHAT_TOOLS)
    assert second.choices[0].message.content == "It wades."
    sent = scene.gateway.sent()["messages"]
    assert sent[-1]["content"] == f"A wader, unlike the {HIDDEN_SHOWN}."
    assert sent[1]["tool_calls"] == [HERON]


def test_parse_gives_the_model_of_the_schema(scene: Scene) -> None:
    """`parse` sends the JSON schema on whole and reads the answer back into its type."""
    scene.answer(shape.chat('{"name":"Grey heron","wingspan_cm":175}'))
    parsed = scene.gateway.client().chat.completions.parse(**ASK, response_format=Bird)
    assert parsed.choices[0].message.parsed == Bird(name="Grey heron", wingspan_cm=175)
    sent = scene.gateway.sent()["response_format"]
    assert sent["json_schema"]["name"] == "Bird" and sent["json_schema"]["strict"] is True
    assert set(sent["json_schema"]["schema"]["properties"]) == {"name", "wingspan_cm"}


def test_streamed_parse_gives_the_model_of_the_schema(scene: Scene) -> None:
    """The stream helper parses what it has gathered."""
    scene.stream_chat('{"name":"Grey', ' heron","wings', 'pan_cm":175}')
    with scene.gateway.client().chat.completions.stream(**ASK, response_format=Bird) as stream:
        final = stream.until_done().get_final_completion()
    assert final.choices[0].message.parsed == Bird(name="Grey heron", wingspan_cm=175)


def test_redacted_structured_answer_still_parses(scene: Scene) -> None:
    """A redaction inside a JSON string leaves the JSON whole."""
    scene.stream_chat('{"name":"quok', "ka-wr", 'en","wingspan_cm":9}')
    with scene.gateway.client().chat.completions.stream(**ASK, response_format=Bird) as stream:
        final = stream.until_done().get_final_completion()
    assert final.choices[0].message.parsed == Bird(name=HIDDEN_SHOWN, wingspan_cm=9)


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
@pytest.mark.parametrize(
    ("finish", "text", "kind"),
    [
        pytest.param("length", '{"name":"Gr', openai.LengthFinishReasonError, id="length"),
        pytest.param("content_filter", "", openai.ContentFilterFinishReasonError, id="upstreams-filter"),
        pytest.param("stop", f'{{"name":"{FORBIDDEN}"}}', openai.ContentFilterFinishReasonError, id="our-filter"),
    ],
)
def test_parse_of_an_unfinished_answer_raises_as_with_openai(
    scene: Scene, stream: bool, finish: str, text: str, kind: type[Exception]
) -> None:
    """A cut or filtered answer is the client's own error, whether the upstream or the gateway has filtered it."""
    client = scene.gateway.client()
    if stream:
        scene.stream_chat(text, finish=finish)
        with (
            pytest.raises(kind),
            client.chat.completions.stream(**ASK, response_format=Bird) as events,
        ):
            events.until_done()
    else:
        scene.answer(shape.chat(text, finish=finish))
        with pytest.raises(kind):
            client.chat.completions.parse(**ASK, response_format=Bird)


def test_models_own_refusal_passes(scene: Scene) -> None:
    """The model declines by itself: the refusal comes through in pieces, and nothing is parsed."""
    scene.stream_chat(refusal=["I'm sorry, ", "I cannot ", "assist."])
    with scene.gateway.client().chat.completions.stream(**ASK, response_format=Bird) as stream:
        refusals = [event.delta for event in stream if event.type == "refusal.delta"]
        final = stream.get_final_completion().choices[0]
    assert "".join(refusals) == final.message.refusal == "I'm sorry, I cannot assist."
    assert final.message.parsed is None and final.finish_reason == "stop"


def test_blocked_stream_ends_with_a_refusal(scene: Scene) -> None:
    """What came before the match is out, nothing of the match is, and the finish reason is content_filter."""
    scene.stream_chat("Behold the zan", "zibar-bus", "tard in flight", " and more.")
    chunks = list(scene.gateway.client().chat.completions.create(**ASK, stream=True))
    assert text_of(chunks) == "Behold the "
    refusal = "".join(chunk.choices[0].delta.refusal or "" for chunk in chunks)
    assert "forbidden-bird" in refusal and "inc_" in refusal
    assert chunks[-1].choices[0].finish_reason == "content_filter"
    outcome = scene.last_outcome()
    assert outcome["status"] == "blocked" and outcome["finish_reasons"] == ["content_filter"]


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_unicode_is_unharmed(scene: Scene, stream: bool) -> None:
    """Scripts, emoji in several code points, controls and separators come back as they were."""
    text = (
        "Ardea cinerea: h\u00e9ron, \u30b5\u30ae, \U0001f9d1\u200d\U0001f52c \U0001f3f4\u2028 \u0000 \ufeff \u202e end"
    )
    messages: Any = [{"role": "user", "content": text}]
    client = scene.gateway.client()
    if stream:
        scene.stream_chat(*text)
        found = text_of(list(client.chat.completions.create(model="m", messages=messages, stream=True)))
    else:
        scene.answer(shape.chat(text))
        found = client.chat.completions.create(model="m", messages=messages).choices[0].message.content or ""
    assert found == text
    assert scene.gateway.sent()["messages"] == messages


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_empty_answer_is_an_empty_answer(scene: Scene, stream: bool) -> None:
    """No text is no error."""
    client = scene.gateway.client()
    if stream:
        scene.stream_chat()
        chunks = list(client.chat.completions.create(**ASK, stream=True))
        assert text_of(chunks) == "" and chunks[-1].choices[0].finish_reason == "stop"
    else:
        scene.answer(shape.chat(""))
        choice = client.chat.completions.create(**ASK).choices[0]
        assert (choice.message.content, choice.finish_reason) == ("", "stop")


def test_very_long_plain_answer_is_whole(scene: Scene) -> None:
    """Four million characters."""
    text = "The heron stands still. " * 170_000
    scene.answer(shape.chat(text))
    assert scene.gateway.client().chat.completions.create(**ASK).choices[0].message.content == text


def test_stream_of_many_chunks_is_whole(scene: Scene) -> None:
    """Two thousand chunks, in order."""
    pieces = [f"{number} herons, " for number in range(2_000)]
    scene.stream_chat(*pieces)
    assert text_of(list(scene.gateway.client(timeout=60).chat.completions.create(**ASK, stream=True))) == "".join(
        pieces
    )


def test_line_of_two_megabytes_is_whole(scene: Scene) -> None:
    """One event may be as long as that."""
    text = "stork heron " * 170_000
    scene.stream_chat(text)
    client = scene.gateway.client(timeout=60)
    assert text_of(list(client.chat.completions.create(**ASK, stream=True))) == text


def test_stream_with_crlf_and_comments_is_read(scene: Scene) -> None:
    """Line ends of the other kind, comments and a cut in the middle of a character do no harm."""
    events = b"".join(
        b": keep-alive\r\n\r\ndata: " + json.dumps(chunk, ensure_ascii=False).encode() + b"\r\n\r\n"
        for chunk in shape.chat_chunks("h\u00e9", "ron \U0001f426")
    )
    parts = [events[start : start + 7] for start in range(0, len(events), 7)]
    scene.upstream.reply_events([*parts, b"data: [DONE]\r\n\r\n"], done=False)
    chunks = list(scene.gateway.client().chat.completions.create(**ASK, stream=True))
    assert text_of(chunks) == "h\u00e9ron \U0001f426"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_fifty_clients_at_once_get_their_own_answers(scene: Scene) -> None:
    """Each of fifty parallel streams is whole, and was asked for once."""
    for _ in range(50):
        scene.stream_chat("A ", "grey ", "heron.", between_ms=2)
    client = scene.gateway.client(timeout=30)

    def ask(number: int) -> tuple[int, str]:
        messages: Any = [{"role": "user", "content": f"Question {number}"}]
        return number, text_of(list(client.chat.completions.create(model="m", messages=messages, stream=True)))

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(ask, range(50)))
    assert answers == [(number, "A grey heron.") for number in range(50)]
    asked = {request.json["messages"][0]["content"] for request in scene.upstream.requests}
    assert asked == {f"Question {number}" for number in range(50)} and scene.calls == 50


async def test_async_client_streams_and_runs_in_parallel(scene: Scene) -> None:
    """`async for`, the asynchronous stream helper, and fifty calls at once on one event loop."""
    async with openai.AsyncOpenAI(base_url=scene.gateway.base_url, api_key=ADMIN_KEY, max_retries=0) as client:
        scene.stream_chat("A ", "heron.")
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "A heron."
        scene.stream_chat(tool_calls=[HERON])
        async with client.chat.completions.stream(**ASK, tools=CHAT_TOOLS) as events:
            final = await events.get_final_completion()
        assert (final.choices[0].message.tool_calls or [])[0].function.arguments == HERON["function"]["arguments"]
        for _ in range(50):
            scene.answer(shape.chat("Yes."))
        answers = await asyncio.gather(*(client.chat.completions.create(**ASK) for _ in range(50)))
    assert {answer.choices[0].message.content for answer in answers} == {"Yes."} and scene.calls == 52


def test_fields_of_tomorrow_pass_both_ways(scene: Scene) -> None:
    """A request field by `extra_body` reaches the upstream; an answer's unknown field reaches the caller."""
    body = shape.chat("Hi.")
    body["choices"][0]["message"]["mood"] = "calm"
    scene.answer({**body, "weather": {"sky": "clear"}})
    answer = scene.gateway.client().chat.completions.create(**ASK, extra_body={"seed_of_tomorrow": 7})
    assert scene.gateway.sent()["seed_of_tomorrow"] == 7
    assert answer.model_extra == {"weather": {"sky": "clear"}}
    assert answer.choices[0].message.model_extra == {"mood": "calm"}
