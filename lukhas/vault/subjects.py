"""Subjects: a session or an end user becomes a random `sub_...` id, and its own name is never stored."""

from __future__ import annotations

import hmac
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Final, Literal, NamedTuple

from sqlalchemy import Connection, insert, select

from lukhas.clock import Clock, SystemClock
from lukhas.errors import InvalidRequest
from lukhas.ids import make_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import ERASURE, SUBJECT
from lukhas.storage.revision import read_revision
from lukhas.storage.writer import GroupCommitWriter, Sink
from lukhas.vault.data_key import SubjectKeys
from lukhas.vault.pepper import find_key_path, load_pepper
from lukhas.vault.seal import Seal

SubjectKind = Literal["session", "user", "key"]
"""A session, an end user, or an API key: the subject of calls that name neither of the two."""

TOPIC: Final = "subject"
"""The revision that grows with every erasure."""
_KINDS: Final = frozenset({"session", "user", "key"})
_LOOK_UP_TOGETHER: Final = 500
_RECENT_NAMES: Final = 5_000


class _Wanted(NamedTuple):
    digest: bytes
    kind: str
    wish: str | None = None


class SubjectVault:
    """Maps (tenant, kind, external id) to a random id by HMAC-SHA256 under the vault's pepper.

    Attributes:
        seal: seals small secrets of this installation under the vault's root.
        keys: the subjects' data keys.
    """

    def __init__(
        self,
        database: Database,
        writer: GroupCommitWriter,
        *,
        key_path: Path | None = None,
        cache_entries: int = 50_000,
        clock: Clock | None = None,
    ) -> None:
        """Open the vault; makes its key file at first use.

        Args:
            database: the vault's database, migrated.
            writer: a running writer on that database.
            key_path: the pepper's file where the vault is on PostgreSQL. An SQLite vault has its `vault.key` beside
                its own file, and takes this one only where that is missing and this is there.
            cache_entries: mappings kept in memory, as digests.
            clock: the machine's own when None.

        Raises:
            ConfigurationError: the key file is missing or not this vault's.
        """
        self._database = database
        self._writer = writer
        self._clock = clock or SystemClock()
        self._pepper = load_pepper(database, find_key_path(database, key_path))
        self.seal = Seal(self._pepper)
        self.keys = SubjectKeys(database, writer, self.seal, self._clock)
        self._cache: OrderedDict[bytes, str] = OrderedDict()
        self._cache_entries = cache_entries
        self._cache_lock = threading.Lock()
        # Who called lately, by name: an HMAC lets go of the interpreter lock, and getting it back costs 100 us
        # beside a busy writer. In memory only, and only on the loop that resolves.
        self._names: dict[tuple[str, str, str], str] = {}
        self._sink: Sink[_Wanted, str] = self._assign
        self._generation = 0
        self._data_version = -1
        self._revision = -1

    @property
    def database(self) -> Database:
        """The vault's database."""
        return self._database

    @property
    def writer(self) -> GroupCommitWriter:
        """The writer on that database."""
        return self._writer

    def recall(self, tenant: str, kind: SubjectKind, external_id: str) -> str | None:
        """Return the id of a subject that this loop resolved lately, without waiting; None says nothing."""
        return self._names.get((tenant, kind, external_id))

    async def resolve(self, tenant: str, kind: SubjectKind, external_id: str, *, wish: str | None = None) -> str:
        """Return the subject's id, made at its first call and durable before this returns.

        Args:
            wish: the id that a new subject gets: one that it was given while nothing could be stored.

        Raises:
            InvalidRequest: the kind or the id is not one.
            Overloaded, StorageUnavailable: a new subject cannot be written.
        """
        name = (tenant, kind, external_id)
        known = self._names.get(name)
        if known is not None:
            return known
        generation = self._generation
        digest = self.digest(tenant, kind, external_id)
        known = self._recall(digest)
        if known is None:
            known = await self._writer.submit(self._sink, _Wanted(digest, kind, wish))
        self._keep(digest, known, generation, name)
        return known

    def lookup(self, tenant: str, kind: SubjectKind, external_id: str) -> str | None:
        """Return the subject's id, or None where it never had one. Makes none.

        Raises:
            InvalidRequest: the kind or the id is not one.
            StorageUnavailable: the vault cannot be read.
        """
        generation = self._generation
        digest = self.digest(tenant, kind, external_id)
        known = self._recall(digest)
        if known is not None:
            return known
        with self._database.reading() as connection:
            found = connection.execute(select(SUBJECT.c.sub_id).where(SUBJECT.c.digest == digest)).scalar()
        if found is not None:
            self._keep(digest, str(found), generation)
        return found

    def forget(self) -> None:
        """Drop every name, id and key from memory: some of them may have been erased."""
        with self._cache_lock:
            self._generation += 1
            self._cache.clear()
            self._names.clear()
        self.keys.forget()

    def refresh_if_changed(self) -> bool:
        """Forget what is in memory where any process has erased a subject. Cheap; ask every 200 ms, on a thread.

        Raises:
            StorageUnavailable: the vault cannot be read; what is in memory stays.
        """
        # Read before the revision, so that an erasure in between is seen next time, not never.
        version = self._database.data_version()
        if version == self._data_version:
            return False
        with self._database.reading() as connection:
            revision = read_revision(connection, TOPIC)
        changed = revision != self._revision
        if changed:
            self.forget()
        self._revision = revision
        self._data_version = version
        return changed

    def digest(self, tenant: str, kind: str, external_id: str) -> bytes:
        """Return what a subject is found by: an HMAC under the vault's pepper.

        Raises:
            InvalidRequest: the kind or the id is not one.
        """
        if kind not in _KINDS:
            raise InvalidRequest(f"A subject is a session, a user or a key, not '{kind[:40]}'.", param="kind")
        if not external_id:
            raise InvalidRequest(f"A {kind} id must not be empty.")
        # Lengths go first, so that no two triples make the same bytes.
        message = bytearray()
        for part in (tenant, kind, external_id):
            data = part.encode("utf-8", "surrogatepass")
            message += len(data).to_bytes(8, "big") + data
        return hmac.digest(self._pepper, message, sha256)

    def _recall(self, digest: bytes) -> str | None:
        with self._cache_lock:
            known = self._cache.get(digest)
            if known is not None:
                self._cache.move_to_end(digest)
            return known

    def _keep(self, digest: bytes, sub_id: str, generation: int, name: tuple[str, str, str] | None = None) -> None:
        with self._cache_lock:
            if generation != self._generation:
                return  # read before an erasure: it may be the erased subject's
            self._cache[digest] = sub_id
            if name is not None:
                if len(self._names) >= _RECENT_NAMES:
                    self._names.clear()
                self._names[name] = sub_id
            while len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)

    def _assign(self, connection: Connection, wanted: Sequence[_Wanted]) -> list[str]:
        by_digest = {one.digest: one for one in wanted}
        known = _find(connection, list(by_digest))
        missing = [one for digest, one in by_digest.items() if digest not in known]
        if missing:
            now_ms = self._clock.now_ms()
            erased = _find_erased(connection, [one.wish for one in missing if one.wish is not None])
            made = {
                one.digest: one.wish if one.wish is not None and one.wish not in erased else make_id("sub")
                for one in missing
            }
            rows = [
                {"digest": one.digest, "sub_id": made[one.digest], "kind": one.kind, "created_ms": now_ms}
                for one in missing
            ]
            if self._database.kind == "postgresql":
                # Loaded where it is used: a start on SQLite need not wait for it.
                from sqlalchemy.dialects.postgresql import insert as insert_postgresql

                # Another process may be making the same subject: the first to commit decides its id.
                connection.execute(insert_postgresql(SUBJECT).on_conflict_do_nothing(), rows)
                known |= _find(connection, [one.digest for one in missing])
            else:
                connection.execute(insert(SUBJECT), rows)
                known |= made
        return [known[one.digest] for one in wanted]


def _find_erased(connection: Connection, sub_ids: Sequence[str]) -> set[str]:
    """Return those ids whose subjects were erased: nobody gets them again."""
    if not sub_ids:
        return set()
    return set(connection.execute(select(ERASURE.c.sub_id).where(ERASURE.c.sub_id.in_(sub_ids))).scalars())


def _find(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for start in range(0, len(digests), _LOOK_UP_TOGETHER):
        part = digests[start : start + _LOOK_UP_TOGETHER]
        query = select(SUBJECT.c.digest, SUBJECT.c.sub_id).where(SUBJECT.c.digest.in_(part))
        found.update((bytes(digest), sub_id) for digest, sub_id in connection.execute(query))
    return found
