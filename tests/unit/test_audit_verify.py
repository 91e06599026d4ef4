"""The offline verifier on whole files, odd files and missing evidence; random changes are in tests/fault."""

from __future__ import annotations

import gzip
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.merkle import append_leaf, compute_root, fold_root, leaf_hash
from lukhas.audit.note import NoteSigner
from lukhas.audit.record import AuditRecord, encode_record, splice_tail
from lukhas.audit.verify.compact import CompactRange, cover
from lukhas.audit.verify.finding import Report
from lukhas.audit.verify.line import describe_form
from lukhas.audit.verify.offline import Evidence, verify_export
from lukhas.errors import ConfigurationError

SIGNER = NoteSigner("log.example", bytes(32))
OTHER = NoteSigner("log.example", bytes(31) + b"\1")


def make_lines(count: int, keys: int = 2, plain: int = 0) -> list[bytes]:
    """Return a log's lines; the first `plain` are of schema 1."""
    lines: list[bytes] = []
    previous: bytes | None = None
    for index in range(count):
        record = AuditRecord(
            "note", f"aud_{index:026d}", "acme", f"key_{index % keys}", None, index, None, None, {"n": index}
        )
        line = splice_tail(encode_record(record).head, index, index // keys + 1, previous)
        if index < plain:
            line = line.replace(b'"previous":"' + line[-97:-33] + b'",', b"").replace(b'"schema":2', b'"schema":1')
        lines.append(line)
        previous = leaf_hash(line)
    return lines


def sign(lines: Sequence[bytes], size: int, signer: NoteSigner = SIGNER) -> bytes:
    """Return a signed checkpoint over the first lines."""
    peaks: list[bytes] = []
    for index, line in enumerate(lines[:size]):
        append_leaf(peaks, index, leaf_hash(line))
    return Checkpoint(signer.verifier.name, size, fold_root(peaks)).sign(signer)


def write(folder: Path, raw: bytes, *notes: bytes, name: str = "log.jsonl") -> tuple[Path, list[Path]]:
    """Write a file and its checkpoints."""
    (folder / name).write_bytes(raw)
    paths = [folder / f"note-{number}" for number in range(len(notes))]
    for path, note in zip(paths, notes, strict=True):
        path.write_bytes(note)
    return folder / name, paths


def join(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def check(folder: Path, raw: bytes, *notes: bytes, name: str = "log.jsonl") -> Report:
    """Verify a file that holds these bytes."""
    path, paths = write(folder, raw, *notes, name=name)
    return verify_export(path, Evidence([SIGNER.verifier], paths))


@pytest.mark.parametrize("begin", [0, 1, 5, 64, 255, 256, 300])
@pytest.mark.parametrize("length", [0, 1, 2, 255, 256, 513])
def test_compact_ranges_add_up_to_the_root(begin: int, length: int) -> None:
    """Two ranges joined anywhere give the root of RFC 6962, and hold exactly the subtrees that `cover` lists."""
    leaves = [leaf_hash(bytes([n % 256, n // 256])) for n in range(begin + length)]
    left, right = CompactRange(), CompactRange(begin)
    left.append_leaves(leaves[:begin])
    right.append_leaves(leaves[begin:])
    assert [height for height, _ in right.nodes] == [height for height, _ in cover(begin, begin + length)]
    left.extend(right.nodes)
    assert left.root() == compute_root(leaves)


def test_verify_whole_log_reports_size_root_and_what_is_signed(tmp_path: Path) -> None:
    """All is well, and the last records that no checkpoint covers are a warning."""
    lines = make_lines(300)
    report = check(tmp_path, join(lines), sign(lines, 100), sign(lines, 290))
    assert report.ok and report.records == report.size == 300 and report.anchored == 290
    assert report.root == compute_root([leaf_hash(line) for line in lines]).hex()
    assert [one.state for one in report.checkpoints] == ["fits", "fits"]
    assert len(report.warnings) == 1 and "last 10 records" in report.warnings[0]


@pytest.mark.parametrize("processes", [1, 2])
def test_verify_large_file_in_chunks_gives_the_same_root(
    tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks, in one process or in several, see what one passage sees; a checkpoint may lie inside any of them."""
    monkeypatch.setattr("lukhas.audit.verify.passage._CHUNK_BYTES", 10_000)
    lines = make_lines(700)
    notes = [sign(lines, size) for size in (1, 256, 257, 699, 700)]
    path, paths = write(tmp_path, join(lines), *notes)
    evidence = Evidence([SIGNER.verifier], paths, processes=processes)
    report = verify_export(path, evidence)
    assert report.ok and report.anchored == 700 and report.warnings == []
    path.write_bytes(join([*lines[:500], lines[500].replace(b'"n":500', b'"n":501'), *lines[501:]]))
    (found,) = verify_export(path, evidence).findings
    assert (found.kind, found.index) == ("edited", 500)


@pytest.mark.parametrize(
    ("change", "kind", "index"),
    [
        pytest.param(lambda raw: raw.replace(b"\n", b"\r\n"), "converted", 0, id="crlf"),
        pytest.param(lambda raw: b"\xef\xbb\xbf" + raw, "converted", 0, id="byte-order-mark"),
        pytest.param(lambda raw: raw[:-1], "torn", 8, id="no-last-newline"),
        pytest.param(lambda raw: raw[:-40], "torn", 8, id="half-a-line"),
        pytest.param(lambda raw: raw + b"\n", "edited", 9, id="empty-line-behind"),
        pytest.param(lambda raw: b"", "truncated", 0, id="nothing"),
        pytest.param(lambda raw: raw + b"x" * 3_000_000, "torn", 9, id="endless-line"),
        pytest.param(lambda raw: b"\0" * 100 + b"\n" + raw, "inserted", 0, id="zeros-before"),
    ],
)
def test_verify_odd_file_says_what_is_odd(
    tmp_path: Path, change: Callable[[bytes], bytes], kind: str, index: int
) -> None:
    """Files that other programs have touched, or that were cut, are told apart."""
    lines = make_lines(9)
    found = check(tmp_path, change(join(lines)), sign(lines, 9)).findings
    assert (found[0].kind, found[0].index) == (kind, index), found


def test_verify_empty_log_against_its_checkpoint_is_well(tmp_path: Path) -> None:
    """A log of no records has a root too."""
    assert check(tmp_path, b"", sign([], 0)).ok


def test_verify_compressed_file_as_the_plain_one(tmp_path: Path) -> None:
    """A gzip file is read as what is in it; a damaged one is a finding."""
    lines = make_lines(50)
    packed = gzip.compress(join(lines))
    assert check(tmp_path, packed, sign(lines, 50)).ok
    assert not check(tmp_path, packed[: len(packed) // 2], sign(lines, 50)).ok
    edited = gzip.compress(join(lines).replace(b'"n":30', b'"n":31'))
    assert check(tmp_path, edited, sign(lines, 50)).findings[0].index == 30


def test_verify_without_checkpoint_warns_that_a_rebuilt_log_does_not_show(tmp_path: Path) -> None:
    """The chain alone is worth something, and the report says how much."""
    report = check(tmp_path, join(make_lines(5)))
    assert report.ok and report.anchored == 0 and "signed checkpoint" in report.warnings[0]


def test_verify_part_without_its_proof_file_warns_and_with_a_checkpoint_misses_the_beginning(tmp_path: Path) -> None:
    """Whoever gives a checkpoint wants it compared, so a log without its beginning cannot pass."""
    lines = make_lines(20)
    report = check(tmp_path, join(lines[7:]))
    assert report.ok and report.first == 7 and ".proof" in report.warnings[0]
    found = check(tmp_path, join(lines[7:]), sign(lines, 20)).findings
    assert (found[0].kind, found[0].index, found[0].last) == ("missing", 0, 6)


def test_verify_with_another_key_or_a_changed_note_is_found(tmp_path: Path) -> None:
    """A wrong key and a changed checkpoint are two things."""
    lines = make_lines(5)
    assert check(tmp_path, join(lines), sign(lines, 5, OTHER)).findings[0].kind == "key"
    changed = sign(lines, 5).replace(b"\n5\n", b"\n4\n")
    assert check(tmp_path, join(lines), changed).findings[0].kind == "signature"


def test_verify_two_signed_histories_of_one_size_is_a_fork(tmp_path: Path) -> None:
    """Both are signed, both cannot be."""
    lines, others = make_lines(5), make_lines(5, keys=3)
    found = check(tmp_path, join(lines), sign(lines, 5), sign(others, 5)).findings
    assert found[0].kind == "forked"


def test_verify_gap_in_a_keys_sequence_names_key_and_numbers(tmp_path: Path) -> None:
    """A log that was rebuilt without one record has a valid chain and a jump in that key's numbers."""
    lines: list[bytes] = []
    for index, sequence in enumerate([1, 2, 4]):
        record = AuditRecord("note", f"aud_{index:026d}", "acme", "key_9", None, index, None, None, None)
        lines.append(splice_tail(encode_record(record).head, index, sequence, leaf_hash(lines[-1]) if lines else None))
    (found,) = check(tmp_path, join(lines)).findings
    assert (found.kind, found.index) == ("sequence", 2)
    assert "key_9" in found.message and "number 4" in found.message and "3 was next" in found.message


def test_verify_records_of_the_first_schema(tmp_path: Path) -> None:
    """They have no `previous`: checkpoints alone vouch for them, and none stands behind a newer one."""
    lines = make_lines(30, plain=12)
    assert b"previous" not in lines[11] and b"previous" in lines[12]
    assert check(tmp_path, join(lines), sign(lines, 30)).ok
    edited = [*lines[:4], lines[4].replace(b'"n":4', b'"n":5'), *lines[5:]]
    (found,) = check(tmp_path, join(edited), sign(lines, 3), sign(lines, 8), sign(lines, 30)).findings
    assert found.kind == "forked" and (found.index, found.last) == (3, 7)


def test_verify_file_that_grows_reads_what_was_there(tmp_path: Path) -> None:
    """What is appended meanwhile is another day's work."""
    lines = make_lines(10)
    path, paths = write(tmp_path, join(lines), sign(lines, 10))

    def grow(_done: int, _all: int) -> None:
        with path.open("ab") as file:
            file.write(b"half a line")

    assert verify_export(path, Evidence([SIGNER.verifier], paths), grow).ok


def test_verify_missing_file_is_a_usage_mistake(tmp_path: Path) -> None:
    """No file is not a wrong file."""
    with pytest.raises(ConfigurationError):
        verify_export(tmp_path / "none", Evidence([SIGNER.verifier]))


def test_verify_with_tiles_names_the_record_of_a_rebuilt_log(tmp_path: Path) -> None:
    """Between two checkpoints the chain is whole; the tiles have the hashes that were signed."""

    class Tiles:
        def read(self, level: int, index: int, width: int) -> bytes:
            assert level == 0
            return b"".join(leaf_hash(line) for line in lines[index * 256 :][:width])

    lines = make_lines(40)
    rebuilt = lines[:21]
    for index in range(21, 40):
        record = AuditRecord("note", f"aud_{index:026d}", "x", f"key_{index % 2}", None, index, None, None, None)
        rebuilt.append(splice_tail(encode_record(record).head, index, index // 2 + 1, leaf_hash(rebuilt[-1])))
    path, paths = write(tmp_path, join(rebuilt), sign(lines, 10), sign(lines, 40))
    (found,) = verify_export(path, Evidence([SIGNER.verifier], paths)).findings
    assert found.kind == "forked" and (found.index, found.last) == (10, 39)
    (found,) = verify_export(path, Evidence([SIGNER.verifier], paths, Tiles())).findings
    assert (found.index, found.last) == (21, None)


def test_verify_offline_loads_no_part_of_the_service(tmp_path: Path) -> None:
    """A stranger's machine needs neither the database's drivers nor the server."""
    lines = make_lines(3)
    path, paths = write(tmp_path, join(lines), sign(lines, 3))
    program = (
        "import sys; from lukhas.cli.main import app; app(sys.argv[1:], standalone_mode=False); "
        "sys.exit(' '.join(sorted({m.split('.')[0] for m in sys.modules} & "
        "{'sqlalchemy', 'fastapi', 'starlette', 'uvicorn', 'aiohttp', 'pysqlite3', 'sqlite3'})) or 0)"
    )
    command = ["audit", "verify", "--export", str(path), "--key", str(SIGNER.verifier), "--checkpoint", str(paths[0])]
    done = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "Nothing is wrong." in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("line", "said"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"{}", "does not end", id="no-tail"),
        pytest.param(b"\xff", "not JSON", id="bytes"),
        pytest.param(b"[" * 100_000, "no record has more", id="endless"),
        pytest.param(make_lines(1)[0].replace(b'"n":0', b'"n": 0'), "canonical", id="spaces"),
        pytest.param(make_lines(1)[0].replace(b'"n":0', b'"n":0,"a":1'), "canonical", id="unsorted"),
    ],
)
def test_form_of_a_line_that_the_log_does_not_write_is_described(line: bytes, said: str) -> None:
    """The words tell what to look for."""
    assert said in (describe_form(line) or "")
