"""Signed notes: a text, and lines under it that say who vouches for it by Ed25519.

Source: C2SP signed-note, https://c2sp.org/signed-note.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from lukhas.errors import IntegrityError, InvalidRequest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SEED_BYTES: Final = 32
_ED25519: Final = b"\x01"
_KEY_ID_BYTES: Final = 4
_PUBLIC_BYTES: Final = 32
_MARK: Final = "\u2014 "
_LARGEST_NOTE_BYTES: Final = 1_000_000
_MOST_SIGNATURES: Final = 100


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """A name and the public key that goes with it.

    Attributes:
        name: who signs; for a log, its origin.
        public: the Ed25519 public key, 32 bytes.
    """

    name: str
    public: bytes

    @property
    def key_id(self) -> bytes:
        """The four bytes that tell this key from others of the same name."""
        return sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:_KEY_ID_BYTES]

    def __str__(self) -> str:
        """Return the verifier key as people pass it around: `name+id+key`."""
        return f"{self.name}+{self.key_id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    def verify(self, text: str, signature: bytes) -> bool:
        """Say whether the signature, 64 bytes, is this key's over the text."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            Ed25519PublicKey.from_public_bytes(self.public).verify(signature, text.encode())
        except InvalidSignature:
            return False
        return True


def parse_verifier(text: str) -> NoteVerifier:
    """Read a verifier key, such as `lukhas audit key` prints it.

    Raises:
        InvalidRequest: it is none, or not an Ed25519 key.
    """
    # The key's base64 may itself hold '+'; a name holds none.
    parts = text.strip().split("+", 2)
    wrong = InvalidRequest(
        "This is not a verifier key.", hint="It reads name+8 hex digits+base64, as `lukhas audit key` prints it."
    )
    if len(parts) != 3 or not is_name(parts[0]):
        raise wrong
    try:
        raw = decode_base64(parts[2])
        key_id = bytes.fromhex(parts[1])
    except ValueError:
        raise wrong from None
    if len(parts[1]) != 8 or raw[:1] != _ED25519 or len(raw) != 1 + _PUBLIC_BYTES:
        raise wrong
    found = NoteVerifier(parts[0], raw[1:])
    if found.key_id != key_id:
        raise InvalidRequest("The verifier key's id does not belong to its name and key.", hint="Copy it again, whole.")
    return found


class NoteSigner:
    """A name with its private key. Cannot be printed."""

    __slots__ = ("_private", "verifier")

    def __init__(self, name: str, seed: bytes) -> None:
        """Make a signer.

        Args:
            name: who signs; neither empty nor with spaces or '+'.
            seed: the private key, 32 bytes.

        Raises:
            InvalidRequest: a name or seed that cannot be.
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if not is_name(name):
            raise InvalidRequest(f"'{name[:80]}' cannot name a key: no spaces, no '+', not empty.")
        if len(seed) != SEED_BYTES:
            raise InvalidRequest("An Ed25519 private key has 32 bytes.")
        self._private: Ed25519PrivateKey = Ed25519PrivateKey.from_private_bytes(seed)
        self.verifier = NoteVerifier(name, self._private.public_key().public_bytes_raw())

    def __repr__(self) -> str:
        return f"NoteSigner({self.verifier.name!r})"

    def sign(self, text: str) -> bytes:
        """Return the note: the text, an empty line, one signature line.

        Raises:
            InvalidRequest: a text that does not end in a newline, or holds control characters.
        """
        check_text(text)
        signature = base64.b64encode(self.verifier.key_id + self._private.sign(text.encode())).decode()
        return f"{text}\n{_MARK}{self.verifier.name} {signature}\n".encode()


def check_text(text: str) -> None:
    """Refuse what a note cannot hold.

    Raises:
        InvalidRequest: no newline at the end, or a control character.
    """
    if not text.endswith("\n") or any((c < " " and c != "\n") or "\ud800" <= c <= "\udfff" for c in text):
        raise InvalidRequest("A note's text ends in a newline and holds no control characters or half characters.")


def decode_base64(text: str) -> bytes:
    """Return what a base64 text stands for; of its spellings only the one that encoding makes is taken.

    Python's decoder also takes other values of the bits that the last digit leaves unused, so that one signed note
    would have several texts.

    Raises:
        ValueError: it is none.
    """
    raw = base64.b64decode(text, validate=True)
    if base64.b64encode(raw).decode() != text:
        raise ValueError("not the base64 that encoding makes")
    return raw


def is_name(name: str) -> bool:
    """Say whether a text may name a key."""
    return bool(name) and "+" not in name and name.isprintable() and not any(c.isspace() for c in name)


def split_note(note: bytes) -> tuple[str, list[tuple[str, bytes, bytes]]]:
    """Return a note's text and its signatures, each as name, key id and signature. Verifies nothing.

    Raises:
        IntegrityError: it is no signed note.
    """
    wrong = IntegrityError("This is not a signed note.")
    if len(note) > _LARGEST_NOTE_BYTES:
        raise wrong
    try:
        whole = note.decode()
    except UnicodeDecodeError:
        raise wrong from None
    end = whole.rfind("\n\n")
    if end < 0 or not whole.endswith("\n") or any(c < " " and c != "\n" for c in whole):
        raise wrong
    text, lines = whole[: end + 1], whole[end + 2 :].split("\n")[:-1]
    if not lines or len(lines) > _MOST_SIGNATURES:
        raise wrong
    signatures: list[tuple[str, bytes, bytes]] = []
    for line in lines:
        name, _, encoded = line.removeprefix(_MARK).partition(" ")
        try:
            raw = decode_base64(encoded)
        except ValueError:
            raise wrong from None
        if not line.startswith(_MARK) or not is_name(name) or len(raw) <= _KEY_ID_BYTES:
            raise wrong
        signatures.append((name, raw[:_KEY_ID_BYTES], raw[_KEY_ID_BYTES:]))
    return text, signatures


def open_note(note: bytes, verifiers: Iterable[NoteVerifier]) -> str:
    """Return a note's text where at least one of the keys vouches for it. Other keys' signatures are passed over.

    Raises:
        IntegrityError: it is no note, none of the keys signed it, or one of them did not sign this text.
    """
    text, signatures = split_note(note)
    known = {(one.name, one.key_id): one for one in verifiers}
    is_vouched = False
    for name, key_id, signature in signatures:
        verifier = known.get((name, key_id))
        if verifier is None:
            continue
        if not verifier.verify(text, signature):
            raise IntegrityError(f"The signature of '{name}' is not over this text: the note was changed.")
        is_vouched = True
    if not is_vouched:
        signed_by = ", ".join(f"{name}+{key_id.hex()}" for name, key_id, _ in signatures)
        raise IntegrityError("The note is not signed by this key.", hint=f"It is signed by: {signed_by}.")
    return text
