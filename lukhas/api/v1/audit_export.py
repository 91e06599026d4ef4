"""`/api/v1/audit/export`: the log's records verbatim, as JSON lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, request_id_of
from lukhas.audit.export import Wanted, find_range, read_lines
from lukhas.audit.moment import parse_moment

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])

_LARGEST = 2**53


@router.get("/export", response_class=StreamingResponse)
async def export_records(
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    first: Annotated[int | None, Query(alias="from", ge=0, le=_LARGEST, description="Index of the first.")] = None,
    to: Annotated[int | None, Query(ge=0, le=_LARGEST, description="Index after the last.")] = None,
    since: Annotated[str | None, Query(max_length=64, description="From this age or time on.")] = None,
    until: Annotated[str | None, Query(max_length=64, description="Before this age or time.")] = None,
) -> Response:
    """Stream records of every tenant, verbatim, a line each. Scope `admin`.

    `X-Lukhas-Audit-Range` says which: the first index and the one after the last. A stream that breaks off has fewer.
    """
    require(key, "admin")
    now_ms = runtime.clock.now_ms()
    wanted = Wanted(
        first,
        to,
        None if since is None else parse_moment(since, now_ms, "since"),
        None if until is None else parse_moment(until, now_ms, "until"),
    )
    begin, end = await asyncio.to_thread(find_range, runtime.database, wanted)
    headers = {
        "x-request-id": request_id_of(request),
        "x-lukhas-audit-range": f"{begin}-{end}",
        "cache-control": "private, no-store",
        "content-disposition": f'attachment; filename="audit-{begin}-{end}.jsonl"',
    }
    lines = _stream(read_lines(runtime.audit.source, begin, end))
    return StreamingResponse(lines, headers=headers, media_type="application/x-ndjson")


async def _stream(batches: Iterator[Sequence[bytes]]) -> AsyncIterator[bytes]:
    # A batch is read when the one before was taken, so a slow reader holds no more than one.
    while (lines := await asyncio.to_thread(next, batches, None)) is not None:
        yield b"".join([line + b"\n" for line in lines])
