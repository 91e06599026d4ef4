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
from lukhas.errors import ConfigurationError, InvalidRequest
from lukhas.ids import make_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import SUBJECT
from lukhas.storage.writer import GroupCommitWriter, Sink
from lukhas.vault.pepper import FILE_NAME, load_pepper

SubjectKind = Literal["session", "user"]

_KINDS: Final = frozenset({"session", "user"})
_LOOK_UP_TOGETHER: Final = 500
_RECENT_NAMES: Final = 5_000


class _Wanted(NamedTuple):
    digest: bytes
    kind: str
    wish: str | None = None


class SubjectVault:
    """Maps (tenant, kind, external id) to a random id by HMAC-SHA256 under the vault's pepper."""

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
            key_path: the pepper's file; `vault.key` beside an SQLite database when None.
            cache_entries: mappings kept in memory, as digests.
            clock: the machine's own when None.

        Raises:
            ConfigurationError: the key file is missing or not this vault's.
        """
        if key_path is None:
            if database.path is None:
                raise ConfigurationError("A vault on PostgreSQL needs the path of its key file.")
            key_path = database.path.with_name(FILE_NAME)
        self._database = database
        self._writer = writer
        self._clock = clock or SystemClock()
        self._pepper = load_pepper(database, key_path)
        self._cache: OrderedDict[bytes, str] = OrderedDict()
        self._cache_entries = cache_entries
        self._cache_lock = threading.Lock()
        # Who called lately, by name: an HMAC lets go of the interpreter lock, and getting it back costs 100 us
        # beside a busy writer. In memory only, and only on the loop that resolves.
        self._names: dict[tuple[str, str, str], str] = {}
        self._sink: Sink[_Wanted, str] = self._assign

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
        digest = self._digest(tenant, kind, external_id)
        known = self._recall(digest)
        if known is None:
            known = await self._writer.submit(self._sink, _Wanted(digest, kind, wish))
            self._keep(digest, known)
        if len(self._names) >= _RECENT_NAMES:
            self._names.clear()
        self._names[name] = known
        return known

    def lookup(self, tenant: str, kind: SubjectKind, external_id: str) -> str | None:
        """Return the subject's id, or None where it never had one. Makes none.

        Raises:
            InvalidRequest: the kind or the id is not one.
            StorageUnavailable: the vault cannot be read.
        """
        digest = self._digest(tenant, kind, external_id)
        known = self._recall(digest)
        if known is not None:
            return known
        with self._database.reading() as connection:
            found = connection.execute(select(SUBJECT.c.sub_id).where(SUBJECT.c.digest == digest)).scalar()
        if found is not None:
            self._keep(digest, str(found))
        return found

    def _digest(self, tenant: str, kind: str, external_id: str) -> bytes:
        if kind not in _KINDS:
            raise InvalidRequest(f"A subject is a session or a user, not '{kind}'.")
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

    def _keep(self, digest: bytes, sub_id: str) -> None:
        with self._cache_lock:
            self._cache[digest] = sub_id
            while len(self._cache) > self._cache_entries:
                self._cache.popitem(last=False)

    def _assign(self, connection: Connection, wanted: Sequence[_Wanted]) -> list[str]:
        by_digest = {one.digest: one for one in wanted}
        known = _find(connection, list(by_digest))
        missing = [one for digest, one in by_digest.items() if digest not in known]
        if missing:
            now_ms = self._clock.now_ms()
            made = {one.digest: one.wish or make_id("sub") for one in missing}
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


def _find(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, str]:
    found: dict[bytes, str] = {}
    for start in range(0, len(digests), _LOOK_UP_TOGETHER):
        part = digests[start : start + _LOOK_UP_TOGETHER]
        query = select(SUBJECT.c.digest, SUBJECT.c.sub_id).where(SUBJECT.c.digest.in_(part))
        found.update((bytes(digest), sub_id) for digest, sub_id in connection.execute(query))
    return found
