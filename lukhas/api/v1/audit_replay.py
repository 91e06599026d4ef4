"""`/api/v1/audit/{id}/replay`: a recorded decision, decided again."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Request, Response

from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.api.v1.audit import check_readable
from lukhas.ids import check_id
from lukhas.replay.single import Replay, replay_decision

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])


@router.get("/{audit_id}/replay")
async def replay_audit(audit_id: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Recompute a decision from its recorded levels, caller values and policy revision, and say whether it is the same.

    Whoever may read the record may replay it. `differences` has each part with its recorded and recomputed value.
    """
    check_id("aud", audit_id)

    def run() -> Replay:
        check_readable(runtime.audit.read_document(audit_id), audit_id, key)
        return replay_decision(runtime.audit, runtime.database, audit_id, (runtime.policies.policy.text,))

    return json_answer(msgspec.to_builtins(await asyncio.to_thread(run)), request)
