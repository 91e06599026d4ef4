"""One answer, said in both dialects, plain and streamed; and what a caller sees of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from conftest import Answer, Gateway

from lukhas.openai.sse import SseSplitter, event_data
from lukhas.testing import FakeUpstream, ReceivedRequest

DIALECTS = ("chat", "responses")
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}
_CHUNK = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_735_689_600, "model": "fake-1"}


@dataclass(frozen=True)
class Said:
    """What a model says.

    Attributes:
        calls: name and arguments of each tool call.
    """

    text: str = ""
    reasoning: str = ""
    calls: Sequence[tuple[str, str]] = ()


@dataclass
class Seen:
    """What a caller sees: everything released, and how it ended ('filtered' is a block in the dialect's own form)."""

    text: str = ""
    reasoning: str = ""
    refusal: str = ""
    calls: list[tuple[str, str]] = field(default_factory=list)
    ending: str = ""
    error: Mapping[str, Any] | None = None


def cut(text: str, places: Sequence[int]) -> list[str]:
    """Cut a text at some places."""
    edges = sorted({min(max(place, 0), len(text)) for place in places} | {0, len(text)})
    return [text[start:end] for start, end in pairwise(edges)]


def plain(dialect: str, said: Said, **more: Any) -> dict[str, Any]:
    """Return the upstream's plain answer."""
    return (_plain_chat if dialect == "chat" else _plain_response)(said) | more


def events(dialect: str, said: Said, places: Sequence[int] = (3, 7, 12)) -> list[dict[str, Any]]:
    """Return the upstream's stream, its texts cut at some places, without what `[DONE]` ends."""
    return (_chat_events if dialect == "chat" else _response_events)(said, places)


def script(
    gateway: Gateway,
    dialect: str,
    said: Said,
    *,
    stream: bool,
    places: Sequence[int] = (3, 7, 12),
    response_id: str = "resp_1",
) -> None:
    """Let the upstream answer the next call so."""
    if not stream:
        gateway.upstream.reply(json=plain(dialect, said) | ({} if dialect == "chat" else {"id": response_id}))
    elif dialect == "chat":
        gateway.upstream.reply_events(events(dialect, said, places))
    else:
        named = [
            f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".replace('"resp_1"', f'"{response_id}"').encode()
            for event in events(dialect, said, places)
        ]
        gateway.upstream.reply_events(named, done=False)


def see(dialect: str, answer: Answer) -> Seen:
    """Return what a caller sees of an answer of either kind."""
    if answer.status != 200:
        return Seen(error=answer.error)
    if answer.headers["content-type"].startswith("text/event-stream"):
        return see_events(dialect, decode(answer.body))
    return see_plain(dialect, answer.json)


def decode(raw: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a stream."""
    data = [event_data(event) for event in SseSplitter().feed(raw)]
    return [json.loads(text) for text in data if text is not None and text != b"[DONE]"]


def see_plain(dialect: str, answer: Mapping[str, Any]) -> Seen:
    """Read a plain answer."""
    if dialect == "responses":
        return _see_response(answer)
    choice = answer["choices"][0]
    message = choice["message"]
    return Seen(
        text=message.get("content") or "",
        reasoning=message.get("reasoning_content") or "",
        refusal=message.get("refusal") or "",
        calls=[(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()],
        ending=choice["finish_reason"],
    )


def see_events(dialect: str, stream: Sequence[Mapping[str, Any]]) -> Seen:
    """Read a stream as a client joins it: every delta counts, whatever the last event says."""
    return _see_chunks(stream) if dialect == "chat" else _see_response_events(stream)


def _plain_chat(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": said.text or None, "refusal": None}
    if said.reasoning:
        message["reasoning_content"] = said.reasoning
    if said.calls:
        message["tool_calls"] = [
            {"id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for n, (name, arguments) in enumerate(said.calls)
        ]
    finish = "tool_calls" if said.calls else "stop"
    return {
        **_CHUNK,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
    }


def _chat_events(said: Said, places: Sequence[int]) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in cut(said.reasoning, places)]
    deltas += [{"content": piece} for piece in cut(said.text, places)]
    for n, (name, arguments) in enumerate(said.calls):
        head = {"index": n, "id": f"call_{n}", "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [head]})
        deltas += [{"tool_calls": [{"index": n, "function": {"arguments": piece}}]} for piece in cut(arguments, places)]
    chunks = [
        {**_CHUNK, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}]}
        for delta in deltas
    ]
    finish = "tool_calls" if said.calls else "stop"
    last = {"index": 0, "delta": {}, "logprobs": None, "finish_reason": finish}
    return [*chunks, {**_CHUNK, "choices": [last]}]


def _plain_response(said: Said) -> dict[str, Any]:
    output: list[dict[str, Any]] = []
    if said.reasoning:
        summary = [{"type": "summary_text", "text": said.reasoning}]
        output.append({"id": "rs_1", "type": "reasoning", "summary": summary})
    if said.text:
        content = [{"type": "output_text", "text": said.text, "annotations": [], "logprobs": []}]
        message = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content}
        output.append(message)
    for n, (name, arguments) in enumerate(said.calls):
        item = {"id": f"fc_{n}", "type": "function_call", "status": "completed", "call_id": f"call_{n}"}
        output.append({**item, "name": name, "arguments": arguments})
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_735_689_600,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "fake-1",
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
    }


def _response_events(said: Said, places: Sequence[int]) -> list[dict[str, Any]]:
    answer = _plain_response(said)
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    stream: list[dict[str, Any]] = [{"type": "response.created", "response": begun}]
    for index, item in enumerate(answer["output"]):
        at = {"item_id": item["id"], "output_index": index}
        opened = {**item, "status": "in_progress"}
        inner: list[dict[str, Any]] = []
        if item["type"] == "message":
            opened["content"] = []
            (part,) = item["content"]
            here = {**at, "content_index": 0}
            inner.append({"type": "response.content_part.added", **here, "part": {**part, "text": ""}})
            inner += [
                {"type": "response.output_text.delta", **here, "delta": piece, "logprobs": []}
                for piece in cut(part["text"], places)
            ]
            inner.append({"type": "response.output_text.done", **here, "text": part["text"], "logprobs": []})
            inner.append({"type": "response.content_part.done", **here, "part": part})
        elif item["type"] == "reasoning":
            opened["summary"] = []
            (part,) = item["summary"]
            here = {**at, "summary_index": 0}
            name = "response.reasoning_summary"
            inner.append({"type": f"{name}_part.added", **here, "part": {**part, "text": ""}})
            inner += [{"type": f"{name}_text.delta", **here, "delta": piece} for piece in cut(part["text"], places)]
            inner.append({"type": f"{name}_text.done", **here, "text": part["text"]})
            inner.append({"type": f"{name}_part.done", **here, "part": part})
        else:
            opened["arguments"] = ""
            name = "response.function_call_arguments"
            inner += [{"type": f"{name}.delta", **at, "delta": piece} for piece in cut(item["arguments"], places)]
            inner.append({"type": f"{name}.done", **at, "arguments": item["arguments"]})
        stream.append({"type": "response.output_item.added", "output_index": index, "item": opened})
        stream += [*inner, {"type": "response.output_item.done", "output_index": index, "item": item}]
    stream.append({"type": "response.completed", "response": answer})
    return [{**event, "sequence_number": number} for number, event in enumerate(stream)]


def _see_chunks(stream: Sequence[Mapping[str, Any]]) -> Seen:
    seen = Seen()
    calls: dict[int, list[str]] = {}
    for chunk in stream:
        if "error" in chunk:
            seen.error = chunk["error"]
            continue
        for choice in chunk["choices"]:
            delta = choice["delta"]
            seen.text += delta.get("content") or ""
            seen.reasoning += delta.get("reasoning_content") or ""
            seen.refusal += delta.get("refusal") or ""
            for call in delta.get("tool_calls") or ():
                held = calls.setdefault(call["index"], ["", ""])
                held[0] += call["function"].get("name") or ""
                held[1] += call["function"].get("arguments") or ""
            seen.ending = choice.get("finish_reason") or seen.ending
    seen.calls = [(name, arguments) for _, (name, arguments) in sorted(calls.items())]
    return seen


def _see_response(answer: Mapping[str, Any]) -> Seen:
    seen = Seen()
    for item in answer["output"]:
        if item["type"] == "message":
            for part in item["content"]:
                if part["type"] == "refusal":
                    seen.refusal += part["refusal"]
                else:
                    seen.text += part["text"]
        elif item["type"] == "reasoning":
            seen.reasoning += "".join(part["text"] for part in item["summary"])
        elif item["type"] == "function_call":
            seen.calls.append((item["name"], item["arguments"]))
    reason = (answer.get("incomplete_details") or {}).get("reason")
    seen.ending = {"completed": "tool_calls" if seen.calls else "stop", "incomplete": reason}[answer["status"]]
    return seen


def _see_response_events(stream: Sequence[Mapping[str, Any]]) -> Seen:
    joined = {"output_text": "", "reasoning_summary_text": "", "refusal": "", "function_call_arguments": ""}
    last: Seen | None = None
    error: Mapping[str, Any] | None = None
    for event in stream:
        kind = str(event.get("type", "error"))
        if kind == "error" or "error" in event:
            error = event.get("error") or event
        elif kind.endswith(".delta"):
            joined[kind.removeprefix("response.").removesuffix(".delta")] += event["delta"]
        elif kind in ("response.completed", "response.incomplete"):
            last = _see_response(event["response"])
    if last is None:
        return Seen(
            text=joined["output_text"],
            reasoning=joined["reasoning_summary_text"],
            refusal=joined["refusal"],
            error=error,
        )
    # What a client has shown while it came must be what the last event says; a block may leave less there.
    if last.ending != "content_filter":
        assert last.text == joined["output_text"], (last.text, joined["output_text"])
        assert last.reasoning == joined["reasoning_summary_text"]
    assert joined["output_text"].startswith(last.text)
    assert joined["reasoning_summary_text"].startswith(last.reasoning)
    assert "".join(arguments for _, arguments in last.calls) == joined["function_call_arguments"]
    last.text, last.reasoning = joined["output_text"], joined["reasoning_summary_text"]
    last.error = error
    return last


CHOKE = "quartz-lantern-9"


class ChokingModerator(FakeUpstream):
    """A moderation API that passes every text, but breaks off where one holds `CHOKE`."""

    def _reply_usual(self, request: ReceivedRequest) -> None:
        inputs = request.json["input"]
        if any(CHOKE in text for text in inputs):
            self.reply_raw([])
        else:
            self.reply(json={"id": "modr-1", "results": [{"flagged": False, "categories": {}} for _ in inputs]})


def clean_call(dialect: str, **more: Any) -> dict[str, Any]:
    """Return a request that nothing objects to."""
    question = [{"role": "user", "content": "What is a heron?"}]
    field = {"messages": question} if dialect == "chat" else {"input": question}
    return {"model": "gpt-4o-mini", **field, **more}


def function(dialect: str, name: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a function as a request offers it."""
    made = {"name": name, "parameters": {"type": "object", "properties": {}} if parameters is None else parameters}
    return {"type": "function", "function": made} if dialect == "chat" else {"type": "function", **made}
