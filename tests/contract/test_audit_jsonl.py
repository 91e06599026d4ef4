"""The JSONL file: the log's own bytes, each once, in order, whatever happens to the file or to who writes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from log_scene import LogScene

from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.jsonl_follower import JsonlFollower
from lukhas.audit.line_file import list_rotated
from lukhas.audit.merkle import append_leaf, fold_root, leaf_hash
from lukhas.audit.source import RecordSource
from lukhas.errors import IntegrityError, StorageUnavailable
from lukhas.storage.file_lock import FileLock
from lukhas.telemetry import Metrics
from lukhas.testing import FrozenClock


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[LogScene]:
    made = LogScene(tmp_path)
    yield made
    made.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sink" / "audit.jsonl"


def follow(scene: LogScene, path: Path, **options: Any) -> JsonlFile:
    given: dict[str, Any] = {"fsync": False, "max_bytes": 1_000_000_000, "keep": 0, "patience_s": 0.2} | options
    return JsonlFile(path, scene.store.source, **given)


def read_all(path: Path) -> list[bytes]:
    """Return every line of all files of the sequence, oldest first."""
    paths = [one.path for one in reversed(list_rotated(path))] + ([path] if path.exists() else [])
    whole = b"".join(one.read_bytes() for one in paths)
    assert not whole or whole.endswith(b"\n")
    return whole.split(b"\n")[:-1]


def assert_is_log(scene: LogScene, path: Path) -> None:
    """The lines are the stored bytes, and hash to the log's root."""
    lines = read_all(path)
    assert lines == scene.stored()
    peaks: list[bytes] = []
    for index, line in enumerate(lines):
        append_leaf(peaks, index, leaf_hash(line))
    assert (len(lines), fold_root(peaks)) == scene.store.head()


def test_catch_up_appends_the_stored_bytes_once(scene: LogScene, path: Path) -> None:
    """Each record is one line, verbatim; what is there is not appended again; only its owner may read it."""
    file = follow(scene, path)
    assert file.catch_up() == 0
    assert path.read_bytes() == b""
    scene.append(1_300, body={"text": "Zeile\nzwei \u2028 \x00 \U0001f600"})
    assert [file.catch_up(), file.catch_up()] == [1_300, 0]
    scene.append(3)
    assert (file.lag(), file.catch_up(), file.lag()) == (3, 3, 0)
    assert_is_log(scene, path)
    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {0o600}
    assert file.status().next_index == 1_303 and file.status().size_bytes == path.stat().st_size


def test_catch_up_rotates_before_a_batch_that_would_not_fit(scene: LogScene, path: Path) -> None:
    """No file grows past its limit, full ones are named by what they hold, and the sequence has no gap."""
    file = follow(scene, path, max_bytes=10_000)
    for count in (1, 7, 40, 300):
        scene.append(count)
        file.catch_up()
    scene.append(2, body="y" * 30_000)
    file.catch_up()
    assert_is_log(scene, path)
    rotated = list(reversed(list_rotated(path)))
    assert len(rotated) > 5
    assert [one.first for one in rotated[1:]] == [one.last + 1 for one in rotated[:-1]]
    for one in rotated:
        lines = one.path.read_bytes().splitlines()
        assert len(lines) == one.last - one.first + 1
        assert one.path.stat().st_size <= 10_000 or len(lines) == 1
    assert rotated[0].path.name == f"audit-{0:016d}-{rotated[0].last:016d}.jsonl"


def test_rotation_keeps_the_newest_and_the_mode_that_an_operator_set(scene: LogScene, path: Path) -> None:
    """Old files go, and a log shipper that was let in stays in."""
    file = follow(scene, path, max_bytes=10_000, keep=2)
    scene.append(10)
    file.catch_up()
    path.chmod(0o640)
    scene.append(200)
    file.catch_up()
    rotated = list_rotated(path)
    assert len(rotated) == 2
    assert read_all(path) == scene.stored()[rotated[-1].first :]
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("remembers", [pytest.param(True, id="same-process"), pytest.param(False, id="restarted")])
def test_power_cut_at_any_byte_is_made_good(scene: LogScene, path: Path, remembers: bool) -> None:
    """Whatever was torn off is written again from the log, byte for byte."""
    rng = random.Random(5)
    file = follow(scene, path, max_bytes=20_000)
    scene.append(60)
    file.catch_up()
    for _ in range(60):
        size = path.stat().st_size
        with path.open("r+b") as opened:
            opened.truncate(rng.randrange(size + 1))
            if rng.random() < 0.3:  # some file systems give back zeros where data was not written yet
                opened.truncate(opened.seek(0, os.SEEK_END) + rng.randrange(9_000))
        if not remembers:
            file.close()
            file = follow(scene, path, max_bytes=20_000)
        scene.append(rng.randrange(9))
        file.catch_up()
        assert_is_log(scene, path)
    assert file.status().set_aside == ()


