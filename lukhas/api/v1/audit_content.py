"""`/api/v1/audit/{id}/content`: the captured texts of a call, each reading on record."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Request, Response

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer, request_id_of
from lukhas.audit.content import CapturedCall, ContentStore
from lukhas.audit.reading import describe_content, make_access_record, read_content
from lukhas.errors import NotFound
from lukhas.gateway.runtime import Runtime
from lukhas.ids import check_id
from lukhas.vault.erasure import EraseLedger

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("/{audit_id}/content")
async def show_content(audit_id: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return what was captured of a call: redacted, cut to the limit, the request and the answer as it was released.

    With the scope `audit` the tenant's, an admin key all. Nothing captured, erased (`subject_erased`), or another
    tenant's is 404. That it was read is on record before it is returned: `access` is that record's id.
    """
    check_id("aud", audit_id)
    require(key, "audit")
    document = await asyncio.to_thread(runtime.audit.read_document, audit_id)
    if document is not None and not key.is_admin and document["tenant"] != key.tenant:
        document = None
    captured = None if document is None else await asyncio.to_thread(_read, runtime, audit_id, document)
    if captured is None or (captured.owner.tenant != key.tenant and not key.is_admin):
        raise NotFound(f"There is no record {audit_id}, or it is not yours to read.")
    record = make_access_record(captured, runtime.clock, key.key_id)
    record.body["request"] = request_id_of(request)
    access = await runtime.record(record)
    return json_answer({**describe_content(captured), "access": access}, request)


def _read(runtime: Runtime, audit_id: str, document: dict[str, Any]) -> CapturedCall:
    contents = ContentStore(runtime.database, runtime.vault.keys)
    return read_content(contents, EraseLedger(runtime.vault, runtime.clock), audit_id, document)
