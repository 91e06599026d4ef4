"""The file of a receipt: written, read, checked, and what is none."""

from __future__ import annotations

import base64
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tree_scene import MemoryTiles, make_leaves

from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.merkle import leaf_hash
from lukhas.audit.note import NoteSigner
from lukhas.audit.proof import prove_inclusion, root_at
from lukhas.audit.receipt import Receipt, check_receipt, parse_receipt
from lukhas.errors import IntegrityError

SIGNER = NoteSigner("example.com/log", bytes(range(32)))
SIZE, INDEX = 300, 42


def make_receipt() -> Receipt:
    data = b'{"body":"\xc3\xa4","tree":{"index":"%016d","previous":"x","sequence":"1"}}' % INDEX
    leaves = [*make_leaves()[:INDEX], leaf_hash(data), *make_leaves()[INDEX + 1 : SIZE]]
    tiles = MemoryTiles(leaves)
    note = Checkpoint("example.com/log", SIZE, root_at(tiles, SIZE)).sign(SIGNER)
    return Receipt(data, INDEX, prove_inclusion(tiles, INDEX, SIZE), note)


RECEIPT = make_receipt()
RAW = RECEIPT.format()
LINES = RAW.split(b"\n")


def test_receipt_is_laid_out_as_the_standard_says() -> None:
    """Header, extra, index, one hash a line, an empty line, the checkpoint as it is."""
    assert LINES[0] == b"c2sp.org/tlog-proof@v1"
    assert base64.b64decode(LINES[1].removeprefix(b"extra ")) == RECEIPT.data
    assert LINES[2] == b"index 42"
    assert [base64.b64decode(line) for line in LINES[3:12]] == RECEIPT.proof and len(RECEIPT.proof) == 9
    assert LINES[12] == b"" and RAW.endswith(b"\n\n" + RECEIPT.note)


def test_receipt_reads_back_and_checks() -> None:
    """What was written is what is read, and its signer vouches for it."""
    assert parse_receipt(RAW) == RECEIPT
    checkpoint = check_receipt(parse_receipt(RAW), [SIGNER.verifier])
    assert (checkpoint.origin, checkpoint.size) == ("example.com/log", SIZE)


@given(st.binary(max_size=300), st.integers(0, 10**17), st.lists(st.binary(min_size=32, max_size=32), max_size=40))
def test_receipt_of_any_content_reads_back(data: bytes, index: int, proof: list[bytes]) -> None:
    """Reading undoes writing."""
    receipt = Receipt(data, index, proof, RECEIPT.note)
    assert parse_receipt(receipt.format()) == receipt


def test_receipt_with_any_changed_byte_is_refused() -> None:
    """No byte of the file is free: each flip of a bit is found, whatever it hits."""
    chance = random.Random(5)
    for at in range(len(RAW)):
        changed = RAW[:at] + bytes([RAW[at] ^ (1 << chance.randrange(8))]) + RAW[at + 1 :]
        with pytest.raises(IntegrityError):
            check_receipt(parse_receipt(changed), [SIGNER.verifier])


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\n\n", id="nothing-but-a-gap"),
        pytest.param(RECEIPT.note, id="a-checkpoint"),
        pytest.param(RAW.replace(b"@v1", b"@v2"), id="other-version"),
        pytest.param(RAW.replace(b"index 42", b"index 042"), id="leading-zero"),
        pytest.param(RAW.replace(b"index 42", b"index -42"), id="negative"),
        pytest.param(RAW.replace(b"index 42", b"index"), id="no-index"),
        pytest.param(RAW.replace(b"index 42", b"index " + b"9" * 30), id="huge-index"),
        pytest.param(RAW.replace(b"index 42\n", b""), id="no-index-line"),
        pytest.param(RAW.replace(LINES[1] + b"\n", b""), id="no-record"),
        pytest.param(RAW.replace(LINES[1], b"extra %%%"), id="no-base64"),
        pytest.param(RAW.replace(LINES[3], LINES[3][:-4]), id="short-hash"),
        pytest.param(RAW.replace(b"\n", b"\r\n"), id="other-line-ends"),
        pytest.param(LINES[0] + b"\n\n" + RECEIPT.note, id="header-alone"),
        pytest.param(RAW.replace(LINES[3] + b"\n", (LINES[3] + b"\n") * 70), id="endless-proof"),
        pytest.param(RAW + b"x" * 2_000_000, id="too-large"),
        pytest.param(RAW.split(b"\n\n")[0] + b"\n\n", id="no-checkpoint"),
        pytest.param(b"\xff\xfe" + RAW, id="no-text"),
    ],
)
def test_receipt_of_another_form_is_refused(raw: bytes) -> None:
    """What is no receipt is an integrity error, nothing else."""
    with pytest.raises(IntegrityError):
        check_receipt(parse_receipt(raw), [SIGNER.verifier])


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param(replace(RECEIPT, index=43), id="other-index"),
        pytest.param(replace(RECEIPT, proof=RECEIPT.proof[1:]), id="hash-gone"),
        pytest.param(replace(RECEIPT, proof=RECEIPT.proof[::-1]), id="other-order"),
        pytest.param(replace(RECEIPT, data=RECEIPT.data + b" "), id="other-record"),
    ],
)
def test_receipt_whose_proof_does_not_hold_is_refused(changed: Receipt) -> None:
    """The message says which record was claimed."""
    with pytest.raises(IntegrityError, match=r"is not record \d+ of the log"):
        check_receipt(changed, [SIGNER.verifier])


def test_receipt_of_a_key_that_is_not_trusted_is_refused() -> None:
    """Another key, another name, no key at all."""
    for keys in ([], [NoteSigner("example.com/log", bytes(32)).verifier], [NoteSigner("x", bytes(range(32))).verifier]):
        with pytest.raises(IntegrityError):
            check_receipt(RECEIPT, keys)
