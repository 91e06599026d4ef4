"""Plain ASGI pieces for the hot paths: reading a body, sending an answer, noticing that the client has gone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, Final

from lukhas.errors import TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

# A client that sends too much is heard out up to here, or it would see a reset instead of the 413.
_DRAIN_BYTES: Final = 256_000_000
_DRAIN_S: Final = 20.0


class ClientGone(Exception):
    """The client closed the connection before its request was whole."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """Return the first header of a name, in lower case, or None."""
    for key, value in scope["headers"]:
        if key == name:
            return value
    return None


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """Read the whole request body.

    Raises:
        TooLarge: it is longer than the limit.
        ClientGone: the client left.
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and int(declared[:20]) > limit_bytes:
        await _drain(receive)
        raise _too_large(limit_bytes)
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit_bytes:
            raise _too_large(limit_bytes)
        return body
    parts = [body]
    size = len(body)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            if message.get("more_body", False):
                await _drain(receive)
            raise _too_large(limit_bytes)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


class BodyLimit:
    """Middleware under which reading a body raises TooLarge once it passes the limit."""

    def __init__(self, app: ASGIApp, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, its body counted."""
        await self._app(scope, _limit_body(receive, self._limit_bytes), send)


def _limit_body(receive: Receive, limit_bytes: int) -> Receive:
    size = 0

    async def limited() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit_bytes:
            if message.get("more_body", False):
                await _drain(receive)
            raise _too_large(limit_bytes)
        return message

    return limited


def _too_large(limit_bytes: int) -> TooLarge:
    return TooLarge(
        f"The request body is larger than {limit_bytes:,} bytes.",
        hint="Send less, or raise LUKHAS_MAX_BODY_BYTES.",
    )


async def _drain(receive: Receive) -> None:
    seen = 0
    try:
        async with asyncio.timeout(_DRAIN_S):
            while seen <= _DRAIN_BYTES:
                message = await receive()
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    return
                seen += len(message.get("body", b""))
    except TimeoutError:
        return


async def send_answer(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
    """Send one whole answer."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [*headers, (b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


class Departure:
    """Cancels the current task when the client closes the connection.

    Use as a context manager around the work; `gone` says afterwards whether that was the reason.
    """

    __slots__ = ("_receive", "_task", "_watcher", "gone")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._task = asyncio.current_task()
        self._watcher: asyncio.Task[None] | None = None
        self.gone = False

    def __enter__(self) -> Departure:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> bool:
        if self._watcher is not None:
            self._watcher.cancel()
        if self.gone and self._task is not None and kind is asyncio.CancelledError:
            # Only our own cancellation is swallowed; a shutdown's goes on.
            return self._task.uncancel() == 0
        return False

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._task is not None:
            self._task.cancel()
