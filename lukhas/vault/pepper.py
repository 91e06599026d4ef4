"""The vault's pepper: 256 random bits in a file beside the database, without which no mapping can be read."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256
from pathlib import Path
from typing import Final

from sqlalchemy import insert, select

from lukhas.errors import ConfigurationError
from lukhas.storage.engine import Database
from lukhas.storage.metadata import VAULT_PEPPER
from lukhas.storage.secret_file import create_secret_file

FILE_NAME: Final = "vault.key"
_PEPPER_BYTES: Final = 32
_PROOF_OF: Final = b"lukhas vault pepper"


def find_key_path(database: Database, fallback: Path | None) -> Path:
    """Return where a vault's key file is: beside an SQLite vault, unless only the fallback is there.

    Raises:
        ConfigurationError: the vault is on PostgreSQL, and no path is given.
    """
    if database.path is None:
        if fallback is None:
            raise ConfigurationError("A vault on PostgreSQL needs the path of its key file.")
        return fallback
    beside = database.path.with_name(FILE_NAME)
    if fallback is not None and not beside.exists() and fallback.exists():
        return fallback
    return beside


def load_pepper(database: Database, path: Path) -> bytes:
    """Return the pepper of a vault, made and bound to the vault at first use.

    Raises:
        ConfigurationError: the file is missing, unreadable, or another vault's: going on would give every known
            subject a second id.
        StorageUnavailable: the vault cannot be read.
    """
    with database.reading() as connection:
        proof = connection.execute(select(VAULT_PEPPER.c.proof)).scalar()
    if proof is None:
        _create(path)
    pepper = _read(path)
    if proof is None:
        proof = _bind(database, pepper)
    if not hmac.compare_digest(bytes(proof), _prove(pepper)):
        raise ConfigurationError(
            f"The key file {path} does not belong to this vault.", hint="Restore the one it was made with."
        )
    return pepper


def _create(path: Path) -> None:
    try:
        create_secret_file(path, secrets.token_hex(_PEPPER_BYTES) + "\n")
    except OSError as failure:
        raise ConfigurationError(f"The key file {path} cannot be created: {failure.strerror}.") from failure


def _read(path: Path) -> bytes:
    try:
        pepper = bytes.fromhex(path.read_text("ascii").strip())
    except (OSError, ValueError) as failure:
        reason = failure.strerror if isinstance(failure, OSError) else "it does not hold a key"
        raise ConfigurationError(
            f"The vault's key file {path} cannot be used: {reason}.", hint="Restore it from where it is kept."
        ) from failure
    if len(pepper) != _PEPPER_BYTES:
        raise ConfigurationError(f"The vault's key file {path} does not hold a key.")
    return pepper


def _bind(database: Database, pepper: bytes) -> bytes:
    with database.writer.begin() as connection:
        # Whoever holds the write lock first binds the vault; a second process then finds its proof.
        found = connection.execute(select(VAULT_PEPPER.c.proof)).scalar()
        if found is not None:
            return bytes(found)
        connection.execute(insert(VAULT_PEPPER).values(proof=_prove(pepper)))
    return _prove(pepper)


def _prove(pepper: bytes) -> bytes:
    return hmac.digest(pepper, _PROOF_OF, sha256)
