"""A guard for tests that blocks one word and redacts another, and chat answers in both of their forms."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import orjson

from lukhas.openai.call import CallVerdict, TextKind, ToolCall
from lukhas.openai.chat_stream import ChatRewriter
from lukhas.openai.wire import AnswerSummary

BLOCKED = "SECRET"
REDACTED = "HIDDEN"
MARK = "[redacted:test]"
WHY = "The answer was stopped."


class FakeChannel:
    """Releases all but the shortest tail that could still become one of the two words."""

    def __init__(self, kind: TextKind) -> None:
        self.kind = kind
        self.is_blocked = False
        self._held = ""

    def feed(self, text: str) -> str:
        if self.is_blocked:
            return ""
        held, released = self._held + text, ""
        while True:
            places = [(held.find(word), word) for word in (BLOCKED, REDACTED) if word in held]
            if not places:
                break
            place, word = min(places)
            released += held[:place]
            if word == BLOCKED:
                self.is_blocked, self._held = True, ""
                return released
            released += MARK
            held = held[place + len(word) :]
        size = max(n for n in range(6) if any(held.endswith(w[:n]) for w in (BLOCKED, REDACTED)))
        self._held = held[len(held) - size :]
        return released + held[: len(held) - size]

    def finish(self) -> str:
        rest, self._held = self._held, ""
        return rest


class FakeGuard:
    """See `lukhas.openai.call.AnswerGuard`. Blocks calls of `forbidden`, and arguments that are no JSON object."""

    def __init__(self, *, admits_media: bool = True) -> None:
        self.opened: list[TextKind] = []
        self.judged: list[ToolCall] = []
        self.media: list[str] = []
        self.refusal = WHY
        self._admits_media = admits_media

    def open(self, kind: TextKind) -> FakeChannel:
        self.opened.append(kind)
        return FakeChannel(kind)

    def judge(self, call: ToolCall) -> CallVerdict:
        self.judged.append(call)
        if call.kind == "function":
            try:
                is_object = isinstance(json.loads(call.arguments), dict)
            except ValueError:
                is_object = False
        else:
            is_object = True
        if call.name == "forbidden" or BLOCKED in call.arguments or not is_object:
            return CallVerdict(False, message=f"A call of {call.kind} was blocked.")
        return CallVerdict(True, call.arguments.replace(REDACTED, MARK))

    def admit_media(self, kind: str) -> bool:
        self.media.append(kind)
        return self._admits_media


def release(text: str) -> tuple[str, bool]:
    """Return what of a whole text may be released, and whether it is blocked."""
    channel = FakeChannel("text")
    released = channel.feed(text)
    return released + channel.finish(), channel.is_blocked


ENVELOPE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 17, "model": "m", "usage": None}


def event(choices: Sequence[dict[str, Any]], **fields: Any) -> bytes:
    return b"data: " + orjson.dumps({**ENVELOPE, "choices": list(choices), **fields}) + b"\n\n"


def piece(delta: dict[str, Any], index: int = 0, reason: str | None = None, **fields: Any) -> bytes:
    return event([{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason, **fields}])


class Streamed(msgspec.Struct):
    """What a rewriter made of a stream."""

    events: list[bytes]
    rewriter: ChatRewriter
    summary: AnswerSummary
    guard: FakeGuard
    last: bytes = b""

    @property
    def chunks(self) -> list[dict[str, Any]]:
        return [json.loads(one[6:]) for one in self.events if one.startswith(b"data: {")]

    def choice(self, index: int = 0) -> dict[str, Any]:
        """Return a choice as a client accumulates it."""
        whole: dict[str, Any] = {"reasons": []}
        for chunk in self.chunks:
            for choice in chunk.get("choices") or []:
                if choice["index"] == index:
                    merge(whole, {name: value for name, value in choice.items() if name not in ("index",)})
        return whole


def merge(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Accumulate as the official client does: strings and lists grow, calls are found by their index."""
    for name, value in part.items():
        if name == "finish_reason":
            whole["reasons"] += [value] if value else []
        elif name == "tool_calls":
            calls = whole.setdefault("tool_calls", {})
            for call in value:
                assert call["index"] not in calls, "each call comes once, and whole"
                calls[call["index"]] = {key: inner for key, inner in call.items() if key != "index"}
        elif isinstance(value, str) and isinstance(whole.get(name), str):
            whole[name] += value
        elif isinstance(value, dict) and isinstance(whole.get(name), dict):
            merge(whole[name], value)
        elif isinstance(value, list) and isinstance(whole.get(name), list):
            whole[name] += value
        elif value is not None:
            whole[name] = copy.deepcopy(value)


def run(events: Sequence[bytes], guard: FakeGuard | None = None, choices: int | None = None) -> Streamed:
    """Pass events through a rewriter as the gateway does."""
    guard = guard or FakeGuard()
    summary = AnswerSummary()
    rewriter = ChatRewriter(guard, summary, choices)
    released: list[bytes] = []
    for one in events:
        released += rewriter.take(one)
        if rewriter.is_over:
            break
    released += rewriter.flush()
    return Streamed(released, rewriter, summary, guard, rewriter.end())


DONE = b"data: [DONE]\n\n"
