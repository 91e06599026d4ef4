"""Signed notes and the checkpoints in them: what was signed is what is read, and nothing else passes."""

from __future__ import annotations

import base64
import pickle
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.audit.checkpoint import Checkpoint, open_checkpoint, parse_checkpoint, read_checkpoint
from lukhas.audit.merkle import EMPTY_ROOT
from lukhas.audit.note import NoteSigner, NoteVerifier, open_note, parse_verifier, split_note
from lukhas.errors import IntegrityError, InvalidRequest

SEED = bytes(range(32))
OTHER_SEED = bytes(range(1, 33))
SIGNER = NoteSigner("example.com/audit", SEED)
ROOT = sha256(b"root").digest()
MARK = "\u2014 "

names = st.text(st.characters(exclude_characters="+"), min_size=1, max_size=30).filter(
    lambda name: name.isprintable() and not any(c.isspace() for c in name)
)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=200).map(
    lambda text: text + "\n"
)
seeds = st.binary(min_size=32, max_size=32)


def line(name: str, raw: bytes) -> bytes:
    return f"{MARK}{name} {base64.b64encode(raw).decode()}\n".encode()


@given(name=names, seed=seeds, text=texts)
def test_note_signed_text_comes_back(name: str, seed: bytes, text: str) -> None:
    """Any text that a note holds is read as it was signed, also where it has empty lines or looks like a signature."""
    signer = NoteSigner(name, seed)
    assert open_note(signer.sign(text), [signer.verifier]) == text


@given(name=names, seed=seeds)
def test_verifier_text_comes_back(name: str, seed: bytes) -> None:
    """What `lukhas audit key` prints names the same key again."""
    verifier = NoteSigner(name, seed).verifier
    assert parse_verifier(str(verifier)) == verifier
    assert parse_verifier(f" {verifier}\n") == verifier


@given(st.data())
def test_note_changed_byte_is_refused_or_means_the_same(data: st.DataObject) -> None:
    """One changed, added or missing byte never makes a verified text that was not signed."""
    text = Checkpoint("example.com/audit", 12_345, ROOT).format()
    note = bytearray(SIGNER.sign(text))
    place = data.draw(st.integers(0, len(note) - 1))
    kind = data.draw(st.sampled_from(("change", "insert", "remove")))
    if kind == "change":
        note[place] ^= data.draw(st.integers(1, 255))
    elif kind == "insert":
        note.insert(place, data.draw(st.integers(0, 255)))
    else:
        del note[place]
    try:
        found = open_note(bytes(note), [SIGNER.verifier])
    except IntegrityError:
        return
    assert found == text


@given(st.binary(max_size=400))
def test_note_garbage_is_refused(raw: bytes) -> None:
    """Bytes that nobody signed raise the one expected error."""
    with pytest.raises(IntegrityError):
        open_note(raw, [SIGNER.verifier])


def test_note_every_single_bit_counts() -> None:
    """Each bit of a signed checkpoint is covered: flipped, it is refused."""
    note = Checkpoint("example.com/audit", 7, ROOT).sign(SIGNER)
    for place in range(len(note)):
        for bit in range(8):
            changed = bytearray(note)
            changed[place] ^= 1 << bit
            with pytest.raises(IntegrityError):
                open_checkpoint(bytes(changed), [SIGNER.verifier])


def test_note_forged_key_id_is_refused() -> None:
    """A signature by another key under the true key's name and id is caught; so is the true one under a wrong id."""
    text = "a\nb\n"
    forger = NoteSigner("example.com/audit", OTHER_SEED)
    forged = base64.b64decode(forger.sign(text).split(b" ")[-1])[4:]
    genuine = base64.b64decode(SIGNER.sign(text).split(b" ")[-1])[4:]
    true_id = SIGNER.verifier.key_id
    with pytest.raises(IntegrityError, match="not over this text"):
        open_note(text.encode() + b"\n" + line("example.com/audit", true_id + forged), [SIGNER.verifier])
    with pytest.raises(IntegrityError, match="not signed by this key"):
        open_note(text.encode() + b"\n" + line("example.com/audit", b"\0\0\0\0" + genuine), [SIGNER.verifier])
    with pytest.raises(IntegrityError, match="not signed by this key"):
        open_note(forger.sign(text), [SIGNER.verifier])


