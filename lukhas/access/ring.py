"""The key ring: an immutable snapshot of the API keys, which authenticates without touching the database."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from hashlib import sha256
from typing import Final

import msgspec

from lukhas.errors import Unauthenticated

_LONGEST_SECRET: Final = 1_024
_NOBODY: Final = (b"", None)


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """One API key, without its secret.

    Attributes:
        key_id: `key_...`.
        name: what its owner calls it.
        tenant: whose calls it makes.
        scopes: what it may do beside calling the model (`lukhas.access.scope.SCOPES`).
        created_ms: when it was made, in ms since the epoch.
        expires_ms: from when on it is refused; None never.
        revoked_ms: when it was revoked; None where it was not.
    """

    key_id: str
    name: str
    tenant: str
    scopes: frozenset[str]
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    @property
    def is_admin(self) -> bool:
        """Whether the key may do everything."""
        return "admin" in self.scopes

    def allows(self, scope: str) -> bool:
        """Say whether the key has this scope; an admin key has all."""
        return scope in self.scopes or "admin" in self.scopes

    def is_live(self, now_ms: int) -> bool:
        """Say whether the key is neither revoked nor expired."""
        return self.revoked_ms is None and (self.expires_ms is None or now_ms < self.expires_ms)


def digest_secret(secret: str) -> bytes:
    """Return the hash under which a secret is stored. Secrets have 256 random bits, so a plain hash is enough."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


class KeyRing:
    """All keys at one moment, by the hash of their secret."""

    __slots__ = ("_by_digest",)

    def __init__(self, keys: Iterable[tuple[bytes, ApiKey]]) -> None:
        self._by_digest = {digest: (digest, key) for digest, key in keys}

    def __len__(self) -> int:
        return len(self._by_digest)

    def authenticate(self, secret: str, now_ms: int) -> ApiKey:
        """Return the key that a secret belongs to.

        Raises:
            Unauthenticated: unknown, expired and revoked alike; the message does not say which.
        """
        if 0 < len(secret) <= _LONGEST_SECRET:
            digest = digest_secret(secret)
            # Finding the entry compares hashes, of which a caller cannot choose a part; the last word is constant-time.
            stored, key = self._by_digest.get(digest, _NOBODY)
            if hmac.compare_digest(stored, digest) and key is not None and key.is_live(now_ms):
                return key
        raise Unauthenticated("This API key is not valid.", hint="Send a valid key as 'Authorization: Bearer lk_...'.")
