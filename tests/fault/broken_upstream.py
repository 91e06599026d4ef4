"""An upstream whose streams break in every way there is; each request names the way that its answer is to break.

The name stands in the request's text as `kind:<name>`, so that any number of clients can ask for different ones at
once. It is a moderation API too, one that never flags.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import socket
import struct
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

WORDS: Final = ("The ", "heron ", "stands ", "still, ", "nüchtern, ", "and ", "looks. ")
# What the packaged rules block, and what they must hold because it could become that.
BLOCKED: Final = "lk_" + "b" * 24
HELD: Final = "lk_hhhhhhhh"
DONE: Final = b"data: [DONE]\n\n"
_KIND: Final = re.compile(rb"kind:([a-z0-9-]+)")
_CHUNK: Final = {"id": "chatcmpl-broken", "object": "chat.completion.chunk", "created": 1735689600, "model": "fake-1"}
SHAPES: Final[dict[str, Sequence[Any]]] = {
    "chat": (
        {"choices": None}, {"choices": 7}, {"choices": "x"}, {"choices": [7]}, {"choices": [None]}, {}, [], 7, None,
        {"choices": [{"index": -1, "delta": {}}]}, {"choices": [{"index": 10**30, "delta": {"content": "x"}}]},
        {"choices": [{"index": True, "delta": {"content": "x"}}]}, {"choices": [{"delta": None}]},
        {"choices": [{"index": 0}]}, {"choices": [{"index": 0, "delta": 7}]}, {"choices": {"0": {"delta": {}}}},
        {"choices": [{"index": 0, "delta": {"content": 7}}]}, {"choices": [{"index": 0, "delta": {"content": ["x"]}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": "x"}}]},
        {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": -3, "function": 7}]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": 7}]}, {"choices": [], "usage": "many"},
        {"choices": [], "usage": {"total_tokens": -5, "x": None}}, {"error": 7, "choices": 7},
        {"choices": [{"index": 0, "delta": {"content": "x"}, "logprobs": 7}]},
    ),
    "responses": (
        {}, [], 7, None, {"type": None}, {"type": 7}, {"type": "response.created"}, {"type": "error", "error": 7},
        {"type": "response.created", "response": []}, {"type": "response.completed", "response": {"output": 7}},
        {"type": "response.completed", "response": {"output": [7, None]}}, {"type": "response.output_item.added"},
        {"type": "response.output_item.added", "output_index": -5, "item": {"type": 7, "id": 7}},
        {"type": "response.output_item.added", "output_index": 10**30, "item": {"type": "message", "content": 7}},
        {"type": "response.output_item.done", "item": {"type": "message", "content": [7, {"type": "output_text"}]}},
        {"type": "response.output_text.delta", "delta": 7}, {"type": "response.output_text.delta", "delta": None},
        {"type": "response.output_text.delta", "output_index": "x", "content_index": {}, "delta": "x"},
        {"type": "response.output_text.done", "output_index": -1, "text": ["x"]},
        {"type": "response.content_part.added", "part": 7, "content_index": -1},
        {"type": "response.function_call_arguments.delta", "delta": {}}, {"type": "response.failed", "response": None},
        {"type": "response.output_text.annotation.added", "annotation": 7},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Script:
    """How one answer goes.

    Attributes:
        parts: what is sent, in order; a number is a pause in s.
        ending: `complete` ends the chunked body, `cut` closes in the middle, `reset` resets, `stall` falls silent,
            `forever` repeats the last part.
        head: the status line and headers; None for those of a chunked stream, empty for none.
    """

    parts: Sequence[bytes | float]
    ending: str = "complete"
    head: bytes | None = None


def sse(value: Any, *, name: str = "") -> bytes:
    """Return one event."""
    text = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
    return (f"event: {name}\n".encode() if name else b"") + b"data: " + text + b"\n\n"


def chat_piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> bytes:
    """Return one event of a chat stream."""
    return sse({**_CHUNK, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more})


def chat_stream(texts: Sequence[str] = WORDS) -> list[bytes]:
    """Return a whole chat stream, its usage and `[DONE]` included."""
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    pieces = [chat_piece({"content": text}) for text in texts]
    return [chat_piece({"role": "assistant", "content": ""}), *pieces, chat_piece({}, "stop", usage=usage), DONE]


def responses_stream(texts: Sequence[str] = WORDS) -> list[bytes]:
    """Return a whole Responses stream."""
    whole = "".join(texts)
    part = {"type": "output_text", "text": whole, "annotations": []}
    empty: dict[str, Any] = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress"}
    item = {**empty, "status": "completed", "content": [part]}
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    answer: dict[str, Any] = {"id": "resp_1", "object": "response", "created_at": 1, "model": "fake-1"}
    answer |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "output": [], "usage": None}
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    begun = {**answer, "status": "in_progress"}
    ended = {**answer, "status": "completed", "output": [item], "usage": usage}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**empty, "content": []}},
        {"type": "response.content_part.added", **at, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": text, "logprobs": []} for text in texts),
        {"type": "response.output_text.done", **at, "text": whole, "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": ended},
    ]
    numbered = [{**event, "sequence_number": number} for number, event in enumerate(events)]
    return [sse(event, name=str(event["type"])) for event in numbered]


def whole_stream(dialect: str, texts: Sequence[str] = WORDS) -> list[bytes]:
    """Return a whole stream of a dialect."""
    return chat_stream(texts) if dialect == "chat" else responses_stream(texts)


def begin_stream(dialect: str, texts: Sequence[str] = WORDS, *, end: int = 0) -> list[bytes]:
    """Return a stream without its ending, after which it breaks."""
    whole = whole_stream(dialect, texts)
    return whole[: 1 + len(texts) + end] if dialect == "chat" else whole[: 3 + len(texts) + end]


def _tool_begin(dialect: str) -> list[bytes]:
    if dialect == "chat":
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "get", "arguments": '{"a": '}}
        return [chat_piece({"role": "assistant", "tool_calls": [call]})]
    item = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "get", "arguments": ""}
    delta = {"type": "response.function_call_arguments.delta", "item_id": "fc_1", "output_index": 0, "delta": '{"a": '}
    return [
        responses_stream()[0],
        sse({"type": "response.output_item.added", "output_index": 0, "item": item}),
        sse(delta),
    ]


def _raw_head(fields: str) -> bytes:
    return f"HTTP/1.1 200 Broken\r\n{fields}\r\n\r\n".encode()


def _mix_ends(parts: Sequence[bytes], dice: random.Random) -> list[bytes]:
    return [part.replace(b"\n", dice.choice((b"\n", b"\r\n", b"\r"))) for part in parts]


def _cut_anywhere(raw: bytes, dice: random.Random) -> list[bytes]:
    places = sorted(dice.randrange(1, len(raw)) for _ in range(5))
    return [raw[a:b] for a, b in zip([0, *places], [*places, len(raw)], strict=True) if a < b]


def _finish_twice(dialect: str) -> list[bytes]:
    whole = whole_stream(dialect)
    return [*whole[:-1], whole[-2], whole[-1]]


def _usage_twice(dialect: str) -> list[bytes]:
    whole = whole_stream(dialect)
    extra = {**_CHUNK, "choices": [], "usage": {"total_tokens": 12}}
    return [*whole[:-1], sse(extra), sse(extra), whole[-1]] if dialect == "chat" else whole


def _error(dialect: str) -> bytes:
    error = {"message": "overloaded", "type": "server_error", "code": "busy"}
    if dialect == "chat":
        return sse({"error": error})
    return sse({"type": "error", "code": "busy", "message": "overloaded", "param": None, "sequence_number": 9})


def _gzip(raw: bytes) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(raw) + packer.flush()


def _pad(event: bytes) -> bytes:
    return event.replace(b"{", b"{" + b" " * 60_000, 1)


Build = Callable[[str, random.Random], Script]
_GZIP_HEAD: Final = _raw_head("content-type: text/event-stream\r\ncontent-encoding: gzip\r\nconnection: close")
_EMPTY: Final = "content-type: text/event-stream\r\ncontent-length: 0\r\nconnection: close"
_JSON: Final = "content-type: application/json\r\ncontent-length: 2\r\nconnection: close"
_COMMENT: Final = b": " + b"x" * 65_000 + b"\n\n"

KINDS: Final[dict[str, Build]] = {
    "ok": lambda d, r: Script(whole_stream(d)),
    "stall": lambda d, r: Script(begin_stream(d, WORDS[:2]), "stall"),
    "stall-head": lambda d, r: Script([], "stall", b""),
    "reset": lambda d, r: Script([*begin_stream(d, WORDS[:2]), 0.01], "reset"),
    "reset-head": lambda d, r: Script([], "reset", b""),
    "truncate": lambda d, r: Script(begin_stream(d, WORDS[:3]), "cut"),
    "truncate-held": lambda d, r: Script(begin_stream(d, ("so ", HELD)), "cut"),
    "garbage-bytes": lambda d, r: Script([r.randbytes(2000)]),
    "garbage-json": lambda d, r: Script(
        [*begin_stream(d, WORDS[:2]), b'data: {"id": oops}\n\n', *whole_stream(d)[-1:]]
    ),
    "wrong-shape": lambda d, r: Script([*begin_stream(d, WORDS[:2]), sse(r.choice(SHAPES[d])), *whole_stream(d)[-1:]]),
    "deep-json": lambda d, r: Script([*begin_stream(d, ()), sse(b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}")]),
    "half-character-in-a-chunk": lambda d, r: Script(_cut_anywhere(b"".join(whole_stream(d, ("ü€𝄞",) * 9)), r)),
    "half-character-at-the-end": lambda d, r: Script(
        [*begin_stream(d, WORDS[:2]), b'data: {"choices": "\xe2\x82'], "cut"
    ),
    "invalid-utf-8": lambda d, r: Script(
        [*begin_stream(d, WORDS[:2]), sse(b'{"x": "\xff\xfe"}'), *whole_stream(d)[-1:]]
    ),
    "line-of-2-mb": lambda d, r: Script([p.replace(b"{", b"{" + b" " * 300_000, 1) for p in whole_stream(d)]),
    "line-of-20-mb": lambda d, r: Script([b"data: {", *[b" " * 1_000_000] * 20, b"}\n\n"]),
    "mixed-line-ends": lambda d, r: Script(_mix_ends(whole_stream(d), r)),
    "comments": lambda d, r: Script([part for event in whole_stream(d) for part in (b": keep-alive\n\n", event)]),
    "comments-only": lambda d, r: Script([b": ping\n\n"] * 50),
    "event-lines": lambda d, r: Script([b"event: x\nid: 7\nretry: 10\n", *whole_stream(d)]),
    "byte-order-mark": lambda d, r: Script([b"\xef\xbb\xbf", *whole_stream(d)]),
    "no-end": lambda d, r: Script(begin_stream(d)),
    "no-end-held": lambda d, r: Script(begin_stream(d, ("so ", HELD))),
    "no-end-of-a-call": lambda d, r: Script(_tool_begin(d)),
    "end-twice": lambda d, r: Script([*whole_stream(d), *whole_stream(d)[-1:]]),
    "data-behind-the-end": lambda d, r: Script([*whole_stream(d), *whole_stream(d)[:4]]),
    "empty": lambda d, r: Script([], head=_raw_head(_EMPTY)),
    "wrong-type": lambda d, r: Script([b"{}"], head=_raw_head(_JSON)),
    "gzip": lambda d, r: Script([_gzip(b"".join(whole_stream(d)))], "cut", _GZIP_HEAD),
    "gzip-that-is-none": lambda d, r: Script(whole_stream(d), "cut", _GZIP_HEAD),
    "error-only": lambda d, r: Script([_error(d), DONE]),
    "error-in-the-middle": lambda d, r: Script([*begin_stream(d, WORDS[:2]), _error(d)]),
    "tiny-chunks": lambda d, r: Script([*whole_stream(d, tuple("a heron " * 40))]),
    "byte-by-byte": lambda d, r: Script([bytes((one,)) for one in b"".join(whole_stream(d, WORDS[:1]))]),
    "unfinished-call": lambda d, r: Script(_tool_begin(d), "cut"),
    "finish-twice": lambda d, r: Script(_finish_twice(d)),
    "usage-twice": lambda d, r: Script(_usage_twice(d)),
    "goes-on-behind-a-block": lambda d, r: Script(begin_stream(d, ("so ", BLOCKED, " and so on. ")), "forever"),
    "never-ends": lambda d, r: Script([*begin_stream(d, ("on ",)), 0.02], "forever"),
    "flood": lambda d, r: Script([_COMMENT], "forever"),
    "pours": lambda d, r: Script([*begin_stream(d, ("on ",) * 4), _pad(begin_stream(d, ("on ",))[-1])], "forever"),
    "slow-head": lambda d, r: Script([30.0], "stall", b""),
    "holds": lambda d, r: Script(begin_stream(d, ("so ", HELD)), "stall"),
    "fills-a-window": lambda d, r: Script(begin_stream(d, ("a heron stands still. " * 25,)), "stall"),
    "large": lambda d, r: Script(whole_stream(d, ("a heron stands still. " * 20,) * 60)),
}


@dataclass
class BrokenUpstream:
    """The server; use it as an async context manager.

    Attributes:
        open: connections that are open now.
        served: requests by kind.
        moderation_pause_s: how long a moderation takes.
    """

    seed: int
    open: int = 0
    served: dict[str, int] = field(default_factory=dict)
    moderation_pause_s: float = 0.0
    arrived: dict[str, asyncio.Event] = field(default_factory=dict)
    _server: asyncio.Server | None = None
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    @property
    def base_url(self) -> str:
        """The URL up to and with `/v1`."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    async def __aenter__(self) -> BrokenUpstream:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=512)
        return self

    async def __aexit__(self, *unused: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.open += 1
        try:
            ahead: bytes | None = b""
            while ahead is not None:
                ahead = await self._answer(reader, writer, ahead)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the gateway let go of it, as it should
        finally:
            self.open -= 1
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ahead: bytes) -> bytes | None:
        """Answer one request; return what came of the next one, or None where there is none."""
        head = ahead + await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if b"/moderations" in head.split(b"\r\n", 1)[0]:
            await self._moderate(body, writer)
            return b""
        found = _KIND.search(body)
        kind = found[1].decode() if found else "ok"
        number = re.search(rb"number:(\d+)", body)
        if number and (event := self.arrived.pop(number[1].decode(), None)):
            event.set()
        self.served[kind] = self.served.get(kind, 0) + 1
        dialect = "responses" if b"/responses" in head.split(b"\r\n", 1)[0] else "chat"
        dice = random.Random(f"{self.seed}-{number[1] if number else 0}")
        script = KINDS[kind](dialect, dice)
        leaving = asyncio.ensure_future(reader.read(1))
        sending = asyncio.ensure_future(_send(writer, script))
        try:
            await asyncio.wait({leaving, sending}, return_when=asyncio.FIRST_COMPLETED)
            if leaving.done() and leaving.exception() is None and leaving.result() and script.ending == "complete":
                await sending  # the next request is quicker than the end of this answer's writing
            if sending.done() and sending.exception() is None and script.ending == "reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if sending.done() and sending.exception() is None and script.ending == "complete" and script.head is None:
                return await leaving or None
            if sending.done() and script.ending == "cut":
                writer.close()
                await asyncio.sleep(0)
            return None
        finally:
            for one in (leaving, sending):
                one.cancel()
            await asyncio.gather(leaving, sending, return_exceptions=True)

    async def _moderate(self, body: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.moderation_pause_s)
        inputs = json.loads(body)["input"]
        result = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.0}}
        text = json.dumps({"id": "modr_1", "model": "m", "results": [result] * len(inputs)}).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
        writer.write(head + text)
        await writer.drain()


async def _send(writer: asyncio.StreamWriter, script: Script) -> None:
    is_chunked = script.head is None
    writer.write(
        script.head
        if script.head is not None
        else _raw_head("content-type: text/event-stream\r\ntransfer-encoding: chunked")
    )
    async for part in _walk(script):
        writer.write(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
        await writer.drain()
    if script.ending == "complete" and is_chunked:
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    if script.ending == "stall":
        await asyncio.Event().wait()


async def _walk(script: Script) -> AsyncIterator[bytes]:
    def endless() -> Iterator[bytes | float]:
        yield from script.parts
        while script.ending == "forever":
            yield from script.parts[-1:] if isinstance(script.parts[-1], bytes) else script.parts[-2:]

    for part in endless():
        if isinstance(part, bytes):
            yield part
        else:
            await asyncio.sleep(part)
