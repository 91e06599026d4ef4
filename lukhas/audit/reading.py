"""Reading captured texts: who may do it does it on record, and the record is there before the text is."""

from __future__ import annotations

from typing import Any, Final

from lukhas.audit.content import CapturedCall, ContentStore
from lukhas.audit.record import AuditRecord
from lukhas.clock import Clock, format_utc
from lukhas.errors import KeyErased, NotFound
from lukhas.ids import make_id
from lukhas.vault.erasure import EraseLedger

KIND: Final = "access"


def read_content(
    contents: ContentStore, ledger: EraseLedger, audit_id: str, document: dict[str, Any] | None
) -> CapturedCall:
    """Return what was captured of a call. Waits: call it on a thread.

    Args:
        document: the call's records, as `AuditStore.read_document` returns them; None where there are none.

    Raises:
        InvalidId: not an audit id.
        KeyErased: a subject of the call was erased, and its texts with it.
        NotFound: nothing was captured.
        IntegrityError, StorageUnavailable: it cannot be read.
    """
    captured = contents.read(audit_id)
    if captured is not None:
        return captured
    for name in ("session", "end_user"):
        sub_id: Any = None if document is None else document.get(name)
        if isinstance(sub_id, str) and ledger.find(sub_id) is not None:
            raise KeyErased(f"The subject {sub_id} of {audit_id} was erased, and what was captured of it is gone.")
    raise NotFound(f"Nothing was captured of {audit_id}.", hint="LUKHAS_AUDIT_CONTENT=true captures what follows.")


def make_access_record(captured: CapturedCall, clock: Clock, key_id: str, *, who: str = "") -> AuditRecord:
    """Return the record of somebody's reading a call's texts.

    Args:
        key_id: the API key, or `cli`.
        who: a person's name, where there is one; redacted.
    """
    owner = captured.owner
    body: dict[str, Any] = {
        "event": "content_read",
        "of": owner.audit_id,
        "parts": [one.part for one in captured.parts],
    }
    if who:
        body["who"] = who
    return AuditRecord(
        kind=KIND,
        audit_id=make_id("aud"),
        tenant=owner.tenant,
        key_id=key_id,
        request_id=None,
        time_ms=clock.now_ms(),
        session=owner.session,
        user=owner.end_user,
        body=body,
    )


def describe_content(captured: CapturedCall) -> dict[str, Any]:
    """Return a call's texts as plain JSON types."""
    return {
        "audit_id": captured.owner.audit_id,
        "tenant": captured.owner.tenant,
        "subjects": list(captured.owner.subjects),
        "parts": [
            {"part": one.part, "time": format_utc(one.time_ms), "is_cut": one.is_cut, "text": one.text}
            for one in captured.parts
        ],
    }
