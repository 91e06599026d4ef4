"""The OpenAI surface at `/v1`, as plain ASGI endpoints: the governed call is the hot path."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import structlog

from lukhas.api.asgi import ClientGone, Departure, Headers, Message, Receive, Scope, Send, read_body, send_answer
from lukhas.api.auth import authenticate
from lukhas.api.problems import openai_error, retry_headers, unexpected
from lukhas.errors import LukhasError, NotFound
from lukhas.gateway.pipeline import Incoming, Reply
from lukhas.gateway.runtime import Runtime
from lukhas.ids import make_id
from lukhas.openai.headers import request_headers, response_headers
from lukhas.openai.upstream import UpstreamRequest, check_path

log = structlog.get_logger("lukhas.api")

_JSON = (b"content-type", b"application/json")


class OpenAISurface:
    """Serves `/v1`. An unlisted path is 404 and never proxied."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request whose path starts with `/v1`."""
        request_id = make_id("req")
        headers: Headers = [(b"x-request-id", request_id.encode())]
        sent = _Sent(send)
        try:
            await self._route(scope, receive, sent, headers, request_id)
        except ClientGone:
            return
        except LukhasError as failure:
            await _send_error(sent, failure, headers)
        except Exception as failure:  # the edge: whatever broke becomes an answer, and is logged whole
            log.exception("request_failed", request_id=request_id, kind=type(failure).__name__)
            await _send_error(sent, unexpected(), headers)

    async def _route(self, scope: Scope, receive: Receive, sent: _Sent, headers: Headers, request_id: str) -> None:
        path: str = scope["path"].rstrip("/") or "/"
        method: str = scope["method"]
        if path == "/v1/chat/completions":
            if method != "POST":
                return await _refuse_method(sent, headers, b"POST")
            return await self._chat(scope, receive, sent, headers, request_id)
        if path == "/v1/models" or path.startswith("/v1/models/"):
            if method != "GET":
                return await _refuse_method(sent, headers, b"GET")
            return await self._models(scope, path, sent, headers)
        authenticate(scope, self._runtime)
        raise NotFound("This gateway does not serve that path.", hint="It serves /v1/chat/completions and /v1/models.")

    async def _chat(self, scope: Scope, receive: Receive, sent: _Sent, headers: Headers, request_id: str) -> None:
        runtime = self._runtime
        key = authenticate(scope, runtime)
        runtime.check_serving()
        body = await read_body(scope, receive, runtime.settings.max_body_bytes)
        incoming = Incoming(request_id, key, scope["headers"], body, headers)
        departure = Departure(receive)
        try:
            with departure:
                await self._answer(await runtime.pipeline.chat(incoming), sent)
        except asyncio.CancelledError:
            if not departure.gone:
                raise

    async def _answer(self, reply: Reply, sent: _Sent) -> None:
        try:
            if reply.events is None:
                await send_answer(sent, reply.status, reply.headers, reply.body)
                return
            await sent({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
            async for block in reply.events:
                await sent({"type": "http.response.body", "body": block, "more_body": True})
            await sent({"type": "http.response.body", "body": b""})
        finally:
            reply.abandon()

    async def _models(self, scope: Scope, path: str, sent: _Sent, headers: Headers) -> None:
        runtime = self._runtime
        authenticate(scope, runtime)
        runtime.check_serving()
        # As the caller wrote it: in a model's name, an encoded slash is not a slash. Decoded, it may not climb either.
        check_path(quote(path, safe="/"))
        target = bytes(scope["raw_path"]).decode("latin-1").removeprefix("/v1").rstrip("/")
        if target != "/models" and not target.startswith("/models/"):
            raise NotFound("There is nothing at this path.")
        request = UpstreamRequest(method="GET", path=target, headers=request_headers(scope["headers"]))
        answer = await runtime.upstream.send(request)
        try:
            body = await answer.read(runtime.settings.max_response_bytes)
        except BaseException:
            answer.abort()
            raise
        await answer.close()
        await send_answer(sent, answer.status, [*response_headers(answer.headers), *headers], body)


class _Sent:
    """A `send` that knows whether the answer has begun: an error after that can only end the connection."""

    __slots__ = ("_send", "started")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        self.started = True
        await self._send(message)


async def _send_error(sent: _Sent, failure: LukhasError, headers: Headers) -> None:
    if sent.started:
        raise failure
    status, body = openai_error(failure)
    await send_answer(sent, status, [_JSON, *retry_headers(failure), *headers], body)


async def _refuse_method(sent: _Sent, headers: Headers, allowed: bytes) -> None:
    body = b'{"error":{"message":"This path takes another method.","type":"invalid_request_error","param":null,'
    body += b'"code":"method_not_allowed"}}'
    await send_answer(sent, 405, [_JSON, (b"allow", allowed), *headers], body)
