"""`/api/v1/limits`: what a key or tenant may use, and how much of it is used."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.access.limit import LIMIT_NAMES, Holder, HolderKind, Limits, describe_change, make_holder, parse_limits
from lukhas.access.ring import ApiKey
from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer, request_id_of
from lukhas.api.precondition import answer_tagged, read_if_match
from lukhas.audit.redaction import redact
from lukhas.errors import NotFound, PreconditionFailed
from lukhas.gateway.runtime import Runtime
from lukhas.modulation.revision import check_reason

router = APIRouter(prefix="/api/v1/limits", tags=["limits"])

Holders = Literal["keys", "tenants"]
_KINDS: dict[Holders, HolderKind] = {"keys": "key", "tenants": "tenant"}


class Replacement(BaseModel):
    """All limits that are to hold from now on, and why."""

    model_config = ConfigDict(extra="forbid")

    limits: dict[str, Any] = Field(
        description=f"Some of {', '.join(LIMIT_NAMES)}, each a whole number from 1, or null; an empty object for none.",
        examples=[{"requests_per_minute": 60, "tokens_per_day": 1_000_000}],
    )
    reason: str = Field(description="Why; stored with the record.", examples=["Trial customer."])


@router.get("")
async def list_limits(request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """List every key and tenant that has a limit, with what is used of it. Scope `admin`."""
    require(key, "admin")
    found = [_describe(runtime, holder) for holder in runtime.limits.rules.holders()]
    return json_answer({"limits": found}, request)


@router.get("/{holders}/{name}")
async def read_limits(holders: Holders, name: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return the limits of one key or tenant, and what is used of them. A key may read its own; else scope `admin`.

    Its `ETag` is what `If-Match` of a change must name.
    """
    if (holders, name) != ("keys", key.key_id):
        require(key, "admin")
    holder = make_holder(_KINDS[holders], name)
    await asyncio.to_thread(_find_tenant, runtime, holder)
    return _answer(runtime, holder, request)


@router.put("/{holders}/{name}")
async def replace_limits(
    holders: Holders, name: str, body: Replacement, request: Request, runtime: RuntimeDep, key: KeyDep
) -> Response:
    """Replace the limits of one key or tenant: on record with the reason, in force at once. Scope `admin`.

    Needs `If-Match` with the `ETag` of what it replaces. What was used stays counted.
    """
    runtime.check_serving()
    require(key, "admin")
    holder = make_holder(_KINDS[holders], name)
    reason, limits = check_reason(body.reason), parse_limits(body.limits)
    matching = read_if_match(request, is_required=True)
    tenant = await asyncio.to_thread(_find_tenant, runtime, holder)
    before = runtime.limits.rules.find(holder)
    if matching is not None and before.tag not in matching:
        raise PreconditionFailed("These limits have changed.", hint="Read them again.", param="If-Match")
    audit_id = None
    if limits != before:
        audit_id = await asyncio.to_thread(
            _change, runtime, holder, before, limits, reason, tenant, key, request_id_of(request)
        )
    return _answer(runtime, holder, request, audit_id=audit_id, changed=limits != before)


def _change(
    runtime: Runtime,
    holder: Holder,
    before: Limits,
    limits: Limits,
    reason: str,
    tenant: str,
    key: ApiKey,
    request_id: str,
) -> str:
    body = redact(describe_change(holder, before, limits, reason))
    record = runtime.make_record("limit", body, key, request_id=request_id)
    # The record belongs to whom it concerns; the acting key is named in it.
    record = msgspec.structs.replace(record, tenant=tenant)
    also = (runtime.audit.sink, runtime.audit.encode(record))
    runtime.limits.change(holder, limits, expected=before, also=also)
    return record.audit_id


def _find_tenant(runtime: Runtime, holder: Holder) -> str:
    """Return whose holder it is; a key must be a stored one. Reads the database."""
    if holder.kind == "tenant":
        return holder.id
    found = next((one.tenant for one in runtime.keys.list() if one.key_id == holder.id), None)
    if found is None:
        raise NotFound("There is no such key.", hint="Limits hold for stored keys; see: lukhas key list")
    return found


def _answer(runtime: Runtime, holder: Holder, request: Request, **more: Any) -> Response:
    document = _describe(runtime, holder) | more
    return answer_tagged(request, json_answer(document, request), runtime.limits.rules.find(holder).tag)


def _describe(runtime: Runtime, holder: Holder) -> dict[str, Any]:
    limits = runtime.limits.rules.find(holder)
    usage = {
        one.name: {
            "limit": one.limit,
            "used": one.used,
            "remaining": one.remaining,
            "resets_in_s": round(one.reset_ms / 1000, 3),
        }
        for one in runtime.meter.standings(holder)
    }
    return {holder.kind: holder.id, "limits": limits.to_dict(), "usage": usage}
