"""`/api/v1/signals/release`: let a tightened subject go before its time, on record and with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.access.ring import ApiKey
from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer, request_id_of
from lukhas.audit.redaction import redact_text
from lukhas.errors import InvalidRequest, StorageUnavailable
from lukhas.gateway.incident import IncidentRow, Target, check_reason, no_incident
from lukhas.gateway.runtime import Runtime
from lukhas.ids import check_id
from lukhas.modulation.signals import require_known
from lukhas.modulation.state import Held, Subject
from lukhas.openai.wire import check_subject
from lukhas.vault.subjects import SubjectKind

router = APIRouter(prefix="/api/v1/signals", tags=["signals"])

# Most emissions that a record names one by one; it always has their number.
_MOST_NAMED: Final = 100


class Release(BaseModel):
    """Whom to let go, and why: an incident's subjects, or one subject as in `POST /api/v1/signals`."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(description="Why; goes on record. 1 to 500 characters.")
    incident: str | None = Field(default=None, description="`inc_...`: every subject that it raised.")
    session: str | None = None
    user: str | None = None
    scope: Literal["session", "user", "key", "tenant", "everyone"] | None = Field(
        default=None, description="Whom it concerns; by default the nearest of session and user that is named."
    )
    signal: str | None = Field(
        default=None, description="A guard; by default what the incident raised, else what violations raise."
    )


@router.post("/release")
async def release(body: Release, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Drop every living emission of a guard at a subject. It is on record before it counts. Scope `signals:release`.

    A tenant needs `signals:tenant` too, everyone admin; another tenant's incident is 404. Where nothing is alive,
    `released` is empty and nothing is recorded.
    """
    runtime.check_serving()
    require(key, "signals:release")
    reason = check_reason(body.reason)
    policy = runtime.policies.policy
    if body.signal is not None:
        require_known((body.signal,), policy.signals)
        if body.signal not in policy.guards:
            raise InvalidRequest(
                f"'{body.signal}' is not a guard: a style signal ends with its ttl or the next one.", param="signal"
            )
    incident, targets = await _find_targets(body, runtime, key, policy.violations.signal)
    # An emission from before the clock was set back has a later time than now; it is released too.
    state = runtime.state
    now_ms = max([runtime.clock.now_ms(), *(state.newest_ms(t.subject, t.signal) for t in targets)])
    held = _list_held(runtime, targets)
    audit_id: str | None = None
    if held:
        record = runtime.make_record(
            "signal",
            {
                "event": "released",
                "reason": redact_text(reason),
                "incident": None if incident is None else incident.incident_id,
                "targets": [{"scope": t.subject.scope, "id": t.subject.id, "signal": t.signal} for t in targets],
                "released": [msgspec.to_builtins(one) for one in held[:_MOST_NAMED]],
                "count": len(held),
            },
            key,
            request_id=request_id_of(request),
            session=_id_of(targets, "session"),
            user=_id_of(targets, "user"),
        )
        if incident is not None:
            record = msgspec.structs.replace(record, tenant=incident.tenant)
        try:
            async with asyncio.timeout(runtime.settings.writer_deadline_s):
                await asyncio.shield(runtime.incidents.release(record, targets, now_ms))
        except TimeoutError as late:
            raise StorageUnavailable("The release could not be recorded in time, so it does not count yet.") from late
        for target in targets:
            state.release(target.subject, target.signal, now_ms)
        audit_id = record.audit_id
    document: dict[str, Any] = {
        "audit_id": audit_id,
        "released": [msgspec.to_builtins(one) for one in held],
        "levels": [{"scope": t.subject.scope, "signal": t.signal, "level": _level(runtime, t)} for t in targets],
    }
    return json_answer(document, request)


async def _find_targets(
    body: Release, runtime: Runtime, key: ApiKey, signal: str
) -> tuple[IncidentRow | None, list[Target]]:
    if body.incident is not None:
        if body.session is not None or body.user is not None or body.scope is not None:
            raise InvalidRequest("Name an incident or a subject, not both.", param="incident")
        row = await asyncio.to_thread(runtime.incidents.read, check_id("inc", body.incident))
        if not key.is_admin and row.tenant != key.tenant:
            raise no_incident(body.incident)
        targets = [
            Target(one.subject, one.signal) for one in row.raised if body.signal is None or one.signal == body.signal
        ]
        for target in targets:
            _check_scope(key, target.subject.scope)
        return row, targets
    scope = body.scope or ("session" if body.session is not None else "user" if body.user is not None else None)
    if scope is None:
        raise InvalidRequest("Whom to release? Name an incident, a session, a user or a scope.", param="scope")
    if scope in ("session", "user") and getattr(body, scope) is None:
        raise InvalidRequest(f"The scope '{scope}' needs a '{scope}'.", param=scope)
    _check_scope(key, scope)
    found: str | None
    if scope == "session" or scope == "user":
        found = await _lookup(runtime, key, scope, getattr(body, scope))
    else:
        found = {"key": key.key_id, "tenant": key.tenant, "everyone": ""}[scope]
    # A name that no call has ever sent holds nothing.
    return None, [] if found is None else [Target(Subject(scope, found), body.signal or signal)]


def _check_scope(key: ApiKey, scope: str) -> None:
    if scope == "tenant":
        require(key, "signals:tenant")
    elif scope == "everyone":
        require(key, "admin")


async def _lookup(runtime: Runtime, key: ApiKey, kind: SubjectKind, name: str) -> str | None:
    return await asyncio.to_thread(runtime.vault.lookup, key.tenant, kind, check_subject(name, kind))


def _list_held(runtime: Runtime, targets: Sequence[Target]) -> list[Held]:
    return [
        held for target in targets for held in runtime.state.holdings([target.subject]) if held.signal == target.signal
    ]


def _level(runtime: Runtime, target: Target) -> float:
    found = runtime.state.levels([target.subject]).get(target.signal)
    return 0.0 if found is None else found.level


def _id_of(targets: Sequence[Target], scope: str) -> str | None:
    return next((target.subject.id for target in targets if target.subject.scope == scope), None)
