"""Proofs from tiles, against the definitions of RFC 6962 and the verifier."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tree_scene import MemoryTiles, define_consistency, define_inclusion, make_leaves

from lukhas.audit.merkle import EMPTY_ROOT, compute_root, verify_consistency, verify_inclusion
from lukhas.audit.proof import prove_consistency, prove_inclusion, root_at
from lukhas.errors import IntegrityError, InvalidRequest

LARGEST = (1 << 17) - 1


def test_proofs_of_every_size_are_those_of_the_definition() -> None:
    """Every tree up to past two full tiles: root, and proofs for some index and some older size."""
    leaves = make_leaves()[:600]
    tiles = MemoryTiles(leaves)
    chance = random.Random(1)
    for size in range(1, 601):
        part = leaves[:size]
        root = compute_root(part)
        assert root_at(tiles, size) == root
        for index in {0, size - 1, chance.randrange(size)}:
            proof = prove_inclusion(tiles, index, size)
            assert proof == define_inclusion(index, part), (index, size)
            assert verify_inclusion(leaves[index], index, size, proof, root)
        for old in {1, size, chance.randrange(1, size + 1)}:
            proof = prove_consistency(tiles, old, size)
            assert proof == define_consistency(old, part), (old, size)
            assert verify_consistency(old, size, compute_root(leaves[:old]), root, proof)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 255, 256, 257, 300])
def test_proof_of_each_record_of_a_small_tree_holds(size: int) -> None:
    """No index is forgotten."""
    leaves = make_leaves()[:size]
    tiles = MemoryTiles(leaves)
    root = compute_root(leaves)
    for index, leaf in enumerate(leaves):
        assert verify_inclusion(leaf, index, size, prove_inclusion(tiles, index, size), root)
    for old in range(size + 1):
        assert verify_consistency(old, size, root_at(tiles, old), root, prove_consistency(tiles, old, size))


@settings(max_examples=12)
@given(st.integers(65_000, LARGEST), st.data())
def test_proofs_of_a_large_tree_read_few_tiles_and_hold(size: int, data: st.DataObject) -> None:
    """Trees that reach level 2 need a handful of tiles, and no tile beyond their own size."""
    leaves = make_leaves()
    tiles = MemoryTiles(leaves)
    tiles.size = size
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root, proof = compute_root(leaves[:size]), prove_inclusion(tiles, index, size)
    assert tiles.reads <= 6
    assert proof == define_inclusion(index, leaves[:size])
    assert verify_inclusion(leaves[index], index, size, proof, root)
    continued = prove_consistency(tiles, old, size)
    assert tiles.reads <= 12
    assert verify_consistency(old, size, root_at(tiles, old), root, continued)
    assert root_at(tiles, size) == root


@given(st.integers(1, 600), st.data())
def test_proof_that_was_changed_does_not_hold(size: int, data: st.DataObject) -> None:
    """One bit anywhere, one hash gone or one too many: the verifier says no."""
    leaves = make_leaves()[:size]
    tiles = MemoryTiles(leaves)
    index, old = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    root, old_root = root_at(tiles, size), root_at(tiles, old)
    inclusion, consistency = prove_inclusion(tiles, index, size), prove_consistency(tiles, old, size)
    for wrong in _change(inclusion, data):
        assert not verify_inclusion(leaves[index], index, size, wrong, root)
    for wrong in _change(consistency, data):
        assert not verify_consistency(old, size, old_root, root, wrong)
    other = data.draw(st.integers(0, size - 1))
    assert verify_inclusion(leaves[index], other, size, inclusion, root) == (other == index)


def _change(proof: list[bytes], data: st.DataObject) -> list[list[bytes]]:
    changed = [[*proof, b"\x00" * 32]]
    if proof:
        at, bit = data.draw(st.integers(0, len(proof) - 1)), data.draw(st.integers(0, 255))
        flipped = (int.from_bytes(proof[at], "big") ^ (1 << bit)).to_bytes(32, "big")
        changed += [proof[:-1], proof[1:], [*proof[:at], flipped, *proof[at + 1 :]]]
    return changed


def test_root_of_the_empty_tree_needs_no_tile() -> None:
    """A log without records has a root, and everything continues it."""
    tiles = MemoryTiles([])
    assert root_at(tiles, 0) == EMPTY_ROOT
    assert prove_consistency(tiles, 0, 0) == [] and tiles.reads == 0


def test_proof_of_what_is_not_there_is_refused() -> None:
    """An index past the end, a tree that shrinks, a negative size."""
    tiles = MemoryTiles(make_leaves()[:5])
    for index, size in ((0, 0), (5, 5), (-1, 5), (0, -1)):
        with pytest.raises(InvalidRequest):
            prove_inclusion(tiles, index, size)
    for old, new in ((3, 2), (-1, 2)):
        with pytest.raises(InvalidRequest):
            prove_consistency(tiles, old, new)
    with pytest.raises(InvalidRequest):
        root_at(tiles, -1)


def test_proof_for_a_size_that_the_log_has_not_reached_is_refused() -> None:
    """A tile that is not there is never made up."""
    with pytest.raises(IntegrityError):
        prove_inclusion(MemoryTiles(make_leaves()[:5]), 0, 600)
