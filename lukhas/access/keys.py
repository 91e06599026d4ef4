"""The key store: making, listing and revoking API keys, and the admin key of the first run."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from lukhas.access.ring import ApiKey, KeyRing, digest_secret
from lukhas.access.scope import SCOPES, check_scopes, check_tenant
from lukhas.clock import Clock
from lukhas.errors import InvalidRequest, NotFound
from lukhas.ids import check_id, encode_base32, make_id
from lukhas.settings import Settings
from lukhas.storage.engine import Database
from lukhas.storage.metadata import API_KEY
from lukhas.storage.revision import bump_revision, read_revision
from lukhas.storage.secret_file import replace_secret_file
from lukhas.storage.writer import GroupCommitWriter, Sink

__all__ = ["SCOPES", "AdminKey", "Also", "ApiKey", "KeyRing", "KeyStore", "write_admin_key_file"]

KEY_PREFIX: Final = "lk_"
ADMIN_KEY_FILE: Final = "admin.key"
_TOPIC: Final = "keys"
_SECRET_BYTES: Final = 32
_LONGEST_NAME: Final = 100
_TIMEOUT_S: Final = 30.0

Also: TypeAlias = tuple[Sink[Any, Any], Any]
"""Another sink with its payload, written in the same transaction: a change and its record are one."""


class AdminKey(msgspec.Struct, frozen=True):
    """Where the admin key comes from.

    Attributes:
        secret: the key itself, when it was just made; show it once. None otherwise.
        where: 'environment' (LUKHAS_ADMIN_KEY), 'created' just now, or 'existing' from an earlier run.
        path: the file that an earlier run left the key in, where there is one.
        key: the key without its secret; None where an earlier run made it.
    """

    secret: str | None
    where: Literal["environment", "created", "existing"]
    path: Path | None
    key: ApiKey | None = None

    def __repr__(self) -> str:
        return f"AdminKey(where={self.where!r}, path={self.path!r})"


class _Creation(NamedTuple):
    key: ApiKey
    digest: bytes
    only_first_admin: bool
    also: Also | None


class _Revocation(NamedTuple):
    key_id: str
    now_ms: int
    also: Also | None


class KeyStore:
    """API keys in the database, and the ring that authenticates callers by them."""

    def __init__(self, database: Database, writer: GroupCommitWriter, clock: Clock) -> None:
        """Read all keys.

        Raises:
            StorageUnavailable: the database cannot be read.
        """
        self._database = database
        self._writer = writer
        self._clock = clock
        self._from_environment: tuple[tuple[bytes, ApiKey], ...] = ()
        self._create_sink: Sink[_Creation, bool] = self._write_creations
        self._revoke_sink: Sink[_Revocation, bool] = self._write_revocations
        self._data_version = -1
        self._revision = -1
        self._ring = KeyRing(())
        self.refresh_if_changed()

    @property
    def ring(self) -> KeyRing:
        """The newest snapshot."""
        return self._ring

    def create(
        self,
        name: str,
        tenant: str,
        scopes: Iterable[str],
        expires_ms: int | None = None,
        *,
        also: Also | Callable[[ApiKey], Also] | None = None,
    ) -> tuple[ApiKey, str]:
        """Make a key. Blocks until it is durable; it works at once in this process, elsewhere within a refresh.

        Args:
            name: 1 to 100 printable characters.
            tenant: 1 to 64 of a-z, 0-9, dot, underscore, hyphen.
            scopes: names from `SCOPES`; none is a key that may only call the model.
            expires_ms: a moment in the future, in ms since the epoch.
            also: a sink and its payload for the same transaction, or a function that makes them of the new key.

        Returns:
            The key, and its secret, which is stored nowhere.

        Raises:
            InvalidRequest: a wrong name, tenant, scope or expiry.
            StorageUnavailable, Overloaded: it could not be written.
        """
        secret = KEY_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        key = self._make_key(name, tenant, scopes, expires_ms)
        part = also(key) if callable(also) else also
        self._writer.submit_sync(self._create_sink, _Creation(key, digest_secret(secret), False, part), _TIMEOUT_S)
        self._reload()
        return key, secret

    def list(self) -> list[ApiKey]:
        """Return every stored key, revoked and expired ones too, oldest first. Reads the database."""
        with self._database.reading() as connection:
            rows = connection.execute(select(API_KEY).order_by(API_KEY.c.created_ms, API_KEY.c.key_id)).all()
        return [_read_key(row) for row in rows]

    def revoke(self, key_id: str, *, also: Also | None = None) -> ApiKey:
        """Revoke a key: refused at once in this process, elsewhere within a refresh. Again is no error.

        Args:
            key_id: `key_...`.
            also: a sink and its payload for the same transaction; left out where the key was revoked before.

        Raises:
            InvalidId: not a key's id.
            NotFound: no stored key has it.
            StorageUnavailable, Overloaded: it could not be written.
        """
        check_id("key", key_id)
        if any(key.key_id == key_id for _, key in self._from_environment):
            raise NotFound(
                "This key comes from LUKHAS_ADMIN_KEY and is not stored.", hint="Change or unset the variable."
            )
        self._writer.submit_sync(self._revoke_sink, _Revocation(key_id, self._clock.now_ms(), also), _TIMEOUT_S)
        self._reload()
        return next(key for key in self.list() if key.key_id == key_id)

    def refresh_if_changed(self) -> bool:
        """Take a new snapshot where any process changed a key. Cheap; ask every 200 ms.

        Raises:
            StorageUnavailable: the database cannot be read; the last snapshot stays.
        """
        # Read before the keys, so that a change in between is seen next time, not never.
        version = self._database.data_version()
        if version == self._data_version:
            return False
        with self._database.reading() as connection:
            revision = read_revision(connection, _TOPIC)
        changed = revision != self._revision
        if changed:
            self._reload()
        self._data_version = version
        return changed

    def ensure_admin(self, settings: Settings, *, also: Callable[[ApiKey], Also] | None = None) -> AdminKey:
        """See to it that there is an admin key, for tenant 'default'.

        LUKHAS_ADMIN_KEY is accepted as long as it is set, and never stored. Else the first run makes a key; a
        database that ever had an admin key gets no second one by itself.

        Args:
            settings: names the key or the data directory.
            also: makes of the new key a sink and its payload for the transaction that stores it.
        """
        if settings.admin_key is not None:
            digest = digest_secret(settings.admin_key.reveal())
            number = int.from_bytes(digest_secret(f"key id of {digest.hex()}")[:16], "big")
            key = ApiKey(
                key_id=f"key_{encode_base32(number)}",
                name="admin (LUKHAS_ADMIN_KEY)",
                tenant="default",
                scopes=frozenset({"admin"}),
                created_ms=self._clock.now_ms(),
            )
            self._from_environment = ((digest, key),)
            self._reload()
            return AdminKey(None, "environment", None, key)
        secret = KEY_PREFIX + secrets.token_urlsafe(_SECRET_BYTES)
        key = self._make_key("admin (first run)", "default", ("admin",), None)
        part = None if also is None else also(key)
        if any(one.is_admin for one in self.list()) or not self._writer.submit_sync(
            self._create_sink, _Creation(key, digest_secret(secret), True, part), _TIMEOUT_S
        ):
            path = settings.data_dir / ADMIN_KEY_FILE
            return AdminKey(None, "existing", path if path.is_file() else None)
        self._reload()
        return AdminKey(secret, "created", None, key)

    def _make_key(self, name: str, tenant: str, scopes: Iterable[str], expires_ms: int | None) -> ApiKey:
        now_ms = self._clock.now_ms()
        if not 1 <= len(name) <= _LONGEST_NAME or not name.isprintable() or not name.strip():
            raise InvalidRequest("A key's name is 1 to 100 printable characters.", param="name")
        if expires_ms is not None and not now_ms < expires_ms < 2**53:
            raise InvalidRequest("A key must expire in the future.", param="expires_ms")
        return ApiKey(
            key_id=make_id("key"),
            name=name,
            tenant=check_tenant(tenant),
            scopes=check_scopes(scopes),
            created_ms=now_ms,
            expires_ms=expires_ms,
        )

    def _reload(self) -> None:
        with self._database.reading() as connection, connection.begin():
            revision = read_revision(connection, _TOPIC)
            rows = connection.execute(select(API_KEY)).all()
        self._ring = KeyRing([*((bytes(row.digest), _read_key(row)) for row in rows), *self._from_environment])
        self._revision = revision

    def _write_creations(self, connection: Connection, creations: Sequence[_Creation]) -> list[bool]:
        return [self._write_creation(connection, one) for one in creations]

    def _write_creation(self, connection: Connection, one: _Creation) -> bool:
        # The lock comes first: two first runs must not both find no admin key.
        bump_revision(connection, _TOPIC)
        if one.only_first_admin:
            known = connection.execute(select(API_KEY.c.scopes)).scalars()
            if any("admin" in scopes.split() for scopes in known):
                return False
        key = one.key
        connection.execute(
            insert(API_KEY).values(
                key_id=key.key_id,
                name=key.name,
                tenant=key.tenant,
                scopes=" ".join(sorted(key.scopes)),
                digest=one.digest,
                created_ms=key.created_ms,
                expires_ms=key.expires_ms,
            )
        )
        _write_also(connection, one.also)
        return True

    def _write_revocations(self, connection: Connection, revocations: Sequence[_Revocation]) -> list[bool]:
        return [self._write_revocation(connection, one) for one in revocations]

    def _write_revocation(self, connection: Connection, one: _Revocation) -> bool:
        key = API_KEY.c
        bump_revision(connection, _TOPIC)
        changed = connection.execute(
            update(API_KEY).where(key.key_id == one.key_id, key.revoked_ms.is_(None)).values(revoked_ms=one.now_ms)
        )
        if changed.rowcount:
            _write_also(connection, one.also)
        elif connection.execute(select(key.key_id).where(key.key_id == one.key_id)).first() is None:
            raise NotFound("There is no such key.", hint="See: lukhas key list")
        return bool(changed.rowcount)


def write_admin_key_file(data_dir: Path, secret: str) -> Path:
    """Write the admin key into a 0600 file in the data directory, for a first run without a terminal."""
    path = data_dir / ADMIN_KEY_FILE
    replace_secret_file(path, secret + "\n")
    return path


def _write_also(connection: Connection, also: Also | None) -> None:
    if also is not None:
        sink, payload = also
        sink(connection, [payload])


def _read_key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        name=row.name,
        tenant=row.tenant,
        scopes=frozenset(row.scopes.split()),
        created_ms=row.created_ms,
        expires_ms=row.expires_ms,
        revoked_ms=row.revoked_ms,
    )
