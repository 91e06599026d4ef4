"""Forgetting a subject: key and mapping are destroyed, its texts are deleted, and one record says so.

Two databases are changed, one after the other. The vault comes first: in one transaction the key and the mapping go and
the ledger gets a line, which already names the record that will follow. So a crash in between leaves a subject that is
erased, and a line without its record, which `complete` finds and finishes; no record ever tells of an erasure that did
not happen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, cast

import msgspec
from sqlalchemy import Connection, text

from lukhas.audit import statement
from lukhas.audit.content import delete_contents
from lukhas.audit.record import AuditRecord, parse_record
from lukhas.audit.redaction import redact_text
from lukhas.audit.store import AuditStore
from lukhas.clock import Clock
from lukhas.errors import InvalidRequest, NotFound, Overloaded, StorageUnavailable
from lukhas.ids import check_id, make_id
from lukhas.storage.engine import Database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.vault.erasure import EraseLedger, Erasure
from lukhas.vault.subjects import SubjectKind, SubjectVault

KIND: Final = "erasure"
LONGEST_REASON: Final = 500
BACKUPS: Final = (
    "Backups of the key store made before this still hold the key; they expire by their own schedule, and a restore "
    "replays the erase ledger before it serves."
)
_KINDS: Final[tuple[SubjectKind, ...]] = ("user", "session", "key")
_TIMEOUT_S: Final = 30.0
_NAMED: Final = "[the subject]"
_MOST_LOOKED_AT: Final = 8


class Actor(NamedTuple):
    """Who has a subject forgotten.

    Attributes:
        tenant: whose record it will be; empty for the installation's own.
        key_id: the API key, or `cli`.
        name: a person's name, where there is one.
    """

    tenant: str
    key_id: str
    name: str = ""

    def format(self) -> str:
        """Return it as the ledger has it; neither a tenant nor a key id holds a slash."""
        return f"{self.tenant}/{self.key_id}/{self.name}"

    @classmethod
    def parse(cls, who: str) -> Actor:
        """Read what `format` has written."""
        tenant, _, rest = who.partition("/")
        key_id, _, name = rest.partition("/")
        return cls(tenant, key_id, name)


class ErasureReceipt(msgspec.Struct, frozen=True):
    """What forgetting a subject has done.

    Attributes:
        sub_id: the subject's random id, under which records go on to know it.
        kind: session, user or key.
        audit_id: the record that tells of it.
        erased_ms: when, in ms since the epoch.
        is_new: whether it was erased just now, not before.
        keys_destroyed: data keys destroyed just now; 0 where it had none, or was erased before.
        mapping_destroyed: always true: nothing leads from a name to the id any more.
        content_deleted: captured texts that were deleted.
        is_purged: whether the vault's files hold no traces; else a reader was in the way, and it is tried again.
        backups: what holds for backups.
    """

    sub_id: str
    kind: str
    audit_id: str
    erased_ms: int
    is_new: bool
    keys_destroyed: int
    mapping_destroyed: bool
    content_deleted: int
    is_purged: bool
    backups: str = BACKUPS


class Forgetter:
    """Forgets subjects. Its methods wait: call them on a thread.

    Args:
        database: the main one, where records and texts are.
        writer: a running writer on it.
    """

    def __init__(
        self, vault: SubjectVault, audit: AuditStore, database: Database, writer: GroupCommitWriter, clock: Clock
    ) -> None:
        self.ledger = EraseLedger(vault, clock)
        self._audit = audit
        self._database = database
        self._writer = writer
        self._clock = clock
        self._sink = self._record

    def find_kind(self, tenant: str, name: str) -> SubjectKind:
        """Return the kind of the one subject that a tenant's caller names so.

        Raises:
            NotFound: there is none.
            InvalidRequest: there are several of different kinds, or the name is empty.
        """
        found: list[SubjectKind] = [kind for kind in _KINDS if self.ledger.knows((tenant, kind, name))]
        if not found:
            raise unknown()
        if len(found) > 1:
            raise InvalidRequest(f"There is a {' and a '.join(found)} of this name.", hint="Say which.", param="kind")
        return found[0]

    def forget(self, subject: str | tuple[str, SubjectKind, str], actor: Actor, why: str = "") -> ErasureReceipt:
        """Forget a subject, durably and on record. Again is no error, and gives the first time's receipt.

        Args:
            subject: `sub_...`, or tenant, kind and the caller's own name.
            actor: who asks for it.
            why: up to 500 printable characters; the subject's name in it is left out.

        Raises:
            InvalidId, InvalidRequest: not a subject, or not a reason.
            NotFound: nobody knows such a subject.
            StorageUnavailable, Overloaded: it is not done, or not all of it; the message says which.
        """
        reason = check_reason(why, None if isinstance(subject, str) else subject[2])
        wanted = subject if isinstance(subject, str) else (subject[0], subject[1], subject[2])
        try:
            erased = self.ledger.erase(wanted, audit_id=make_id("aud"), who=actor.format(), why=reason)
        except NotFound:
            raise unknown() from None
        entry = erased.entry
        try:
            is_purged = self.complete()
            content = self._read_content_deleted(entry.audit_id)
        except (StorageUnavailable, Overloaded) as failure:
            raise StorageUnavailable(
                f"{entry.sub_id} is erased: its key and mapping are destroyed. Its record could not be written yet.",
                hint=f"It follows at the next start, or with: lukhas audit forget {entry.sub_id}",
            ) from failure
        return ErasureReceipt(
            sub_id=entry.sub_id,
            kind=entry.kind,
            audit_id=entry.audit_id,
            erased_ms=entry.time_ms,
            is_new=erased.is_new,
            keys_destroyed=erased.keys,
            mapping_destroyed=True,
            content_deleted=content,
            is_purged=is_purged,
        )

    def complete(self) -> bool:
        """Finish what erasures have left to do, here or in a process that ended: their records, texts and traces.

        Cheap where there is nothing. For every start, and now and then.

        Returns:
            Whether nothing is left.

        Raises:
            StorageUnavailable, Overloaded: a database cannot be read or written; the next time goes on from there.
        """
        waiting = self.ledger.unrecorded()
        if not waiting:
            return True
        is_purged = self.ledger.purge()
        for entry in waiting:
            self._writer.submit_sync(self._sink, entry, _TIMEOUT_S)
        if is_purged:
            self.ledger.mark_recorded(waiting[-1].seq)
        return is_purged

    def belongs_to(self, sub_id: str, tenant: str) -> bool:
        """Say whether a tenant's records name a subject. Reads the tenant's log until one does.

        Raises:
            InvalidId: not a subject's id.
            StorageUnavailable: the log cannot be read.
        """
        check_id("sub", sub_id)
        position = "position(:part in data)" if self._database.kind == "postgresql" else "instr(data, :part)"
        query = text(
            f"SELECT data FROM audit_record WHERE tenant = :tenant AND {position} > 0 LIMIT {_MOST_LOOKED_AT}"  # noqa: S608
        )
        for column in ("end_user", "session"):
            # As it stands in the record itself; a caller's own text has its quotes escaped, and is not taken for it.
            part = f'"{column}":"{sub_id}"'.encode()
            with self._database.reading() as connection:
                found = [bytes(data) for data in connection.execute(query, {"tenant": tenant, "part": part}).scalars()]
            if any(parse_record(data).get(column) == sub_id for data in found):
                return True
        return False

    def _record(self, connection: Connection, entries: Sequence[Erasure]) -> Sequence[None]:
        """Delete texts and write what tells of it, inside the open transaction. A sink of the main writer."""
        # The log's lock first: who else finishes the same erasure waits here, and then finds its record.
        statement.read_head(connection, lock=True)
        for entry in entries:
            deleted = delete_contents(connection, entry.sub_id)
            if _is_recorded(connection, entry.audit_id):
                continue
            self._audit.sink(connection, [self._audit.encode(self._describe(entry, deleted))])
        return [None] * len(entries)

    def _describe(self, entry: Erasure, content_deleted: int) -> AuditRecord:
        actor = Actor.parse(entry.who)
        body: dict[str, Any] = {
            "event": "erased",
            "subject": entry.sub_id,
            "kind": entry.kind,
            "erased_ms": entry.time_ms,
            "destroyed": ["data key", "mapping"],
            "content_deleted": content_deleted,
            "reason": entry.why,
        }
        if actor.name:
            body["who"] = redact_text(actor.name)
        return AuditRecord(
            kind=KIND,
            audit_id=entry.audit_id,
            tenant=actor.tenant,
            key_id=actor.key_id,
            request_id=None,
            time_ms=self._clock.now_ms(),
            session=entry.sub_id if entry.kind == "session" else None,
            user=entry.sub_id if entry.kind == "user" else None,
            body=body,
        )

    def _read_content_deleted(self, audit_id: str) -> int:
        for stored in self._audit.read(audit_id):
            body: Any = parse_record(stored.data)["body"]
            if isinstance(body, dict):
                deleted: Any = cast("dict[str, Any]", body).get("content_deleted")
                if isinstance(deleted, int):
                    return deleted
        return 0


def check_reason(why: str, name: str | None) -> str:
    """Return a reason as it goes on record: redacted, and without the subject's name.

    Raises:
        InvalidRequest: longer than 500 characters, or with what cannot be printed.
    """
    reason = why.strip()
    if len(reason) > LONGEST_REASON or not reason.replace("\n", "").isprintable():
        raise InvalidRequest(f"A reason is up to {LONGEST_REASON} printable characters.", param="reason")
    if name:
        start = 0
        folded, wanted = reason.lower(), name.lower()
        if len(folded) == len(reason):
            kept = ""
            while (found := folded.find(wanted, start)) >= 0:
                kept += reason[start:found] + _NAMED
                start = found + len(wanted)
            reason = kept + reason[start:]
        else:
            reason = reason.replace(name, _NAMED)
    return redact_text(reason)


def unknown() -> NotFound:
    """Return the answer for a subject that nobody knows."""
    return NotFound(
        "There is no such subject.",
        hint="Its name must be as calls send it, of the same tenant. One that was forgotten has its sub_ id only.",
    )


def _is_recorded(connection: Connection, audit_id: str) -> bool:
    query = text("SELECT 1 FROM audit_record WHERE audit_id = :audit_id LIMIT 1")
    return connection.execute(query, {"audit_id": audit_id}).first() is not None
