"""What anchors an export: verifier keys, signed checkpoints, tiles, and the proof file that an export leaves."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from lukhas.audit.checkpoint import Checkpoint, open_checkpoint
from lukhas.audit.note import NoteVerifier, parse_verifier, split_note
from lukhas.audit.tile import TILE_WIDTH, tile_path
from lukhas.audit.verify.compact import CompactRange, cover
from lukhas.audit.verify.finding import Finding
from lukhas.errors import ConfigurationError, IntegrityError, InvalidRequest

PROOF_SUFFIX: Final = ".proof"
PROOF_FORMAT: Final = "lukhas-audit-export"
_LARGEST_NOTE_BYTES: Final = 1_000_000
_LARGEST_PROOF_BYTES: Final = 200_000_000


class Beyond(msgspec.Struct, frozen=True):
    """The subtrees, as hex, between the end of the range and the size of a checkpoint behind it."""

    size: int
    nodes: list[str]


class ExportProof(msgspec.Struct, frozen=True, rename={"begin": "from", "end": "to"}):
    """What an export says of its range. Nothing in it is trusted: its hashes count where they give a signed root.

    Attributes:
        begin: index of the first record.
        end: index after the last.
        log_size: records in the log when it was exported.
        origin: name of the log.
        left: subtrees over the records before the range, as hex.
        last: leaf hash of the range's last record, as hex; empty where it has none.
        right: what lies between the range and checkpoints behind it.
        keys: the log's verifier keys, for information: take them from somewhere else.
        checkpoints: signed notes.
    """

    begin: int
    end: int
    log_size: int
    origin: str
    left: list[str]
    last: str
    right: list[Beyond]
    keys: list[str]
    checkpoints: list[str]
    format: str = PROOF_FORMAT
    version: int = 1


class Anchor(NamedTuple):
    """A checkpoint whose signature was verified, and where it was found."""

    checkpoint: Checkpoint
    source: str


def read_keys(texts: Iterable[str]) -> list[NoteVerifier]:
    """Return verifier keys, each given as its text or as a file that holds one on each line.

    Raises:
        InvalidRequest: not a key, and no file.
    """
    found: list[NoteVerifier] = []
    for text in texts:
        # A key's text is tried first: its base64 may hold '/', and no file is looked for where a key was meant.
        try:
            found.append(parse_verifier(text))
            continue
        except InvalidRequest as wrong:
            path = Path(text)
            if not (len(text) < 4096 and "\0" not in text and path.is_file()):
                raise InvalidRequest(
                    "--key is neither a verifier key nor a file that holds one.", hint=wrong.hint, param="key"
                ) from None
        try:
            lines = path.read_bytes()[:_LARGEST_NOTE_BYTES].decode("utf-8-sig").split("\n")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{path} holds no verifier key.", param="key") from None
        keys = [parse_verifier(line) for line in lines if line.strip()]
        if not keys:
            raise InvalidRequest(f"{path} is empty.", param="key")
        found += keys
    return found


def read_proof(path: Path) -> ExportProof | None:
    """Read the proof file of an export; None where there is none.

    Raises:
        IntegrityError: it is there and is none.
    """
    if not path.is_file():
        return None
    wrong = IntegrityError(f"{path} is not the proof file of an export.", hint="Export again, or move it away.")
    if path.stat().st_size > _LARGEST_PROOF_BYTES:
        raise wrong
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ExportProof)
        read_range(found)
    except (msgspec.MsgspecError, UnicodeDecodeError, ValueError, RecursionError):
        raise wrong from None
    if found.format != PROOF_FORMAT or found.version != 1 or not 0 <= found.begin <= found.end <= 10**15:
        raise wrong
    return found


def read_range(proof: ExportProof) -> CompactRange:
    """Return the compact range over the records before an export's.

    Raises:
        ValueError: the hashes are not as many as they must be.
    """
    return unpack_range(0, proof.begin, proof.left)


def unpack_range(begin: int, end: int, nodes: Sequence[str]) -> CompactRange:
    """Return a compact range from its hashes as hex.

    Raises:
        ValueError: they are not as many as they must be, or not hashes.
    """
    hashes = [bytes.fromhex(one) for one in nodes]
    if any(len(one) != 32 for one in hashes):
        raise ValueError("not hashes")
    heights = [height for height, _ in cover(begin, end)]
    return CompactRange(begin, end, zip(heights, hashes, strict=True))


def collect_notes(paths: Sequence[Path]) -> list[tuple[bytes, str, bool]]:
    """Return signed notes from files and folders, each with its source and whether it must be one.

    In a folder, which may be one that a log was shipped to, files that are no signed notes are passed over.

    Raises:
        ConfigurationError: there is no such file or folder.
    """
    found: list[tuple[bytes, str, bool]] = []
    for path in paths:
        if path.is_file():
            found.append((path.read_bytes()[: _LARGEST_NOTE_BYTES + 1], str(path), True))
        elif path.is_dir():
            for folder, folders, names in os.walk(path):
                folders[:] = sorted(name for name in folders if name != "tile")
                for name in sorted(names):
                    file = Path(folder, name)
                    if file.is_file() and file.stat().st_size <= _LARGEST_NOTE_BYTES:
                        found.append((file.read_bytes(), str(file), False))
        else:
            raise ConfigurationError(f"There is no checkpoint at {path}.", param="checkpoint")
    return found


def check_notes(
    notes: Iterable[tuple[bytes, str, bool]], verifiers: Sequence[NoteVerifier]
) -> tuple[list[Anchor], list[Finding], list[str]]:
    """Verify signed checkpoints: those that a key vouches for, what is wrong with others, and what is only odd."""
    anchors: list[Anchor] = []
    findings: list[Finding] = []
    strangers: list[tuple[str, str, bool]] = []
    for note, source, is_required in notes:
        try:
            anchors.append(Anchor(open_checkpoint(note, verifiers), source))
        except IntegrityError as wrong:
            kind = _judge_note(note, verifiers)
            if kind == "none" and not is_required:
                continue
            if kind == "stranger":
                strangers.append((source, str(wrong), is_required))
            else:
                findings.append(
                    Finding("signature", f"The checkpoint {source} is not one of this key: {wrong.message}")
                )
    warnings: list[str] = []
    for source, message, is_required in strangers:
        # After a change of keys older checkpoints are another key's; with none of this key, the key is wrong.
        if is_required or not anchors:
            findings.append(Finding("key", f"The checkpoint {source} is of another key. {message}"))
        else:
            warnings.append(f"The checkpoint {source} is of another key and was not used.")
    return anchors, findings[:20], warnings[:20]


def _judge_note(note: bytes, verifiers: Sequence[NoteVerifier]) -> str:
    try:
        _, signatures = split_note(note)
    except IntegrityError:
        return "none"
    known = {(one.name, one.key_id) for one in verifiers}
    return "bad" if any((name, key_id) in known for name, key_id, _ in signatures) else "stranger"


class TileFolder:
    """Reads tiles from static files, in the layout of C2SP tlog-tiles; a TileReader."""

    def __init__(self, folder: Path) -> None:
        """Take the folder that `tile/` is in, or `tile/` itself.

        Raises:
            ConfigurationError: there are no tiles.
        """
        self._folder = folder.parent if folder.name == "tile" and not (folder / "tile").is_dir() else folder
        if not (self._folder / "tile").is_dir():
            raise ConfigurationError(f"There are no tiles at {folder}.", hint="It must hold a folder 'tile'.")

    def read(self, level: int, index: int, width: int) -> bytes:
        """Return the first `width` hashes of a tile, from it or from any longer part of it.

        Raises:
            IntegrityError: they are not all there.
        """
        for each in [TILE_WIDTH, *range(width, TILE_WIDTH)]:
            path = self._folder / tile_path(level, index, each)
            if path.is_file():
                hashes = path.read_bytes()
                if len(hashes) == 32 * each:
                    return hashes[: 32 * width]
        raise IntegrityError(f"The tile {tile_path(level, index, width)} is not there or not whole.")
