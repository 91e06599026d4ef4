"""`/api/v1/audit`: searching the log, newest first, in pages."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi import Query as Parameter

from lukhas.access.ring import ApiKey
from lukhas.access.scope import check_tenant
from lukhas.api.control import KeyDep, RuntimeDep, json_answer
from lukhas.audit.moment import parse_moment
from lukhas.audit.search_page import Page, search
from lukhas.audit.search_query import Query
from lukhas.errors import Forbidden, InvalidRequest
from lukhas.gateway.runtime import Runtime
from lukhas.ids import check_id
from lukhas.openai.wire import check_subject
from lukhas.vault.subjects import SubjectKind

router = APIRouter(prefix="/api/v1/audit", tags=["audit"])

_EXACT: Final = ("tenant", "key", "session", "user", "kind", "mode", "signal", "tool", "model", "policy", "status")
_KNOWN: Final = frozenset((*_EXACT, "since", "until", "text", "limit", "cursor"))
Filter = Annotated[str | None, Parameter(max_length=256)]


@router.get("")
async def search_records(
    request: Request,
    runtime: RuntimeDep,
    key: KeyDep,
    since: Annotated[str | None, Parameter(max_length=64, description="From this age or time on.")] = None,
    until: Annotated[str | None, Parameter(max_length=64, description="Before this age or time.")] = None,
    tenant: Filter = None,
    key_id: Annotated[str | None, Parameter(alias="key", max_length=256)] = None,
    session: Annotated[str | None, Parameter(description="The caller's own name, or a sub_ id.")] = None,
    user: Annotated[str | None, Parameter(description="The caller's own name, or a sub_ id.")] = None,
    kind: Filter = None,
    mode: Annotated[str | None, Parameter(max_length=256, description="Safety mode, or enforce or shadow.")] = None,
    signal: Filter = None,
    tool: Filter = None,
    model: Filter = None,
    policy: Filter = None,
    status: Filter = None,
    text: Annotated[str | None, Parameter(description='Words; "words in a row"; a beginning*.')] = None,
    limit: Annotated[int, Parameter(ge=1, le=500)] = 50,
    cursor: Annotated[str | None, Parameter(max_length=256)] = None,
) -> Response:
    """Search the log, newest first: a key its own records, with the scope `audit` its tenant's, an admin key all.

    `next` is the cursor of the next page, null on the last; the header Link has its address. `complete` is false where
    the time was over before the page was full.
    """
    _check_parameters(request)
    now_ms = runtime.clock.now_ms()
    query = Query(
        since_ms=None if since is None else parse_moment(since, now_ms, "since"),
        until_ms=None if until is None else parse_moment(until, now_ms, "until"),
        tenant=_choose_tenant(key, tenant),
        key=_choose_key(key, key_id),
        kind=kind,
        mode=mode,
        signal=signal,
        tool=tool,
        model=model,
        policy=policy,
        status=status,
        text=text,
        limit=limit,
        cursor=cursor,
    )
    names = {"session": session, "user": user}
    for name, value in names.items():
        if value is not None:
            check_id("sub", value) if value.startswith("sub_") else check_subject(value, name)
    page = await asyncio.to_thread(_search, runtime, query, names, query.tenant or key.tenant)
    answer = json_answer(
        {
            "records": msgspec.to_builtins(page.rows),
            "next": page.next_cursor,
            "indexed_to": page.indexed_to,
            "complete": page.complete,
        },
        request,
    )
    answer.headers["cache-control"] = "private, no-store"
    if page.next_cursor is not None:
        following = {**request.query_params, "cursor": page.next_cursor}
        answer.headers["link"] = f'<{request.url.path}?{urlencode(following)}>; rel="next"'
    return answer


def _search(runtime: Runtime, query: Query, names: Mapping[str, str | None], tenant: str) -> Page:
    ids: dict[str, Any] = {}
    kinds: tuple[SubjectKind, ...] = ("session", "user")
    for kind in kinds:
        value = names[kind]
        if value is not None:
            ids[kind] = value if value.startswith("sub_") else runtime.vault.lookup(tenant, kind, value)
            if ids[kind] is None:
                return Page((), None, 0, True)  # nobody of that name ever called, or it was forgotten
    return search(replace(query, **ids), runtime.audit.source, runtime.custody.search)


def _check_parameters(request: Request) -> None:
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in _KNOWN:
            known = ", ".join(sorted(_KNOWN))
            raise InvalidRequest(f"There is no parameter '{name[:40]}'.", hint=f"Known: {known}.", param=name[:40])
        if name in seen:
            raise InvalidRequest(f"'{name}' is given twice.", param=name)
        seen.add(name)


def _choose_tenant(key: ApiKey, wanted: str | None) -> str | None:
    if wanted is not None:
        check_tenant(wanted)
    if key.is_admin:
        return wanted
    if wanted is not None and wanted != key.tenant:
        raise Forbidden("This key may search records of its own tenant only.", param="tenant")
    return key.tenant


def _choose_key(key: ApiKey, wanted: str | None) -> str | None:
    if key.is_admin or key.allows("audit"):
        return wanted
    if wanted is not None and wanted != key.key_id:
        raise Forbidden(
            "This key may search its own records only.", hint="The tenant's: the scope `audit`.", param="key"
        )
    return key.key_id