@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda raw: raw[:-20].replace(b'"x"', b'"y"') + raw[-20:], id="edited"),
        pytest.param(lambda raw: raw + b"\n", id="empty-line"),
        pytest.param(lambda raw: raw + b"a word", id="other-rest"),
        pytest.param(lambda _: b"notes of mine, without a line end", id="other-file"),
        pytest.param(lambda _: b"{}\n[]\n" * 50_000, id="other-lines"),
        pytest.param(lambda raw: b"other\n" + raw, id="other-beginning"),
        pytest.param(lambda _: b'{"audit_id":"' + b"x" * 300_000, id="endless-line"),
        pytest.param(lambda raw: raw.replace(b'"index":"00000', b'"index":"99999'), id="past-the-head"),
    ],
)
def test_file_of_another_log_is_set_aside_whole(scene: LogScene, path: Path, spoil: Any) -> None:
    """What is not the log's is renamed, never changed; a fresh file has the log, and the status says so."""
    scene.append(20)
    follow(scene, path).catch_up()
    foreign = spoil(path.read_bytes())
    path.write_bytes(foreign)
    file = follow(scene, path, clock=FrozenClock(0))
    assert file.catch_up() == 20
    (aside,) = file.status().set_aside
    assert Path(aside).read_bytes() == foreign
    assert Path(aside).name == "audit.jsonl.foreign-19700101T000000000Z"
    assert_is_log(scene, path)


def test_restored_log_sets_aside_what_was_ahead_of_it(scene: LogScene, path: Path, tmp_path: Path) -> None:
    """After the database went back in time, full files that are ahead go aside too, and what fits stays."""
    scene.append(30)
    file = follow(scene, path, max_bytes=5_000)
    file.catch_up()
    kept = list_rotated(path)
    other = LogScene(tmp_path / "other")
    try:
        for index, data in scene.store.source.read(0, kept[1].last + 1):
            other.execute(
                "INSERT INTO audit_record SELECT ?,?,?,?,?,?,?", index, "a", "k", "t", 1, leaf_hash(data), data
            )
        other.execute("UPDATE audit_head SET size = ?", kept[1].last + 1)
        later = follow(other, path, max_bytes=5_000)
        assert later.catch_up() == 0
        assert len(later.status().set_aside) == 2
        assert read_all(path) == other.stored()
    finally:
        other.close()


def test_two_logs_on_one_file_end_in_a_clear_error(scene: LogScene, path: Path, tmp_path: Path) -> None:
    """They would rename each other's file for ever."""
    other = LogScene(tmp_path / "other")
    clock = FrozenClock()
    try:
        scene.append(2)
        other.append(2)
        pair = [follow(one, path, clock=clock) for one in (scene, other)]
        with pytest.raises(StorageUnavailable, match="another log"):
            for _ in range(20):
                for one in pair:
                    one.catch_up()
        clock.advance(61_000)
        pair[0].catch_up()
    finally:
        other.close()


def test_pruned_log_goes_on_behind_a_gap_and_says_so(scene: LogScene, path: Path) -> None:
    """What is no longer in the database cannot be appended; what is there is compared by its tile."""
    scene.append(300)
    file = follow(scene, path)
    file.catch_up()
    scene.append(300)
    scene.execute("DELETE FROM audit_record WHERE leaf_index < 512")
    again = follow(scene, path)
    assert again.catch_up() == 88
    assert again.status().gaps == ((300, 512),)
    assert again.status().set_aside == ()
    assert read_all(path)[300:] == scene.stored()
    path.unlink()
    assert follow(scene, path).catch_up() == 88
    assert read_all(path) == scene.stored()


