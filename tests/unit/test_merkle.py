"""The Merkle tree."""

from __future__ import annotations

import base64
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.audit.merkle import (
    append_leaf,
    compute_root,
    fold_root,
    leaf_hash,
    node_hash,
    pack_frontier,
    unpack_frontier,
    verify_consistency,
    verify_inclusion,
)

# The reference inputs and roots of the Certificate Transparency implementations (RFC 6962 test vectors).
LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_root_of_the_reference_vectors_is_theirs() -> None:
    """Root and frontier agree with RFC 6962's other implementations, leaf by leaf."""
    peaks: list[bytes] = []
    for size, data in enumerate(LEAVES):
        append_leaf(peaks, size, leaf_hash(data))
        assert fold_root(peaks).hex() == ROOTS[size]
        assert compute_root([leaf_hash(one) for one in LEAVES[: size + 1]]).hex() == ROOTS[size]


def test_root_of_nothing_is_the_empty_hash() -> None:
    """An empty log has a root too."""
    assert fold_root([]) == compute_root([]) == sha256(b"").digest()


@given(st.lists(st.binary(max_size=8), max_size=70), st.data())
def test_frontier_at_any_size_folds_to_the_recomputed_root(leaves: list[bytes], data: st.DataObject) -> None:
    """A frontier that is stored and read anywhere in between leads to the same root."""
    stop = data.draw(st.integers(0, len(leaves)))
    peaks: list[bytes] = []
    for size, leaf in enumerate(leaves):
        if size == stop:
            peaks = unpack_frontier(pack_frontier(peaks), size)
        append_leaf(peaks, size, leaf_hash(leaf))
    assert fold_root(peaks) == compute_root([leaf_hash(leaf) for leaf in leaves])


@pytest.mark.parametrize("size", [0, 1, 2046, 2047, 2048, 5000, 16_384, 16_385, 60_000])
def test_leaf_hash_of_any_size_is_sha256_with_prefix(size: int) -> None:
    """Hashing in pieces gives the same as in one go."""
    data = bytes(range(256)) * (size // 256 + 1)
    assert leaf_hash(data[:size]) == sha256(b"\x00" + data[:size]).digest()


def test_node_hash_is_not_a_leaf_hash() -> None:
    """Leaves and nodes live in different domains."""
    assert node_hash(b"a" * 32, b"b" * 32) != leaf_hash(b"a" * 32 + b"b" * 32)


@pytest.mark.parametrize(("packed", "size"), [(b"", 1), (b"x" * 32, 0), (b"x" * 31, 1), (b"x" * 32, 3), (b"", -1)])
def test_unpack_frontier_of_another_size_is_refused(packed: bytes, size: int) -> None:
    """A damaged head is noticed."""
    with pytest.raises(ValueError, match="frontier"):
        unpack_frontier(packed, size)


def test_inclusion_of_the_published_vectors_has_their_verdicts(vectors: Path) -> None:
    """Right proofs pass, wrong ones do not, and none of them raises."""
    cases: list[dict[str, Any]] = json.loads((vectors / "rfc6962" / "inclusion.json").read_text("utf-8"))
    wrong: list[str] = []
    for case in cases:
        leaf, root = (base64.b64decode(case[name]) for name in ("leafHash", "root"))
        hashes: list[str] = case["proof"] or []
        proof = [base64.b64decode(one) for one in hashes]
        if verify_inclusion(leaf, case["leafIdx"], case["treeSize"], proof, root) is case["wantErr"]:
            wrong.append(case["name"])
    assert len(cases) > 90 and {case["wantErr"] for case in cases} == {True, False}
    assert wrong == []


ONE, TWO = leaf_hash(b"1"), leaf_hash(b"2")
BOTH = node_hash(ONE, TWO)


def test_inclusion_of_one_of_two_is_shown_by_its_neighbour() -> None:
    """The smallest tree with a proof."""
    assert verify_inclusion(ONE, 0, 2, [TWO], BOTH) and verify_inclusion(TWO, 1, 2, [ONE], BOTH)


@pytest.mark.parametrize(
    ("leaf", "index", "size", "proof", "root"),
    [
        pytest.param(ONE, 0, 0, [], sha256(b"").digest(), id="empty-tree"),
        pytest.param(ONE, 1, 1, [], ONE, id="index-past-the-end"),
        pytest.param(ONE, -1, 1, [], ONE, id="negative-index"),
        pytest.param(ONE, 0, -1, [], ONE, id="negative-size"),
        pytest.param(ONE, 0, 1, [TWO], ONE, id="hash-too-many"),
        pytest.param(ONE, 0, 2, [], ONE, id="hash-too-few"),
        pytest.param(ONE, 0, 2, [TWO[:31]], BOTH, id="short-hash"),
        pytest.param(ONE, 0, 2, [TWO + b"x"], BOTH, id="long-hash"),
        pytest.param(b"", 0, 1, [], b"", id="no-hashes-at-all"),
        pytest.param(ONE, 1, 2, [TWO], BOTH, id="other-index"),
        pytest.param(ONE, 0, 3, [TWO], BOTH, id="other-size"),
        pytest.param(ONE, 0, 1 << 70, [TWO] * 70, BOTH, id="huge"),
    ],
)
def test_inclusion_of_odd_input_is_refused(leaf: bytes, index: int, size: int, proof: list[bytes], root: bytes) -> None:
    """What cannot be right is false, never an error."""
    assert not verify_inclusion(leaf, index, size, proof, root)


@pytest.mark.parametrize(
    ("old", "new", "old_root", "new_root", "proof", "holds"),
    [
        pytest.param(0, 0, sha256(b"").digest(), sha256(b"").digest(), [], True, id="both-empty"),
        pytest.param(0, 2, sha256(b"").digest(), BOTH, [], True, id="from-nothing"),
        pytest.param(0, 2, ONE, BOTH, [], False, id="from-nothing-with-a-root"),
        pytest.param(0, 2, sha256(b"").digest(), BOTH, [ONE], False, id="from-nothing-with-a-proof"),
        pytest.param(0, 0, sha256(b"").digest(), BOTH, [], False, id="to-nothing-with-a-root"),
        pytest.param(2, 2, BOTH, BOTH, [], True, id="same"),
        pytest.param(2, 2, BOTH, ONE, [], False, id="same-size-other-root"),
        pytest.param(2, 2, BOTH, BOTH, [ONE], False, id="same-with-a-proof"),
        pytest.param(1, 2, ONE, BOTH, [TWO], True, id="one-to-two"),
        pytest.param(1, 2, ONE, BOTH, [], False, id="hash-too-few"),
        pytest.param(1, 2, ONE, BOTH, [TWO, TWO], False, id="hash-too-many"),
        pytest.param(1, 2, ONE, BOTH, [TWO[:31]], False, id="short-hash"),
        pytest.param(1, 2, TWO, BOTH, [ONE], False, id="other-old-root"),
        pytest.param(2, 1, BOTH, ONE, [TWO], False, id="backwards"),
        pytest.param(-1, 2, ONE, BOTH, [TWO], False, id="negative"),
        pytest.param(3, 5, ONE, BOTH, [], False, id="nothing-where-much-is-needed"),
        pytest.param(1, 2, ONE, b"", [TWO], False, id="no-root"),
    ],
)
def test_consistency_of_odd_input_is_judged(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: list[bytes], holds: bool
) -> None:
    """Edges have one right answer, and nothing raises."""
    assert verify_consistency(old, new, old_root, new_root, proof) is holds
