"""The official Python client, the Responses API: every call here goes through a live gateway."""

from __future__ import annotations

import json
from typing import Any

import client_scene
import openai
import pydantic
import pytest
import upstream_shape as shape
from client_scene import ADMIN_KEY, FORBIDDEN, HIDDEN, HIDDEN_SHOWN, RESPONSE_TOOLS, Scene

stage, scene = client_scene.stage(), client_scene.scene()
ASK: dict[str, Any] = {"model": "gpt-4.1-mini", "input": "What is a heron?"}
LOOK_UP = shape.function_call("retrieve_knowledge", {"query": "heron", "k": 3})
PROGRAM = shape.function_call("exec_code", {"source": "print(1)"}, 2)


class Bird(pydantic.BaseModel):
    name: str
    wingspan_cm: int


def test_created_response_keeps_every_field(scene: Scene) -> None:
    """What OpenAI answers comes back whole, and `output_text` reads it."""
    body = shape.response([shape.message("A heron is ", "a bird.")])
    scene.answer(body)
    answer = scene.gateway.client().responses.create(**ASK)
    assert answer.output_text == "A heron is a bird."
    assert answer.model_dump(exclude_unset=True) == body
    assert scene.gateway.sent() == ASK


def test_streamed_response_gives_each_event(scene: Scene) -> None:
    """Types, places and texts of the events are those of the upstream, in order, with rising numbers."""
    events = shape.response_events([shape.message("A grey heron.")])
    scene.stream_response([shape.message("A grey heron.")])
    found = list(scene.gateway.client().responses.create(**ASK, stream=True))
    assert [event.type for event in found] == [event["type"] for event in events]
    assert "".join(e.delta for e in found if e.type == "response.output_text.delta") == "A grey heron."
    numbers = [event.sequence_number for event in found]
    assert numbers == sorted(set(numbers))
    last = found[-1]
    assert last.type == "response.completed" and last.response.output_text == "A grey heron."
    assert last.response.usage is not None and last.response.usage.total_tokens == 123


def test_stream_helper_ends_with_the_response(scene: Scene) -> None:
    """`responses.stream` accumulates what it is given, without tripping over a missing part."""
    scene.stream_response([shape.reasoning("Birds first."), shape.message("A grey ", "heron.")])
    with scene.gateway.client().responses.stream(**ASK) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == "A grey heron."
    assert [item.type for item in final.output] == ["reasoning", "message"]


def test_parse_gives_the_model_of_the_schema(scene: Scene) -> None:
    """`responses.parse` sends the schema on and reads the answer into its type."""
    scene.answer(shape.response([shape.message('{"name":"Grey heron","wingspan_cm":175}')]))
    answer = scene.gateway.client().responses.parse(**ASK, text_format=Bird)
    assert answer.output_parsed == Bird(name="Grey heron", wingspan_cm=175)
    sent = scene.gateway.sent()["text"]["format"]
    assert (sent["type"], sent["name"], sent["strict"]) == ("json_schema", "Bird", True)


def test_streamed_parse_gives_the_model_of_the_schema(scene: Scene) -> None:
    """The stream helper parses the text, a redaction inside it included."""
    scene.stream_response([shape.message(f'{{"name":"{HIDDEN}","wingspan_cm":9}}')])
    with scene.gateway.client().responses.stream(**ASK, text_format=Bird) as stream:
        final = stream.until_done().get_final_response()
    assert final.output_parsed == Bird(name=HIDDEN_SHOWN, wingspan_cm=9)


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_function_calls_reach_the_caller(scene: Scene, stream: bool) -> None:
    """An allowed call comes with its id and arguments, byte for byte."""
    client = scene.gateway.client()
    if stream:
        scene.stream_response([LOOK_UP])
        with client.responses.stream(**ASK, tools=RESPONSE_TOOLS) as events:
            seen = list(events)
            answer: Any = events.get_final_response()
        deltas = [e.delta for e in seen if e.type == "response.function_call_arguments.delta"]
        assert "".join(deltas) == LOOK_UP["arguments"]
    else:
        scene.answer(shape.response([LOOK_UP]))
        answer = client.responses.create(**ASK, tools=RESPONSE_TOOLS)
    (call,) = answer.output
    assert (call.type, call.name, call.call_id) == ("function_call", "retrieve_knowledge", LOOK_UP["call_id"])
    assert json.loads(call.arguments) == {"query": "heron", "k": 3}


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_blocked_function_call_becomes_a_refusal_in_its_place(scene: Scene, stream: bool) -> None:
    """The forbidden call is one refusal, the allowed one stays, and the helper reads the stream to its end."""
    client = scene.gateway.client()
    if stream:
        scene.stream_response([PROGRAM, LOOK_UP])
        with client.responses.stream(**ASK, tools=RESPONSE_TOOLS) as events:
            answer: Any = events.until_done().get_final_response()
    else:
        scene.answer(shape.response([PROGRAM, LOOK_UP]))
        answer = client.responses.create(**ASK, tools=RESPONSE_TOOLS)
    refused, call = answer.output
    assert refused.type == "message" and refused.content[0].type == "refusal"
    assert "exec_code" in refused.content[0].refusal
    assert call.type == "function_call" and call.arguments == LOOK_UP["arguments"]
    assert "print(1)" not in answer.model_dump_json()
    (blocked,) = scene.last_outcome()["moderation"]["blocked_calls"]
    assert (blocked["tool"], blocked["call_id"]) == ("exec_code", PROGRAM["call_id"])


