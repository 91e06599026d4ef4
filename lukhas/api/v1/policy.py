"""`/api/v1/policy`: the policy in force."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer

router = APIRouter(prefix="/api/v1/policy", tags=["policy"])


@router.get("")
async def read_policy(request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return the policy in force: id, text, and why a changed file is not in force, if so. Scope `policy`."""
    require(key, "policy")
    policy = runtime.policies.policy
    status = msgspec.to_builtins(runtime.policies.status())
    return json_answer({**status, "sha256": policy.sha256, "text": policy.text}, request)
