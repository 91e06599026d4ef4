"""Erasing subjects: the mapping and the data key are destroyed, and a ledger says so, in one transaction.

The ledger names subjects by their random ids alone. It outlives the vault's backups: replayed over a restored vault,
it erases again what a backup has brought back.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec
from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lukhas.clock import Clock, SystemClock
from lukhas.errors import IntegrityError, NotFound
from lukhas.ids import check_id
from lukhas.storage.metadata import ERASURE, SUBJECT, SUBJECT_KEY
from lukhas.storage.revision import bump_revision, read_revision
from lukhas.storage.sqlite import load_sqlite_module
from lukhas.vault.subjects import TOPIC, SubjectKind, SubjectVault

Named: TypeAlias = tuple[str, SubjectKind, str]
"""A subject as its caller names it: tenant, kind, external id."""

_RECORDED: Final = "recorded"
_TIMEOUT_S: Final = 30.0
_PURGE_PATIENCE_S: Final = 10.0
_PURGE_STEP_S: Final = 0.05
_PAGE: Final = 500
_ERASING_LOCK: Final = 0x6C756B69  # any fixed number; all replicas must agree on it
_RAISE_MARK: Final = (
    "INSERT INTO revision (topic, number) VALUES ('recorded', {seq}) ON CONFLICT (topic) DO UPDATE SET number = "
    "CASE WHEN excluded.number > revision.number THEN excluded.number ELSE revision.number END"
)


class Erasure(msgspec.Struct, frozen=True):
    """One line of the ledger.

    Attributes:
        seq: its number in this vault, growing.
        sub_id: who was erased.
        kind: session, user or key.
        audit_id: the record that tells of it.
        time_ms: when, in ms since the epoch.
        who: who had it done.
        why: the reason given; may be empty.
    """

    seq: int
    sub_id: str
    kind: str
    audit_id: str
    time_ms: int
    who: str
    why: str


class Erased(NamedTuple):
    """What an erasure has done.

    Attributes:
        entry: its line in the ledger; an earlier one where the subject was erased before.
        is_new: whether the subject was erased just now.
        keys: how many data keys were destroyed just now: 0 where it never had one.
    """

    entry: Erasure
    is_new: bool
    keys: int


class _Wanted(NamedTuple):
    digest: bytes | None
    sub_id: str | None
    audit_id: str
    who: str
    why: str
    time_ms: int
    replayed: Erasure | None = None


class EraseLedger:
    """Erases subjects of one vault, and tells who was erased. Its methods wait: call them on a thread."""

    def __init__(self, vault: SubjectVault, clock: Clock | None = None) -> None:
        self._vault = vault
        self._database = vault.database
        self._clock = clock or SystemClock()
        self._sink = self._write

    def erase(self, subject: str | Named, *, audit_id: str, who: str, why: str = "") -> Erased:
        """Destroy a subject's mapping and data key. Durable when this returns; again is no error.

        What is in this process's memory is forgotten at once, in other processes' by `refresh_if_changed`. Call `purge`
        next, so that the database's own files hold no traces either.

        Args:
            subject: `sub_...`, or the subject as its caller names it.
            audit_id: id of the record that will tell of it.
            who, why: for the ledger; must not name the subject.

        Raises:
            InvalidId, InvalidRequest: not a subject.
            NotFound: the vault knows no such subject. An erased one is found by its `sub_...` id only.
            StorageUnavailable, Overloaded: it could not be written; nothing was erased.
        """
        is_id = isinstance(subject, str)
        wanted = _Wanted(
            digest=None if is_id else self._vault.digest(*subject),
            sub_id=check_id("sub", subject) if is_id else None,
            audit_id=check_id("aud", audit_id),
            who=_clean(who),
            why=_clean(why),
            time_ms=self._clock.now_ms(),
        )
        erased = self._vault.writer.submit_sync(self._sink, wanted, _TIMEOUT_S)
        if erased is None:
            raise NotFound("The vault knows no such subject.", hint="One that was erased has only its sub_ id left.")
        self._vault.forget()
        return erased

    def knows(self, subject: Named) -> bool:
        """Say whether a subject that its caller names is in the vault. Reads the database, never the memory."""
        query = select(SUBJECT.c.sub_id).where(SUBJECT.c.digest == self._vault.digest(*subject))
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def find(self, sub_id: str) -> Erasure | None:
        """Return the ledger's line about a subject; None where it was not erased."""
        with self._database.reading() as connection:
            row = connection.execute(select(ERASURE).where(ERASURE.c.sub_id == sub_id)).first()
        return None if row is None else _read(row)

    def entries(self, after: int = 0) -> Iterator[Erasure]:
        """Yield the ledger in order, from after this `seq` on."""
        while True:
            query = select(ERASURE).where(ERASURE.c.seq > after).order_by(ERASURE.c.seq).limit(_PAGE)
            with self._database.reading() as connection:
                page = [_read(row) for row in connection.execute(query)]
            yield from page
            if len(page) < _PAGE:
                return
            after = page[-1].seq

    def export(self, after: int = 0) -> Iterator[bytes]:
        """Yield the ledger as JSON lines, for `parse_ledger`."""
        for entry in self.entries(after):
            yield msgspec.json.encode(entry) + b"\n"

    def replay(self, entries: Iterable[Erasure]) -> int:
        """Apply erasures again, as after a vault was restored from a backup; return how many subjects came of it.

        Order does not matter, and what is erased already stays so. Then call `purge`.

        Raises:
            StorageUnavailable, Overloaded: they could not all be written; apply all again.
        """
        changed = 0
        for entry in entries:
            check_id("aud", entry.audit_id)
            wanted = _Wanted(None, check_id("sub", entry.sub_id), entry.audit_id, "", "", entry.time_ms, entry)
            erased = self._vault.writer.submit_sync(self._sink, wanted, _TIMEOUT_S)
            changed += erased is not None and erased.is_new
        self._vault.forget()
        return changed

    def unrecorded(self) -> list[Erasure]:
        """Return erasures that no audit record is known to tell of, oldest first."""
        with self._database.reading() as connection:
            mark = read_revision(connection, _RECORDED)
        return list(self.entries(mark))

    def mark_recorded(self, seq: int) -> None:
        """Remember that records tell of all erasures up to this one."""
        sql = _RAISE_MARK.format(seq=int(seq))

        def write(connection: Connection, payloads: Sequence[None]) -> Sequence[None]:
            connection.exec_driver_sql(sql)
            return payloads

        self._vault.writer.submit_sync(write, None, _TIMEOUT_S)

    def purge(self) -> bool:
        """Overwrite what the erased rows left in the database's files; say whether it was possible.

        SQLite's main file is overwritten by the deletion itself (secure_delete); its write-ahead log still holds the
        old pages until it is emptied, which waits for readers. On PostgreSQL, old rows go with its own VACUUM and WAL
        recycling, so there is nothing to do here.
        """
        if self._database.kind == "postgresql":
            return True
        deadline = time.monotonic() + _PURGE_PATIENCE_S
        while not self._truncate_log():
            if time.monotonic() > deadline:
                return False
            time.sleep(_PURGE_STEP_S)
        return True

    def _truncate_log(self) -> bool:
        driver_error = load_sqlite_module().Error  # of a raw connection, SQLAlchemy wraps none
        try:
            pooled = self._database.writer.raw_connection()
            try:
                # Outside any transaction: a checkpoint cannot be in one.
                driver = cast("Any", pooled.driver_connection)
                return driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
            finally:
                pooled.close()
        except (driver_error, DBAPIError, PoolTimeout):
            return False

    def _write(self, connection: Connection, wanted: Sequence[_Wanted]) -> list[Erased | None]:
        """Erase, inside the open transaction. A sink of the vault's writer."""
        if self._database.kind == "postgresql":
            # One after the other, so that the ledger's numbers become visible in order.
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ERASING_LOCK})")
        return [self._write_one(connection, one) for one in wanted]

    def _write_one(self, connection: Connection, one: _Wanted) -> Erased | None:
        subject = SUBJECT.c
        query = select(subject.sub_id, subject.kind)
        query = query.where(subject.sub_id == one.sub_id if one.digest is None else subject.digest == one.digest)
        found = connection.execute(query).first()
        sub_id = one.sub_id if found is None else str(found.sub_id)
        if sub_id is None:
            return None
        earlier = connection.execute(select(ERASURE).where(ERASURE.c.sub_id == sub_id)).first()
        if found is None and earlier is None and one.replayed is None:
            return None
        # The mapping first: whoever makes a key holds its row (see `SubjectKeys`).
        gone = connection.execute(delete(SUBJECT).where(subject.sub_id == sub_id)).rowcount
        keys = connection.execute(delete(SUBJECT_KEY).where(SUBJECT_KEY.c.sub_id == sub_id)).rowcount
        is_new = bool(gone or keys or earlier is None)
        if earlier is None:
            line = {
                "sub_id": sub_id,
                "kind": str(found.kind) if found is not None else one.replayed.kind if one.replayed else "",
                "audit_id": one.audit_id,
                "time_ms": one.time_ms,
                "who": one.replayed.who if one.replayed else one.who,
                "why": one.replayed.why if one.replayed else one.why,
            }
            earlier = connection.execute(ERASURE.insert().values(line).returning(*ERASURE.c)).one()
        if is_new:
            bump_revision(connection, TOPIC)
        return Erased(_read(earlier), is_new, keys)


def parse_ledger(lines: Iterable[bytes]) -> Iterator[Erasure]:
    """Read what `EraseLedger.export` has written.

    Raises:
        IntegrityError: a line that is none of the ledger's; names its number.
    """
    decoder = msgspec.json.Decoder(Erasure)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield decoder.decode(line)
        except msgspec.MsgspecError as wrong:
            raise IntegrityError(f"Line {number} is no line of an erase ledger: {wrong}.") from None


def _read(row: Row[Any]) -> Erasure:
    return Erasure(row.seq, row.sub_id, row.kind, row.audit_id, row.time_ms, row.who, row.why)


def _clean(text: str) -> str:
    # PostgreSQL takes no null character, and no database half a surrogate pair.
    return text.replace("\0", "").encode("utf-8", "replace").decode()
