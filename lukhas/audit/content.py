"""Captured texts: redacted, cut, and encrypted under the data keys of every subject that the call names.

Erasing any one of them makes a text unreadable, in backups too, since what is needed to read it is gone from the vault.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Literal, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, insert, or_, select

from lukhas.audit.excerpt import Excerpt
from lukhas.errors import IntegrityError
from lukhas.ids import check_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import AUDIT_CONTENT
from lukhas.vault.data_key import SubjectKeys

Part = Literal["request", "answer"]

_NONCE_BYTES: Final = 12
_SALT: Final = b"lukhas audit content"
_COLUMN: Final = AUDIT_CONTENT.c


class Owner(NamedTuple):
    """Whose texts a call's are.

    Attributes:
        tenant: the call's.
        audit_id: the call's.
        session: `sub_...` of the session, where the call names one.
        end_user: `sub_...` of the end user; where the call names neither, that of its API key.
    """

    tenant: str
    audit_id: str
    session: str | None
    end_user: str | None

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects under whose keys the texts are."""
        return tuple(one for one in (self.session, self.end_user) if one is not None)


class ContentRow(NamedTuple):
    """One encrypted text as it is stored."""

    owner: Owner
    part: str
    time_ms: int
    nonce: bytes
    sealed: bytes


class Content(msgspec.Struct, frozen=True):
    """One captured text.

    Attributes:
        part: 'request', as the caller sent it, or 'answer', as it was released.
        time_ms: when it was captured, in ms since the epoch.
        text: redacted; as a rule JSON, unless it was cut.
        is_cut: whether only its beginning was kept.
    """

    part: str
    time_ms: int
    text: str
    is_cut: bool


class CapturedCall(msgspec.Struct, frozen=True):
    """What was captured of one call, the request first."""

    owner: Owner
    parts: tuple[Content, ...]


def seal_content(owner: Owner, part: Part, excerpt: Excerpt, time_ms: int, keys: Sequence[bytes]) -> ContentRow:
    """Encrypt a text.

    Args:
        excerpt: what was left after redaction and cutting.
        keys: the data keys of `owner.subjects`, in that order.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_BYTES)
    plain = (b"\x01" if excerpt.is_cut else b"\x00") + excerpt.text.encode()
    sealed = AESGCM(_derive(owner, keys)).encrypt(nonce, plain, _associate(owner, part))
    return ContentRow(owner, part, time_ms, nonce, sealed)


def open_content(row: ContentRow, keys: Sequence[bytes]) -> Content:
    """Decrypt a text.

    Raises:
        IntegrityError: other keys, or another tenant, call or part than it was sealed for, or changed bytes.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        plain = AESGCM(_derive(row.owner, keys)).decrypt(row.nonce, row.sealed, _associate(row.owner, row.part))
    except (InvalidTag, ValueError):
        raise IntegrityError(f"The captured {row.part} of {row.owner.audit_id} is not what was written.") from None
    return Content(row.part, row.time_ms, plain[1:].decode(), plain[:1] == b"\x01")


def write_contents(connection: Connection, rows: Sequence[ContentRow]) -> None:
    """Insert texts inside the open transaction."""
    if rows:
        values = [
            {**row.owner._asdict(), "part": row.part, "time_ms": row.time_ms, "nonce": row.nonce, "sealed": row.sealed}
            for row in rows
        ]
        connection.execute(insert(AUDIT_CONTENT), values)


def delete_contents(connection: Connection, sub_id: str) -> int:
    """Delete a subject's texts inside the open transaction; return how many there were."""
    named = or_(_COLUMN.session == sub_id, _COLUMN.end_user == sub_id)
    return connection.execute(delete(AUDIT_CONTENT).where(named)).rowcount


class ContentStore:
    """Reads captured texts. Its methods wait: call them on a thread.

    Args:
        keys: the vault's.
    """

    def __init__(self, database: Database, keys: SubjectKeys) -> None:
        self._database = database
        self._keys = keys

    def read(self, audit_id: str) -> CapturedCall | None:
        """Return what was captured of a call; None where nothing is there.

        Raises:
            InvalidId: not an audit id.
            KeyErased: a subject of the call was erased.
            IntegrityError: what is stored is not what was written.
            StorageUnavailable: the database or the vault cannot be read.
        """
        check_id("aud", audit_id)
        query = select(AUDIT_CONTENT).where(_COLUMN.audit_id == audit_id).order_by(_COLUMN.part.desc())
        with self._database.reading() as connection:
            found = connection.execute(query).all()
        rows = [
            ContentRow(
                Owner(one.tenant, one.audit_id, one.session, one.end_user),
                one.part,
                one.time_ms,
                bytes(one.nonce),
                bytes(one.sealed),
            )
            for one in found
        ]
        if not rows:
            return None
        owner = rows[0].owner
        return CapturedCall(owner, tuple(self._open(row) for row in rows))

    def _open(self, row: ContentRow) -> Content:
        return open_content(row, [self._keys.read(sub_id) for sub_id in row.owner.subjects])


def _derive(owner: Owner, keys: Sequence[bytes]) -> bytes:
    """Return the call's content key: HKDF-SHA256 (RFC 5869) over the data keys of every subject it names."""
    if not keys or len(keys) != len(owner.subjects):
        raise ValueError("a text is sealed under the key of each of its subjects")
    extracted = hmac.digest(_SALT, _join(keys), sha256)
    info = _join([part.encode() for part in (*owner.subjects, owner.tenant, owner.audit_id)])
    return hmac.digest(extracted, info + b"\x01", sha256)


def _associate(owner: Owner, part: str) -> bytes:
    return _join([owner.tenant.encode(), owner.audit_id.encode(), part.encode()])


def _join(parts: Sequence[bytes]) -> bytes:
    # Lengths go first, so that no two lists make the same bytes.
    return b"".join(len(part).to_bytes(8, "big") + part for part in parts)
