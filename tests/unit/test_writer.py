"""The group-commit writer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError as ConstraintFailed
from sqlalchemy.exc import OperationalError

from lukhas.errors import NotFound, Overloaded, StorageUnavailable
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = open_database(f"sqlite:///{tmp_path}/x.db")
    with made.writer.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE item (name TEXT PRIMARY KEY)")
        connection.exec_driver_sql("CREATE TABLE revision (topic TEXT PRIMARY KEY, number INTEGER)")
    yield made
    made.close()


@pytest.fixture
def writer(database: Database) -> Iterator[GroupCommitWriter]:
    made = GroupCommitWriter(database, max_rows=1000)
    made.start()
    yield made
    made.close(5)


def put(connection: Connection, names: Sequence[str]) -> list[str]:
    for name in names:
        connection.exec_driver_sql("INSERT INTO item VALUES (?)", (name,))
    return [f"put {name}" for name in names]


def names_in(database: Database) -> set[str]:
    with database.reading() as connection:
        return {row[0] for row in connection.exec_driver_sql("SELECT name FROM item")}


class Gate:
    """A sink that holds the writer's thread until it is opened."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, connection: Connection, payloads: Sequence[None]) -> list[None]:
        self.entered.set()
        assert self.opened.wait(10)
        return list(payloads)


async def hold(writer: GroupCommitWriter) -> tuple[Gate, asyncio.Future[None]]:
    gate = Gate()
    held = writer.submit(gate, None)
    await asyncio.to_thread(gate.entered.wait, 10)
    return gate, held


async def test_submit_resolves_after_the_commit(writer: GroupCommitWriter, database: Database) -> None:
    """What a caller is told is durable can be read by others."""
    assert await writer.submit(put, "a") == "put a"
    assert names_in(database) == {"a"}
    assert writer.healthy and writer.last_error is None


async def test_submit_many_waiting_go_in_one_transaction_in_order(
    writer: GroupCommitWriter, database: Database
) -> None:
    """Everything that waits is written together, grouped by sink, each answer to its own caller."""
    batches: list[list[str]] = []

    def record(connection: Connection, names: Sequence[str]) -> list[str]:
        batches.append(list(names))
        return put(connection, names)

    gate, held = await hold(writer)
    futures = [writer.submit(record, f"n{number}") for number in range(20)]
    assert writer.depth == 20
    gate.opened.set()
    assert await asyncio.gather(*futures) == [f"put n{number}" for number in range(20)]
    await held
    assert batches == [[f"n{number}" for number in range(20)]]


async def test_submit_bad_payload_fails_alone(writer: GroupCommitWriter, database: Database) -> None:
    """One payload that the database or its sink refuses does not take its batch with it."""

    def picky(connection: Connection, names: Sequence[str]) -> list[str]:
        if "nobody" in names:
            raise NotFound("nobody")
        return put(connection, names)

    gate, held = await hold(writer)
    names = ["a", "b", "a", "c", "\ud800", "d"]
    futures = [writer.submit(put, name) for name in names]
    others = [writer.submit(picky, name) for name in ("x", "nobody", "y")]
    gate.opened.set()
    await held
    answers = await asyncio.gather(*futures, *others, return_exceptions=True)
    assert [answers[place] for place in (0, 1, 3, 5, 6, 8)] == ["put a", "put b", "put c", "put d", "put x", "put y"]
    assert isinstance(answers[2], ConstraintFailed)
    assert isinstance(answers[4], UnicodeEncodeError)
    assert isinstance(answers[7], NotFound)
    assert names_in(database) == {"a", "b", "c", "d", "x", "y"}
    assert writer.healthy


async def test_submit_sink_with_too_few_answers_fails(writer: GroupCommitWriter, database: Database) -> None:
    """A sink that forgets a payload is an error, not a caller that waits for ever."""

    def forgetful(connection: Connection, names: Sequence[str]) -> list[str]:
        return put(connection, names)[:-1]

    with pytest.raises(ValueError, match="shorter"):
        await writer.submit(forgetful, "a")
    assert names_in(database) == set()


async def test_submit_over_the_limit_is_refused_at_once(database: Database) -> None:
    """The queue is bounded: the caller gets Overloaded and may try again."""
    writer = GroupCommitWriter(database, max_rows=3)
    writer.start()
    gate, held = await hold(writer)
    futures = [writer.submit(put, name) for name in "abc"]
    with pytest.raises(Overloaded):
        writer.submit(put, "d")
    owed = writer.submit(put, "o", owed=True)  # what completes an admitted call has its place
    gate.opened.set()
    await asyncio.gather(held, owed, *futures)
    await writer.submit(put, "e")
    assert writer.close(5)
    assert names_in(database) == {"a", "b", "c", "e", "o"}


async def test_submit_disk_failure_fails_the_batch_and_reconnects(
    writer: GroupCommitWriter, database: Database
) -> None:
    """After a failed write the handle is never used again, and the next write works."""
    handles: list[int] = []
    kept: list[object] = []
    fail = True

    def flaky(connection: Connection, names: Sequence[str]) -> list[str]:
        kept.append(connection.connection.driver_connection)
        handles.append(id(connection.connection.driver_connection))
        if fail:
            raise OperationalError("COMMIT", {}, Exception("disk I/O error"))
        return put(connection, names)

    gate, held = await hold(writer)
    futures = [writer.submit(flaky, name) for name in "ab"]
    gate.opened.set()
    await held
    answers = await asyncio.gather(*futures, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StorageUnavailable, StorageUnavailable]
    assert answers[0] is not answers[1]
    assert not writer.healthy and writer.last_error == "disk I/O error"
    fail = False
    assert await writer.submit(flaky, "c") == "put c"
    assert writer.healthy and writer.last_error is None
    assert len(set(handles)) == 2
    assert names_in(database) == {"c"}


