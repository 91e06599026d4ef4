"""The log's signing key: made once, kept sealed, replaced in the open."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from sqlalchemy import select, update

from lukhas.audit.note import NoteSigner, parse_verifier
from lukhas.audit.signing_key import load_key, load_signer, load_verifiers, parse_seed
from lukhas.errors import ConfigurationError, IntegrityError
from lukhas.settings import Secret
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.metadata import AUDIT_KEY
from lukhas.testing import FrozenClock
from lukhas.vault.seal import Seal

SEAL = Seal(bytes(32))
SEED = bytes(range(32))
OTHER = bytes(range(1, 33))


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = open_database(f"sqlite:///{tmp_path / 'lukhas.db'}")
    migrate.upgrade(found)
    yield found
    found.close()


def pem(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey, passphrase: bytes | None = None) -> str:
    encryption = (
        serialization.NoEncryption() if passphrase is None else serialization.BestAvailableEncryption(passphrase)
    )
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption).decode()


def test_key_first_start_makes_one_that_stays(database: Database) -> None:
    """The second start finds the first one's key and name; only the first says that it is new."""
    first = load_key(database, SEAL, FrozenClock())
    second = load_key(database, SEAL, FrozenClock())
    assert first.is_new and not second.is_new
    assert first.signer.verifier == second.signer.verifier
    assert load_verifiers(database) == [first.signer.verifier]
    name, _, random = first.signer.verifier.name.partition("/")
    assert name == "lukhas.local"
    assert len(bytes.fromhex(random)) == 4
    assert first.describe() == {"event": "created", "verifier": str(first.signer.verifier), "replaces": None}


def test_key_is_not_in_the_database_in_clear(database: Database, tmp_path: Path) -> None:
    """Who reads the database alone cannot sign."""
    load_signer(database, SEAL, FrozenClock())
    with database.reading() as connection:
        sealed = bytes(connection.execute(select(AUDIT_KEY.c.sealed)).scalar_one())
        name = str(connection.execute(select(AUDIT_KEY.c.origin)).scalar_one())
    seed = SEAL.open("audit key", sealed, name.encode())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert seed not in stored and seed.hex().encode() not in stored and base64.b64encode(seed) not in stored


def test_key_sealed_by_another_vault_is_refused(database: Database) -> None:
    """With another vault's key nothing is signed, and no second key is made."""
    load_signer(database, SEAL, FrozenClock())
    with pytest.raises(IntegrityError, match="cannot be opened"):
        load_signer(database, Seal(bytes([1]) * 32), FrozenClock())
    assert len(load_verifiers(database)) == 1


def test_key_origin_is_kept_and_another_is_refused(database: Database) -> None:
    """One log has one name; without the setting the stored one serves."""
    made = load_signer(database, SEAL, FrozenClock(), origin="example.com/audit")
    assert made.verifier.name == "example.com/audit"
    assert load_signer(database, SEAL, FrozenClock()).verifier == made.verifier
    with pytest.raises(ConfigurationError, match="one log has one name") as refused:
        load_signer(database, SEAL, FrozenClock(), origin="example.com/other", key=Secret(OTHER.hex()))
    assert refused.value.param == "LUKHAS_AUDIT_ORIGIN"
    assert len(load_verifiers(database)) == 1


@pytest.mark.parametrize("origin", ["a b", "a+b", "a\nb"])
def test_key_origin_that_cannot_be_is_refused(database: Database, origin: str) -> None:
    """A name that no signature line can hold makes no key."""
    with pytest.raises(ConfigurationError):
        load_signer(database, SEAL, FrozenClock(), origin=origin)
    assert load_verifiers(database) == []


def test_key_configured_another_replaces_the_first(database: Database) -> None:
    """Both verifiers stay, the newest first, also where the clock stepped back; the change is told once."""
    clock = FrozenClock()
    first = load_key(database, SEAL, clock)
    clock.step_back(10_000)
    second = load_key(database, SEAL, clock, key=Secret(SEED.hex()))
    again = load_key(database, SEAL, clock, key=Secret(SEED.hex()))
    assert second.is_new and not again.is_new
    assert second.replaces == first.signer.verifier
    assert second.signer.verifier.name == first.signer.verifier.name
    assert load_verifiers(database) == [second.signer.verifier, first.signer.verifier]
    assert second.describe()["event"] == "replaced"


def test_key_taken_back_becomes_the_newest_again(database: Database) -> None:
    """A key that was in use before can sign again, and stands once in the list."""
    one, two = Secret(SEED.hex()), Secret(OTHER.hex())
    first = load_key(database, SEAL, FrozenClock(), origin="o", key=one).signer.verifier
    second = load_key(database, SEAL, FrozenClock(), key=two).signer.verifier
    back = load_key(database, SEAL, FrozenClock(), key=one)
    assert back.is_new and back.replaces == second
    assert load_verifiers(database) == [first, second]


