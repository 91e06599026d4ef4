"""What the built-in upstream `echo` answers at `/responses`, whole and as the full sequence of events."""

from __future__ import annotations

from typing import Any, Final, cast

import orjson

Body = dict[str, Any]

PIECE_CHARS: Final = 40
# What a response repeats of its request, with what stands there where the request is silent.
_REPEATED: Final[Body] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def make_response(body: Body, content: str, *, model: str, number: str, now_s: int) -> Body:
    """Return a completed response with one message that holds `content`.

    Args:
        body: the request, which goes into the answer whole as `lukhas_echo`.
        number: what makes its ids different from all others.
        now_s: seconds since 1970.
    """
    repeated = {name: default if body.get(name) is None else body[name] for name, default in _REPEATED.items()}
    conversation: object = body.get("conversation")
    if conversation is not None:
        repeated["conversation"] = {"id": conversation} if isinstance(conversation, str) else conversation
    part: Body = {"type": "output_text", "text": content, "annotations": [], "logprobs": []}
    return {
        "id": f"resp_echo_{number}",
        "object": "response",
        "created_at": now_s,
        "status": "completed",
        "completed_at": now_s,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": [
            {
                "id": f"msg_echo_{number}",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [part],
            }
        ],
        **repeated,
        "usage": _count_usage(body, content),
        "lukhas_echo": body,
    }


def stream_response(response: Body) -> list[bytes]:
    """Return the events by which a response with one message is streamed; the last one holds it whole."""
    item = cast(Body, response["output"][0])
    part = cast(Body, item["content"][0])
    content = cast(str, part["text"])
    begun = {name: value for name, value in response.items() if name not in ("completed_at", "lukhas_echo")}
    begun |= {"status": "in_progress", "output": [], "usage": None}
    at: Body = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    opened: Body = {**item, "status": "in_progress", "content": []}
    pieces = [content[start : start + PIECE_CHARS] for start in range(0, len(content), PIECE_CHARS)]
    events: list[Body] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": opened},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": piece, "logprobs": []} for piece in pieces),
        {"type": "response.output_text.done", **at, "text": content, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": response},
    ]
    return [
        b"event: " + event["type"].encode() + b"\ndata: " + orjson.dumps({**event, "sequence_number": number}) + b"\n\n"
        for number, event in enumerate(events)
    ]


def read_items(body: Body) -> list[object]:
    """Return a request's input as items that have the shape of chat messages."""
    given: object = body.get("input")
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    return cast("list[object]", given) if isinstance(given, list) else []


def _count_usage(body: Body, content: str) -> Body:
    # Four bytes a token is the usual rule of thumb; nothing was really tokenised.
    read = max(1, len(orjson.dumps(body.get("input"))) // 4)
    written = max(1, len(content.encode()) // 4)
    return {
        "input_tokens": read,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": read + written,
    }
