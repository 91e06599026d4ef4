"""`/api/v1/audit`: records by id."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import PlainTextResponse

from lukhas.access.ring import ApiKey
from lukhas.api.control import KeyDep, RuntimeDep, json_answer, request_id_of
from lukhas.audit.checkpoint_store import CheckpointStore
from lukhas.audit.explanation import explain_text
from lukhas.errors import NotFound
from lukhas.ids import check_id

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("/{audit_id}")
async def read_audit(
    audit_id: str,
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    wanted: Annotated[Literal["json", "text"] | None, Query(alias="format")] = None,
) -> Response:
    """Return every record of one audit id: the decision, its outcome, and the records verbatim.

    A key reads its own records; with the scope `audit` its tenant's; an admin key all. Others see 404. With
    `format=text`, or `Accept: text/plain`, the answer is in sentences.
    """
    check_id("aud", audit_id)
    document = await asyncio.to_thread(runtime.audit.read_document, audit_id)
    try:
        found = check_readable(document, audit_id, key)
    except NotFound as missing:
        # By the id's time alone, so that it says nothing about records of others.
        hint = await asyncio.to_thread(runtime.audit.explain_absence, audit_id)
        raise NotFound(missing.message, hint=hint) from None
    if wanted == "json" or (wanted is None and not request.headers.get("accept", "").startswith("text/plain")):
        return json_answer(found, request)
    newest = max(int(one["tree"]["index"]) for one in found["records"])
    store = CheckpointStore(runtime.database, runtime.writer, runtime.clock)
    covering = await asyncio.to_thread(store.first_covering, newest)
    text = explain_text(found, None if covering is None else (covering.size, covering.time_ms))
    return PlainTextResponse(text, headers={"x-request-id": request_id_of(request)})


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