def test_key_configured_is_not_stored_and_cannot_vanish(database: Database) -> None:
    """A configured key's private part is the operator's alone; without it nothing signs under an older one."""
    load_signer(database, SEAL, FrozenClock())
    load_signer(database, SEAL, FrozenClock(), key=Secret(SEED.hex()))
    with database.reading() as connection:
        query = select(AUDIT_KEY.c.sealed).order_by(AUDIT_KEY.c.created_ms.desc()).limit(1)
        assert connection.execute(query).scalar_one() is None
    with pytest.raises(ConfigurationError, match="was configured, and is not any more"):
        load_signer(database, SEAL, FrozenClock())


def test_key_two_first_starts_at_once_end_with_one(tmp_path: Path) -> None:
    """Of many starts on an empty database one makes the key, and all sign with it."""
    url = f"sqlite:///{tmp_path / 'lukhas.db'}"
    opened = [open_database(url) for _ in range(6)]
    migrate.upgrade(opened[0])
    barrier = threading.Barrier(len(opened))
    found: list[tuple[str, bool]] = []

    def start(database: Database) -> None:
        barrier.wait()
        key = load_key(database, SEAL, FrozenClock())
        found.append((str(key.signer.verifier), key.is_new))

    threads = [threading.Thread(target=start, args=(one,)) for one in opened]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len({verifier for verifier, _ in found}) == 1
    assert sorted(is_new for _, is_new in found) == [False] * 5 + [True]
    for one in opened:
        one.close()


@pytest.mark.parametrize(
    "values",
    [
        pytest.param({"verifier": "nonsense"}, id="no-key"),
        pytest.param({"verifier": str(NoteSigner("other", SEED).verifier)}, id="another-name"),
        pytest.param({"verifier": b"\x00"}, id="another-type"),
        pytest.param({"sealed": b""}, id="nothing-sealed"),
        pytest.param({"sealed": SEAL.seal("audit key", SEED, b"o")}, id="another-key-sealed"),
        pytest.param({"sealed": SEAL.seal("audit key", b"short", b"o")}, id="too-short"),
    ],
)
def test_key_row_that_was_changed_is_refused(database: Database, values: dict[str, object]) -> None:
    """An edit of the stored key is found before it signs."""
    load_signer(database, SEAL, FrozenClock(), origin="o")
    with database.writer.begin() as connection:
        connection.execute(update(AUDIT_KEY).values(values))
    with pytest.raises(IntegrityError):
        load_signer(database, SEAL, FrozenClock())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(pem(ed25519.Ed25519PrivateKey.from_private_bytes(SEED)), id="pem"),
        pytest.param(pem(ed25519.Ed25519PrivateKey.from_private_bytes(SEED)).replace("\n", "\r\n"), id="pem-crlf"),
        pytest.param(SEED.hex(), id="hex"),
        pytest.param(SEED.hex().upper() + "\n", id="upper-hex"),
        pytest.param(base64.b64encode(SEED).decode(), id="base64"),
    ],
)
def test_seed_of_each_form_is_read(text: str) -> None:
    """What openssl writes, and 32 bytes as hex or base64, are the same key."""
    assert parse_seed(Secret(text)) == SEED


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        pytest.param("", "not a private key", id="empty"),
        pytest.param("hunter2-and-more", "not a private key", id="a-word"),
        pytest.param(SEED.hex()[:-2], "not a private key", id="hex-31-bytes"),
        pytest.param(SEED.hex() + "00", "not a private key", id="hex-33-bytes"),
        pytest.param(base64.b64encode(bytes(64)).decode(), "not a private key", id="base64-64-bytes"),
        pytest.param("\u00e4" * 44, "not a private key", id="not-ascii"),
        pytest.param(pem(ec.generate_private_key(ec.SECP256R1())), "not an Ed25519 key", id="another-curve"),
        pytest.param(pem(ed25519.Ed25519PrivateKey.generate(), b"pass"), "passphrase", id="encrypted"),
        pytest.param("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "in PEM", id="broken-pem"),
        pytest.param("-----BEGIN PRIVATE KEY-----", "in PEM", id="cut-pem"),
        pytest.param(
            ed25519.Ed25519PrivateKey.generate()
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode(),
            "in PEM",
            id="public-pem",
        ),
    ],
)
def test_seed_of_another_form_is_refused_and_not_shown(text: str, reason: str) -> None:
    """What is no key names the setting, and never what it held."""
    with pytest.raises(ConfigurationError, match=reason) as refused:
        parse_seed(Secret(text))
    assert "LUKHAS_AUDIT_KEY_FILE" in str(refused.value)
    assert len(text) < 4 or text[:12] not in str(refused.value).replace("-----", "")
    assert refused.value.__cause__ is None


def test_verifiers_before_the_first_start_are_none(database: Database) -> None:
    """Reading the public parts makes nothing, and needs no seal."""
    assert load_verifiers(database) == []
    made = load_signer(database, SEAL, FrozenClock())
    assert parse_verifier(str(load_verifiers(database)[0])) == made.verifier
