"""`/api/v1/policy/verify`: prove a policy without putting it in force."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.modulation.counterexample import in_words
from lukhas.modulation.prover import prove

router = APIRouter(prefix="/api/v1/policy", tags=["policy"])


class Verification(BaseModel):
    """A policy to prove, and how long that may take."""

    model_config = ConfigDict(extra="forbid")

    text: str | None = Field(default=None, description="The policy as YAML; the policy in force where left out.")
    timeout_s: float = Field(default=60.0, ge=0.1, le=300.0, description="Seconds that the proof may take.")


@router.post("/verify")
async def verify_policy(body: Verification, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Prove a policy over all levels of all signals, and return its certificate. Scope `admin`.

    Nothing takes effect. One proof runs at a time: beside another one the answer is 503. What the solver cannot decide
    in time, or without the extra `verify`, is 'not proved'.
    """
    require(key, "admin")
    policy = runtime.policies.policy
    text, source = (policy.text, policy.source) if body.text is None else (body.text, "text")
    found = await asyncio.to_thread(prove, text, source=source, deadline_s=body.timeout_s, wait=False)
    if found.result == "proved":
        # A later change to this very text then needs no second proof.
        await asyncio.to_thread(runtime.revisions.save_certificate, found)
    document = msgspec.to_builtins(found)
    for statement in document["statements"]:
        example = statement["counterexample"]
        statement["in_words"] = None if example is None else in_words(example)
    return json_answer({**document, "hash": found.hash}, request)
