"""What OpenAI's API answers, in its exact shapes; scripted upstreams of the client suites send it."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

CREATED = 1_741_569_952
MODEL = "gpt-4.1-mini-2025-04-14"
CHAT_ID = "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT"
RESPONSE_ID = "resp_67ccd3a9da748190baa7f1570fe91ac604becb25c45c1d41"
CHAT_USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 0,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    },
}
RESPONSE_USAGE = {
    "input_tokens": 36,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 87,
    "output_tokens_details": {"reasoning_tokens": 64},
    "total_tokens": 123,
}
_CHAT = {"id": CHAT_ID, "created": CREATED, "model": MODEL, "service_tier": "default", "system_fingerprint": "fp_b376"}


def error(message: str = "No.", kind: str = "invalid_request_error", code: str | None = None, param: Any = None) -> Any:
    """Return an error's body."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def tool_call(name: str, arguments: Any, call_id: str = "call_DdmO9pD3xa9XTPNJ32zg2hcA") -> dict[str, Any]:
    """Return one tool call of a chat answer."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": text}}


def logprob(token: str, *others: str) -> dict[str, Any]:
    """Return the log probability of one token, with those of others in its place."""

    def entry(text: str) -> dict[str, Any]:
        return {"token": text, "logprob": -0.25, "bytes": list(text.encode())}

    return {**entry(token), "top_logprobs": [entry(text) for text in (token, *others)]}


def choice(content: str | None = None, index: int = 0, finish: str | None = None, **more: Any) -> dict[str, Any]:
    """Return one choice of a plain chat answer; `logprobs` goes beside the message, all else into it."""
    logprobs = more.pop("logprobs", None)
    message = {"role": "assistant", "content": content, "refusal": None, "annotations": [], **more}
    reason = finish or ("tool_calls" if message.get("tool_calls") else "stop")
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reason}


def chat(content: str | None = None, choices: Sequence[Any] | None = None, **more: Any) -> dict[str, Any]:
    """Return a plain chat answer of one choice, or of those given."""
    made = [choice(content, **more)] if choices is None else list(choices)
    return {**_CHAT, "object": "chat.completion", "choices": made, "usage": CHAT_USAGE}


def chunk(delta: Mapping[str, Any], index: int = 0, finish: str | None = None, logprobs: Any = None) -> dict[str, Any]:
    """Return one chunk of a streamed chat answer."""
    made = {"index": index, "delta": dict(delta), "logprobs": logprobs, "finish_reason": finish}
    return {**_CHAT, "object": "chat.completion.chunk", "choices": [made], "usage": None, "obfuscation": "kX2aPq"}


def chat_chunks(
    *pieces: str,
    tool_calls: Sequence[Mapping[str, Any]] = (),
    refusal: Sequence[str] = (),
    finish: str | None = None,
    index: int = 0,
    usage: bool = False,
    logprobs: bool = False,
) -> list[dict[str, Any]]:
    """Return a streamed chat answer; a tool call's arguments come in pieces of four characters."""
    made = [chunk({"role": "assistant", "content": None if tool_calls else "", "refusal": None}, index)]
    for piece in pieces:
        beside = {"content": [logprob(piece)], "refusal": None} if logprobs else None
        made.append(chunk({"content": piece}, index, logprobs=beside))
    made += [chunk({"refusal": piece}, index) for piece in refusal]
    for place, call in enumerate(tool_calls):
        function = call["function"]
        opened = {**call, "index": place, "function": {"name": function["name"], "arguments": ""}}
        made.append(chunk({"tool_calls": [opened]}, index))
        for start in range(0, len(function["arguments"]), 4):
            part = {"index": place, "function": {"arguments": function["arguments"][start : start + 4]}}
            made.append(chunk({"tool_calls": [part]}, index))
    made.append(chunk({}, index, finish or ("tool_calls" if tool_calls else "stop")))
    if usage:
        made.append({**_CHAT, "object": "chat.completion.chunk", "choices": [], "usage": CHAT_USAGE})
    return made


def message(*texts: str, item_id: str = "msg_67ccd3acc8d48190a77525dc6de64b4104becb25c45c1d41") -> dict[str, Any]:
    """Return an answer item of text parts."""
    parts = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in texts]
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": parts}


def refusal(text: str, item_id: str = "msg_67ccd3acc8d48190a77525dc6de64b4104becb25c45c1d42") -> dict[str, Any]:
    """Return an answer item by which the model itself declines."""
    return {**message(item_id=item_id), "content": [{"type": "refusal", "refusal": text}]}


def reasoning(*texts: str, item_id: str = "rs_6876cf02e0bc8192b74af0fb64b715ff06fa2fcced15a5ac") -> dict[str, Any]:
    """Return a reasoning item with its summary."""
    return {
        "id": item_id,
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": text} for text in texts],
    }


