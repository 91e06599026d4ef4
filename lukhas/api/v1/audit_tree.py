"""`/api/v1/audit`: the log's checkpoint, key, tiles and proofs, and receipts of single records.

Below this prefix, `checkpoint` and `tile/...` are a log as C2SP tlog-tiles lays it out. Hashes tell nothing of what was
recorded, so any key reads them; records are read by whom they belong to.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer, request_id_of
from lukhas.api.v1.audit import check_readable
from lukhas.audit.bundle import read_bundle
from lukhas.audit.issuing import choose_record, issue_receipt
from lukhas.audit.proof import prove_consistency, root_at
from lukhas.audit.receipt import RECEIPT_SUFFIX
from lukhas.audit.record import parse_record
from lukhas.audit.store import AuditStore
from lukhas.audit.tile import TILE_HEIGHT, TILE_WIDTH, parse_tile_path
from lukhas.errors import InvalidRequest, NotFound
from lukhas.ids import check_id

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])

_LARGEST_SIZE: Final = 2**63 - 1
_TEXT: Final = "text/plain; charset=utf-8"
_BYTES: Final = "application/octet-stream"
_CHANGING: Final = "no-cache"
# Private: a shared cache between must not answer who has no key.
_IMMUTABLE: Final = "private, max-age=31536000, immutable"
_SECRET: Final = "private, no-store"  # noqa: S105 - a header's value


@router.get("/checkpoint", response_class=Response)
async def read_checkpoint(request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return the newest signed checkpoint: the log's name, size and root hash, and the signature over them."""
    newest = await asyncio.to_thread(runtime.custody.checkpoints.newest)
    if newest is None:
        raise NotFound("No checkpoint was signed yet.", hint="One is signed a few seconds after the first record.")
    return _plain(request, newest.note, _TEXT, _CHANGING)


@router.get("/key", response_class=Response)
async def read_verifier_key(request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return the key that checkpoints are verified with, as `name+id+key`; older ones of this log on further lines."""
    verifiers = runtime.custody.verifiers
    if not verifiers:
        raise NotFound("This log has no key yet.", hint="It is made with the first checkpoint.")
    return _plain(request, "".join(f"{one}\n" for one in verifiers).encode(), _TEXT, _CHANGING)


@router.get("/consistency")
async def read_consistency(
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    old: Annotated[int, Query(alias="from", ge=0, le=_LARGEST_SIZE)],
    new: Annotated[int | None, Query(alias="to", ge=0, le=_LARGEST_SIZE)] = None,
) -> Response:
    """Prove that the log of `to` records (default: all) continues the one of `from` records; hashes are base64."""
    return json_answer(await asyncio.to_thread(_prove_consistency, runtime.audit, old, new), request)


@router.get("/tile/{path:path}", response_class=Response)
async def read_tile(path: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return a tile of the tree: 256 hashes, or as many as `.p/<number>` asks for.

    Below `tile/entries/` are the records themselves, each after its length as two big-endian bytes: for an admin key.
    """
    name = parse_tile_path(f"tile/{path}")
    if name.level is None:
        require(key, "admin")
    audit = runtime.audit
    size = await asyncio.to_thread(audit.source.size)
    there = (size >> TILE_HEIGHT * (name.level or 0)) - name.index * TILE_WIDTH
    if there < name.width:
        raise NotFound(
            f"The log does not have this tile: it has {size} records.",
            hint=f"Of this tile there are {there} hashes: .p/{there}" if there > 0 else "See: checkpoint",
        )
    if name.level is None:
        bundle = await asyncio.to_thread(read_bundle, audit.source, name.index, name.width)
        return _plain(request, bundle, _BYTES, _SECRET)
    hashes = await asyncio.to_thread(audit.tiles.read, name.level, name.index, name.width)
    return _plain(request, hashes, _BYTES, _IMMUTABLE)


@router.get("/{audit_id}/proof", response_class=Response)
async def read_receipt(
    audit_id: str,
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    record: Annotated[str | None, Query(max_length=20)] = None,
) -> Response:
    """Return the receipt of one record (C2SP tlog-proof): its bytes, its place, the proof, a signed checkpoint.

    `record` is `decision` (the default, else the first record), `outcome`, or a place among the id's records, from 0.
    Who may read the record may have its receipt.
    """
    check_id("aud", audit_id)
    records = await asyncio.to_thread(runtime.audit.read, audit_id)
    check_readable(parse_record(records[0].data) if records else None, audit_id, key)
    chosen = choose_record(records, record)
    receipt = await asyncio.to_thread(issue_receipt, chosen, runtime.audit.tiles, runtime.custody.checkpoints)
    answer = _plain(request, receipt.format(), _TEXT, _SECRET)
    answer.headers["content-disposition"] = f'attachment; filename="{audit_id}{RECEIPT_SUFFIX}"'
    answer.headers["x-lukhas-audit-id"] = audit_id
    return answer


def _prove_consistency(audit: AuditStore, old: int, new: int | None) -> dict[str, object]:
    size = audit.source.size()
    if new is None:
        new = size
    if new > size:
        raise InvalidRequest(f"The log has {size} records.", param="to")
    if old > new:
        raise InvalidRequest(f"A log of {new} records continues none of {old}.", param="from")
    return {
        "from": old,
        "to": new,
        "from_root": _encode(root_at(audit.tiles, old)),
        "to_root": _encode(root_at(audit.tiles, new)),
        "hashes": [_encode(one) for one in prove_consistency(audit.tiles, old, new)],
    }


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _plain(request: Request, body: bytes, kind: str, caching: str) -> Response:
    headers = {"x-request-id": request_id_of(request), "cache-control": caching}
    return Response(body, headers=headers, media_type=kind)
