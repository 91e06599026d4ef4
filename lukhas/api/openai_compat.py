"""The OpenAI surface at `/v1`, as plain ASGI endpoints: the governed call is the hot path."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Coroutine
from typing import Any, Final
from urllib.parse import quote

import structlog

from lukhas.api.asgi import ClientGone, Departure, Headers, Message, Receive, Scope, Send, read_body, send_answer
from lukhas.api.auth import authenticate
from lukhas.api.problems import openai_error, retry_headers, unexpected
from lukhas.errors import InvalidRequest, LukhasError, NotFound
from lukhas.gateway.answering import Reply
from lukhas.gateway.discretion import clean_error_body, pass_headers
from lukhas.gateway.equipment import DIALECTS
from lukhas.gateway.pipeline import Incoming, Operation
from lukhas.gateway.runtime import Runtime
from lukhas.ids import make_id
from lukhas.openai.call import Call, DialectName, ObjectRef
from lukhas.openai.headers import request_headers
from lukhas.openai.upstream import UpstreamRequest, check_path
from lukhas.openai.wire import Extension

log = structlog.get_logger("lukhas.api")

_CALLS: Final[dict[str, DialectName]] = {
    "/v1/chat/completions": "chat",
    "/v1/responses": "responses",
    "/v1/embeddings": "embeddings",
    "/v1/moderations": "moderations",
}
_OBJECT_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,200}\Z", re.ASCII)
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
        dialect = _CALLS.get(path)
        if dialect is not None:
            if method != "POST":
                return await _refuse_method(sent, headers, b"POST")
            return await self._call(scope, receive, sent, headers, request_id, dialect)
        if path.startswith("/v1/responses/"):
            return await self._operate(scope, receive, sent, headers, request_id, path, method)
        if path == "/v1/models" or path.startswith("/v1/models/"):
            if method != "GET":
                return await _refuse_method(sent, headers, b"GET")
            return await self._models(scope, path, sent, headers)
        authenticate(scope, self._runtime)
        raise NotFound("This gateway does not serve that path.", hint=f"It serves {', '.join(_CALLS)} and /v1/models.")

    async def _call(
        self, scope: Scope, receive: Receive, sent: _Sent, headers: Headers, request_id: str, dialect: DialectName
    ) -> None:
        runtime = self._runtime
        key = authenticate(scope, runtime)
        runtime.check_serving()
        body = await read_body(scope, receive, runtime.settings.max_body_bytes)
        incoming = Incoming(request_id, key, scope["headers"], body, headers)
        await self._attend(receive, sent, runtime.pipeline.run(incoming, DIALECTS[dialect]))

    async def _operate(
        self, scope: Scope, receive: Receive, sent: _Sent, headers: Headers, request_id: str, path: str, method: str
    ) -> None:
        """Fetch, delete or cancel a response that was made before."""
        runtime = self._runtime
        key = authenticate(scope, runtime)
        runtime.check_serving()
        response_id, _, action = path.removeprefix("/v1/responses/").partition("/")
        if action not in ("", "cancel") or not _OBJECT_ID.match(response_id):
            raise NotFound(
                "This gateway does not serve that path.", hint="It serves /v1/responses/{id} and its cancel."
            )
        allowed = b"POST" if action else b"GET, DELETE"
        if method.encode() not in allowed.split(b", "):
            return await _refuse_method(sent, headers, allowed)
        query: bytes = scope.get("query_string", b"")
        if b"stream" in query:
            raise InvalidRequest("A response is fetched whole here: 'stream' is not served.", param="stream")
        await read_body(scope, receive, runtime.settings.max_body_bytes)
        incoming = Incoming(request_id, key, scope["headers"], b"", headers)
        call = Call(
            "responses",
            f"/responses/{response_id}",
            {},
            "",
            False,
            None,
            Extension(),
            objects=(ObjectRef("response", response_id, ("id",)),),
        )
        name = "cancel" if action else "delete" if method == "DELETE" else "retrieve"
        operation = Operation(name, method, f"/responses/{response_id}" + (f"/{action}" if action else ""))
        await self._attend(receive, sent, runtime.pipeline.operate(incoming, call, operation))

    async def _attend(self, receive: Receive, sent: _Sent, work: Coroutine[Any, Any, Reply]) -> None:
        """Do a call's work for as long as its client is there."""
        departure = Departure(receive)
        try:
            with departure:
                await self._answer(await work, sent)
        except asyncio.CancelledError:
            if not departure.gone:
                raise

    async def _answer(self, reply: Reply, sent: _Sent) -> None:
        try:
            if reply.events is None:
                await send_answer(sent, reply.status, reply.headers, reply.body)
                return
            # A client that stays and reads nothing would hold its call, and the upstream's, for ever.
            async with asyncio.timeout(reply.deadline - time.monotonic()), contextlib.aclosing(reply.events) as events:
                await sent({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
                async for block in events:
                    await sent({"type": "http.response.body", "body": block, "more_body": True})
                await sent({"type": "http.response.body", "body": b""})
        except TimeoutError:
            log.warning("client_too_slow")
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
        own = pass_headers(answer)
        if answer.status >= 400:
            body = clean_error_body(body, answer.status)
            own = [_JSON, *(header for header in own if header[0] != b"content-type")]
        await send_answer(sent, answer.status, [*own, *headers], body)


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
