"""`/api/v1/modulate`: what a call would be made of, without making it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.gateway.preview import preview
from lukhas.modulation.dispatcher import Modulator
from lukhas.modulation.signals import parse_signal_body

router = APIRouter(prefix="/api/v1/modulate", tags=["modulate"])


class Modulation(BaseModel):
    """Signals, and optionally the model and the chat request that they would change."""

    model_config = ConfigDict(extra="forbid")

    signals: dict[str, Any] | list[dict[str, Any]] = Field(default_factory=dict, examples=[{"stress": 0.7}])
    model: str | None = None
    request: dict[str, Any] | None = Field(default=None, description="A chat request; its changed form is returned.")


@router.post("")
async def modulate(body: Modulation, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Decide under the policy in force, with nothing sent, emitted or recorded."""
    modulator = Modulator(policy=runtime.policies.policy, clock=runtime.clock)
    signals = parse_signal_body(body.signals)
    document = preview(modulator, runtime.capabilities, signals, model=body.model, request=body.request)
    return json_answer(document, request)