def test_removed_file_and_folder_are_made_again_where_it_stood(scene: LogScene, path: Path) -> None:
    """Who knows how far the file had come goes on from there; a new process begins anew."""
    file = follow(scene, path)
    scene.append(10)
    file.catch_up()
    for one in path.parent.iterdir():
        one.unlink()
    path.parent.rmdir()
    scene.append(5)
    assert file.catch_up() == 5
    assert read_all(path) == scene.stored()[10:]
    path.unlink()
    assert follow(scene, path).catch_up() == 15
    assert_is_log(scene, path)


def test_record_with_a_line_end_is_no_line(scene: LogScene, path: Path) -> None:
    """Only an edit in the database puts one there; two lines for one record would mislead every reader."""
    scene.append(1)
    scene.execute("UPDATE audit_record SET data = ?", b"{}\n{}")
    with pytest.raises(IntegrityError, match="Record 0"):
        follow(scene, path).catch_up()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        pytest.param(lambda path: path.mkdir(parents=True), "Is a directory", id="folder"),
        pytest.param(lambda path: (path.parent.mkdir(), os.mkfifo(path)), "not a plain file", id="fifo"),
        pytest.param(lambda path: path.parent.write_text("x"), "cannot be written", id="no-folder"),
    ],
)
def test_path_that_cannot_serve_is_refused_and_resumes(scene: LogScene, path: Path, make: Any, says: str) -> None:
    """The error names the file; when the cause is gone, nothing is missing."""
    make(path)
    scene.append(3)
    file = follow(scene, path)
    with pytest.raises(StorageUnavailable, match=says):
        file.catch_up()
    assert file.status().problem is not None
    blocking = path.parent if path.parent.is_file() else path
    blocking.rmdir() if blocking.is_dir() else blocking.unlink()
    assert file.catch_up() == 3
    assert file.status().problem is None
    assert_is_log(scene, path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.source import RecordSource
from lukhas.errors import StorageUnavailable
from lukhas.storage.engine import open_database
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
database = open_database(sys.argv[1])
with database.reading() as connection:
    pass
path = Path(sys.argv[2])
file = JsonlFile(path, RecordSource(database), fsync=True, max_bytes=10**9, keep=0)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    file.catch_up()
except StorageUnavailable as failure:
    print(failure.message)
print(path.stat().st_size)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(file.catch_up())
"""


def test_write_that_is_cut_short_leaves_no_part_of_a_line(scene: LogScene, path: Path) -> None:
    """A limit of the file's size stands for a full disk: the batch is taken back, and appended when there is room."""
    scene.append(50)
    command = [sys.executable, "-c", FULL_DISK, scene.url, str(path), "12345"]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()
    assert out == [f"The file {path} cannot be written: File too large.", "0", "50"]
    assert_is_log(scene, path)


def test_lock_that_another_keeps_is_an_error_in_time(scene: LogScene, path: Path) -> None:
    """Nobody waits for ever for a process that hangs; afterwards nothing is missing."""
    scene.append(2)
    file = follow(scene, path)
    with FileLock(path.with_name("audit.jsonl.lock")).held(1):
        began = time.monotonic()
        with pytest.raises(StorageUnavailable, match="locked"):
            file.catch_up(0.05)
        assert time.monotonic() - began < 2
    assert file.catch_up() == 2


def test_many_threads_and_files_append_each_record_once(scene: LogScene, path: Path) -> None:
    """Threads on one object, and objects of their own, beside a log that grows."""
    shared = follow(scene, path, max_bytes=60_000, patience_s=30)
    files = [shared, shared, *(follow(scene, path, max_bytes=60_000, patience_s=30) for _ in range(3))]
    stop = threading.Event()

    def run(file: JsonlFile) -> int:
        total = 0
        while not stop.is_set():
            total += file.catch_up()
        return total + file.catch_up()

    with ThreadPoolExecutor(len(files)) as pool:
        running = [pool.submit(run, file) for file in files]
        for _ in range(40):
            scene.append(20)
        stop.set()
        counts = [one.result(30) for one in running]
    assert sum(counts) == 800
    assert_is_log(scene, path)
    assert shared.status().set_aside == ()


CHILD = """
import sys
from pathlib import Path
from lukhas.audit.jsonl import JsonlFile
from lukhas.audit.source import RecordSource
from lukhas.storage.engine import open_database
file = JsonlFile(Path(sys.argv[2]), RecordSource(open_database(sys.argv[1])), fsync=False, max_bytes=50_000, keep=0)
print("up", flush=True)
while True:
    file.catch_up()
"""


def test_kill_while_processes_append_leaves_no_gap_and_no_duplicate(scene: LogScene, path: Path) -> None:
    """Three processes on one file, one killed at a time at any moment, while the log grows."""
    rng = random.Random(7)

    def start() -> subprocess.Popen[bytes]:
        child = subprocess.Popen([sys.executable, "-c", CHILD, scene.url, str(path)], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        return child

    children = [start() for _ in range(3)]
    try:
        for _ in range(4):
            for _ in range(rng.randrange(5, 20)):
                scene.append(rng.randrange(1, 60))
            victim = children.pop(0)
            victim.send_signal(signal.SIGKILL)
            victim.communicate()
            children.append(start())
    finally:
        for child in children:
            child.kill()
            child.communicate()
    file = follow(scene, path, max_bytes=50_000)
    file.catch_up()
    assert_is_log(scene, path)
    assert file.status().set_aside == ()


def test_tail_follows_through_rotation(scene: LogScene, path: Path) -> None:
    """A real `tail -F` sees every line once, as log shippers do."""
    path.parent.mkdir()
    path.touch()
    file = follow(scene, path, max_bytes=30_000)
    command = ["tail", "-n", "+1", "-F", "-s", "0.05", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as tail:
        assert tail.stdout is not None
        seen: list[bytes] = []
        for _ in range(6):
            before = len(seen)
            scene.append(40)
            file.catch_up()
            # Who follows a name must get the time to see each file under it.
            while len(seen) < before + 40:
                seen.append(tail.stdout.readline().rstrip(b"\n"))
        tail.kill()
    assert len(list_rotated(path)) >= 2
    assert seen == scene.stored()


def test_required_file_counts_towards_the_answer(tmp_path: Path, path: Path) -> None:
    """As the writer's `after_commit`: acknowledged means it is in the file; a file that fails fails the call."""
    held: list[JsonlFile] = []
    scene = LogScene(tmp_path, after_commit=lambda: held and held[0].catch_up())
    try:
        held.append(follow(scene, path, fsync=True))
        scene.append(1)
        assert read_all(path) == scene.stored()
        path.unlink()
        path.mkdir()
        with pytest.raises(StorageUnavailable, match="cannot be written"):
            scene.append(1)
        assert "Is a directory" in (scene.writer.last_error or "")
        path.rmdir()
        deadline = time.monotonic() + 10
        while not scene.writer.healthy and time.monotonic() < deadline:
            time.sleep(0.05)
        assert scene.writer.last_error is None
        assert read_all(path) == scene.stored()[1:]
    finally:
        scene.close()


def test_follower_appends_by_itself_and_says_when_it_cannot(scene: LogScene, path: Path) -> None:
    """The thread keeps the metrics and the problem, and appends what is left when it is stopped."""
    metrics = Metrics()
    path.mkdir(parents=True)
    follower = JsonlFollower(follow(scene, path), metrics, every_s=0.01)
    scene.append(5)
    follower.start()
    wait_for(lambda: follower.problem is not None)
    assert "Is a directory" in (follower.problem or "")
    wait_for(lambda: metrics.jsonl_lag.value == 5)
    path.rmdir()
    wait_for(lambda: follower.problem is None and metrics.jsonl_lag.value == 0)
    scene.append(7)
    assert follower.stop(10)
    assert_is_log(scene, path)


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_forked_child_does_not_share_its_parents_lock(scene: LogScene, path: Path) -> None:
    """An inherited lock would let both in at once."""
    lock = FileLock(path.with_name("lock"))
    with lock.held(1):
        child = os.fork()
        if child == 0:
            try:
                with lock.held(0.05):
                    os._exit(1)
            except StorageUnavailable:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with lock.held(0):
        pass


def test_catch_up_reads_a_large_log_in_bounded_batches(scene: LogScene, path: Path) -> None:
    """However far behind the file is, only so many records are in memory at once."""
    scene.append(3_000)
    most: list[int] = []

    class Counted(RecordSource):
        def read(self, start: int, most_records: int) -> Any:
            found = super().read(start, most_records)
            most.append(len(found))
            return found

    file = JsonlFile(path, Counted(scene.database), fsync=False, max_bytes=10**9, keep=0)
    assert file.catch_up() == 3_000
    assert max(most) <= 512
    assert_is_log(scene, path)
