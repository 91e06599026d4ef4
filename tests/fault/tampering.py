"""A log in a file, and random changes to it, each with the first wrong record computed by comparing lines alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.merkle import append_leaf, fold_root, leaf_hash
from lukhas.audit.note import NoteSigner
from lukhas.audit.record import AuditRecord, encode_record, splice_tail

ORIGIN: Final = "log.example/audit"
SIGNER_SEED: Final = bytes(range(32))


@dataclass(frozen=True)
class Original:
    """An untouched log: its lines without newlines, and signed notes by size."""

    lines: list[bytes]
    notes: dict[int, bytes]
    signer: NoteSigner

    @property
    def raw(self) -> bytes:
        return b"".join(line + b"\n" for line in self.lines)


@dataclass(frozen=True)
class Change:
    """A changed file, and whether only checkpoints can tell."""

    raw: bytes
    only_checkpoints: bool = False


def make_line(rng: random.Random, index: int, sequence: int, key: str, previous: bytes | None) -> bytes:
    """Return a record's line of a random size, by the real encoder."""
    body = {
        "model": f"model-{rng.randrange(9)}",
        "levels": {"stress": rng.random(), "trust": rng.random()},
        "note": 'größe \n"quoted", ' * rng.randrange(1, 12),
        "trace": [{"before": rng.random(), "key_id": "inner", "kind": "x"} for _ in range(rng.randrange(4))],
    }
    audit_id = f"aud_0{rng.randrange(10**24):025d}"
    record = AuditRecord("decision", audit_id, "acme", key, f"req_{index}", 1_700_000_000_000 + index, None, None, body)
    return splice_tail(encode_record(record).head, index, sequence, previous)


def build(rng: random.Random, count: int, start: Sequence[bytes] = ()) -> list[bytes]:
    """Return the lines of a valid log; `start` is kept as its beginning."""
    lines = list(start)
    previous = leaf_hash(lines[-1]) if lines else None
    numbers: dict[str, int] = {}
    for line in lines:
        record = json.loads(line)
        numbers[record["key_id"]] = int(record["tree"]["sequence"])
    while len(lines) < count:
        key = f"key_{rng.randrange(3)}"
        numbers[key] = numbers.get(key, 0) + 1
        lines.append(make_line(rng, len(lines), numbers[key], key, previous))
        previous = leaf_hash(lines[-1])
    return lines


def sign_all(lines: Sequence[bytes], every: int, signer: NoteSigner) -> dict[int, bytes]:
    """Return signed notes over each `every` records and over all."""
    peaks: list[bytes] = []
    notes: dict[int, bytes] = {}
    for index, line in enumerate(lines):
        append_leaf(peaks, index, leaf_hash(line))
        if (index + 1) % every == 0 or index + 1 == len(lines):
            notes[index + 1] = Checkpoint(ORIGIN, index + 1, fold_root(peaks)).sign(signer)
    return notes


def make_original(rng: random.Random, count: int, every: int) -> Original:
    """Return a log with a checkpoint for each `every` records."""
    signer = NoteSigner(ORIGIN, SIGNER_SEED)
    lines = build(rng, count)
    return Original(lines, sign_all(lines, every, signer), signer)


def first_difference(original: Original, raw: bytes) -> int:
    """Return the index of the first line that is another, is gone or is too many; newlines count as the line's."""
    changed = [part + b"\n" for part in raw.split(b"\n")]
    changed[-1] = changed[-1][:-1]  # what stands behind the last newline has none
    if not changed[-1]:
        changed.pop()
    for index, line in enumerate(original.lines):
        if index >= len(changed) or changed[index] != line + b"\n":
            return index
    return len(original.lines)


def edit_bit(rng: random.Random, log: Original) -> Change:
    raw = bytearray(log.raw)
    raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
    return Change(bytes(raw))


def edit_byte(rng: random.Random, log: Original) -> Change:
    raw = bytearray(log.raw)
    at = rng.randrange(len(raw))
    raw[at] = rng.choice([value for value in range(256) if value != raw[at]])
    return Change(bytes(raw))


