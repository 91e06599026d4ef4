"""Scanning chunks of an export in processes of their own, one for each core.

A worker is this module run by the same interpreter; jobs and answers are lines of JSON on its pipes.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

import msgspec

from lukhas.audit.verify.chunk import Chunk, scan
from lukhas.audit.verify.export_file import ExportFile
from lukhas.errors import StorageUnavailable

_AHEAD: Final = 3
_START: Final = "import sys; sys.path[:] = {path!r}; from lukhas.audit.verify.worker import serve; serve()"


class Task(msgspec.Struct):
    """What all jobs of a worker have in common."""

    path: str
    stops: list[int]
    asked: list[int]


class Job(msgspec.Struct):
    """One chunk: from the begin of a line up to the begin of another."""

    begin: int
    end: int


def count_cores() -> int:
    """Return how many cores this process may use."""
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def scan_job(file: ExportFile, task: Task, job: Job) -> Chunk:
    """Scan one chunk in this process."""
    return scan(file.read_blocks(job.begin, job.end), task.stops, task.asked)


def scan_all(task: Task, jobs: Sequence[Job], processes: int) -> Iterator[tuple[Job, Chunk]]:
    """Yield every job with its chunk, in order; with one process, by this one."""
    if processes <= 1 or len(jobs) <= 1:
        file = ExportFile(Path(task.path))
        for job in jobs:
            yield job, scan_job(file, task, job)
        return
    with contextlib.ExitStack() as stack:
        free: SimpleQueue[_Worker] = SimpleQueue()
        for _ in range(min(processes, len(jobs))):
            worker = _Worker(task)
            stack.callback(worker.close)
            free.put(worker)

        def run(job: Job) -> Chunk:
            worker = free.get()
            try:
                return worker.ask(job)
            finally:
                free.put(worker)

        pool = ThreadPoolExecutor(processes)
        stack.callback(pool.shutdown, cancel_futures=True)
        waiting: deque[tuple[Job, Future[Chunk]]] = deque()
        left = iter(jobs)
        for job in left:
            waiting.append((job, pool.submit(run, job)))
            # Only a few ahead, so that answers do not pile up.
            if len(waiting) >= processes * _AHEAD:
                done, future = waiting.popleft()
                yield done, future.result()
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()


class _Worker:
    def __init__(self, task: Task) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter with this module
            [sys.executable, "-c", _START.format(path=sys.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._decoder = msgspec.json.Decoder(Chunk)
        self._send(task)

    def ask(self, job: Job) -> Chunk:
        self._send(job)
        assert self._process.stdout is not None
        answer = self._process.stdout.readline()
        if not answer:
            raise StorageUnavailable("A process of the verifier has ended.", hint="Try again with --processes 1.")
        return self._decoder.decode(answer)

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.terminate()
        self._process.wait()

    def _send(self, message: Task | Job) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        self._process.stdin.flush()


def serve() -> None:
    """Scan what comes on standard input until it ends."""
    with contextlib.suppress(KeyboardInterrupt, BrokenPipeError):
        first = sys.stdin.buffer.readline()
        task = msgspec.json.decode(first, type=Task)
        file = ExportFile(Path(task.path))
        for line in sys.stdin.buffer:
            chunk = scan_job(file, task, msgspec.json.decode(line, type=Job))
            sys.stdout.buffer.write(msgspec.json.encode(chunk) + b"\n")
            sys.stdout.buffer.flush()
