"""The control plane's application: routers, the request's key and id, and errors as problem details."""

from __future__ import annotations

from typing import Annotated, Any, cast

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from lukhas import __version__
from lukhas.access.ring import ApiKey
from lukhas.api.asgi import BodyLimit
from lukhas.api.auth import authenticate
from lukhas.api.problems import problem, retry_headers, unexpected
from lukhas.errors import InvalidRequest, LukhasError, NotFound
from lukhas.gateway.runtime import Runtime
from lukhas.ids import make_id
from lukhas.openai.wire import encode_json

log = structlog.get_logger("lukhas.api")

DESCRIPTION = "Signals in; bounded, explained changes to the model call out; every decision on record."


def get_runtime(request: Request) -> Runtime:
    """Return the process's runtime."""
    return cast(Runtime, request.app.state.runtime)


def get_key(request: Request) -> ApiKey:
    """Authenticate the caller."""
    return authenticate(request.scope, get_runtime(request))


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]
KeyDep = Annotated[ApiKey, Depends(get_key)]


def request_id_of(request: Request) -> str:
    """Return the id of this request, made when first asked for."""
    found: str | None = getattr(request.state, "request_id", None)
    if found is None:
        found = request.state.request_id = make_id("req")
    return found


def json_answer(value: Any, request: Request, status: int = 200) -> Response:
    """Return a JSON answer that carries the request's id."""
    headers = {"x-request-id": request_id_of(request)}
    return Response(encode_json(value), status, headers, media_type="application/json")


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every error as RFC 9457 problem details, a body over the limit among them."""
    runtime: Runtime = app.state.runtime
    app.add_middleware(BodyLimit, limit_bytes=runtime.settings.max_body_bytes)

    async def on_error(request: Request, failure: Exception) -> Response:
        return _answer(request, cast(LukhasError, failure))

    async def on_invalid(request: Request, failure: Exception) -> Response:
        found = cast(RequestValidationError, failure).errors()
        first = found[0] if found else {"msg": "invalid", "loc": ()}
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return _answer(request, InvalidRequest(f"{place or 'The request'}: {first['msg']}.", param=place or None))

    async def on_http(request: Request, failure: Exception) -> Response:
        wrong = cast(HTTPException, failure)
        if wrong.status_code == 405:
            answer = _answer(request, InvalidRequest("This path takes another method."))
            answer.status_code = 405
            answer.headers.update(wrong.headers or {})
            return answer
        if wrong.status_code == 404:
            return _answer(request, NotFound("There is nothing at this path.", hint="See /openapi.json."))
        # FastAPI answers whatever goes wrong while a body is read with a 400 of its own.
        cause = wrong.__cause__
        unread = InvalidRequest("The request body cannot be read as JSON.")
        return _answer(request, cause if isinstance(cause, LukhasError) else unread)

    async def on_unexpected(request: Request, failure: Exception) -> Response:
        log.error("request_failed", request_id=request_id_of(request), kind=type(failure).__name__, exc_info=failure)
        return _answer(request, unexpected())

    app.add_exception_handler(LukhasError, on_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_unexpected)


def _answer(request: Request, failure: LukhasError) -> Response:
    request_id = request_id_of(request)
    status, body = problem(failure, request_id)
    headers = {name.decode(): value.decode() for name, value in retry_headers(failure)}
    return Response(body, status, {**headers, "x-request-id": request_id}, media_type="application/problem+json")


def describe_app() -> dict[str, Any]:
    """Return the keyword arguments that name the application."""
    return {"title": "LUKHAS PWM", "version": __version__, "description": DESCRIPTION}
