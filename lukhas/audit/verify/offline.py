"""Verifying an export with nothing but the file, the public key, and what anchors it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from lukhas.audit.merkle import leaf_hash
from lukhas.audit.note import NoteVerifier
from lukhas.audit.receipt import Receipt, check_receipt, parse_receipt
from lukhas.audit.tile import TILE_WIDTH, TileReader
from lukhas.audit.verify import anchor
from lukhas.audit.verify.anchor import Anchor, ExportProof
from lukhas.audit.verify.attest import find_forked, list_checked
from lukhas.audit.verify.compact import CompactRange
from lukhas.audit.verify.diagnosis import Scene, diagnose
from lukhas.audit.verify.export_file import ExportFile
from lukhas.audit.verify.finding import CheckedCheckpoint, Finding, Report, sort_findings
from lukhas.audit.verify.line import describe_form, read_audit_id, read_key, read_place
from lukhas.audit.verify.passage import Passage, Progress, find_first
from lukhas.audit.verify.trail import Trail
from lukhas.audit.verify.worker import count_cores
from lukhas.errors import ConfigurationError, IntegrityError

_SMALL_BYTES: Final = 48 << 20
_MOST_TRIED: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an export is verified with.

    Attributes:
        verifiers: the log's public keys.
        checkpoints: files and folders with signed checkpoints.
        tiles: the log's tiles, where there are any.
        receipts: files with receipts.
        processes: how many work; 0: one for each core, where the file is large.
    """

    verifiers: Sequence[NoteVerifier]
    checkpoints: Sequence[Path] = ()
    tiles: TileReader | None = None
    receipts: Sequence[Path] = ()
    processes: int = 0


def verify_export(path: Path, evidence: Evidence, progress: Progress = lambda _done, _all: None) -> Report:
    """Verify an export file.

    Raises:
        ConfigurationError: there is no such file, or no such checkpoint.
        OSError: it cannot be read.
    """
    if not path.is_file():
        raise ConfigurationError(
            f"There is no file {path}.", hint="Make one with: lukhas audit export --out FILE.jsonl"
        )
    work = _Work(path, evidence)
    processes = evidence.processes or (count_cores() if work.passage.file.size > _SMALL_BYTES else 1)
    work.passage.run(sorted({one.index for _, one in work.receipts}), processes, progress)
    return work.conclude()


def verify_receipts(evidence: Evidence) -> Report:
    """Verify receipts alone, each against the checkpoint in it."""
    findings: list[Finding] = []
    receipts, notes = _read_receipts(evidence, findings)
    anchors, wrong, _ = anchor.check_notes(notes, evidence.verifiers)
    sizes = [one.checkpoint.size for one in anchors]
    checked = [CheckedCheckpoint(one.checkpoint.size, one.checkpoint.root.hex(), "fits", one.source) for one in anchors]
    first = min((one.index for _, one in receipts), default=0)
    largest = max(sizes, default=0)
    found = sort_findings([*findings, *wrong]) if findings or wrong else []
    return Report(not found, len(receipts), first, largest, None, 0 if found else largest, checked, found, [])


def _read_receipts(
    evidence: Evidence, findings: list[Finding]
) -> tuple[list[tuple[Path, Receipt]], list[tuple[bytes, str, bool]]]:
    receipts: list[tuple[Path, Receipt]] = []
    notes: list[tuple[bytes, str, bool]] = []
    for path in evidence.receipts:
        if not path.is_file():
            raise ConfigurationError(f"There is no receipt {path}.", param="proof")
        try:
            receipt = parse_receipt(path.read_bytes())
            check_receipt(receipt, evidence.verifiers)
        except IntegrityError as wrong:
            findings.append(Finding("receipt", f"The receipt {path}: {wrong}"))
        else:
            receipts.append((path, receipt))
            notes.append((receipt.note, str(path), True))
    return receipts, notes


