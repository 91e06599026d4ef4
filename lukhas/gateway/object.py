"""Who made which upstream object: a response, file or conversation is its tenant's alone, whoever guesses its id."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
import orjson
from sqlalchemy import Connection, Row, desc, insert, select, update
from sqlalchemy.exc import IntegrityError

from lukhas.access.ring import ApiKey
from lukhas.audit.redaction import redact_text
from lukhas.clock import Clock
from lukhas.errors import Conflict, InvalidRequest, NotFound
from lukhas.openai.call import ObjectRef
from lukhas.storage.engine import Database
from lukhas.storage.metadata import UPSTREAM_OBJECT
from lukhas.storage.writer import GroupCommitWriter

BLOCKED_CALLS: Final = "blocked_calls"
LONGEST_ID: Final = 512
_LONGEST_KIND: Final = 64
_MOST_BLOCKED: Final = 1_000
_ASK_TOGETHER: Final = 500
_TIMEOUT_S: Final = 30.0
# What it holds changes after it was made; of any other object nothing does but its being there.
_GROWING: Final = frozenset({"conversation"})
_COLUMN: Final = UPSTREAM_OBJECT.c


class OwnedObject(msgspec.Struct, frozen=True):
    """An upstream object and whose it is.

    Attributes:
        kind: such as 'response', 'file' or 'conversation'.
        key_id: the key whose call made it, or `cli` where an operator has bound it.
        details: such as `blocked_calls`, ids of tool calls that never reached the caller and still need an answer.
    """

    object_id: str
    kind: str
    tenant: str
    key_id: str
    created_ms: int
    details: Mapping[str, Any] = {}

    @property
    def blocked_calls(self) -> tuple[str, ...]:
        """Ids of its blocked tool calls that upstream still waits for."""
        found: Any = self.details.get(BLOCKED_CALLS)
        return tuple(one for one in cast("list[Any]", found) if isinstance(one, str)) if found else ()


class _Claim(NamedTuple):
    objects: Sequence[OwnedObject]
    answered: Sequence[str]
    also: Any


class ObjectOwners:
    """Binds upstream objects to the tenant that made them.

    Args:
        most_known: objects that are kept in memory, so that the database is asked once for each.
    """

    def __init__(
        self, database: Database, writer: GroupCommitWriter, clock: Clock, *, most_known: int = 20_000
    ) -> None:
        self._database = database
        self._writer = writer
        self._clock = clock
        self._sink = self._write
        self._known: OrderedDict[str, OwnedObject] = OrderedDict()
        self._most_known = most_known

    def claim(
        self,
        refs: Sequence[ObjectRef],
        key: ApiKey,
        details: Mapping[str, Any] | None = None,
        *,
        answered: Sequence[str] = (),
    ) -> asyncio.Future[bool]:
        """Start binding objects to the key's tenant, from an event loop; who came first keeps an object.

        Submit it with the call's outcome and await it before the answer's last byte leaves.

        Args:
            refs: what a call has made or written to; an empty id is left out.
            details: plain JSON that is kept with each; `blocked_calls` are added to those that a conversation has.
            answered: call ids that this call has answered, which are blocked no longer.

        Returns:
            A future of whether all of them are the tenant's.

        Raises:
            Overloaded, StorageUnavailable: the writer does not take it; the future raises it when the storage fails.
        """
        wanted = [ref for ref in refs if ref.id]
        if not wanted:
            done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            done.set_result(True)
            return done
        now_ms = self._clock.now_ms()
        objects = [OwnedObject(_name(r.id), r.kind, key.tenant, key.key_id, now_ms, details or {}) for r in wanted]
        written = self._writer.submit(self._sink, _Claim(objects, tuple(answered), None), owed=True)
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        def settle(done: asyncio.Future[list[OwnedObject]]) -> None:
            failure = None if done.cancelled() else done.exception()
            found: list[OwnedObject] = []
            if failure is None and not done.cancelled():
                found = done.result()
                for one in found:
                    self._keep(one)
            if answer.done():
                return
            if failure is not None:
                answer.set_exception(failure)
            else:
                answer.set_result(all(one.tenant == key.tenant for one in found))

        written.add_done_callback(settle)
        return answer

    async def check(self, refs: Sequence[ObjectRef], tenant: str) -> None:
        """Check that objects that a request names are the tenant's.

        Raises:
            NotFound: one is another tenant's, or unknown; the answer does not say which.
            StorageUnavailable: it cannot be looked up.
        """
        found = await self._find(refs)
        for ref, one in found:
            if one is None or one.tenant != tenant:
                kind = ref.kind.replace("_", " ")
                raise NotFound(
                    f"There is no such {kind}.",
                    hint="An operator can bind one that was made elsewhere: lukhas object add",
                    param=".".join(str(part) for part in ref.path) or None,
                )

    async def has_foreign(self, refs: Sequence[ObjectRef], tenant: str) -> bool:
        """Say whether one of these objects is known to be another tenant's.

        Raises:
            StorageUnavailable: it cannot be looked up.
        """
        return any(one is not None and one.tenant != tenant for _, one in await self._find(refs))

    async def _find(self, refs: Sequence[ObjectRef]) -> list[tuple[ObjectRef, OwnedObject | None]]:
        # Taken out of the memory first: what is looked up meanwhile may push it out.
        names = {ref.id: _find_name(ref.id) for ref in refs}
        found = {name: one for name in names.values() if (one := self._recall(name)) is not None}
        missing = [name for name in names.values() if name not in found]
        if missing:
            looked_up = await asyncio.to_thread(self._look_up, missing)
            found |= looked_up
            for one in looked_up.values():
                self._keep(one)
        return [(ref, found.get(names[ref.id])) for ref in refs]

    async def blocked_calls(self, refs: Sequence[ObjectRef]) -> tuple[str, ...]:
        """Return the blocked tool calls that upstream still waits for, in responses and conversations.

        Args:
            refs: what `check` has admitted.
        """
        names = {ref.id: _find_name(ref.id) for ref in refs}
        found = {name: self._known[name] for name in names.values() if name in self._known}
        missing = [name for name in names.values() if name not in found]
        if missing:
            found |= await asyncio.to_thread(self._look_up, missing)
        calls: dict[str, None] = {}
        for ref in refs:
            one = found.get(names[ref.id])
            if one is not None:
                calls.update(dict.fromkeys(one.blocked_calls))
        return tuple(calls)

    def add(self, object_id: str, kind: str, tenant: str, key_id: str, also: Any = None) -> tuple[OwnedObject, bool]:
        """Bind an object that was made elsewhere; blocks until it is durable. Again is no error.

        Args:
            key_id: who does it.
            also: another sink and its payload for the same transaction; left out where it was known before.

        Returns:
            The object, and whether it is new.

        Raises:
            InvalidRequest: not an id, or not a kind.
            Conflict: it is another tenant's.
            Overloaded, StorageUnavailable: it could not be written.
        """
        if not 1 <= len(kind) <= _LONGEST_KIND or not kind.isascii() or not kind.replace("_", "").isalnum():
            raise InvalidRequest("A kind is a word such as file, vector_store or conversation.", param="kind")
        if not object_id or len(object_id) > LONGEST_ID or not object_id.isprintable() or object_id.isspace():
            raise InvalidRequest(f"An object's id is 1 to {LONGEST_ID} printable characters.", param="id")
        new = OwnedObject(_name(object_id), kind, tenant, key_id, self._clock.now_ms())
        found = self._writer.submit_sync(self._sink, _Claim([new], (), also), _TIMEOUT_S)[0]
        if found.tenant != tenant:
            raise Conflict("The object belongs to another tenant; who came first keeps it.", param="id")
        return found, found == new

    def list(
        self,
        *,
        tenant: str | None = None,
        kind: str | None = None,
        limit: int = 100,
        before: tuple[int, str] | None = None,
    ) -> list[OwnedObject]:
        """Return objects, newest first. Reads the database.

        Args:
            before: only those that come after this (created_ms, object_id) in the list.
        """
        query = select(UPSTREAM_OBJECT).order_by(desc(_COLUMN.created_ms), desc(_COLUMN.object_id)).limit(limit)
        if tenant is not None:
            query = query.where(_COLUMN.tenant == tenant)
        if kind is not None:
            query = query.where(_COLUMN.kind == kind)
        if before is not None:
            at, last = before
            query = query.where((_COLUMN.created_ms < at) | ((_COLUMN.created_ms == at) & (_COLUMN.object_id < last)))
        with self._database.reading() as connection:
            return [_read_row(row) for row in connection.execute(query).all()]

    def _recall(self, object_id: str) -> OwnedObject | None:
        known = self._known.get(object_id)
        if known is not None:
            self._known.move_to_end(object_id)
            if known.kind in _GROWING:
                return None  # another process may have written to it
        return known

    def _keep(self, one: OwnedObject) -> None:
        self._known[one.object_id] = one
        self._known.move_to_end(one.object_id)
        if len(self._known) > self._most_known:
            self._known.popitem(last=False)

    def _look_up(self, ids: Sequence[str]) -> dict[str, OwnedObject]:
        with self._database.reading() as connection:
            return _find(connection, ids)

    def _write(self, connection: Connection, claims: Sequence[_Claim]) -> list[list[OwnedObject]]:
        """Bind objects. A sink of the group-commit writer."""
        return [self._write_claim(connection, claim) for claim in claims]

    def _write_claim(self, connection: Connection, claim: _Claim) -> list[OwnedObject]:
        found: list[OwnedObject] = []
        for new in claim.objects:
            held = _find(connection, [new.object_id]).get(new.object_id)
            if held is None:
                held = _insert(connection, new)
                if held is new and claim.also is not None:
                    sink, payload = claim.also
                    sink(connection, [payload])
            if held is not new and held.tenant == new.tenant and held.kind in _GROWING:
                held = _grow(connection, held, new.blocked_calls, claim.answered)
            found.append(held)
        return found


def _insert(connection: Connection, new: OwnedObject) -> OwnedObject:
    try:
        with connection.begin_nested():
            connection.execute(
                insert(UPSTREAM_OBJECT).values(
                    object_id=new.object_id,
                    kind=new.kind,
                    tenant=new.tenant,
                    key_id=new.key_id,
                    created_ms=new.created_ms,
                    details=_encode(new.details),
                )
            )
    except IntegrityError:
        # Another process was first.
        return _find(connection, [new.object_id])[new.object_id]
    return new


def _grow(connection: Connection, held: OwnedObject, blocked: Sequence[str], answered: Sequence[str]) -> OwnedObject:
    """Add the blocked calls of a further call to a conversation, and take away those that have been answered."""
    left = [one for one in held.blocked_calls if one not in answered]
    left += [one for one in blocked if one not in left]
    calls = tuple(left[-_MOST_BLOCKED:])
    if calls == held.blocked_calls:
        return held
    details = {**held.details, BLOCKED_CALLS: list(calls)}
    changed = update(UPSTREAM_OBJECT).where(_COLUMN.object_id == held.object_id)
    connection.execute(changed.values(details=_encode(details)))
    return msgspec.structs.replace(held, details=details)


def _find(connection: Connection, ids: Sequence[str]) -> dict[str, OwnedObject]:
    found: dict[str, OwnedObject] = {}
    wanted = [one for one in dict.fromkeys(ids) if 0 < len(one) <= LONGEST_ID]
    for start in range(0, len(wanted), _ASK_TOGETHER):
        part = wanted[start : start + _ASK_TOGETHER]
        for row in connection.execute(select(UPSTREAM_OBJECT).where(_COLUMN.object_id.in_(part))).all():
            found[row.object_id] = _read_row(row)
    return found


def _name(object_id: str) -> str:
    """Return what an object is stored under: its id, or a digest where that looks like a secret or a name."""
    # An upstream's id that long is none that a caller could send back; nothing that is named by it is found.
    cut = object_id[:LONGEST_ID]
    return cut if redact_text(cut) == cut else "digest_" + hashlib.sha256(cut.encode("utf-8", "replace")).hexdigest()


def _find_name(object_id: str) -> str:
    return _name(object_id) if len(object_id) <= LONGEST_ID else object_id


def _encode(details: Mapping[str, Any]) -> str:
    return orjson.dumps(dict(details)).decode()


def _read_row(row: Row[Any]) -> OwnedObject:
    details = orjson.loads(row.details)
    return OwnedObject(row.object_id, row.kind, row.tenant, row.key_id, row.created_ms, details)
