"""`/api/v1/audit`: records by id."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request, Response

from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.errors import NotFound
from lukhas.ids import check_id

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("/{audit_id}")
async def read_audit(audit_id: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return every record of one audit id: the decision, its outcome, and the records verbatim.

    A key reads its own records; with the scope `audit` its tenant's; an admin key all. Others see 404.
    """
    check_id("aud", audit_id)
    document = await asyncio.to_thread(runtime.audit.read_document, audit_id)
    if document is not None:
        is_own = document["key_id"] == key.key_id
        is_tenants = document["tenant"] == key.tenant and key.allows("audit")
        if key.is_admin or is_own or is_tenants:
            return json_answer(document, request)
    raise NotFound(f"There is no record {audit_id}, or it is not yours to read.")