def test_note_two_signatures_need_the_known_one() -> None:
    """A witness's line beside ours is passed over; a bad line of a known key spoils the note, wherever it stands."""
    witness = NoteSigner("witness.example", OTHER_SEED)
    text = "a\n"
    ours = SIGNER.sign(text).removeprefix(b"a\n\n")
    theirs = witness.sign(text).removeprefix(b"a\n\n")
    bad = line("example.com/audit", SIGNER.verifier.key_id + bytes(64))
    for note in (b"a\n\n" + ours + theirs, b"a\n\n" + theirs + ours):
        assert open_note(note, [SIGNER.verifier]) == text
        assert open_note(note, [witness.verifier]) == text
        assert open_note(note, [SIGNER.verifier, witness.verifier]) == text
    for note in (b"a\n\n" + ours + bad, b"a\n\n" + bad + ours):
        with pytest.raises(IntegrityError, match="not over this text"):
            open_note(note, [SIGNER.verifier])


@pytest.mark.parametrize(
    "note",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"a\n", id="no-signature"),
        pytest.param(b"a\n\n", id="no-signature-line"),
        pytest.param(b"\xff\n\n" + line("n", bytes(68)), id="not-utf8"),
        pytest.param(SIGNER.sign("a\n").replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(SIGNER.sign("a\n").replace(b"a", b"a\0"), id="nul"),
        pytest.param(SIGNER.sign("a\n") + b"\n", id="trailing-line"),
        pytest.param(SIGNER.sign("a\n")[:-1], id="no-last-newline"),
        pytest.param(SIGNER.sign("a\n").replace(MARK.encode(), b"- "), id="plain-dash"),
        pytest.param(SIGNER.sign("a\n").rstrip(b"=\n") + b"\n", id="no-padding"),
        pytest.param(SIGNER.sign("a\n").replace(b"=\n", b"==\n"), id="too-much-padding"),
        pytest.param(b"a\n\n" + f"{MARK}example.com/audit \n".encode(), id="no-signature-bytes"),
        pytest.param(b"a\n\n" + line("example.com/audit", SIGNER.verifier.key_id), id="key-id-alone"),
        pytest.param(b"a\n\n" + line("example.com/audit", SIGNER.verifier.key_id + bytes(63)), id="short-signature"),
        pytest.param(b"a\n\n" + line("example.com/audit", SIGNER.verifier.key_id + bytes(65)), id="long-signature"),
        pytest.param(b"a\n\n" + line("with+plus", bytes(68)), id="plus-in-name"),
        pytest.param(b"a\n\n" + SIGNER.sign("a\n").removeprefix(b"a\n\n") * 101, id="too-many-signatures"),
        pytest.param(SIGNER.sign("a" * 1_000_000 + "\n"), id="huge"),
    ],
)
def test_note_of_wrong_form_is_refused(note: bytes) -> None:
    """What is not a note in the one spelling of the format is refused, without a crash."""
    with pytest.raises(IntegrityError):
        open_note(note, [SIGNER.verifier])


def test_note_base64_has_one_spelling() -> None:
    """Bits that base64 leaves unused are zero, so that no second text of one note verifies."""
    note = SIGNER.sign("a\n")
    # 68 bytes leave four unused bits in the last digit before the padding.
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = note.rstrip(b"=\n")[-1:]
    padding = note[len(note.rstrip(b"=\n")) :]
    other = digits[digits.index(last.decode()) ^ 1].encode()
    with pytest.raises(IntegrityError):
        open_note(note[: -len(padding) - 1] + other + padding, [SIGNER.verifier])


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\u2028b", "a\0"])
def test_signer_name_that_cannot_be_is_refused(name: str) -> None:
    """A name with spaces, plus or line ends would make a signature line that means something else."""
    with pytest.raises(InvalidRequest):
        NoteSigner(name, SEED)


@pytest.mark.parametrize("text", ["", "a", "a\r\n", "a\0\n", "a\tb\n", "\ud800\n"])
def test_signer_text_that_cannot_be_is_refused(text: str) -> None:
    """A text that a note cannot hold is refused before it is signed."""
    with pytest.raises(InvalidRequest):
        SIGNER.sign(text)


