"""A serving process whose disk fails: calls are refused in time, readiness says why, and all is well by itself later.

The faults are done by a shim between SQLite and libc, and by a small file system that is really full.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from disk_shim import DiskShim
from live_gateway import Served, Told, served, wait_until
from log_check import LogCheck

from lukhas.storage.engine import open_database

DEADLINE_S = 1.0
# What a loaded machine may add to the deadline.
TOLERANCE_S = 2.0


def read_kinds(database_path: Path) -> dict[str, list[str]]:
    """Return the kinds of records that each audit id has in a log that nobody writes any more."""
    database = open_database(f"sqlite:///{database_path}")
    found: dict[str, list[str]] = {}
    try:
        with database.reading() as connection:
            query = "SELECT audit_id, kind FROM audit_record ORDER BY leaf_index"
            for audit_id, kind in connection.exec_driver_sql(query):
                found.setdefault(audit_id, []).append(kind)
    finally:
        database.close()
    return found


def assert_on_record(database_path: Path, told: list[Told]) -> None:
    """No byte of an answer without its decision, and no whole answer without its outcome; and the log checks out."""
    assert LogCheck().advance(database_path, []) == []
    kinds = read_kinds(database_path)
    for one in told:
        if one.status == 200:
            assert "decision" in kinds.get(one.audit_id, []), one
        if one.is_whole:
            assert "outcome" in kinds[one.audit_id], one


@pytest.fixture
def shim(tmp_path: Path) -> Iterator[DiskShim]:
    made = DiskShim(tmp_path / "shim", str(tmp_path / "data" / "lukhas.db"))
    yield made
    made.heal()


@pytest.mark.requires("cc")
def test_disk_that_fails_refuses_calls_in_time_and_says_why(tmp_path: Path, shim: DiskShim) -> None:
    """Each fault in turn: 503 in time, words in readiness, back by itself; nothing is acknowledged and lost."""
    faults = {
        "EIO fsync": "disk I/O error",
        "EIO write": "disk I/O error",
        "ENOSPC write truncate": "database or disk is full",
        "EROFS write truncate": "disk I/O error",
        "EIO write fsync truncate open": "",
    }
    told: list[Told] = []
    with served(tmp_path / "data", **shim.environ, LUKHAS_WRITER_DEADLINE_S=str(DEADLINE_S)) as gateway:
        for words, said in faults.items():
            told.append(gateway.ask(stream=False))
            assert told[-1].status == 200
            shim.fail(words)
            for stream in (False, True):
                one = gateway.ask(stream)
                told.append(one)
                assert one.status == 503 and b"storage_unavailable" in one.body, words
                assert one.headers["x-should-retry"] == "false"
                assert one.took_s < DEADLINE_S + TOLERANCE_S
            status, ready = gateway.call("GET", "/readyz")
            assert (status, ready["status"]) == (503, "unavailable")
            assert said in ready["checks"]["database"]["problem"]
            shim.heal()
            wait_until(lambda: gateway.call("GET", "/readyz")[0] == 200)
            told.append(gateway.ask(stream=True))
            assert told[-1].is_whole
    assert_on_record(tmp_path / "data" / "lukhas.db", told)
    assert shim.reports("failed") and shim.reports("again") == []


@pytest.mark.requires("cc")
def test_closed_mode_releases_no_byte_without_a_durable_decision(tmp_path: Path, shim: DiskShim) -> None:
    """I6, while the disk fails and heals at random and the process is killed in the middle of it."""
    dice = random.Random(7)
    told: list[Told] = []

    def call(gateway: Served, seed: int, until: float) -> list[Told]:
        own, found = random.Random(seed), list[Told]()
        while time.monotonic() < until:
            try:
                found.append(gateway.ask(stream=own.random() < 0.5))
            except OSError:
                break  # killed
        return found

    for number in range(2):
        more = {**shim.environ, "LUKHAS_WRITER_DEADLINE_S": str(DEADLINE_S)}
        with served(tmp_path / "data", **more) as gateway, ThreadPoolExecutor(8) as pool:
            until = time.monotonic() + 1.5
            calls = [pool.submit(call, gateway, seed, until) for seed in range(8)]
            while time.monotonic() < until:
                shim.fail(dice.choice(("EIO fsync", "EIO write", "ENOSPC write truncate")))
                time.sleep(dice.uniform(0.02, 0.2))
                shim.heal()
                time.sleep(dice.uniform(0.02, 0.2))
            if number == 0:
                shim.fail("EIO fsync")
                gateway.kill()
                shim.heal()
            for one in calls:
                told += one.result(30)
    statuses = {one.status for one in told}
    assert statuses == {200, 503}
    assert_on_record(tmp_path / "data" / "lukhas.db", told)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 48 MB, really mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "lukhas-test", place]).returncode:
        pytest.skip("mounting a file system needs root")
    yield place
    subprocess.run(["umount", place], check=True)


def fill(folder: Path) -> Path:
    """Take every free block of a file system."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1_000_000, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def test_disk_that_is_full_at_the_end_still_takes_the_last_records(small_disk: Path) -> None:
    """The reserve is given back at the shutdown, so that the summary is written; the next start has it again."""
    data = small_disk / "data"
    more = {"LUKHAS_AUDIT_RESERVE_BYTES": "8000000", "LUKHAS_WRITER_DEADLINE_S": str(DEADLINE_S)}
    with served(data, **more) as gateway:
        assert (data / "audit.reserve").stat().st_size == 8_000_000
        assert (data / "audit.reserve").stat().st_mode & 0o777 == 0o600
        assert gateway.ask(stream=False).status == 200
        filler = fill(small_disk)

        def is_refused() -> bool:
            one = gateway.ask(stream=False)
            assert one.took_s < DEADLINE_S + TOLERANCE_S
            return one.status == 503

        wait_until(is_refused, 20)
        status, ready = gateway.call("GET", "/readyz")
        assert status == 503 and ready["checks"]["database"]["problem"] == "database or disk is full"
        assert gateway.ask(stream=False, key="wrong").status == 401
        assert (data / "audit.reserve").exists()
    assert not (data / "audit.reserve").exists()
    kinds = [kind for found in read_kinds(data / "lukhas.db").values() for kind in found]
    assert kinds.count("refusal") == 1
    filler.unlink()
    with served(data, **more) as gateway:
        assert gateway.ask(stream=True).is_whole
        assert (data / "audit.reserve").exists()
    assert LogCheck().advance(data / "lukhas.db", []) == []
