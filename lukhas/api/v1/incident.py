"""`/api/v1/incidents`: what violated the policy, and what was done about it."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from lukhas.access.ring import ApiKey
from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.errors import InvalidRequest
from lukhas.gateway.incident import describe_incident, no_incident
from lukhas.ids import check_id

router = APIRouter(prefix="/api/v1/incidents", tags=["incidents"])


@router.get("")
async def list_incidents(
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    since_ms: Annotated[int | None, Query(ge=0, le=2**53, description="From this moment on, ms since 1970.")] = None,
    until_ms: Annotated[int | None, Query(ge=0, le=2**53, description="Before this moment, ms since 1970.")] = None,
    category: str | None = None,
    point: str | None = None,
    tool: str | None = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: str | None = None,
) -> Response:
    """List incidents, newest first: with the scope `audit` or `signals:release` the tenant's, an admin key all.

    `next` is the cursor of the next page; null on the last.
    """
    require_sight(key)
    after = None if cursor is None else _read_cursor(cursor)
    found = await asyncio.to_thread(
        runtime.incidents.list,
        tenant=None if key.is_admin else key.tenant,
        since_ms=since_ms,
        until_ms=until_ms,
        category=category,
        point=point,
        tool=tool,
        limit=limit + 1,
        cursor=after,
    )
    page = found[:limit]
    following = f"{page[-1].time_ms}.{page[-1].incident_id}" if len(found) > limit else None
    return json_answer({"incidents": [describe_incident(row) for row in page], "next": following}, request)


@router.get("/{incident_id}")
async def read_incident(incident_id: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return one incident; another tenant's is 404."""
    require_sight(key)
    row = await asyncio.to_thread(runtime.incidents.read, incident_id)
    if not key.is_admin and row.tenant != key.tenant:
        raise no_incident(incident_id)
    return json_answer(describe_incident(row), request)


def require_sight(key: ApiKey) -> None:
    """Check that a key may see its tenant's incidents.

    Raises:
        Forbidden: it has neither the scope `audit` nor `signals:release`.
    """
    if not key.allows("signals:release"):
        require(key, "audit")


def _read_cursor(text: str) -> tuple[int, str]:
    at, _, incident_id = text.partition(".")
    if not (at.isascii() and at.isdigit() and len(at) <= 16):
        raise InvalidRequest("This is not a cursor of this list.", param="cursor")
    return int(at), check_id("inc", incident_id)
