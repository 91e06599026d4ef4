"""Work that would hold the event loop for long: done on a thread, a few pieces at a time.

A call of 10 MB takes a second and more to be read and judged; until it is, every other call of the process would wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar, TypeVarTuple

Result = TypeVar("Result")
Args = TypeVarTuple("Args")

HEAVY_BYTES: Final = 65_536
"""From here on work takes milliseconds, and a thread is worth its cost."""

# More would only take the interpreter's lock from the event loop more often.
_MOST_AT_ONCE: Final = 2


class HeavyWork:
    """Runs work on the event loop where it is small, and else on a thread. One for each gateway."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(_MOST_AT_ONCE)

    async def run(self, size_bytes: int, work: Callable[[*Args], Result], *args: *Args) -> Result:
        """Do some work and return its result.

        Work on a thread goes on where its caller is cancelled, and keeps its place until it is done.

        Args:
            size_bytes: how much it reads.
            work: it, and what it reads, is nobody else's meanwhile.

        Raises:
            Exception: what the work raises.
        """
        if size_bytes < HEAVY_BYTES:
            return work(*args)
        await self._places.acquire()
        try:
            future = asyncio.get_running_loop().run_in_executor(None, work, *args)
        except BaseException:
            self._places.release()
            raise
        future.add_done_callback(self._leave)
        return await asyncio.shield(future)

    def _leave(self, future: asyncio.Future[Result]) -> None:
        self._places.release()
        if not future.cancelled():
            future.exception()  # seen here, or nobody would have seen it where the caller has left