def test_function_output_continues_the_response(scene: Scene) -> None:
    """`previous_response_id` and the output of its call go upstream; the output is moderated."""
    client = scene.gateway.client()
    scene.answer(shape.response([LOOK_UP], "resp_functions_1"))
    first = client.responses.create(**ASK, tools=RESPONSE_TOOLS)
    scene.answer(shape.response([shape.message("It wades.")], "resp_functions_2", previous_response_id=first.id))
    output: Any = {"type": "function_call_output", "call_id": LOOK_UP["call_id"], "output": f"No {HIDDEN} here."}
    second = client.responses.create(model="gpt-4.1-mini", previous_response_id=first.id, input=[output])
    assert (second.output_text, second.previous_response_id) == ("It wades.", "resp_functions_1")
    sent = scene.gateway.sent()
    assert sent["previous_response_id"] == "resp_functions_1"
    assert sent["input"][0]["output"] == f"No {HIDDEN_SHOWN} here."


def test_conversation_by_previous_response_id_is_the_tenants_own(scene: Scene) -> None:
    """Another tenant's id is a NotFoundError, is not retried, and reaches no upstream."""
    scene.answer(shape.response([shape.message("Mine.")], "resp_of_one_tenant"))
    scene.gateway.client().responses.create(**ASK)
    other = scene.gateway.client(scene.gateway.key(tenant="somebody-else"), max_retries=2)
    for attempt in (
        lambda: other.responses.create(**ASK, previous_response_id="resp_of_one_tenant"),
        lambda: other.responses.retrieve("resp_of_one_tenant"),
        lambda: other.responses.cancel("resp_of_one_tenant"),
        lambda: other.responses.delete("resp_of_one_tenant"),
    ):
        with pytest.raises(openai.NotFoundError):
            attempt()
    assert scene.calls == 1


def test_reasoning_summary_is_passed_and_guarded(scene: Scene) -> None:
    """The summary's text arrives in its own events, redacted where a rule says so."""
    output = [shape.reasoning(f"Not the {HIDDEN}, so", "a heron."), shape.message("A heron.")]
    scene.stream_response(output)
    with scene.gateway.client().responses.stream(**ASK, reasoning={"effort": "low", "summary": "auto"}) as stream:
        events = list(stream)
        final = stream.get_final_response()
    deltas = "".join(e.delta for e in events if e.type == "response.reasoning_summary_text.delta")
    assert deltas == f"Not the {HIDDEN_SHOWN}, soa heron."
    assert final.output[0].type == "reasoning"
    assert [part.text for part in final.output[0].summary] == [f"Not the {HIDDEN_SHOWN}, so", "a heron."]
    assert final.usage is not None and final.usage.output_tokens_details.reasoning_tokens == 64


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_blocked_text_is_incomplete_with_a_refusal(scene: Scene, stream: bool) -> None:
    """Status and details say content_filter; nothing of the match is in any event."""
    client = scene.gateway.client()
    output = [shape.message(f"Behold the {FORBIDDEN} in flight.")]
    if stream:
        scene.stream_response(output)
        with client.responses.stream(**ASK) as events:
            seen = list(events)
            answer: Any = events.get_final_response() if seen[-1].type == "response.completed" else seen[-1].response
        assert seen[-1].type == "response.incomplete"
        assert "".join(e.delta for e in seen if e.type == "response.output_text.delta") == "Behold the "
        assert not any("zanzibar" in event.model_dump_json() for event in seen)
    else:
        scene.answer(shape.response(output))
        answer = client.responses.create(**ASK)
        assert "zanzibar" not in answer.model_dump_json()
    assert answer.status == "incomplete" and answer.incomplete_details.reason == "content_filter"
    refusals = [p.refusal for i in answer.output for p in i.content if p.type == "refusal"]
    assert len(refusals) == 1 and "forbidden-bird" in refusals[0]
    assert scene.last_outcome()["status"] == "blocked"


