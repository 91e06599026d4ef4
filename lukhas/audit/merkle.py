"""The Merkle tree of RFC 6962, section 2.1, as a compact range: only the peaks of the full subtrees are kept.

Proofs are verified as RFC 9162, sections 2.1.3.2 and 2.1.4.2, does; they come from anybody, so nothing wrong in them
raises.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()
# hashlib gives up the GIL for 2048 bytes and more, and getting it back beside a busy event loop takes up to 5 ms.
_PIECE: Final = 2047
_WORTH_THE_WAIT: Final = 16_384


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of one leaf: SHA-256(0x00 || data)."""
    size = len(data)
    if size < _PIECE or size > _WORTH_THE_WAIT:
        return sha256(b"\x00" + data).digest()
    digest = sha256(b"\x00")
    for start in range(0, size, _PIECE):
        digest.update(data[start : start + _PIECE])
    return digest.digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def append_leaf(peaks: list[bytes], size: int, leaf: bytes) -> None:
    """Add one leaf's hash to a frontier in place.

    Args:
        peaks: roots of the full subtrees, largest first, one for each 1 bit of `size`.
        size: leaves before this one.
        leaf: the new leaf's hash.
    """
    while size & 1:
        leaf = node_hash(peaks.pop(), leaf)
        size >>= 1
    peaks.append(leaf)


def append_closing(peaks: list[bytes], size: int, leaf: bytes) -> list[bytes]:
    """Add one leaf's hash as `append_leaf` does, and return the roots of the tiles that it completes.

    Returns:
        The hash at height 8 that covers the leaf, then the one at height 16 and so on, as far as they are complete.
    """
    height = 0
    closed: list[bytes] = []
    while size & 1:
        leaf = node_hash(peaks.pop(), leaf)
        size >>= 1
        height += 1
        if height % 8 == 0:
            closed.append(leaf)
    peaks.append(leaf)
    return closed


def fold_root(peaks: Sequence[bytes]) -> bytes:
    """Return the tree's root from its frontier; of an empty tree, SHA-256 of nothing."""
    if not peaks:
        return EMPTY_ROOT
    root = peaks[-1]
    for peak in reversed(peaks[:-1]):
        root = node_hash(peak, root)
    return root


def pack_frontier(peaks: Sequence[bytes]) -> bytes:
    """Return a frontier as bytes, 32 for each peak."""
    return b"".join(peaks)


def unpack_frontier(packed: bytes, size: int) -> list[bytes]:
    """Return a frontier from its bytes.

    Raises:
        ValueError: the bytes are not those of a tree of this size.
    """
    if size < 0 or len(packed) != HASH_BYTES * size.bit_count():
        raise ValueError("the frontier does not fit the size of the tree")
    return [packed[start : start + HASH_BYTES] for start in range(0, len(packed), HASH_BYTES)]


def compute_root(leaves: Sequence[bytes]) -> bytes:
    """Return the root over all leaf hashes, by RFC 6962's own recursion; for checking, not for appending."""
    count = len(leaves)
    if count == 0:
        return EMPTY_ROOT
    if count == 1:
        return leaves[0]
    split = 1 << ((count - 1).bit_length() - 1)
    return node_hash(compute_root(leaves[:split]), compute_root(leaves[split:]))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Say whether a proof shows that the leaf stands at an index of the tree. Never raises.

    Args:
        leaf: the leaf's hash.
        index: its place, from 0.
        size: leaves in the tree.
        proof: the hashes beside the way up, the leaf's neighbour first.
        root: the root of the tree of that size.
    """
    if not 0 <= index < size or not _are_hashes((leaf, root, *proof)):
        return False
    place, last, found = index, size - 1, leaf
    for beside in proof:
        if last == 0:
            return False
        if place & 1 or place == last:
            found = node_hash(beside, found)
            # The last node of a level without a neighbour moves up as it is.
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            found = node_hash(found, beside)
        place >>= 1
        last >>= 1
    return last == 0 and found == root


def verify_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Say whether a proof shows that a tree continues an older one. Never raises.

    Args:
        old: leaves in the older tree; every tree continues the empty one, with an empty proof.
        new: leaves in the newer tree.
        old_root: root of the older tree.
        new_root: root of the newer tree.
        proof: the hashes that both roots are made from, in the order of RFC 9162.
    """
    if not 0 <= old <= new or not _are_hashes((old_root, new_root, *proof)):
        return False
    if (old == 0 and old_root != EMPTY_ROOT) or (new == 0 and new_root != EMPTY_ROOT):
        return False
    if old == new or old == 0:
        return not proof and (old == 0 or old_root == new_root)
    # Where the older tree is one full subtree, its root is the first hash, and is not sent.
    hashes = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not hashes:
        return False
    place, last = old - 1, new - 1
    while place & 1:
        place >>= 1
        last >>= 1
    older = newer = hashes[0]
    for one in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            older = node_hash(one, older)
            newer = node_hash(one, newer)
            while not place & 1 and place:
                place >>= 1
                last >>= 1
        else:
            newer = node_hash(newer, one)
        place >>= 1
        last >>= 1
    return last == 0 and older == old_root and newer == new_root


def _are_hashes(values: Sequence[bytes]) -> bool:
    return all(len(value) == HASH_BYTES for value in values)
