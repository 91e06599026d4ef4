"""The key that signs a log's checkpoints: configured, or made at first start and kept sealed in the database."""

from __future__ import annotations

import base64
import binascii
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lukhas.audit import statement
from lukhas.audit.note import SEED_BYTES, NoteSigner, NoteVerifier, is_name, parse_verifier
from lukhas.clock import Clock
from lukhas.errors import ConfigurationError, IntegrityError, InvalidRequest, StorageUnavailable
from lukhas.settings import Secret
from lukhas.storage.engine import Database
from lukhas.storage.metadata import AUDIT_KEY

if TYPE_CHECKING:
    from lukhas.vault.seal import Seal

PURPOSE: Final = "audit key"
ORIGIN_SETTING: Final = "LUKHAS_AUDIT_ORIGIN"
KEY_SETTING: Final = "LUKHAS_AUDIT_KEY_FILE"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The key that signs from now on.

    Attributes:
        signer: signs with it.
        is_new: it became the log's key in this very call: made, or configured for the first time.
        replaces: the key that signed until now; None where the key is not new, or is the log's first.
    """

    signer: NoteSigner
    is_new: bool
    replaces: NoteVerifier | None = None

    def describe(self) -> dict[str, Any]:
        """Return the body of the record, of kind `log_key`, that says that the log has this key from now on."""
        replaces = None if self.replaces is None else str(self.replaces)
        event = "created" if replaces is None else "replaced"
        return {"event": event, "verifier": str(self.signer.verifier), "replaces": replaces}


@dataclass(frozen=True, slots=True)
class _Kept:
    verifier: NoteVerifier
    sealed: bytes | None
    created_ms: int


def load_key(
    database: Database, seal: Seal, clock: Clock, *, origin: str = "", key: Secret | None = None
) -> SigningKey:
    """Return the log's signing key, made and stored at first use; a key that is new should go on record.

    The log keeps the name that it first had. A configured key that is not the newest one takes its place: the
    verifiers of both stay. Of several processes that start at once, one makes the key and all use it.

    Args:
        database: the main database, migrated.
        seal: seals the private part of a key that is made here.
        clock: when the key was made.
        origin: the log's name where one is set; empty takes the stored one, or makes one.
        key: a configured private key: PEM (PKCS #8, Ed25519), or 32 bytes as hex or base64. It is not stored.

    Raises:
        ConfigurationError: a name other than the log's, a key that is none, or a key that was configured and is not
            any more. Never shows a key.
        IntegrityError: the stored key cannot be opened with this vault's key, or is not what was stored.
        StorageUnavailable: the database cannot be read or, where the key is new, written.
    """
    seed = None if key is None else parse_seed(key)
    with database.reading() as connection:
        found = _choose(_read(connection), seal, origin, seed)
    if found is not None:
        return SigningKey(found, False)
    try:
        with database.writer.begin() as connection:
            # Locked, so that of two first starts the second finds the first one's key.
            statement.read_head(connection, lock=True)
            kept = _read(connection)
            found = _choose(kept, seal, origin, seed)
            if found is not None:
                return SigningKey(found, False)
            return _add(connection, kept, seal, clock, origin, seed)
    except (DBAPIError, PoolTimeout) as failure:
        cause = getattr(failure, "orig", failure)
        raise StorageUnavailable("The audit log's key cannot be stored.", hint=f"It says: {cause}.") from failure


def load_signer(
    database: Database, seal: Seal, clock: Clock, *, origin: str = "", key: Secret | None = None
) -> NoteSigner:
    """Return what signs this log's checkpoints; `load_key` also says whether it is new.

    Raises:
        ConfigurationError, IntegrityError, StorageUnavailable: as `load_key`.
    """
    return load_key(database, seal, clock, origin=origin, key=key).signer


def load_verifiers(database: Database) -> list[NoteVerifier]:
    """Return the public part of every key that this log ever had, newest first; empty before the first start.

    Raises:
        IntegrityError: what is stored is not a key.
        StorageUnavailable: the database cannot be read.
    """
    with database.reading() as connection:
        return [one.verifier for one in _read(connection)]


def needs_configured_key(database: Database) -> bool:
    """Say whether the newest key was configured, so that without the setting nothing can be signed.

    Raises:
        IntegrityError, StorageUnavailable: as `load_verifiers`.
    """
    with database.reading() as connection:
        kept = _read(connection)
    return bool(kept) and kept[0].sealed is None


def parse_seed(key: Secret) -> bytes:
    """Return the 32 bytes of a configured private key.

    Raises:
        ConfigurationError: it is none. Never shows it.
    """
    text = key.reveal().strip()
    if text.startswith("-----BEGIN"):
        return _parse_pem(text)
    for decode in (bytes.fromhex, _decode_base64):
        try:
            seed = decode(text)
        except (ValueError, binascii.Error):
            continue
        if len(seed) == SEED_BYTES:
            return seed
    raise _refuse("is not a private key")


def _decode_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _parse_pem(text: str) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(text.encode(), password=None)
    except TypeError:
        raise _refuse("is encrypted with a passphrase, which nobody could enter here") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _refuse("is not a private key in PEM") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise _refuse("is not an Ed25519 key")
    return private.private_bytes_raw()


def _refuse(problem: str) -> ConfigurationError:
    return ConfigurationError(
        f"What {KEY_SETTING} names {problem}.",
        hint="Make one with: openssl genpkey -algorithm ed25519 (or give 32 random bytes as hex or base64).",
        param=KEY_SETTING,
    )


def _read(connection: Connection) -> list[_Kept]:
    query = select(AUDIT_KEY).order_by(AUDIT_KEY.c.created_ms.desc(), AUDIT_KEY.c.verifier)
    kept: list[_Kept] = []
    for row in connection.execute(query):
        try:
            verifier = parse_verifier(row.verifier)
            sealed = None if row.sealed is None else bytes(row.sealed)
            kept.append(_Kept(verifier, sealed, int(row.created_ms)))
        except (InvalidRequest, AttributeError, TypeError, ValueError) as wrong:
            raise IntegrityError("A stored key of the audit log is not what was written.") from wrong
        if verifier.name != row.origin or verifier.name != kept[0].verifier.name:
            raise IntegrityError("The stored keys of the audit log name different logs.")
    return kept


def _choose(kept: list[_Kept], seal: Seal, origin: str, seed: bytes | None) -> NoteSigner | None:
    """Return the newest stored key where it is the one to sign with; None where one must be stored."""
    if not kept:
        return None
    newest = kept[0]
    name = newest.verifier.name
    if origin and origin != name:
        raise ConfigurationError(
            f"This log is named '{name}', and one log has one name: {ORIGIN_SETTING} says another.",
            hint=f"Unset {ORIGIN_SETTING}, or set it to '{name}'.",
            param=ORIGIN_SETTING,
        )
    if seed is not None:
        signer = NoteSigner(name, seed)
        return signer if signer.verifier == newest.verifier else None
    if newest.sealed is None:
        raise ConfigurationError(
            f"This log's key {name}+{newest.verifier.key_id.hex()} was configured, and is not any more.",
            hint=f"Set {KEY_SETTING} to it again, or to a new key, which then takes its place.",
            param=KEY_SETTING,
        )
    opened = seal.open(PURPOSE, newest.sealed, name.encode())
    if len(opened) != SEED_BYTES or (signer := NoteSigner(name, opened)).verifier != newest.verifier:
        raise IntegrityError("The audit log's stored private key does not belong to its public one.")
    return signer


def _add(
    connection: Connection, kept: list[_Kept], seal: Seal, clock: Clock, origin: str, seed: bytes | None
) -> SigningKey:
    name = kept[0].verifier.name if kept else origin or f"lukhas.local/{secrets.token_hex(4)}"
    if not is_name(name):
        raise ConfigurationError(
            f"{ORIGIN_SETTING} cannot name a log: it has spaces, a '+', or what cannot be printed.",
            param=ORIGIN_SETTING,
        )
    used = seed or secrets.token_bytes(SEED_BYTES)
    signer = NoteSigner(name, used)
    now_ms = clock.now_ms()
    if kept:
        # A clock that stepped back must not make the older key the newest.
        now_ms = max(now_ms, kept[0].created_ms + 1)
    text = str(signer.verifier)
    # A key that was in use before, and is taken back, becomes the newest.
    connection.execute(delete(AUDIT_KEY).where(AUDIT_KEY.c.verifier == text))
    sealed = seal.seal(PURPOSE, used, name.encode()) if seed is None else None
    connection.execute(insert(AUDIT_KEY).values(verifier=text, origin=name, sealed=sealed, created_ms=now_ms))
    return SigningKey(signer, True, kept[0].verifier if kept else None)
