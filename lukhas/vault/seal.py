"""Sealing small secrets under the vault's root key: each purpose has a key of its own, derived from it."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from typing import Final

from lukhas.errors import IntegrityError

_NONCE_BYTES: Final = 12


class Seal:
    """AES-256-GCM under keys that HKDF-SHA256 derives from one root key. Cannot be printed.

    What is sealed for one purpose, or about one thing, cannot be opened as another's.
    """

    __slots__ = ("_root",)

    def __init__(self, root: bytes) -> None:
        """Take the root key, 32 random bytes."""
        self._root = root

    def __repr__(self) -> str:
        return "Seal(...)"

    def seal(self, purpose: str, secret: bytes, about: bytes = b"") -> bytes:
        """Return the secret encrypted: a random nonce, then ciphertext and tag.

        Args:
            purpose: a fixed name of what is sealed.
            secret: any bytes.
            about: what it belongs to; must be given again to open it.
        """
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + AESGCM(self._derive(purpose)).encrypt(nonce, secret, about)

    def open(self, purpose: str, sealed: bytes, about: bytes = b"") -> bytes:
        """Return what was sealed.

        Raises:
            IntegrityError: another root key, purpose or thing, or changed bytes.
        """
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(self._derive(purpose)).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], about)
        except (InvalidTag, ValueError):
            raise IntegrityError(
                f"What was sealed as '{purpose}' cannot be opened with this vault's key.",
                hint="Restore vault.key as it was when this was made.",
            ) from None

    def _derive(self, purpose: str) -> bytes:
        # HKDF (RFC 5869) of one output block; the root is uniform, so the salt may be empty.
        extracted = hmac.digest(bytes(32), self._root, sha256)
        return hmac.digest(extracted, b"lukhas seal " + purpose.encode() + b"\x01", sha256)
