"""The composition root: one Settings in, one ASGI application out."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from lukhas.api import operations
from lukhas.api.control import add_problem_handlers, describe_app
from lukhas.api.openai_compat import OpenAISurface
from lukhas.api.v1 import (
    audit,
    audit_content,
    audit_export,
    audit_replay,
    audit_search,
    audit_subject,
    audit_tree,
    incident,
    limit,
    modulate,
    policy,
    policy_verify,
    sensitivity,
    signal_release,
    signals,
)
from lukhas.gateway.runtime import Runtime, open_runtime
from lukhas.modulation import prover
from lukhas.settings import Settings


class Application(FastAPI):
    """FastAPI for the control plane, with the OpenAI surface in front of its middleware.

    The governed call is the hot path: in front, it costs no routing and no middleware.
    """

    def __init__(self, runtime: Runtime, **options: Any) -> None:
        super().__init__(**options)
        self.state.runtime = runtime
        self._surface = OpenAISurface(runtime)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "http" and (scope["path"].startswith("/v1/") or scope["path"] == "/v1"):
            await self._surface(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def build_app(settings: Settings, **overrides: Any) -> Application:
    """Open everything from one Settings and return the application that serves it.

    Args:
        settings: what to open.
        overrides: for tests and embedding: `clock`, `upstream`, `metrics`, as `open_runtime` takes them.

    Raises:
        ConfigurationError, PolicyError, StorageUnavailable: it cannot serve; nothing is left open.
    """
    return serve_runtime(open_runtime(settings, **overrides))


def serve_runtime(runtime: Runtime) -> Application:
    """Return the application that serves an open runtime, and closes it at shutdown."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await runtime.start()
        try:
            yield
        finally:
            prover.stop()  # its thread would hold the process until the proof's deadline
            await runtime.stop()

    app = Application(
        runtime, **describe_app(), lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url="/openapi.json"
    )
    add_problem_handlers(app)
    modules = (
        # What stands before `audit` would otherwise be taken for the id of a record.
        *(operations, audit_content, audit_export, audit_replay, audit_search, audit_subject, audit_tree, audit),
        *(incident, limit, modulate, policy, policy_verify, sensitivity, signal_release, signals),
    )
    for module in modules:
        app.include_router(module.router)
    return app
