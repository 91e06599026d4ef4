"""What belongs to every commit of the group-commit writer: it counts towards the answer, and is made good later."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection

from lukhas.errors import StorageUnavailable
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter


class Follower:
    """Counts commits it was told of, and fails while it is told to."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.failure: Exception | None = None
        self.seen: list[int] = []
        self.threads: set[str] = set()
        self.well = threading.Event()

    def __call__(self) -> None:
        self.threads.add(threading.current_thread().name)
        if self.failure is not None:
            raise self.failure
        with self.database.reading() as connection:
            self.seen.append(connection.exec_driver_sql("SELECT count(*) FROM item").scalar_one())
        self.well.set()


@pytest.fixture
def follower(tmp_path: Path) -> Iterator[Follower]:
    database = open_database(f"sqlite:///{tmp_path}/x.db")
    with database.writer.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE item (name TEXT PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE revision (topic TEXT PRIMARY KEY, number INTEGER)")
    yield Follower(database)
    database.close()


@pytest.fixture
def writer(follower: Follower) -> Iterator[GroupCommitWriter]:
    made = GroupCommitWriter(follower.database, max_rows=100, name="commits", after_commit=follower)
    made.start()
    yield made
    made.close(5)


def put(connection: Connection, names: Sequence[str]) -> Sequence[str]:
    for name in names:
        connection.exec_driver_sql("INSERT INTO item VALUES (?)", (name,))
    return names


def test_after_commit_sees_what_is_committed_before_the_answer(writer: GroupCommitWriter, follower: Follower) -> None:
    """It runs on the writer's thread, when others can already read the rows and before their caller goes on."""
    writer.submit_sync(put, "a", 5)
    assert follower.seen == [1]
    writer.submit_sync(put, "b", 5)
    assert follower.seen == [1, 2]
    assert follower.threads == {"commits"}


@pytest.mark.parametrize(
    ("failure", "message", "says"),
    [
        pytest.param(StorageUnavailable("The file is full."), "The file is full.", "The file is full.", id="ours"),
        pytest.param(OSError(28, "No space"), "The database cannot be written.", "No space", id="the-system's"),
        pytest.param(ValueError("odd"), "The database cannot be written.", "odd", id="a-fault"),
    ],
)
def test_after_commit_failing_fails_its_callers_and_recovers_by_itself(
    writer: GroupCommitWriter, follower: Follower, failure: Exception, message: str, says: str
) -> None:
    """Callers get 503 though the rows are there; the writer says why, and is well again without a call."""
    follower.failure = failure
    with pytest.raises(StorageUnavailable) as caught:
        writer.submit_sync(put, "a", 5)
    assert caught.value.message == message
    assert not writer.healthy and says in (writer.last_error or "")
    follower.failure = None
    assert follower.well.wait(5)
    writer.submit_sync(put, "b", 5)
    assert writer.healthy and writer.last_error is None
    assert follower.seen[-1] == 2


def test_after_commit_is_not_run_for_what_was_refused(writer: GroupCommitWriter, follower: Follower) -> None:
    """A transaction that was rolled back is no commit."""
    writer.submit_sync(put, "a", 5)
    with pytest.raises(Exception, match="UNIQUE"):
        writer.submit_sync(put, "a", 5)
    assert follower.seen == [1]