async def test_writer_after_failure_recovers_by_itself(writer: GroupCommitWriter) -> None:
    """A server that refuses calls while the disk is full notices alone that there is space again."""

    def fail(connection: Connection, names: Sequence[str]) -> list[str]:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    with pytest.raises(StorageUnavailable, match="disk is full"):
        await writer.submit(fail, "a")
    async with asyncio.timeout(10):
        while not writer.healthy:
            await asyncio.sleep(0.02)


async def test_submit_cancelled_waiter_breaks_nothing(writer: GroupCommitWriter, database: Database) -> None:
    """A caller that goes away leaves the batch whole."""
    gate, held = await hold(writer)
    gone, stays = writer.submit(put, "gone"), writer.submit(put, "stays")
    gone.cancel()
    gate.opened.set()
    await held
    assert await stays == "put stays"
    assert names_in(database) == {"gone", "stays"}


async def test_submit_from_a_closed_loop_breaks_nothing(writer: GroupCommitWriter) -> None:
    """A loop that ended before its answer does not stop the writer."""
    gate, held = await hold(writer)

    async def leave() -> None:
        writer.submit(put, "left")

    await asyncio.to_thread(asyncio.run, leave())
    gate.opened.set()
    await held
    assert await writer.submit(put, "next") == "put next"


def test_submit_sync_returns_or_raises_like_the_sink(writer: GroupCommitWriter) -> None:
    """Threads without a loop get the result, the error, or a clear timeout."""
    assert writer.submit_sync(put, "a", 5) == "put a"
    with pytest.raises(ConstraintFailed):
        writer.submit_sync(put, "a", 5)

    def late(connection: Connection, names: Sequence[str]) -> list[str]:
        raise TimeoutError("the sink's own")

    gate = Gate()
    with pytest.raises(StorageUnavailable, match=r"not durable within 0\.05 s"):
        writer.submit_sync(gate, None, 0.05)
    gate.opened.set()
    with pytest.raises(StorageUnavailable):
        writer.submit_sync(late, "b", 5)


async def test_close_writes_what_waits_then_refuses(database: Database) -> None:
    """Nothing that was accepted is lost at shutdown, and nothing is accepted after it."""
    writer = GroupCommitWriter(database, max_rows=100)
    with pytest.raises(StorageUnavailable):
        writer.submit(put, "early")
    writer.start()
    gate, held = await hold(writer)
    futures = [writer.submit(put, name) for name in "abc"]
    closing = asyncio.create_task(asyncio.to_thread(writer.close, 10))
    gate.opened.set()
    assert await closing
    assert await asyncio.gather(*futures) == ["put a", "put b", "put c"]
    await held
    with pytest.raises(StorageUnavailable):
        writer.submit(put, "late")
    assert not writer.healthy
    assert writer.close(1)


async def test_writers_of_one_file_both_get_their_turn(database: Database) -> None:
    """A writer under constant load does not starve a second one."""
    busy, other = GroupCommitWriter(database, max_rows=100), GroupCommitWriter(database, max_rows=100)
    busy.start()
    other.start()
    done = asyncio.Event()

    async def load(prefix: str) -> int:
        count = 0
        while not done.is_set():
            await busy.submit(put, f"{prefix}{count}")
            count += 1
        return count

    loads = [asyncio.create_task(load(prefix)) for prefix in "abcd"]
    async with asyncio.timeout(20):
        for number in range(20):
            await other.submit(put, f"other{number}")
    done.set()
    counts = await asyncio.gather(*loads)
    assert busy.close(5) and other.close(5)
    assert len(names_in(database)) == sum(counts) + 20


async def test_writer_on_one_shared_connection_lets_readers_in(tmp_path: Path) -> None:
    """Where SQLite is unsafe with two connections, readers and the writer take turns on one."""
    from lukhas.storage.sqlite import create_private_file, make_engines

    path = tmp_path / "shared.db"
    create_private_file(path)
    engine, same = make_engines(f"sqlite:///{path}", shared=True)
    assert engine is same
    database = Database("sqlite", "main", engine, same, path, True)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE item (name TEXT PRIMARY KEY)")
    writer = GroupCommitWriter(database, max_rows=100)
    writer.start()
    for name in "abc":
        await writer.submit(put, name)
        assert name in names_in(database)
    assert writer.close(5)
    database.close()


async def test_writer_file_removed_or_replaced_acknowledges_nothing(database: Database, tmp_path: Path) -> None:
    """An open file without its name takes writes that nobody will ever read; back in its place it is used again."""
    path, aside = tmp_path / "x.db", tmp_path / "aside"
    aside.mkdir()

    def move(source: Path, target: Path) -> None:
        # The main file leaves first and comes last: without its log nobody may open it.
        for name in ("x.db", "x.db-wal", "x.db-shm")[:: 1 if target == aside else -1]:
            if (source / name).exists():
                (source / name).replace(target / name)

    writer = GroupCommitWriter(database, max_rows=100)
    writer.start()
    await writer.submit(put, "before")
    move(tmp_path, aside)
    with pytest.raises(StorageUnavailable, match="removed or replaced"):
        await writer.submit(put, "lost")
    with pytest.raises(StorageUnavailable, match="not there"):
        await writer.submit(put, "lost")
    assert not path.exists() and not writer.healthy
    path.touch()
    with pytest.raises(StorageUnavailable, match="no such table"):
        await writer.submit(put, "lost")
    move(aside, tmp_path)
    with pytest.raises(StorageUnavailable, match="removed or replaced"):
        await writer.submit(put, "lost")
    await writer.submit(put, "after")
    assert names_in(database) == {"before", "after"} and writer.healthy
    assert writer.close(5)
