"""Data keys: 256 random bits for each subject, wrapped under the vault's root, gone for good when it is erased.

Whatever is kept about a subject and may be erased is encrypted under its key: captured text, personal payloads,
digests of text. Destroying the key makes all of it unreadable, copies in backups too.
"""

from __future__ import annotations

import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from sqlalchemy import Connection, insert, select

from lukhas.clock import Clock
from lukhas.errors import KeyErased, NotFound
from lukhas.ids import check_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import ERASURE, SUBJECT, SUBJECT_KEY
from lukhas.storage.writer import GroupCommitWriter, Sink
from lukhas.vault.seal import Seal

_KEY_BYTES: Final = 32
_PURPOSE: Final = "subject key"
_ERASED: Final = b"erased"
_UNKNOWN: Final = b""


class SubjectKeys:
    """The data keys of one vault: what a subject's text, payloads and digests are kept under.

    Args:
        seal: of the vault that the subjects are in.
        cache_entries: keys kept in memory.
    """

    def __init__(
        self, database: Database, writer: GroupCommitWriter, seal: Seal, clock: Clock, *, cache_entries: int = 10_000
    ) -> None:
        self._database = database
        self._writer = writer
        self._seal = seal
        self._clock = clock
        self._cache: OrderedDict[str, bytes] = OrderedDict()
        self._cache_entries = cache_entries
        self._lock = threading.Lock()
        self._generation = 0
        self._sink: Sink[str, bytes] = self._provide

    async def key(self, sub_id: str) -> bytes:
        """Return a subject's data key, 32 bytes; made at its first use, and durable before this returns.

        Raises:
            InvalidId: not a subject's id.
            KeyErased: the subject was erased.
            NotFound: this vault knows no such subject.
            IntegrityError: the stored key cannot be opened with this vault's root.
            Overloaded, StorageUnavailable: a new key cannot be written.
        """
        known = self._recall(sub_id)
        if known is not None:
            return known
        generation = self._generation
        wrapped = await self._writer.submit(self._sink, check_id("sub", sub_id))
        return self._keep(sub_id, self._unwrap(sub_id, wrapped), generation)

    def read(self, sub_id: str) -> bytes:
        """Return a subject's data key, read on any thread. Makes none.

        Raises:
            InvalidId, KeyErased, IntegrityError: as `key`.
            NotFound: the subject is unknown, or never had a key.
            StorageUnavailable: the vault cannot be read.
        """
        known = self._recall(check_id("sub", sub_id))
        if known is not None:
            return known
        generation = self._generation
        with self._database.reading() as connection:
            wrapped = _find(connection, [sub_id]).get(sub_id, _UNKNOWN)
        return self._keep(sub_id, self._unwrap(sub_id, wrapped), generation)

    async def digest(self, sub_id: str, text: str) -> bytes:
        """Return the HMAC-SHA256 of a text under a key derived from the subject's: equal texts are equal within it.

        Nobody without the key can try texts against it; once the subject is erased, nobody can.

        Raises:
            as `key`.
        """
        inner = hmac.digest(await self.key(sub_id), b"lukhas text digest", sha256)
        return hmac.digest(inner, text.encode("utf-8", "surrogatepass"), sha256)

    def forget(self) -> None:
        """Drop every key from memory."""
        with self._lock:
            self._generation += 1
            self._cache.clear()

    def _recall(self, sub_id: str) -> bytes | None:
        with self._lock:
            known = self._cache.get(sub_id)
            if known is not None:
                self._cache.move_to_end(sub_id)
            return known

    def _keep(self, sub_id: str, key: bytes, generation: int) -> bytes:
        with self._lock:
            # What was read before an erasure may not come back after it.
            if generation == self._generation:
                self._cache[sub_id] = key
                while len(self._cache) > self._cache_entries:
                    self._cache.popitem(last=False)
        return key

    def _unwrap(self, sub_id: str, wrapped: bytes) -> bytes:
        if wrapped == _ERASED:
            raise erased(sub_id)
        if wrapped == _UNKNOWN:
            raise NotFound(f"The vault holds no key of {sub_id}.")
        return self._seal.open(_PURPOSE, wrapped, sub_id.encode())

    def _provide(self, connection: Connection, wanted: Sequence[str]) -> list[bytes]:
        found = _find(connection, wanted)
        missing = sorted({sub_id for sub_id in wanted if sub_id not in found})
        if missing:
            query = select(SUBJECT.c.sub_id).where(SUBJECT.c.sub_id.in_(missing))
            if self._database.kind == "postgresql":
                # An erasure waits for this lock, and then finds the key that is made here.
                query = query.with_for_update()
            living = sorted(connection.execute(query).scalars())
            # Another process may have made the key, or erased the subject, while this one waited.
            found |= _find(connection, missing)
            now_ms = self._clock.now_ms()
            made = {
                sub_id: self._seal.seal(_PURPOSE, secrets.token_bytes(_KEY_BYTES), sub_id.encode())
                for sub_id in living
                if sub_id not in found
            }
            if made:
                rows = [{"sub_id": sub_id, "wrapped": data, "created_ms": now_ms} for sub_id, data in made.items()]
                connection.execute(insert(SUBJECT_KEY), rows)
            found |= made
        return [found.get(sub_id, _UNKNOWN) for sub_id in wanted]


def _find(connection: Connection, sub_ids: Sequence[str]) -> dict[str, bytes]:
    wanted = sorted(set(sub_ids))
    key, ledger = SUBJECT_KEY.c, ERASURE.c
    rows = connection.execute(select(key.sub_id, key.wrapped).where(key.sub_id.in_(wanted)))
    found = {str(sub_id): bytes(wrapped) for sub_id, wrapped in rows}
    # Last: the ledger's word counts, also where a restored backup brought a key back.
    gone = connection.execute(select(ledger.sub_id).where(ledger.sub_id.in_(wanted))).scalars()
    return {**found, **dict.fromkeys(gone, _ERASED)}


def erased(sub_id: str) -> KeyErased:
    """Return the answer for whatever was kept under the key of a subject that is erased."""
    return KeyErased(f"The subject {sub_id} was erased; what was kept under its key cannot be read any more.")
