"""A candidate policy over recorded decisions: checks the log, then says what would have changed.

The log is read in parts of equal length; two processes share them where there are many. Each part gives a tally, so
that memory does not grow with the log.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Final

import msgspec

from lukhas.errors import UnavailableError
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import parse_policy
from lukhas.replay.player import Player
from lukhas.replay.recorded import Window, find_window, read_rows
from lukhas.replay.revision import Revisions, load_revisions
from lukhas.replay.tally import Tally, make_tally, merge
from lukhas.storage.engine import Database, open_database

# Records to one part: small enough for a smooth progress bar, large enough that handing it over costs nothing.
PART: Final = 16_384
# With fewer records a second process costs more time than it saves.
ALONE_BELOW: Final = 40_000

Progress = Callable[[int, int], None]


class Simulation(msgspec.Struct, frozen=True):
    """What came of a simulation.

    Attributes:
        candidate: the policy that was tried.
        revisions: those that recorded decisions were checked against.
        window: which part of the log was read.
        tally: the counts.
        notes: what a reader must know to judge them.
    """

    candidate: Policy
    revisions: Revisions
    window: Window
    tally: Tally
    notes: list[str]


def simulate(
    database: Database,
    url: str,
    candidate: Policy,
    *,
    also: tuple[str, ...] = (),
    since_ms: int | None = None,
    until_ms: int | None = None,
    limit: int | None = None,
    processes: int | None = None,
    on_progress: Progress | None = None,
) -> Simulation:
    """Replay recorded decisions by their own revisions and by a candidate.

    Args:
        database: the open database; `url` opens it again in other processes.
        candidate: the policy to try.
        also: texts of further policies that may have decided, such as the file in force.
        since_ms, until_ms: in ms since the epoch.
        limit: at most that many decisions, the newest.
        processes: how many read; None takes two for a long log where the machine has two cores.
        on_progress: called with the records done and to be done.

    Raises:
        StorageUnavailable: the database cannot be read.
        UnavailableError: a process ended before its time.
    """
    revisions = load_revisions(database, (*also, candidate.text))
    window = find_window(database, since_ms, until_ms, limit)
    report = on_progress or _ignore
    span = window.end - window.first
    count = processes or (2 if span >= ALONE_BELOW and (os.cpu_count() or 1) > 1 else 1)
    if database.shares_connection:
        count = 1  # this SQLite must not be opened twice
    texts = tuple(policy.text for policy in revisions.policies.values())
    total = make_tally(candidate, revisions.policies.values())
    done = 0
    report(0, span)
    with _players(count, database, url, candidate, revisions, texts) as play:
        for part, tally in play(_parts(window)):
            merge(total, tally)
            done += part.end - part.first
            report(done, span)
    return Simulation(candidate, revisions, window, total, _note(candidate, revisions, total))


Play = Callable[[Iterator[Window]], Iterator[tuple[Window, Tally]]]


@contextmanager
def _players(
    count: int, database: Database, url: str, candidate: Policy, revisions: Revisions, texts: tuple[str, ...]
) -> Generator[Play]:
    if count == 1:
        player = Player(candidate, revisions.policies)
        yield lambda parts: ((part, player.play(read_rows(database, part))) for part in parts)
        return
    context = multiprocessing.get_context("spawn")
    # Spawned, not forked: a forked child would share the parent's database connections.
    pool = ProcessPoolExecutor(count, context, _start_worker, (url, candidate.text, texts))
    try:
        yield lambda parts: _play_together(pool, parts, count)
    except BrokenProcessPool as broken:
        raise UnavailableError("A process of the simulation ended before its time; perhaps memory ran out.") from broken
    finally:
        pool.shutdown(cancel_futures=True)


def _play_together(pool: ProcessPoolExecutor, parts: Iterator[Window], count: int) -> Iterator[tuple[Window, Tally]]:
    running: dict[Future[Tally], Window] = {}
    for part in parts:
        running[pool.submit(_play_part, part)] = part
        if len(running) >= count * 2:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    for future, part in running.items():
        yield part, future.result()


class _Worker(msgspec.Struct):
    database: Database
    player: Player


_worker: list[_Worker] = []


def _start_worker(url: str, candidate: str, texts: tuple[str, ...]) -> None:
    policies = [parse_policy(text, "a stored revision") for text in texts]
    player = Player(parse_policy(candidate, "candidate"), {policy.id: policy for policy in policies})
    _worker[:] = [_Worker(open_database(url), player)]


def _play_part(part: Window) -> Tally:
    worker = _worker[0]
    return worker.player.play(read_rows(worker.database, part))


def _parts(window: Window) -> Iterator[Window]:
    for start in range(window.first, window.end, PART):
        yield window._replace(first=start, end=min(start + PART, window.end))


def _note(candidate: Policy, revisions: Revisions, tally: Tally) -> list[str]:
    notes: list[str] = []
    for name, why in revisions.unreadable.items():
        notes.append(f"The stored text of {name} cannot be replayed: {why}.")
    if tally.unknown:
        count = sum(tally.unknown.values())
        notes.append(
            f"{count} decisions are of {len(tally.unknown)} revisions whose text is not at hand; they are compared "
            "with the candidate as recorded, and could not be checked."
        )
    lower = [
        name
        for name, spec in candidate.signals.items()
        if any(
            name in policy.signals and policy.signals[name].min_level > spec.min_level
            for policy in revisions.policies.values()
        )
    ]
    if lower:
        notes.append(
            f"The candidate counts lower levels of {', '.join(lower)} than recorded revisions did; levels below their "
            "min_level are not in the records, so the candidate is shown without them."
        )
    if tally.undeclared:
        names = ", ".join(tally.undeclared)
        notes.append(f"The candidate does not declare {names}; it is shown deciding without.")
    if tally.cut:
        notes.append(f"{tally.cut} records were too long to be kept whole and could not be checked.")
    if tally.unreadable:
        notes.append(f"{tally.unreadable} records are no decision of a form that this program knows.")
    return notes


def _ignore(done: int, span: int) -> None:
    """Report to nobody."""
