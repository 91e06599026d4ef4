"""`/api/v1/signals`: emit signals, and see which are alive for a subject."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.access.ring import ApiKey
from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer, request_id_of
from lukhas.errors import InvalidRequest, StorageUnavailable
from lukhas.gateway.intake import check_may_emit, emit_signals, list_subjects
from lukhas.gateway.runtime import Runtime
from lukhas.modulation.signals import parse_signal_body
from lukhas.modulation.state import ScopeName, Subject
from lukhas.openai.wire import check_subject
from lukhas.vault.subjects import SubjectKind

router = APIRouter(prefix="/api/v1/signals", tags=["signals"])


class Emission(BaseModel):
    """Signals for one subject: a session, an end user, this key, the tenant, or everyone."""

    model_config = ConfigDict(extra="forbid")

    signals: dict[str, Any] | list[dict[str, Any]] = Field(
        description="Levels by name, or objects with name, level and ttl_ms.",
        examples=[{"stress": 0.7, "novelty": {"level": 0.2, "ttl_ms": 5000}}],
    )
    session: str | None = None
    user: str | None = None
    scope: Literal["session", "user", "key", "tenant", "everyone"] | None = Field(
        default=None, description="Whom it concerns; by default the nearest of session, user and key that is named."
    )


@router.post("")
async def emit(emission: Emission, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Emit signals. The emission is on record before it counts; `source` and `ts` are the server's.

    Without the scope `signals` a key may only raise guards; `tenant` needs `signals:tenant`, `everyone` admin.
    """
    runtime.check_serving()
    signals = parse_signal_body(emission.signals)
    if not signals:
        raise InvalidRequest("There are no signals in the request.", param="signals")
    check_may_emit(key, signals, runtime.policies.policy.signals)
    scope = _pick_scope(emission, key)
    session = await _resolve(runtime, key, "session", emission.session)
    user = await _resolve(runtime, key, "user", emission.user)
    names: dict[ScopeName, str | None] = {
        "session": session,
        "user": user,
        "key": key.key_id,
        "tenant": key.tenant,
        "everyone": "",
    }
    subject = Subject(scope, names[scope] or "")
    record = runtime.make_record(
        "signal",
        {
            "event": "emitted",
            "scope": scope,
            "signals": [{"name": s.name, "level": s.level, "ttl_ms": s.ttl_ms} for s in signals],
        },
        key,
        request_id=request_id_of(request),
        session=session if scope == "session" else None,
        user=user if scope == "user" else None,
    )
    audit_id = await runtime.record(record)
    receipts = emit_signals(runtime.state, subject, signals, key, "api", runtime.metrics, runtime.clock.now_ms())
    return json_answer(
        {"audit_id": audit_id, "scope": scope, "receipts": [msgspec.to_builtins(r) for r in receipts]}, request
    )


@router.get("")
async def read(
    request: Request, runtime: RuntimeDep, key: KeyDep, session: str | None = None, user: str | None = None
) -> Response:
    """Return the levels that a call with this session and user would be decided by, and each living emission."""
    require(key, "signals")
    session_id = await _lookup(runtime, key, "session", session)
    user_id = await _lookup(runtime, key, "user", user)
    subjects = list_subjects(session_id, user_id, key)
    levels = runtime.state.levels(subjects)
    document = {
        "policy": runtime.policies.policy.id,
        "levels": {name: msgspec.to_builtins(effective) for name, effective in levels.items()},
        "emissions": [msgspec.to_builtins(held) for held in runtime.state.holdings(subjects)],
    }
    return json_answer(document, request)


def _pick_scope(emission: Emission, key: ApiKey) -> ScopeName:
    scope: ScopeName = emission.scope or (
        "session" if emission.session is not None else "user" if emission.user is not None else "key"
    )
    if scope in ("session", "user") and getattr(emission, scope) is None:
        raise InvalidRequest(f"The scope '{scope}' needs a '{scope}'.", param=scope)
    if scope == "tenant":
        require(key, "signals:tenant")
    elif scope == "everyone":
        require(key, "admin")
    return scope


async def _lookup(runtime: Runtime, key: ApiKey, kind: SubjectKind, name: str | None) -> str | None:
    if name is None:
        return None
    return await asyncio.to_thread(runtime.vault.lookup, key.tenant, kind, check_subject(name, kind))


async def _resolve(runtime: Runtime, key: ApiKey, kind: SubjectKind, name: str | None) -> str | None:
    if name is None:
        return None
    try:
        async with asyncio.timeout(runtime.settings.writer_deadline_s):
            return await runtime.vault.resolve(key.tenant, kind, check_subject(name, kind))
    except TimeoutError as late:
        raise StorageUnavailable(f"The {kind} could not be looked up in time.") from late
