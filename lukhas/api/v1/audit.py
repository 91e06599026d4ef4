"""`/api/v1/audit`: records by id."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from lukhas.access.ring import ApiKey
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
    return json_answer(check_readable(document, audit_id, key), request)


def check_readable(record: dict[str, Any] | None, audit_id: str, key: ApiKey) -> dict[str, Any]:
    """Return a record, or the document of an id's records, where the key may read it.

    Raises:
        NotFound: there is none, or it is somebody else's, which reads the same.
    """
    if record is not None:
        is_own = record["key_id"] == key.key_id
        is_tenants = record["tenant"] == key.tenant and key.allows("audit")
        if key.is_admin or is_own or is_tenants:
            return record
    raise NotFound(f"There is no record {audit_id}, or it is not yours to read.")
