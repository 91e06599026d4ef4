"""A guard that knows two words, and Responses answers written both ways: plain, and as a stream of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import orjson

from lukhas.openai.call import CallVerdict, ToolCall
from lukhas.openai.response_stream import ResponseRewriter
from lukhas.openai.sse import SseSplitter, event_data
from lukhas.openai.wire import AnswerSummary

BLOCKED, REDACTED, MARK = "SECRET", "PRIVATE", "[redacted:word]"
REFUSAL = "Stopped by policy."


class WordChannel:
    """Blocks one word and redacts another; holds back only what may still become either."""

    def __init__(self, guard: WordGuard) -> None:
        self._guard = guard
        self._held = ""
        self.is_blocked = False

    def feed(self, text: str) -> str:
        if self.is_blocked:
            return ""
        return self._release(self._held + text, is_last=False)

    def finish(self) -> str:
        if self.is_blocked:
            return ""
        return self._release(self._held, is_last=True)

    def _release(self, text: str, *, is_last: bool) -> str:
        out = ""
        while True:
            places = [(text.find(word), word) for word in (BLOCKED, REDACTED) if word in text]
            if not places:
                break
            at, word = min(places)
            out += text[:at]
            if word == BLOCKED:
                self.is_blocked = self._guard.was_blocked = True
                self._held = ""
                return out
            out, text = out + MARK, text[at + len(word) :]
        keep = 0
        if not is_last:
            longest = min(len(text), max(len(BLOCKED), len(REDACTED)) - 1)
            words = (BLOCKED, REDACTED)
            keep = next((n for n in range(longest, 0, -1) if any(w.startswith(text[-n:]) for w in words)), 0)
        self._held = text[len(text) - keep :]
        return out + text[: len(text) - keep]


class WordGuard:
    """Judges by two words; calls of tools whose names begin with `bad` are blocked too."""

    def __init__(self, *, admits_media: bool = True) -> None:
        self.admits_media = admits_media
        self.was_blocked = False
        self.calls: list[ToolCall] = []
        self.opened: list[str] = []
        self.refusal = REFUSAL

    def open(self, kind: str) -> WordChannel:
        self.opened.append(kind)
        return WordChannel(self)

    def judge(self, call: ToolCall) -> CallVerdict:
        self.calls.append(call)
        if call.name.startswith("bad") or BLOCKED in call.arguments:
            return CallVerdict(False, message=f"The call of {call.name} was blocked.")
        return CallVerdict(True, call.arguments.replace(REDACTED, MARK))

    def admit_media(self, kind: str) -> bool:
        return self.admits_media


def response(output: Sequence[Any], **more: Any) -> dict[str, Any]:
    """Return a completed response with this output."""
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_735_689_600,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": "gpt-4o-mini",
        "output": list(output),
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8},
        **more,
    }


def message(*texts: str, item_id: str = "msg_1") -> dict[str, Any]:
    parts = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} for text in texts]
    return {"id": item_id, "type": "message", "status": "completed", "role": "assistant", "content": parts}


def reasoning(*texts: str, item_id: str = "rs_1") -> dict[str, Any]:
    parts = [{"type": "summary_text", "text": text} for text in texts]
    return {"id": item_id, "type": "reasoning", "summary": parts}


def function_call(name: str, arguments: str, item_id: str = "fc_1") -> dict[str, Any]:
    call_id = "call_" + item_id
    return {
        "id": item_id,
        "type": "function_call",
        "status": "completed",
        "arguments": arguments,
        "call_id": call_id,
        "name": name,
    }


def pieces(text: str, cuts: Iterable[int]) -> list[str]:
    """Cut a text at some places; an empty text is one empty piece less."""
    places = sorted({min(max(cut, 0), len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in pairwise(places)]


def _item_events(index: int, item: dict[str, Any], cuts: Sequence[int]) -> list[dict[str, Any]]:
    at = {"item_id": item["id"], "output_index": index}
    kind = item["type"]
    opened = {**item, "status": "in_progress"}
    body: list[dict[str, Any]] = []
    if kind == "message":
        opened["content"] = []
        for number, part in enumerate(item["content"]):
            here = {**at, "content_index": number}
            field = "refusal" if part["type"] == "refusal" else "text"
            name = "refusal" if part["type"] == "refusal" else "output_text"
            more = {"logprobs": []} if name == "output_text" else {}
            body.append({"type": "response.content_part.added", **here, "part": {**part, field: "", **more}})
            for text in pieces(part[field], cuts):
                body.append({"type": f"response.{name}.delta", **here, "delta": text, **more})
            body.append({"type": f"response.{name}.done", **here, field: part[field], **more})
            body.append({"type": "response.content_part.done", **here, "part": part})
    elif kind == "reasoning":
        del opened["status"]
        opened["summary"] = []
        for number, part in enumerate(item["summary"]):
            here = {**at, "summary_index": number}
            event = "response.reasoning_summary_text"
            body.append({"type": "response.reasoning_summary_part.added", **here, "part": {**part, "text": ""}})
            body += [{"type": f"{event}.delta", **here, "delta": text} for text in pieces(part["text"], cuts)]
            body.append({"type": f"{event}.done", **here, "text": part["text"]})
            body.append({"type": "response.reasoning_summary_part.done", **here, "part": part})
    elif kind in ("function_call", "custom_tool_call"):
        field, name = ("arguments", "function_call_arguments") if kind == "function_call" else ("input",) * 2
        name = name if kind == "function_call" else "custom_tool_call_input"
        opened[field] = ""
        body += [{"type": f"response.{name}.delta", **at, "delta": text} for text in pieces(item[field], cuts)]
        body.append({"type": f"response.{name}.done", **at, field: item[field]})
    elif kind.endswith("_call"):
        body += [{"type": f"response.{kind}.{state}", **at} for state in ("in_progress", "searching", "completed")]
    added = {"type": "response.output_item.added", "output_index": index, "item": opened}
    return [added, *body, {"type": "response.output_item.done", "output_index": index, "item": item}]


def events_of(answer: dict[str, Any], cuts: Sequence[int] = ()) -> list[dict[str, Any]]:
    """Return the events by which upstream would stream an answer, its texts cut at some places."""
    begun = {**answer, "status": "in_progress", "output": [], "usage": None}
    events = [{"type": "response.created", "response": begun}, {"type": "response.in_progress", "response": begun}]
    for index, item in enumerate(answer["output"]):
        events += _item_events(index, item, cuts)
    events.append({"type": f"response.{answer['status']}", "response": answer})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def encode(event: dict[str, Any], *, is_named: bool = True) -> bytes:
    name = f"event: {event['type']}\n".encode() if is_named else b""
    return name + b"data: " + orjson.dumps(event) + b"\n\n"


def rewrite(events: Iterable[dict[str, Any] | bytes], guard: WordGuard | None = None) -> tuple[ResponseRewriter, bytes]:
    """Send events through a rewriter as the gateway does; return it and every byte that a caller gets."""
    rewriter = ResponseRewriter(guard or WordGuard(), AnswerSummary())
    out = b""
    for event in events:
        out += b"".join(rewriter.take(event if isinstance(event, bytes) else encode(event)))
        if rewriter.is_over:
            break
    out += b"".join(rewriter.flush())
    return rewriter, out + rewriter.end()


def decode(raw: bytes) -> list[dict[str, Any]]:
    """Return the JSON objects of a stream's events."""
    data = [event_data(event) for event in SseSplitter().feed(raw)]
    return [orjson.loads(text) for text in data if text is not None and text != b"[DONE]"]
