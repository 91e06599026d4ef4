"""One recorded decision, decided again from what its record holds: levels, caller values, nudges, and its policy.

Effective levels stand in the record, so neither signals nor the state of sessions are needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import msgspec

from lukhas.audit.store import AuditStore, StoredRecord
from lukhas.errors import Conflict, InvalidRequest, NotFound, RequestError
from lukhas.modulation.decision import Decision
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import TOOLS, Policy
from lukhas.replay.check import GATEWAY_STEPS, compare, encode_decision, is_cut
from lukhas.replay.recorded import Body, decode_decision, decode_values
from lukhas.replay.revision import load_revision
from lukhas.replay.tool_verdict import could_allow
from lukhas.storage.engine import Database


class Difference(msgspec.Struct, frozen=True):
    """A part of a decision that came out otherwise.

    Attributes:
        part: such as `parameters.temperature`, `style`, or `trace[2]`.
        recorded, recomputed: its values; None where one side does not have it.
    """

    part: str
    recorded: Any
    recomputed: Any


class Replay(msgspec.Struct, frozen=True):
    """What deciding again gave.

    Attributes:
        audit_id: of the call.
        index: the decision's place in the log.
        policy: the revision that decided, then and now.
        same: whether every part is as recorded, byte for byte.
        differences: the parts that are not.
        notes: what could not be compared.
    """

    audit_id: str
    index: int
    policy: str
    same: bool
    differences: list[Difference]
    notes: list[str]


def replay_decision(audit: AuditStore, database: Database, audit_id: str, also: Iterable[str] = ()) -> Replay:
    """Decide a recorded call again, and compare.

    Args:
        audit: the log.
        database: the database of the log, for the stored revisions of the policy.
        audit_id: the call's.
        also: texts of further policies that may have decided, such as that of a file.

    Raises:
        InvalidId: not an audit id.
        NotFound: there is no such record.
        InvalidRequest: it is no decision, or of a form that cannot be decided again.
        Conflict: the record was cut, or its policy's text is not stored.
        IntegrityError: the stored bytes are not those that were hashed.
        StorageUnavailable: the database cannot be read.
    """
    stored, body = _read_decision(audit, audit_id)
    policy = load_revision(database, body.policy, also)
    if policy is None:
        raise Conflict(
            f"The text of {body.policy}, which decided {audit_id}, is not stored; so it cannot be decided again.",
            hint="Give the file that was in force then, with --policy FILE.",
        )
    try:
        levels = cast("dict[str, float]", msgspec.json.decode(body.inputs.levels))
        nudges = cast("dict[str, float] | None", msgspec.json.decode(body.inputs.nudges))
        made = Dispatcher(policy).decide(levels, caller=decode_values(body.inputs.caller), nudges=nudges)
    except (RequestError, msgspec.MsgspecError, TypeError, ValueError, AttributeError) as wrong:
        if is_cut(body):
            raise _cut(audit_id) from wrong
        reason = wrong.message if isinstance(wrong, RequestError) else "its inputs are not of a known form"
        differences = [Difference("inputs", _decode(body.inputs.levels), f"refused: {reason}")]
        return Replay(audit_id, stored.index, body.policy, False, differences, [])
    wrong_parts = compare(body, encode_decision(made))
    if wrong_parts and is_cut(body):
        raise _cut(audit_id)
    differences = [one for part in wrong_parts for one in _list_differences(part, body, made)]
    notes = _note_tools(body, policy, cast("list[str]", made.parameters[TOOLS]))
    return Replay(audit_id, stored.index, body.policy, not differences, differences, notes)


def _read_decision(audit: AuditStore, audit_id: str) -> tuple[StoredRecord, Body]:
    records = audit.read(audit_id)
    if not records:
        raise NotFound(f"There is no record {audit_id}.")
    decision = next((one for one in records if one.kind == "decision"), None)
    if decision is None:
        raise InvalidRequest(
            f"{audit_id} is no decision but of kind {records[0].kind}; there is nothing to decide again.",
            hint=f"See it with: lukhas audit show {audit_id}",
        )
    body = decode_decision(decision.data)
    if body is None:
        if b'"_cut":{' in decision.data or b"[cut:" in decision.data:
            raise _cut(audit_id)
        raise InvalidRequest(f"The decision of {audit_id} is not of a form that this program can decide again.")
    return decision, body


def _cut(audit_id: str) -> Conflict:
    return Conflict(
        f"The record of {audit_id} was too long and parts of it were cut, so that it cannot be decided again.",
        hint="Its Merkle proof still holds: lukhas audit proof",
    )


def _list_differences(part: str, body: Body, made: Decision) -> list[Difference]:
    if part == "style":
        return [Difference("style", body.style, made.style)]
    now: Any = msgspec.to_builtins(getattr(made, part))
    then = _decode(getattr(body.inputs if part == "levels" else body, part))
    if part == "trace" and isinstance(then, list):
        then = [step for step in cast("list[Any]", then) if not _is_gateways(step)]
    found: list[Difference] = []
    if isinstance(then, dict) and isinstance(now, dict):
        old, new = cast("dict[str, Any]", then), cast("dict[str, Any]", now)
        names = list(dict.fromkeys((*old, *new)))
        found = [Difference(f"{part}.{n}", old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)]
    elif part == "trace" and isinstance(then, list):
        old_steps, new_steps = cast("list[Any]", then), cast("list[Any]", now)
        for place in range(max(len(old_steps), len(new_steps))):
            pair = [steps[place] if place < len(steps) else None for steps in (old_steps, new_steps)]
            if pair[0] != pair[1]:
                found.append(Difference(f"trace[{place}]", *pair))
    # Equal values in other bytes, or a part of another form, are a difference as a whole.
    return found or [Difference(part, then, now)]


def _is_gateways(step: Any) -> bool:
    return isinstance(step, dict) and cast("dict[str, Any]", step).get("step") in GATEWAY_STEPS


def _note_tools(body: Body, policy: Policy, allowlist: Sequence[str]) -> list[str]:
    """Say which tools were let through or stripped otherwise than the policy alone would."""
    notes: list[str] = []
    if body.denied is not None:
        return notes
    for name in dict.fromkeys(one for one in body.inputs.tools if isinstance(one, str)):
        readings = could_allow(policy, allowlist, name)
        was_kept = name not in body.stripped
        if was_kept not in readings:
            done = "let through" if was_kept else "stripped"
            notes.append(
                f"The tool {name} was {done}, which the policy alone would not do: a registry of tools may have named "
                "its class, and registries are not in the records."
            )
    return notes


def _decode(raw: msgspec.Raw) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.MsgspecError:
        return bytes(raw).decode("utf-8", "replace")