def test_signer_is_never_printed_with_its_key() -> None:
    """The private key stands in no text of the signer."""
    assert repr(SIGNER) == "NoteSigner('example.com/audit')"
    with pytest.raises(TypeError):
        pickle.dumps(SIGNER)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("name", id="name-alone"),
        pytest.param(str(SIGNER.verifier)[:-1], id="cut"),
        pytest.param(str(SIGNER.verifier).replace("audit+", "audit2+"), id="other-name"),
        pytest.param(str(SIGNER.verifier).replace("+" + SIGNER.verifier.key_id.hex(), "+00000000"), id="other-id"),
        pytest.param(f"n+0000000+{base64.b64encode(bytes(33)).decode()}", id="short-id"),
        pytest.param(f"n+00000000+{base64.b64encode(bytes(33)).decode()}", id="other-algorithm"),
        pytest.param(f"n+zzzzzzzz+{base64.b64encode(bytes(33)).decode()}", id="no-hex"),
        pytest.param("n+00000000+***", id="no-base64"),
        pytest.param("n+00000000+\u00e4\u00f6", id="not-ascii"),
    ],
)
def test_verifier_of_wrong_form_is_refused(text: str) -> None:
    """A verifier key that was copied wrong is refused, not used."""
    with pytest.raises(InvalidRequest):
        parse_verifier(text)


def test_verifier_with_a_key_that_is_no_point_refuses_everything() -> None:
    """32 bytes that are no point of the curve verify nothing, and do not crash."""
    verifier = NoteVerifier("example.com/audit", b"\x02" + bytes(31))
    note = b"a\n\n" + line("example.com/audit", verifier.key_id + bytes(64))
    with pytest.raises(IntegrityError):
        open_note(note, [verifier])


@given(size=st.integers(1, 10**18 - 1), root=seeds)
def test_checkpoint_signed_state_comes_back(size: int, root: bytes) -> None:
    """Origin, size and root are read as they were signed."""
    made = Checkpoint("example.com/audit", size, root)
    note = made.sign(SIGNER)
    assert open_checkpoint(note, [SIGNER.verifier]) == made == read_checkpoint(note)
    assert split_note(note)[0] == made.format()


def test_checkpoint_of_the_empty_log_has_the_empty_root() -> None:
    """Size 0 goes with SHA-256 of nothing, and with nothing else."""
    empty = Checkpoint("o", 0, EMPTY_ROOT)
    assert parse_checkpoint(empty.format()) == empty
    with pytest.raises(IntegrityError):
        parse_checkpoint(Checkpoint("o", 0, ROOT).format())


def test_checkpoint_extension_lines_are_allowed() -> None:
    """Lines after the root are another's matter; an empty one is none."""
    text = Checkpoint("o", 3, ROOT).format()
    assert parse_checkpoint(f"{text}more\n") == Checkpoint("o", 3, ROOT)
    with pytest.raises(IntegrityError):
        parse_checkpoint(f"{text}\nmore\n")


B64 = base64.b64encode(ROOT).decode()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("o\n1\n", id="no-root"),
        pytest.param(f"o\n1\n{B64}", id="no-last-newline"),
        pytest.param(f"\n1\n{B64}\n", id="no-origin"),
        pytest.param(f"o\n01\n{B64}\n", id="leading-zero"),
        pytest.param(f"o\n+1\n{B64}\n", id="sign"),
        pytest.param(f"o\n-1\n{B64}\n", id="negative"),
        pytest.param(f"o\n1.0\n{B64}\n", id="fraction"),
        pytest.param(f"o\nNaN\n{B64}\n", id="nan"),
        pytest.param(f"o\n\u0661\n{B64}\n", id="other-digits"),
        pytest.param(f"o\n{'9' * 19}\n{B64}\n", id="huge"),
        pytest.param(f"o\n{'9' * 100_000}\n{B64}\n", id="absurd"),
        pytest.param(f"o\n1\n{B64[:-4]}\n", id="short-root"),
        pytest.param(f"o\n1\n{B64} \n", id="space-behind-root"),
        pytest.param(f"o\n1\n{B64[:-2]}{chr(ord(B64[-2]) + 1)}=\n", id="unused-bits"),
    ],
)
def test_checkpoint_of_wrong_form_is_refused(text: str) -> None:
    """A checkpoint has one spelling."""
    with pytest.raises(IntegrityError):
        parse_checkpoint(text)


def test_checkpoint_of_another_log_is_refused() -> None:
    """A key that vouches for one log does not vouch for another's checkpoint."""
    note = Checkpoint("other.example/log", 3, ROOT).sign(SIGNER)
    with pytest.raises(IntegrityError, match="of another log"):
        open_checkpoint(note, [SIGNER.verifier])


def test_checkpoint_origin_must_be_the_name_that_signed() -> None:
    """Of two known keys, the one that is not of the log cannot vouch for it alone."""
    other = NoteSigner("other.example/log", OTHER_SEED)
    note = Checkpoint("other.example/log", 3, ROOT).sign(SIGNER)
    with pytest.raises(IntegrityError):
        open_checkpoint(note, [SIGNER.verifier, other.verifier])
