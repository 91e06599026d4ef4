"""The Merkle tree."""

from __future__ import annotations

from hashlib import sha256

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
