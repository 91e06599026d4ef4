"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from lukhas.api.auth import authenticate, require
from lukhas.api.control import RuntimeDep, json_answer
from lukhas.telemetry import CONTENT_TYPE

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz(request: Request) -> Response:
    """Say that the process answers. Asks nothing of its dependencies."""
    return json_answer({"status": "ok"}, request)


@router.get("/readyz")
async def readyz(request: Request, runtime: RuntimeDep) -> Response:
    """Tell the truth about each dependency: 200 where governed calls can be served, else 503.

    `degraded` serves: the upstream cannot be reached, or a changed policy file was refused.
    """
    found = await runtime.check()
    return json_answer(found, request, 200 if found["ready"] else 503)


@router.get("/metrics")
async def metrics(request: Request, runtime: RuntimeDep) -> Response:
    """Return Prometheus metrics; off loopback this needs a key with the scope `metrics`."""
    if not runtime.settings.is_loopback:
        require(authenticate(request.scope, runtime), "metrics")
    runtime.metrics.writer_depth.value = runtime.writer.depth
    size, _ = await asyncio.to_thread(runtime.audit.head)
    runtime.metrics.log_size.value = size
    return Response(runtime.metrics.render(), media_type=CONTENT_TYPE)