def edit_tail(rng: random.Random, log: Original) -> Change:
    index = rng.randrange(len(log.lines))
    line = bytearray(log.lines[index])
    places = [at for at in range(len(line) - 145, len(line)) if chr(line[at]) in "0123456789abcdef"]
    at = rng.choice(places[9:])
    line[at] = ord(rng.choice([c for c in "0123456789" if ord(c) != line[at]]))
    return _join(log, index, index + 1, [bytes(line)])


def edit_newline(rng: random.Random, log: Original) -> Change:
    ends = [at for at, value in enumerate(log.raw) if value == 10]
    at = rng.choice(ends)
    raw = log.raw
    return Change(raw[:at] + rng.choice([b"", b"\r\n", b"\n\n", b" ", b"\n \n"]) + raw[at + 1 :])


def remove_row(rng: random.Random, log: Original) -> Change:
    index = rng.randrange(len(log.lines))
    return _join(log, index, index + 1, [])


def swap_rows(rng: random.Random, log: Original) -> Change:
    one, two = rng.sample(range(len(log.lines)), 2)
    lines = list(log.lines)
    lines[one], lines[two] = lines[two], lines[one]
    return _join(log, 0, len(lines), lines)


def swap_neighbours(rng: random.Random, log: Original) -> Change:
    one = rng.randrange(len(log.lines) - 1)
    return _join(log, one, one + 2, [log.lines[one + 1], log.lines[one]])


def repeat_row(rng: random.Random, log: Original) -> Change:
    index, at = rng.randrange(len(log.lines)), rng.randrange(len(log.lines) + 1)
    return _join(log, at, at, [log.lines[index]])


def insert_foreign(rng: random.Random, log: Original) -> Change:
    """Insert a record of another log, as it is or with this place's index and previous in it."""
    at = rng.randrange(len(log.lines) + 1)
    previous = leaf_hash(log.lines[at - 1]) if at else None
    index = at if rng.random() < 0.7 else rng.randrange(2 * len(log.lines))
    sequence = rng.randrange(1, 40)
    line = make_line(
        rng, index, sequence, f"key_{rng.randrange(4)}", previous if rng.random() < 0.5 else rng.randbytes(32)
    )
    return _join(log, at, at, [line])


def replace_row(rng: random.Random, log: Original) -> Change:
    """Put another record in a record's place, with a tail that may fit what stands before it."""
    at = rng.randrange(len(log.lines))
    tree = json.loads(log.lines[at])["tree"]
    previous = bytes.fromhex(tree["previous"]) if rng.random() < 0.7 else rng.randbytes(32)
    key = json.loads(log.lines[at])["key_id"]
    return _join(log, at, at + 1, [make_line(rng, at, int(tree["sequence"]), key, previous)])


def cut_tail(rng: random.Random, log: Original) -> Change:
    at = rng.randrange(len(log.lines))
    if rng.random() < 0.5:
        return _join(log, at, len(log.lines), [])
    raw = log.raw
    return Change(raw[: rng.randrange(len(raw))])


def rebuild_all(rng: random.Random, log: Original) -> Change:
    return Change(b"".join(line + b"\n" for line in build(rng, len(log.lines))), only_checkpoints=True)


def rebuild_from(rng: random.Random, log: Original) -> Change:
    at = rng.randrange(len(log.lines))
    lines = build(rng, len(log.lines), log.lines[:at])
    return Change(b"".join(line + b"\n" for line in lines), only_checkpoints=True)


def _join(log: Original, begin: int, end: int, between: Sequence[bytes]) -> Change:
    lines = [*log.lines[:begin], *between, *log.lines[end:]]
    return Change(b"".join(line + b"\n" for line in lines))


KINDS: Final[dict[str, Callable[[random.Random, Original], Change]]] = {
    "one bit": edit_bit,
    "one byte": edit_byte,
    "digits of the tail": edit_tail,
    "newlines": edit_newline,
    "row gone": remove_row,
    "rows swapped": swap_rows,
    "neighbours swapped": swap_neighbours,
    "row repeated": repeat_row,
    "foreign row": insert_foreign,
    "row replaced": replace_row,
    "tail cut": cut_tail,
    "rebuilt whole": rebuild_all,
    "rebuilt from a record on": rebuild_from,
}


def write_notes(folder: Path, notes: dict[int, bytes]) -> None:
    """Write each note to a file of its own."""
    folder.mkdir(exist_ok=True)
    for size, note in notes.items():
        (folder / f"{size:016d}").write_bytes(note)
