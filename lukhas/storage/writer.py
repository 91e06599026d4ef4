"""Group commit: one thread writes what many callers hand in, many rows to a transaction."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Connection

from lukhas.errors import LukhasError, Overloaded, StorageUnavailable
from lukhas.storage.engine import Database
from lukhas.storage.revision import bump_revision
from lukhas.storage.session import WriteSession, is_storage_failure

P = TypeVar("P")
R = TypeVar("R")

Sink: TypeAlias = Callable[[Connection, Sequence[P]], Sequence[R]]
"""Writes payloads inside the transaction that is open on the connection, and returns one result for each.

It may run again with the same payloads after a failure, and must not rely on its last run having been committed.
"""

# Bounds how long one transaction keeps the lock, and how much is at stake in one failure.
_LARGEST_BATCH: Final = 1_000
_PROBE_EVERY_S: Final = 1.0


class _Item(NamedTuple):
    sink: Sink[Any, Any]
    payload: Any
    future: Any  # an asyncio.Future where there is a loop, else a concurrent.futures.Future
    loop: asyncio.AbstractEventLoop | None


_Settled: TypeAlias = tuple[Any, Any, Exception | None]


class GroupCommitWriter:
    """Commits rows from any number of callers, in order of arrival, as few transactions as the disk allows.

    The thread takes everything that waits, writes it in one transaction and resolves all futures after the commit.
    A payload that the database refuses fails alone. When the disk fails, the whole batch fails with
    StorageUnavailable and the connection is replaced; the writer tries once a second by itself until writing works.
    """

    def __init__(
        self,
        database: Database,
        *,
        max_rows: int,
        name: str = "writer",
        after_commit: Callable[[], object] | None = None,
    ) -> None:
        """Prepare a writer; `start` runs it.

        Args:
            database: where sinks write.
            max_rows: payloads that may wait; one more is refused with Overloaded.
            name: the thread's name.
            after_commit: runs on the writer's thread after each commit, before its callers are answered. Where it
                fails they get StorageUnavailable, though their rows are written; it is tried again once a second.
        """
        self._after_commit = after_commit
        self._database = database
        self._max_rows = max_rows
        self._queue: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._accepting = False
        self._ended = False
        self._failure: str | None = None
        self._began: float | None = None
        self._session = WriteSession(database)

    @property
    def depth(self) -> int:
        """Payloads that wait for a transaction."""
        return self._queue.qsize()

    @property
    def last_error(self) -> str | None:
        """What the database said at the last storage failure; None once writing works again."""
        return self._failure

    @property
    def checkpoint_error(self) -> str | None:
        """Why SQLite's log could not be copied into its database lately; rows are durable, and the log grows."""
        return self._session.checkpoint_error

    @property
    def busy_s(self) -> float:
        """How long the transaction that is under way has taken, in seconds; 0 where none is."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    @property
    def healthy(self) -> bool:
        """Whether payloads are taken and the last transaction did not fail by the storage's fault."""
        return self._accepting and self._failure is None and self._thread.is_alive()

    def start(self) -> None:
        """Start the thread. A writer starts once."""
        self._thread.start()
        self._accepting = True

    def submit(self, sink: Sink[P, R], payload: P, *, owed: bool = False) -> asyncio.Future[R]:
        """Hand in one payload from an event loop; the future resolves after its commit is durable.

        What is `owed` completes something already admitted: it is taken even where the queue is full, of which
        there is never more than was admitted.

        Cancelling the future does not take the payload back.

        Raises:
            Overloaded: the queue is full.
            StorageUnavailable: the writer is not running. The future raises it when the storage fails.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._enqueue(_Item(sink, payload, future, loop), owed)
        return future

    def submit_sync(self, sink: Sink[P, R], payload: P, timeout_s: float) -> R:
        """Hand in one payload from a thread without an event loop, and wait until it is durable.

        Raises:
            Overloaded: the queue is full.
            StorageUnavailable: the writer is not running, the storage failed, or the time is over, in which case the
                payload may still be written.
        """
        if threading.current_thread() is self._thread:
            raise RuntimeError("a sink cannot wait for its own writer")
        future: concurrent.futures.Future[R] = concurrent.futures.Future()
        self._enqueue(_Item(sink, payload, future, None))
        try:
            return future.result(timeout_s)
        except TimeoutError as late:
            if future.done():
                raise
            raise StorageUnavailable(f"The write was not durable within {timeout_s:g} s.") from late

    def close(self, timeout_s: float) -> bool:
        """Refuse new payloads, write those that wait, and stop.

        Returns:
            Whether everything was written within the time; what was not fails with StorageUnavailable.
        """
        self._accepting = False
        if not self._thread.is_alive():
            self._fail_leftovers()
            return True
        self._queue.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _enqueue(self, item: _Item, owed: bool = False) -> None:
        if not self._accepting:
            raise StorageUnavailable("The database writer is not running.")
        if not owed and self._queue.qsize() >= self._max_rows:
            raise Overloaded(f"{self._max_rows} rows wait for the database.", hint="Try again in a moment.")
        self._queue.put(item)
        if self._ended:  # the thread ended between the first look and the put
            self._fail_leftovers()

    def _run(self) -> None:
        try:
            running = True
            while running:
                batch, running = self._take()
                if batch:
                    self._began = time.monotonic()
                    self._write(batch)
                    self._began = None
                    if self._queue.qsize():
                        self._session.give_way()
                elif running:
                    self._probe()
        finally:
            self._accepting = False
            self._ended = True
            self._fail_leftovers()
            self._session.close()

    def _take(self) -> tuple[list[_Item], bool]:
        """Wait for work. Returns what waits, and whether to go on after it."""
        queue = self._queue
        try:
            first = queue.get() if self._failure is None else queue.get(timeout=_PROBE_EVERY_S)
        except Empty:
            return [], True
        if first is None:
            # What was put between the refusal of new payloads and this mark is still owed.
            return self._drain(), False
        batch = [first]
        for _ in range(min(queue.qsize(), _LARGEST_BATCH - 1)):
            item = queue.get_nowait()
            if item is None:
                return batch + self._drain(), False
            batch.append(item)
        return batch, True

    def _drain(self) -> list[_Item]:
        items: list[_Item] = []
        try:
            while True:
                item = self._queue.get_nowait()
                if item is not None:
                    items.append(item)
        except Empty:
            return items

    def _write(self, batch: list[_Item]) -> None:
        groups: dict[Sink[Any, Any], list[int]] = {}
        for place, item in enumerate(batch):
            groups.setdefault(item.sink, []).append(place)
        results: list[Any] = [None] * len(batch)

        def work(connection: Connection) -> None:
            for sink, places in groups.items():
                answers = sink(connection, [batch[place].payload for place in places])
                for place, answer in zip(places, answers, strict=True):
                    results[place] = answer

        failure: Exception | None = None
        try:
            self._session.run(work)
        except Exception as caught:  # noqa: BLE001 - the edge where a thread's failure becomes its callers' answers
            failure = caught
        # Outside the handler, so that what fails further on does not drag this failure along as its context.
        if failure is not None:
            self._answer_failure(batch, failure)
            return
        if (unfinished := self._finish()) is not None:
            self._failure = _say(unfinished)
            _settle(batch, [(item.future, None, self._describe(unfinished)) for item in batch])
            return
        self._failure = None
        _settle(batch, [(item.future, result, None) for item, result in zip(batch, results, strict=True)])

    def _finish(self) -> Exception | None:
        """Do what belongs to every commit; return why it could not be done."""
        if self._after_commit is None:
            return None
        try:
            self._after_commit()
        except Exception as failure:  # noqa: BLE001 - becomes the answer of all who wait for this commit
            return failure
        return None

    def _answer_failure(self, batch: list[_Item], failure: Exception) -> None:
        if is_storage_failure(failure, self._database.kind):
            self._failure = _say(failure)
            _settle(batch, [(item.future, None, self._describe(failure)) for item in batch])
        elif len(batch) == 1:
            _settle(batch, [(batch[0].future, None, failure)])
        else:
            # Halving finds one bad payload among n in log n extra transactions, and keeps the order.
            middle = len(batch) // 2
            self._write(batch[:middle])
            self._write(batch[middle:])

    def _describe(self, failure: Exception) -> StorageUnavailable:
        # One exception for each future: a shared one would gather the tracebacks of all who await it.
        if isinstance(failure, LukhasError):  # from what belongs to a commit, which says itself what is wrong
            error = StorageUnavailable(failure.message, hint=failure.hint)
        else:
            error = StorageUnavailable("The database cannot be written.", hint=f"It says: {self._failure}.")
        error.__cause__ = failure
        return error

    def _probe(self) -> None:
        try:
            self._session.run(lambda connection: bump_revision(connection, "probe"))
        except Exception as failure:  # noqa: BLE001 - the answer is `last_error`
            self._failure = _say(failure)
            return
        unfinished = self._finish()
        self._failure = None if unfinished is None else _say(unfinished)

    def _fail_leftovers(self) -> None:
        left = self._drain()
        _settle(left, [(item.future, None, StorageUnavailable("The database writer has stopped.")) for item in left])


def _say(failure: Exception) -> str:
    return str(getattr(failure, "orig", failure))


def _settle(batch: list[_Item], settled: list[_Settled]) -> None:
    """Hand results to their waiters, waking each event loop once."""
    by_loop: dict[asyncio.AbstractEventLoop | None, list[_Settled]] = {}
    for item, entry in zip(batch, settled, strict=True):
        by_loop.setdefault(item.loop, []).append(entry)
    for loop, entries in by_loop.items():
        if loop is None:
            _resolve(entries)
            continue
        try:
            loop.call_soon_threadsafe(_resolve, entries)
        except RuntimeError:
            pass  # the loop is closed: nobody waits there any more


def _resolve(entries: list[_Settled]) -> None:
    for future, result, error in entries:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