@dataclass(slots=True)
class _Ends:
    """How far the file goes."""

    first: int
    proof: ExportProof | None
    explicit: bool
    findings: list[Finding] = field(default_factory=list[Finding])
    warnings: list[str] = field(default_factory=list[str])


class _Work:
    def __init__(self, path: Path, evidence: Evidence) -> None:
        self._evidence = evidence
        findings: list[Finding] = []
        proof_path = path.with_name(path.name + anchor.PROOF_SUFFIX)
        try:
            proof = anchor.read_proof(proof_path)
        except IntegrityError as wrong:
            proof = None
            findings.append(Finding("form", str(wrong)))
        self.receipts, notes = _read_receipts(evidence, findings)
        notes += anchor.collect_notes(evidence.checkpoints)
        explicit = bool(notes)
        notes += [(note.encode(), str(proof_path), False) for note in (proof.checkpoints if proof else ())]
        self._anchors, wrong_notes, warnings = anchor.check_notes(notes, evidence.verifiers)
        first = proof.begin if proof is not None else find_first(path)
        left = anchor.read_range(proof) if proof is not None else CompactRange(first)
        self._ends = _Ends(first, proof, explicit, [*findings, *wrong_notes], warnings)
        self.passage = Passage(ExportFile(path), Trail(left, self._anchors))

    def conclude(self) -> Report:
        """Return what was found, once the file was read."""
        passage, trail, ends = self.passage, self.passage.trail, self._ends
        main: Finding | None = None
        if passage.broken_at is not None:
            main = self._diagnose(passage.broken_at)
        else:
            self._judge_end()
        if not trail.has_root:
            self._judge_unanchored(max((one.checkpoint.size for one in self._anchors), default=0))
        if trail.wrong is not None and trail.has_root:
            main = self._judge_root(trail.wrong, main)
        elif main is not None and trail.anchored is not None and main.index is not None:
            main = _not_before(main, trail.anchored.end)
        if main is not None:
            ends.findings.append(main)
        self._judge_receipts()
        return self._report()

    def _diagnose(self, index: int) -> Finding:
        passage, trail = self.passage, self.passage.trail
        lines = passage.read_from(index)
        before: bytes | None = None
        leaves: list[bytes] = []
        line = b""
        number: int | None = None
        numbers: dict[str, int] = {}
        for at, read in lines:
            if at == index:
                line = read
                break
            before = read
            leaves.append(leaf_hash(read))
            if (place := read_place(read)) is not None and (key := read_key(read)) is not None:
                numbers[key] = place.sequence
        key = read_key(line)
        if key is not None:
            number = numbers.get(key, trail.number_of(key))
        after = [read for _, read in islice(lines, 2)]
        anchored = trail.anchored.end if trail.anchored is not None else 0

        def would_fit(one: bytes, two: bytes) -> bool | None:
            target = next((a.checkpoint for a in self._sorted() if a.checkpoint.size > index), None)
            reached = passage.range_before(index)
            if target is None or reached.begin or target.size - reached.end > _MOST_TRIED:
                return None
            known = [*leaves[:-1], one, two] if leaves else [two]
            reached.append_leaves(known[: target.size - reached.end])
            for at, read in passage.read_from(index):
                if at > index and at < target.size:
                    reached.append_leaves([leaf_hash(read)])
                elif at >= target.size:
                    break
            return reached.end == target.size and reached.root() == target.root

        def stands_later(wanted: int) -> bool:
            needle = b',"tree":{"index":"%016d"' % wanted
            return any(at > index and needle in read[-160:] for at, read in passage.read_from(index))

        return diagnose(Scene(index, before, line, after, number, anchored >= index, stands_later, would_fit))

    def _sorted(self) -> list[Anchor]:
        return sorted(self._anchors, key=lambda one: one.checkpoint.size)

    def _judge_root(self, wrong: Anchor, main: Finding | None) -> Finding | None:
        """Narrow down what a checkpoint with another root says; the chain's own finding counts where it explains it."""
        trail = self.passage.trail
        start = max(
            (size for (size, _), fits in trail.states.items() if fits and size < wrong.checkpoint.size), default=0
        )
        exact = self._compare_tiles(start, wrong)
        if exact is not None:
            if main is not None and main.index == exact[0]:
                return main
            index, line = exact
            text = f"Record {index} is not the one that the key signed: its hash is not the one in the log's tiles."
            return Finding("edited" if main is None else main.kind, text, index, None, read_audit_id(line))
        if main is not None and main.index is not None and start <= main.index < wrong.checkpoint.size:
            return main
        return self._judge_last(wrong) or find_forked(trail, self._ends.first) or main

    def _judge_last(self, wrong: Anchor) -> Finding | None:
        """Say whether only the last record is another: no later line holds its hash."""
        trail, proof = self.passage.trail, self._ends.proof
        last = trail.range.end - 1
        if last < self._ends.first or self.passage.broken_at is not None:
            return None
        reached = self.passage.range_before(last)
        line = b""
        for at, read in self.passage.read_from(last):
            if at == last:
                line = read
                break
            reached.append_leaves([leaf_hash(read)])
        form = describe_form(line)
        is_last = form is not None and wrong.checkpoint.size == last + 1
        if proof is not None and proof.last and proof.end == last + 1:
            reached.append_leaves([bytes.fromhex(proof.last)])
            beyond = [CompactRange(last + 1)] if wrong.checkpoint.size == last + 1 else []
            beyond += [
                anchor.unpack_range(last + 1, one.size, one.nodes)
                for one in proof.right
                if one.size == wrong.checkpoint.size
            ]
            for one in beyond:
                tried = reached.copy()
                tried.extend(one.nodes)
                is_last = is_last or tried.root() == wrong.checkpoint.root
        if not is_last:
            return None
        text = f"Record {last}, the last one, was edited: {form or 'with its own hash the signed root would come out'}."
        return Finding("edited", text, last, None, read_audit_id(line))

    def _compare_tiles(self, start: int, wrong: Anchor) -> tuple[int, bytes] | None:
        """Return the first record whose hash is not that of tiles which give the signed root, and its line."""
        tiles, size = self._evidence.tiles, wrong.checkpoint.size
        if tiles is None:
            return None
        try:
            reached = CompactRange()
            for leaves in _read_leaves(tiles, 0, size):
                reached.append_leaves(leaves)
            if reached.root() != wrong.checkpoint.root:
                self._ends.warnings.append("The tiles do not give the root that was signed, and were not used.")
                return None
            start = max(start, self._ends.first)
            expected = (leaf for leaves in _read_leaves(tiles, start, size) for leaf in leaves)
            for at, line in self.passage.read_from(start):
                if at >= start and (leaf := next(expected, None)) != leaf_hash(line):
                    return (at, line) if leaf is not None else None
        except IntegrityError as missing:
            self._ends.warnings.append(f"The tiles could not be used: {missing.message}")
        return None

    def _judge_end(self) -> None:
        """Compare the file's end with its proof and with checkpoints of larger sizes."""
        passage, trail, ends = self.passage, self.passage.trail, self._ends
        end, proof = trail.range.end, ends.proof
        if passage.file.damage:
            text = f"The compressed file is damaged after record {end - 1}: {passage.file.damage}."
            ends.findings.append(Finding("torn", text, end))
        elif passage.file.rest:
            text = f"The last line, where record {end} stands, does not end: it was cut, or its newline is gone."
            ends.findings.append(Finding("torn", text, end, None, read_audit_id(passage.file.rest)))
        if proof is not None:
            if end < proof.end:
                gone = proof.end - end
                text = f"The file ends before record {end}: {_count(gone)} gone that its proof file speaks of."
                ends.findings.append(Finding("truncated", text, end, proof.end - 1))
                return
            if end > proof.end:
                text = f"The file goes on after record {proof.end - 1}, where its proof file says that it ends."
                ends.findings.append(Finding("inserted", text, proof.end, end - 1))
                return
            for one in proof.right:
                if one.size in trail.stops:
                    trail.compare_beyond(one.size, anchor.unpack_range(end, one.size, one.nodes))
        if not trail.has_root:
            return
        known = {size for size, _ in trail.states}
        behind = [one for one in self._sorted() if one.checkpoint.size > end and one.checkpoint.size not in known]
        confirmed = max((size for (size, _), fits in trail.states.items() if fits), default=0)
        # A later checkpoint that is connected shows that the range ends there on purpose.
        if behind and behind[-1].checkpoint.size > max(end, confirmed):
            size, source = behind[-1].checkpoint.size, behind[-1].source
            text = f"The log was cut: {source} was signed over {size} records, and {_count(size - end)} gone."
            text += " Where that checkpoint is newer than the export, export again."
            ends.findings.append(Finding("truncated", text, end, size - 1))

    def _judge_unanchored(self, largest: int) -> None:
        ends = self._ends
        if ends.explicit and largest > 0:
            text = f"The records before {ends.first} are missing. Where only a part was exported on purpose, the file"
            text += f" ending in {anchor.PROOF_SUFFIX} that was made with it must lie beside it."
            ends.findings.append(Finding("missing", text, 0, ends.first - 1))
        else:
            text = f"The export begins at record {ends.first} and its {anchor.PROOF_SUFFIX} file is not here: only its"
            ends.warnings.append(text + " chain was checked, and nothing of it is vouched for by a signature.")

    def _judge_receipts(self) -> None:
        for path, receipt in self.receipts:
            leaf = self.passage.trail.leaves.get(receipt.index)
            if leaf is None:
                self._ends.warnings.append(f"The record of the receipt {path}, {receipt.index}, was not compared.")
            elif leaf != leaf_hash(receipt.data):
                text = f"Record {receipt.index} is not the one of the receipt {path}."
                audit_id = read_audit_id(receipt.data)
                self._ends.findings.append(Finding("receipt", text, receipt.index, None, audit_id))

    def _report(self) -> Report:
        passage, trail, ends = self.passage, self.passage.trail, self._ends
        end = trail.range.end
        anchored = trail.anchored.end if trail.anchored is not None else 0
        if not ends.findings:
            self._warn(min(anchored, end), end)
        checked = list_checked(trail, self._anchors)
        findings = sort_findings(ends.findings)
        root = trail.range.root().hex() if trail.has_root and passage.broken_at is None else None
        return Report(not findings, end - ends.first, ends.first, end, root, anchored, checked, findings, ends.warnings)

    def _warn(self, anchored: int, end: int) -> None:
        warnings = self._ends.warnings
        if not self._anchors:
            text = "There is no signed checkpoint: edits show in the chain, a log rebuilt or cut short does not."
            warnings.append(text)
        elif anchored < end and self.passage.trail.has_root:
            count = end - max(anchored, self._ends.first)
            warnings.append(f"No signed checkpoint covers the last {count} records yet; only their chain was checked.")


def _read_leaves(tiles: TileReader, start: int, end: int) -> Iterable[list[bytes]]:
    for place in range(start // TILE_WIDTH, (end + TILE_WIDTH - 1) // TILE_WIDTH):
        packed = tiles.read(0, place, min(TILE_WIDTH, end - place * TILE_WIDTH))
        skipped = max(0, start - place * TILE_WIDTH)
        yield [packed[at : at + 32] for at in range(32 * skipped, len(packed), 32)]


def _not_before(found: Finding, anchored: int) -> Finding:
    if found.index is None or found.index >= anchored:
        return found
    text = f"Record {anchored} was edited: a checkpoint vouches for all before it."
    return Finding(found.kind, text, anchored, found.last)


def _count(number: int) -> str:
    return "1 record is" if number == 1 else f"{number} records are"