@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_models_own_refusal_passes(scene: Scene, stream: bool) -> None:
    """A refusal part of the model comes through, plain and in pieces."""
    client = scene.gateway.client()
    output = [shape.refusal("I cannot help with that.")]
    if stream:
        scene.stream_response(output)
        with client.responses.stream(**ASK) as events:
            deltas = [e.delta for e in events if e.type == "response.refusal.delta"]
            answer: Any = events.get_final_response()
        assert "".join(deltas) == "I cannot help with that."
    else:
        scene.answer(shape.response(output))
        answer = client.responses.create(**ASK)
    assert answer.output[0].content[0].refusal == "I cannot help with that."
    assert answer.status == "completed" and answer.output_text == ""


def test_response_is_retrieved_cancelled_and_deleted(scene: Scene) -> None:
    """The whole life of a background response, each step at the upstream's own path."""
    client = scene.gateway.client()
    queued = {**shape.response([], "resp_background_1", background=True, status="queued"), "usage": None}
    scene.answer(queued)
    assert client.responses.create(**ASK, background=True).status == "queued"
    scene.answer({**queued, "status": "in_progress"})
    assert client.responses.retrieve("resp_background_1").status == "in_progress"
    scene.answer({**queued, "status": "cancelled"})
    assert client.responses.cancel("resp_background_1").status == "cancelled"
    scene.answer({"id": "resp_background_1", "object": "response", "deleted": True})
    assert client.responses.delete("resp_background_1") is None
    assert [(request.method, request.path) for request in scene.upstream.requests[1:]] == [
        ("GET", "/v1/responses/resp_background_1"),
        ("POST", "/v1/responses/resp_background_1/cancel"),
        ("DELETE", "/v1/responses/resp_background_1"),
    ]


def test_retrieved_response_is_guarded_again(scene: Scene) -> None:
    """What the upstream has kept unguarded does not come out by a second way."""
    client = scene.gateway.client()
    body = shape.response([shape.message(f"The {HIDDEN} and the {FORBIDDEN}.")], "resp_kept_1")
    scene.answer(body)
    assert client.responses.create(**ASK).status == "incomplete"
    scene.gateway.relax()
    scene.answer(body)
    again = client.responses.retrieve("resp_kept_1")
    assert again.status == "incomplete" and "zanzibar" not in again.model_dump_json()


def test_failed_response_is_an_answer_with_its_error(scene: Scene) -> None:
    """A failure inside a stream is the response's own last event, not an exception."""
    failed = {"code": "server_error", "message": "The model failed."}
    events = shape.response_events([], status="failed", error=failed)
    scene.upstream.reply_events(shape.encode_events(events), done=False)
    last = list(scene.gateway.client().responses.create(**ASK, stream=True))[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None and last.response.error.message == "The model failed."


async def test_async_client_creates_streams_and_retrieves(scene: Scene) -> None:
    """The asynchronous client works as the synchronous one."""
    async with openai.AsyncOpenAI(base_url=scene.gateway.base_url, api_key=ADMIN_KEY, max_retries=0) as client:
        body = shape.response([shape.message("A heron.")], "resp_async_1")
        scene.answer(body)
        created = await client.responses.create(**ASK)
        scene.answer(body)
        fetched = await client.responses.retrieve(created.id)
        scene.stream_response([shape.message("h\u00e9ron \U0001f426")])
        async with client.responses.stream(**ASK) as events:
            final = await events.get_final_response()
    assert (created.output_text, fetched.output_text, final.output_text) == (
        "A heron.",
        "A heron.",
        "h\u00e9ron \U0001f426",
    )
