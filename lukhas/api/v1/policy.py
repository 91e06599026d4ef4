"""`/api/v1/policy`: the policy in force, its revisions, and what may be done with them."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from lukhas.api.auth import require
from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.api.precondition import answer_tagged, read_if_match
from lukhas.clock import format_utc
from lukhas.errors import InvalidRequest
from lukhas.gateway.policies import Active, describe_event
from lukhas.gateway.runtime import Runtime
from lukhas.modulation.difference import compare_policies
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy, parse_policy
from lukhas.modulation.revision import RevisionEntry, check_reason

router = APIRouter(prefix="/api/v1/policy", tags=["policy"])

MOST_EVENTS = 100


class Replacement(BaseModel):
    """A policy's whole text, and why it is put in force."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(description="The policy as YAML.")
    reason: str = Field(description="Why; stored with the revision.", examples=["Cap tokens during the outage."])


class Rollback(BaseModel):
    """Which revision to put in force again, and why."""

    model_config = ConfigDict(extra="forbid")

    revision: str = Field(description="A revision's id, a beginning of it that no other has, or 'packaged'.")
    reason: str


class Reload(BaseModel):
    """Why the file is read again."""

    model_config = ConfigDict(extra="forbid")

    reason: str = "Asked for."


@router.get("")
async def read_policy(request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return the policy in force: text, proof, who put it there, and what was refused. Scope `policy`.

    Its `ETag` is what `If-Match` of a change must name.
    """
    require(key, "policy")
    policy = runtime.policies.policy
    status = msgspec.to_builtins(runtime.policies.status())
    shadow = msgspec.to_builtins(runtime.shadow.status())
    document = {**status, "shadow": shadow, "sha256": policy.sha256, "text": policy.text}
    return json_answer_tagged(document, request, policy.id)


@router.put("")
async def replace_policy(body: Replacement, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Put another policy in force: read, proved and recorded first; all of it or nothing. Scope `admin`.

    Needs `If-Match` with the `ETag` of the policy that it replaces. A proof can take up to the configured time.
    """
    runtime.check_serving()
    require(key, "admin")
    reason = check_reason(body.reason)
    matching = read_if_match(request, is_required=True)
    active, changed = await runtime.succession.put(body.text, reason, key, matching=matching)
    return answer_change(active, changed, request)


@router.post("/rollback")
async def roll_back(body: Rollback, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Put a policy in force that was so before. Scope `admin`; `If-Match` is optional here."""
    runtime.check_serving()
    require(key, "admin")
    reason = check_reason(body.reason)
    matching = read_if_match(request, is_required=False)
    active, changed = await runtime.succession.roll_back(body.revision, reason, key, matching=matching)
    return answer_change(active, changed, request)


@router.post("/reload")
async def reload_policy(request: Request, runtime: RuntimeDep, key: KeyDep, body: Reload | None = None) -> Response:
    """Put the configured file's present content in force, even where it has not changed. Scope `admin`."""
    runtime.check_serving()
    require(key, "admin")
    reason = check_reason((body or Reload()).reason)
    matching = read_if_match(request, is_required=False)
    active, changed = await runtime.succession.reload(reason, key, matching=matching)
    return answer_change(active, changed, request)


@router.get("/revisions")
async def list_revisions(
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: str | None = None,
) -> Response:
    """List every policy that was ever in force, or refused though it could be read, the newest first. Scope `policy`.

    `next` is the cursor of the next page; null on the last.
    """
    require(key, "policy")
    before = None if cursor is None else _read_cursor(cursor)
    found = await asyncio.to_thread(lambda: runtime.revisions.list(limit=limit + 1, before=before))
    page, more = found[:limit], found[limit:]
    following = f"{page[-1].created_ms}.{page[-1].policy_id}" if more else None
    current = runtime.policies.policy.id
    document = {"revisions": [_describe_entry(entry, current) for entry in page], "next": following}
    return json_answer(document, request)


@router.get("/revisions/{revision}")
async def read_revision(revision: str, request: Request, runtime: RuntimeDep, key: KeyDep) -> Response:
    """Return one revision: text, certificate, and its newest events. Scope `policy`."""
    require(key, "policy")
    store = runtime.revisions

    def look() -> dict[str, Any]:
        found = store.read(revision)
        certificate = store.find_certificate(found.policy_id)
        events = store.events(limit=MOST_EVENTS, revision_id=found.policy_id)
        return {
            "policy": found.policy_id,
            "sha256": found.sha256,
            "name": found.name,
            "source": found.source,
            "time": format_utc(found.created_ms),
            "in_force": found.policy_id == runtime.policies.policy.id,
            "text": found.text,
            "proof": None if certificate is None else certificate.result,
            "certificate": None if certificate is None else msgspec.to_builtins(certificate),
            "events": [describe_event(event) for event in events],
        }

    return json_answer(await asyncio.to_thread(look), request)


@router.get("/diff")
async def diff_policies(request: Request, runtime: RuntimeDep, key: KeyDep, a: str, b: str = "current") -> Response:
    """Say in words what changes from `a` to `b`: revisions, 'packaged' or 'current'. Scope `policy`."""
    require(key, "policy")
    current = runtime.policies.policy

    def look() -> dict[str, Any]:
        found = compare_policies(_find(runtime, a, current), _find(runtime, b, current))
        return msgspec.to_builtins(found)

    return json_answer(await asyncio.to_thread(look), request)


def json_answer_tagged(document: dict[str, Any], request: Request, tag: str) -> Response:
    """Return a JSON answer with its ETag, or 304."""
    return answer_tagged(request, json_answer(document, request), tag)


def answer_change(active: Active, changed: bool, request: Request) -> Response:
    """Return what is in force after a change, and whether it was one."""
    document = {
        "policy": active.policy.id,
        "name": active.policy.name,
        "changed": changed,
        "proof": active.proof,
        "certificate": active.certificate,
        "warnings": active.warnings,
        "event": describe_event(active.event),
    }
    return json_answer_tagged(document, request, active.policy.id)


def _find(runtime: Runtime, name: str, current: Policy) -> Policy:
    if name == "current":
        return current
    if name == "packaged":
        return load_policy()
    revision = runtime.revisions.read(name)
    return parse_policy(revision.text, revision.policy_id)


def _describe_entry(entry: RevisionEntry, current: str) -> dict[str, Any]:
    return {
        "policy": entry.policy_id,
        "sha256": entry.sha256,
        "name": entry.name,
        "source": entry.source,
        "time": format_utc(entry.created_ms),
        "proof": entry.proof,
        "in_force": entry.policy_id == current,
        "event": None if entry.event is None else describe_event(entry.event),
    }


def _read_cursor(cursor: str) -> tuple[int, str]:
    moment, _, revision = cursor.partition(".")
    if not (moment.isascii() and moment.isdigit() and len(moment) <= 15 and revision):
        raise InvalidRequest("This is not a cursor of this list.", hint="Send `next` as it was given.", param="cursor")
    return int(moment), revision
