"""Telling which record is the wrong one, and what was done to it, where a line does not fit the lines before.

A record is known by what follows it: the next line holds its leaf hash. So where line i + 1 names another hash than
line i has, line i was edited if line i + 1 is itself as line i + 2 says, or else line i + 1 was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from lukhas.audit.merkle import leaf_hash
from lukhas.audit.record import NOTHING_BEFORE
from lukhas.audit.verify.finding import Finding, FindingKind
from lukhas.audit.verify.line import Place, describe_form, put_place, read_audit_id, read_key, read_place

_BOM: Final = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Scene:
    """The place where the lines stop to fit.

    Attributes:
        index: the index that should stand here.
        before: the line before; None at the beginning of the file.
        line: the line that does not fit.
        after: the lines after it, two where there are as many.
        number: the sequence that the line's key has come to; None where it is not known.
        is_anchored: whether a checkpoint vouches for everything before `line`.
        stands_later: says whether a record of an index stands further down in the file.
        would_fit: given leaf hashes for two records from `index - 1` on, says whether the next checkpoint's root comes
            out; None where that cannot be told.
    """

    index: int
    before: bytes | None
    line: bytes
    after: list[bytes]
    number: int | None
    is_anchored: bool
    stands_later: Callable[[int], bool]
    would_fit: Callable[[bytes, bytes], bool | None]


def diagnose(scene: Scene) -> Finding:
    """Return the first wrong record and what is wrong with it."""
    line = scene.line
    if line.startswith(_BOM):
        return _find(scene, "converted", "The file begins with a byte order mark: another program has converted it.")
    if line.endswith(b"\r"):
        return _find(scene, "converted", "Its line ends in CR LF: the file was converted, so its bytes are others.")
    place = read_place(line)
    following = read_place(scene.after[0]) if scene.after else None
    if place is None:
        return _judge_formless(scene, following)
    if place.index != scene.index:
        return _judge_index(scene, place, following)
    if place.previous is not None and place.previous != _hash_before(scene):
        return _judge_previous(scene, place, following)
    return _judge_rest(scene, place, following)


def _judge_formless(scene: Scene, following: Place | None) -> Finding:
    wrong = describe_form(scene.line) or "it does not end as a record of the log does"
    if following is not None and following.index == scene.index and following.previous == _hash_before(scene):
        return _find(scene, "inserted", f"A line that is no record stands before record {scene.index}: {wrong}.")
    return _find(scene, "edited", f"Record {scene.index} was edited: {wrong}.")


def _judge_index(scene: Scene, place: Place, following: Place | None) -> Finding:
    index, said, hexed = scene.index, place.index, _hash_before(scene)
    after = following.previous if following is not None else None
    mended = b"" if place.previous is None else put_place(scene.line, index, hexed or place.previous)
    if following is not None and following.index == index + 1 and _hex(mended) == after:
        return _find(scene, "edited", f"Record {index} was edited: its index was changed to {said}.")
    if said == index - 1 and scene.before is not None:
        if scene.line == scene.before:
            return _find(scene, "inserted", f"Record {said} stands there twice.")
        if following is not None and following.index == index and _hex(scene.line) == after:
            text = f"A line that is not the log's stands before record {said}, and says that it is record {said} too."
            return _find(scene, "inserted", text, step=-1)
        return _find(scene, "inserted", f"A second record says that it is record {said}.")
    if following is not None and following.index == index and (after is None or after == hexed):
        if said > index and not scene.stands_later(said):
            return _find(scene, "reordered", f"Record {said} stands before record {index}.")
        return _find(scene, "inserted", f"Before record {index} stands another, which says that it is {said}.")
    if hexed is not None and place.previous == hexed:
        return _find(scene, "edited", f"Record {index} was edited: its index was changed to {said}.")
    if scene.stands_later(index):
        return _find(
            scene, "reordered", f"Record {said} stands where record {index} should; that one comes further down."
        )
    if said > index:
        gone = f"Record {index} is" if said == index + 1 else f"Records {index} to {said - 1} are"
        return Finding("missing", f"{gone} missing: record {said} follows.", index, said - 1)
    if following is None:
        return _find(scene, "inserted", f"After record {index - 1} stands record {said} again.")
    return _find(scene, "missing", f"Record {index} is missing: record {said} stands in its place again.")


def _judge_previous(scene: Scene, place: Place, following: Place | None) -> Finding:
    index, hexed = scene.index, _hash_before(scene)
    after = following.previous if following is not None else None
    if following is not None and following.index == index and after == hexed:
        return _find(scene, "inserted", f"A line that is not the log's stands before record {index}.")
    here = f"Record {index} was edited: the hash of the record before it was changed in it."
    if scene.before is None or scene.is_anchored or hexed is None:
        return _find(scene, "edited", f"Record {index} was edited: it does not follow what stands before it.")
    before = f"Record {index - 1} was edited: record {index} holds another hash of it, and is itself "
    if following is not None and following.index == index + 1 and after is not None:
        if _hex(scene.line) == after:
            return _find(scene, "edited", before + "as the next one says.", step=-1)
        if _hex(put_place(scene.line, index, hexed)) == after:
            return _find(scene, "edited", here)
    # Neither line is confirmed by the next: a checkpoint can tell which leaf hashes it was signed over.
    own = bytes.fromhex(after.decode()) if after is not None else leaf_hash(scene.line)
    mended = own if after is not None else leaf_hash(put_place(scene.line, index, hexed))
    assert place.previous is not None
    if scene.would_fit(bytes.fromhex(place.previous.decode()), own):
        return _find(scene, "edited", before + "as a checkpoint says.", step=-1)
    if scene.would_fit(bytes.fromhex(hexed.decode()), mended):
        return _find(scene, "edited", here if after is None else f"Record {index} was replaced by another.")
    if describe_form(scene.before) is None and (wrong := describe_form(scene.line)) is not None:
        return _find(scene, "edited", f"Record {index} was edited: {wrong}.")
    text = f"Record {index - 1} was edited, or record {index}, which names another hash for it."
    return Finding("edited", text, index - 1, index, read_audit_id(scene.before))


def _judge_rest(scene: Scene, place: Place, following: Place | None) -> Finding:
    index = scene.index
    wrong = describe_form(scene.line)
    is_next = following is not None and following.index == index + 1
    after = following.previous if following is not None and is_next else None
    if after is not None and _hex(scene.line) != after:
        return _find(scene, "edited", f"Record {index} was edited: {wrong or 'the next one holds another hash'}.")
    if wrong is not None:
        return _find(scene, "form", f"Record {index} is not as the log writes records: {wrong}.")
    if place.previous is None:
        text = f"Record {index} does not name the one before it, as every record since schema 2 does."
        return _find(scene, "form", text)
    key, expected = read_key(scene.line), (scene.number or 0) + 1
    text = f"The sequence of key {key} jumps: record {index} is number {place.sequence}, and {expected} was next"
    gone = place.sequence - expected
    text += f": {gone} of its records {'is' if gone == 1 else 'are'} missing." if gone > 0 else "."
    return _find(scene, "sequence", text)


def _find(scene: Scene, kind: FindingKind, message: str, step: int = 0) -> Finding:
    line = scene.before if step else scene.line
    return Finding(kind, message, scene.index + step, None, None if line is None else read_audit_id(line))


def _hash_before(scene: Scene) -> bytes | None:
    if scene.before is not None:
        return _hex(scene.before)
    return NOTHING_BEFORE.encode() if scene.index == 0 else None


def _hex(line: bytes) -> bytes:
    return leaf_hash(line).hex().encode()
