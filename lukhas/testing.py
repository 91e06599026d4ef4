"""Fakes for your own tests: a clock that stands still and an upstream that misbehaves on request.

from lukhas.testing import FakeUpstream, FrozenClock

with FakeUpstream() as upstream:
    upstream.reply(json={"error": {"message": "slow down"}}, status=429)
    ...  # call something whose LUKHAS_UPSTREAM_BASE_URL is upstream.base_url
    assert upstream.requests[0].json["model"] == "gpt-4o-mini"
"""

from __future__ import annotations

import asyncio
import json as jsonlib
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Self

Ending = Literal["complete", "truncate", "reset", "stall"]

DEFAULT_ANSWER: Final[Mapping[str, Any]] = {
    "id": "chatcmpl-fake",
    "object": "chat.completion",
    "created": 1735689600,
    "model": "fake-1",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
_CHUNK: Final = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1735689600, "model": "fake-1"}
DEFAULT_EVENTS: Final[Sequence[Mapping[str, Any]]] = tuple(
    {**_CHUNK, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
    for delta, finish in (
        ({"role": "assistant", "content": ""}, None),
        ({"content": "Hel"}, None),
        ({"content": "lo."}, None),
        ({}, "stop"),
    )
)
DEFAULT_MODEL: Final[Mapping[str, Any]] = {"id": "fake-1", "object": "model", "created": 1735689600, "owned_by": "fake"}


class FrozenClock:
    """A `lukhas.clock.Clock` that moves only when told to."""

    def __init__(self, now_ms: int = 1_735_689_600_000, monotonic_ms: int = 0) -> None:
        self._now_ms = now_ms
        self._monotonic_ms = monotonic_ms

    def now_ms(self) -> int:
        """Return wall-clock time in ms since the Unix epoch."""
        return self._now_ms

    def monotonic_ms(self) -> int:
        """Return ms since an arbitrary start; never steps back."""
        return self._monotonic_ms

    def advance(self, ms: int) -> None:
        """Let `ms` milliseconds pass, on both readings."""
        if ms < 0:
            raise ValueError("time passes forwards; use step_back to set the wall clock back")
        self._now_ms += ms
        self._monotonic_ms += ms

    def step_back(self, ms: int) -> None:
        """Set the wall clock back by `ms`, as a time server may; the monotonic reading stays."""
        if ms < 0:
            raise ValueError("step_back takes the size of the step, 0 or more")
        self._now_ms -= ms


@dataclass(slots=True)
class ReceivedRequest:
    """One request as the fake received it.

    Attributes:
        headers: by lower-case name; of repeated ones, the last.
        connection: number of the connection it came on, from 1; equal numbers mean a reused connection.
        closed: set when the client closed the connection before the reply was over.
        closed_at: when that was, in s of `time.monotonic()`.
    """

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    closed: threading.Event = field(default_factory=threading.Event)
    closed_at: float | None = None

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return jsonlib.loads(self.body)


@dataclass(frozen=True, slots=True)
class _Reply:
    parts: tuple[tuple[int, bytes], ...]
    ending: Ending
    keep: bool


class FakeUpstream:
    """A scripted HTTP server on loopback, in a thread of its own. Use it as a context manager.

    Each request takes the oldest scripted reply. When none is left, chat completions are answered, streamed where the
    body asks for it, `GET /models` lists one model, and every other GET is a 404.

    Attributes:
        requests: what was received, oldest first.
    """

    def __init__(self, *, accepting: bool = True) -> None:
        """Prepare a server.

        Args:
            accepting: False leaves the port open with its queue full, so that connecting hangs (Linux).
        """
        self.requests: list[ReceivedRequest] = []
        self._accepting = accepting
        self._replies: deque[_Reply] = deque()
        self._connections = 0
        self._talks: set[asyncio.Task[None]] = set()
        self._waiting: set[socket.socket] = set()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._port = 0
        self._fillers: list[socket.socket] = []

    @property
    def base_url(self) -> str:
        """The URL up to and with `/v1`, for LUKHAS_UPSTREAM_BASE_URL."""
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def connections(self) -> int:
        """How many connections were accepted so far."""
        return self._connections

    def reply(
        self,
        *,
        status: int = 200,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        delay_ms: int = 0,
        ending: Ending = "complete",
        keep: bool = True,
    ) -> None:
        """Script one plain answer.

        Args:
            status: the HTTP status.
            json: the body as a value; `body` gives it as bytes. Neither means a chat completion.
            body: the body as bytes.
            headers: further headers.
            delay_ms: wait before the status line.
            ending: after half of the body `truncate` closes the connection, `reset` resets it, `stall` falls silent.
            keep: whether the connection may be used again afterwards; False closes it without saying so before.
        """
        content = body if body is not None else jsonlib.dumps(DEFAULT_ANSWER if json is None else json).encode()
        fields = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        sent = content if ending == "complete" else content[: len(content) // 2]
        self._replies.append(_Reply(((delay_ms, _head(status, fields)), (0, sent)), ending, keep))

    def reply_events(
        self,
        events: Iterable[Any],
        *,
        done: bool = True,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        delay_ms: int = 0,
        between_ms: int = 0,
        ending: Ending = "complete",
    ) -> None:
        """Script one stream of server-sent events, chunked, one event a chunk.

        Args:
            events: each a value (sent as `data:` and JSON) or bytes (sent as they are).
            done: whether `data: [DONE]` follows.
            status: the HTTP status.
            headers: further headers.
            delay_ms: wait before the status line.
            between_ms: wait before each event.
            ending: how it ends after the events; all but `complete` leave the chunked body unfinished.
        """
        raw = [e if isinstance(e, bytes) else b"data: " + jsonlib.dumps(e).encode() + b"\n\n" for e in events]
        if done:
            raw.append(b"data: [DONE]\n\n")
        fields = {"content-type": "text/event-stream", "transfer-encoding": "chunked", **(headers or {})}
        parts = [(delay_ms, _head(status, fields))]
        parts += [(between_ms, b"%x\r\n%b\r\n" % (len(event), event)) for event in raw]
        if ending == "complete":
            parts.append((0, b"0\r\n\r\n"))
        self._replies.append(_Reply(tuple(parts), ending, True))

    def reply_raw(
        self, parts: Sequence[bytes], *, delay_ms: int = 0, between_ms: int = 0, ending: Ending = "truncate"
    ) -> None:
        """Script bytes as they are, HTTP or not; no part and `truncate` closes the connection without an answer."""
        timed = [(between_ms if index else delay_ms, part) for index, part in enumerate(parts)]
        self._replies.append(_Reply(tuple(timed or [(delay_ms, b"")]), ending, False))

    def _reply_usual(self, request: ReceivedRequest) -> None:
        if request.method == "GET":
            if request.path == "/v1/models":
                self.reply(json={"object": "list", "data": [DEFAULT_MODEL]})
            else:
                error = {"message": "No such thing.", "type": "invalid_request_error", "param": None, "code": None}
                self.reply(status=404, json={"error": error})
        elif b'"stream":true' in request.body.replace(b" ", b""):
            self.reply_events(DEFAULT_EVENTS)
        else:
            self.reply()

    def __enter__(self) -> Self:
        ready = threading.Event()
        listener = socket.create_server(("127.0.0.1", 0), backlog=128 if self._accepting else 0)
        self._port = listener.getsockname()[1]
        if not self._accepting:
            self._fillers.append(listener)
            # A queue of backlog 0 holds one connection; what comes after it gets no answer to its first packet.
            for _ in range(3):
                filler = socket.socket()
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", self._port))
                self._fillers.append(filler)
            return self
        self._thread = threading.Thread(target=self._run, args=(listener, ready), name="fake-upstream", daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *unused: object) -> None:
        for filler in self._fillers:
            filler.close()
        if self._thread is not None and self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _run(self, listener: socket.socket, ready: threading.Event) -> None:
        asyncio.run(self._serve(listener, ready))

    async def _serve(self, listener: socket.socket, ready: threading.Event) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        listener.setblocking(False)
        loop.add_reader(listener, self._accept, listener)
        ready.set()
        await self._stop.wait()
        loop.remove_reader(listener)
        listener.close()
        talks = tuple(self._talks)
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        # A task that is cancelled before its first step never reaches its own closing.
        for conn in self._waiting:
            conn.close()
        # Transports close one turn of the loop after they are told to.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _accept(self, listener: socket.socket) -> None:
        # Not asyncio's server: closing that one while it accepts leaves the new connection open (CPython 3.11).
        try:
            conn, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        conn.setblocking(False)
        # asyncio leaves Nagle's algorithm on for a connection of this kind, and each part would wait 40 ms.
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connections += 1
        self._waiting.add(conn)
        task = asyncio.ensure_future(self._talk(conn, self._connections))
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)

    async def _talk(self, conn: socket.socket, number: int) -> None:
        self._waiting.discard(conn)
        reader, writer = await asyncio.open_connection(sock=conn)
        try:
            ahead = b""
            while True:
                request = await _receive(reader, ahead, number)
                self.requests.append(request)
                if not self._replies:
                    self._reply_usual(request)
                going, ahead = await self._answer(reader, writer, request, self._replies.popleft())
                if not going:
                    return
        except (OSError, asyncio.IncompleteReadError):
            # The client went away between two requests, or in the middle of sending one.
            return
        finally:
            if self._stop is not None and self._stop.is_set():
                writer.transport.abort()
            else:
                writer.close()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: ReceivedRequest, reply: _Reply
    ) -> tuple[bool, bytes]:
        sending = asyncio.ensure_future(_send(writer, reply))
        # Nothing is due from the client now, so what ends this read is its leaving, or its next request.
        leaving = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done() or sending.exception() is not None:
                request.closed_at = time.monotonic()
                request.closed.set()
                return False, b""
            if reply.ending == "reset":
                # Closing with a linger time of 0 sends RST instead of FIN.
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False, b""
            if reply.ending == "truncate" or not reply.keep:
                return False, b""
            first = await leaving
            return bool(first), first
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)


def _head(status: int, fields: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Fake\r\n{lines}\r\n".encode("latin-1")


async def _send(writer: asyncio.StreamWriter, reply: _Reply) -> None:
    for delay_ms, part in reply.parts:
        if delay_ms:
            await asyncio.sleep(delay_ms / 1000)
        writer.write(part)
        await writer.drain()
    if reply.ending == "stall":
        await asyncio.Event().wait()


async def _receive(reader: asyncio.StreamReader, ahead: bytes, number: int) -> ReceivedRequest:
    head = ahead + await reader.readuntil(b"\r\n\r\n")
    line, *rest = head.decode("latin-1").split("\r\n")
    method, path, _ = line.split(" ", 2)
    headers: dict[str, str] = {}
    for text in rest:
        name, colon, value = text.partition(":")
        if colon:
            headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, path, headers, body, number)