def function_call(name: str, arguments: Any, number: int = 1) -> dict[str, Any]:
    """Return a function call item."""
    return {
        "id": f"fc_67ca09c6bedc8190a7abfec07b1a1332096610f474011cc{number}",
        "type": "function_call",
        "status": "completed",
        "arguments": arguments if isinstance(arguments, str) else json.dumps(arguments),
        "call_id": f"call_unDt3hW8ll9FIb5SGOvlDQn{number}",
        "name": name,
    }


def response(output: Sequence[Any], response_id: str = RESPONSE_ID, **more: Any) -> dict[str, Any]:
    """Return a plain Responses answer."""
    return {
        "id": response_id,
        "object": "response",
        "created_at": CREATED,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "model": MODEL,
        "output": list(output),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": {"effort": None, "summary": None},
        "safety_identifier": None,
        "service_tier": "default",
        "store": True,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}, "verbosity": "medium"},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": RESPONSE_USAGE,
        "user": None,
        "metadata": {},
        **more,
    }


def response_events(output: Sequence[Mapping[str, Any]], **more: Any) -> list[dict[str, Any]]:
    """Return a streamed Responses answer; texts come in pieces of five characters."""
    final = response(output, **more)
    opening = {**final, "status": "in_progress", "output": [], "usage": None}
    made: list[dict[str, Any]] = [
        {"type": "response.created", "response": opening},
        {"type": "response.in_progress", "response": opening},
    ]
    for index, item in enumerate(output):
        made += _item_events(index, item)
    made.append({"type": f"response.{final['status']}", "response": final})
    return [{**event, "sequence_number": number} for number, event in enumerate(made)]


def encode_events(events: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Return typed events as they are on the wire."""
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def _item_events(index: int, item: Mapping[str, Any]) -> list[dict[str, Any]]:
    place = {"item_id": item["id"], "output_index": index}
    if item["type"] == "function_call":
        opened = {**item, "status": "in_progress", "arguments": ""}
        kind, text = "response.function_call_arguments", item["arguments"]
        inner = [{"type": f"{kind}.delta", **place, "delta": d, "obfuscation": "p0"} for d in _cut(text)]
        inner.append({"type": f"{kind}.done", **place, "arguments": text, "name": item["name"]})
    elif item["type"] == "reasoning":
        opened, inner = {**item, "summary": []}, []
        for number, part in enumerate(item["summary"]):
            at = {**place, "summary_index": number}
            empty = {"type": "summary_text", "text": ""}
            kind = "response.reasoning_summary"
            inner.append({"type": f"{kind}_part.added", **at, "part": empty})
            inner += [{"type": f"{kind}_text.delta", **at, "delta": d, "obfuscation": "q"} for d in _cut(part["text"])]
            inner.append({"type": f"{kind}_text.done", **at, "text": part["text"]})
            inner.append({"type": f"{kind}_part.done", **at, "part": part})
    else:
        opened, inner = {**item, "status": "in_progress", "content": []}, []
        for number, part in enumerate(item["content"]):
            at = {**place, "content_index": number}
            name = "refusal" if part["type"] == "refusal" else "text"
            kind = "response.refusal" if name == "refusal" else "response.output_text"
            extra: dict[str, Any] = {} if name == "refusal" else {"logprobs": []}
            inner.append({"type": "response.content_part.added", **at, "part": {**part, name: ""}})
            inner += [
                {"type": f"{kind}.delta", **at, "delta": d, **extra, "obfuscation": "Zk4"} for d in _cut(part[name])
            ]
            inner.append({"type": f"{kind}.done", **at, name: part[name], **extra})
            inner.append({"type": "response.content_part.done", **at, "part": part})
    return [
        {"type": "response.output_item.added", "output_index": index, "item": opened},
        *inner,
        {"type": "response.output_item.done", "output_index": index, "item": dict(item)},
    ]


def _cut(text: str) -> list[str]:
    return [text[start : start + 5] for start in range(0, len(text), 5)]


def embedding(*vectors: Sequence[float], as_base64: bool = False) -> dict[str, Any]:
    """Return embeddings, as numbers or as base64 of little-endian floats of four bytes."""

    def write(vector: Sequence[float]) -> Any:
        return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if as_base64 else list(vector)

    return {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": write(v)} for place, v in enumerate(vectors)],
        "model": "text-embedding-3-small",
        "usage": {"prompt_tokens": 8, "total_tokens": 8},
    }


def moderation(flagged: bool = True, score: float = 0.91) -> dict[str, Any]:
    """Return a verdict on one text."""
    names = ("violence", "violence/graphic", "self-harm", "harassment", "hate", "sexual")
    return {
        "id": "modr-0d9740456c391e43c445bf0f010940c7",
        "model": "omni-moderation-latest",
        "results": [
            {
                "flagged": flagged,
                "categories": {name: flagged and name == "violence" for name in names},
                "category_scores": {name: score if name == "violence" else 0.0001 for name in names},
                "category_applied_input_types": {name: ["text"] for name in names},
            }
        ],
    }


def model(name: str = MODEL) -> dict[str, Any]:
    """Return one model."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "openai"}


def models(*names: str) -> dict[str, Any]:
    """Return a list of models."""
    return {"object": "list", "data": [model(name) for name in names]}
