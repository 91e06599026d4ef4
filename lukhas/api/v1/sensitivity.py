"""`/api/v1/policy/sensitivity`: how a parameter answers to the signals, for whoever draws it."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Query, Request, Response

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.modulation.sensitivity import measure_sensitivity

router = APIRouter(prefix="/api/v1/policy", tags=["policy"])


@router.get("/sensitivity")
async def read_sensitivity(
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    parameter: str = Query(description="A parameter of the policy in force.", examples=["temperature"]),
    x: str | None = Query(default=None, description="A signal: its line alone."),
    y: str | None = Query(default=None, description="A second signal: the plane of both too."),
) -> Response:
    """Return a parameter's values along each signal, or over the plane of two, by the policy in force. Scope `policy`.

    Other signals are absent, and so are the caller's own values.
    """
    require(key, "policy")
    # Thousands of decisions: beside the event loop, which calls are waiting for.
    found = await asyncio.to_thread(measure_sensitivity, runtime.policies.dispatcher, parameter, x, y)
    return json_answer(msgspec.to_builtins(found), request)
