"""What signed checkpoints say of the log in a database."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lukhas.audit.checkpoint import read_checkpoint
from lukhas.audit.verify.anchor import Anchor
from lukhas.audit.verify.finding import CheckedCheckpoint, Finding
from lukhas.audit.verify.trail import Trail
from lukhas.errors import IntegrityError

if TYPE_CHECKING:
    from lukhas.audit.verify.stored import Snapshot


def list_checked(trail: Trail, anchors: Sequence[Anchor]) -> list[CheckedCheckpoint]:
    """Return every checkpoint with what came of it, smallest first."""
    checked: list[CheckedCheckpoint] = []
    for one in sorted(anchors, key=lambda each: each.checkpoint.size):
        size, root = one.checkpoint.size, one.checkpoint.root
        fits = trail.states.get((size, root))
        state = "beside" if fits is None else "fits" if fits else "wrong"
        checked.append(CheckedCheckpoint(size, root.hex(), state, one.source))
    return checked


def find_forked(trail: Trail, first: int) -> Finding | None:
    """Return the records that can be the first wrong ones where a checkpoint has another root; None where none has.

    Args:
        first: index of the first record that was read.
    """
    wrong = trail.wrong
    if wrong is None:
        return None
    size = wrong.checkpoint.size
    start = max((at for (at, _), fits in trail.states.items() if fits and at < size), default=0)
    start, end = max(start, first), min(size, trail.range.end)
    where = f"record {start}" if end - start <= 1 else f"a record from {start} to {end - 1}"
    text = f"The key signed another root over {size} records ({wrong.source}): from {where} on the log was rebuilt, or"
    return Finding("forked", text + " there are two histories of it.", start, max(start, end - 1))


def judge_checkpoints(
    trail: Trail, anchors: Sequence[Anchor], snapshot: Snapshot, found: Sequence[Finding]
) -> Iterator[Finding]:
    """Yield what checkpoints find that the records' own findings do not explain."""
    forked = find_forked(trail, 0)
    size = trail.wrong.checkpoint.size if trail.wrong is not None else 0
    if forked is not None and not any(one.index is not None and one.index < size for one in found):
        yield forked
    largest = max(anchors, key=lambda one: one.checkpoint.size, default=None)
    if largest is not None and largest.checkpoint.size > snapshot.size:
        gone = largest.checkpoint.size - snapshot.size
        text = f"The log was cut: {largest.source} was signed over {largest.checkpoint.size} records, {gone} more than"
        yield Finding("truncated", text + " there are.", snapshot.size, largest.checkpoint.size - 1)
    for at, root, note in snapshot.notes:
        try:
            said = read_checkpoint(note)
        except IntegrityError:
            continue  # its signature is a finding already
        if (said.size, said.root) != (at, root):
            text = f"The stored checkpoint of size {at} holds a note of size {said.size} with another root or size."
            yield Finding("signature", text)
            return
