"""`/api/v1/audit/subjects`: forgetting a person or a session, on record."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.access.ring import ApiKey
from lukhas.access.scope import check_tenant
from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.audit.forgetting import Actor, ErasureReceipt, Forgetter, unknown
from lukhas.clock import format_utc
from lukhas.errors import Forbidden, InvalidRequest
from lukhas.gateway.runtime import Runtime
from lukhas.ids import check_id
from lukhas.openai.wire import check_subject

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


class Forget(BaseModel):
    """Whom to forget, and why."""

    model_config = ConfigDict(extra="forbid")

    subject: str = Field(description="The caller's own name for the user or session, or a `sub_...` id.")
    kind: Literal["user", "session", "key"] | None = Field(
        default=None, description="What the name names; needed where a user and a session have the same name."
    )
    tenant: str | None = Field(default=None, description="Whose subject; by default the key's own tenant's.")
    reason: str = Field(default="", description="Why; goes on record without the name. Up to 500 characters.")


@router.post("/subjects/forget")
async def forget(body: Forget, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Forget a subject: destroy its mapping and key, delete its captured texts, and say so in one record.

    Scope `audit:erase` for subjects of the key's own tenant, an admin key for all. An unknown subject, or another
    tenant's, is 404. Again is no error with the `sub_` id, which is all that is left of a name.
    """
    runtime.check_serving()
    require(key, "audit:erase")
    tenant = key.tenant if body.tenant is None else check_tenant(body.tenant)
    if tenant != key.tenant and not key.is_admin:
        raise Forbidden("This key may forget subjects of its own tenant only.", param="tenant")
    receipt = await asyncio.to_thread(_forget, body, tenant, runtime, key)
    return json_answer(describe_receipt(receipt), request)


def _forget(body: Forget, tenant: str, runtime: Runtime, key: ApiKey) -> ErasureReceipt:
    forgetter = Forgetter(runtime.vault, runtime.audit, runtime.database, runtime.writer, runtime.clock)
    actor = Actor(tenant, key.key_id)
    if body.subject.startswith("sub_"):
        sub_id = check_id("sub", body.subject)
        if body.kind is not None:
            raise InvalidRequest("A sub_ id needs no kind.", param="kind")
        if not key.is_admin and not forgetter.belongs_to(sub_id, tenant):
            raise unknown()
        return forgetter.forget(sub_id, actor, body.reason)
    name = check_subject(body.subject, "subject")
    kind = body.kind or forgetter.find_kind(tenant, name)
    return forgetter.forget((tenant, kind, name), actor, body.reason)


def describe_receipt(receipt: ErasureReceipt) -> dict[str, Any]:
    """Return a receipt as plain JSON types."""
    return {
        "sub_id": receipt.sub_id,
        "kind": receipt.kind,
        "audit_id": receipt.audit_id,
        "erased_at": format_utc(receipt.erased_ms),
        "is_new": receipt.is_new,
        "keys_destroyed": receipt.keys_destroyed,
        "mapping_destroyed": receipt.mapping_destroyed,
        "content_deleted": receipt.content_deleted,
        "is_purged": receipt.is_purged,
        "backups": receipt.backups,
    }
