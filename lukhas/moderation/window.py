"""Streams under a moderator that judges whole texts: what is released was in a window that passed."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from lukhas.errors import ModerationUnavailable
from lukhas.moderation.moderator import Moderator, Verdict

OVERLAP_CHARS: Final = 200

_Waiting = tuple[Sequence[bytes], str, int]


class StreamWindow:
    """Holds a stream's events until the moderator has passed their text.

    Texts are asked in windows, each after the last OVERLAP_CHARS characters of the one before. Texts of different runs
    (another choice, reasoning beside the answer) are asked side by side, each as a text of its own. While one `drain`
    waits, more may be pushed; what was pushed meanwhile waits for the next.

    Args:
        window_chars: how many unchecked characters make a question worth asking.
        whole: hold everything until the end, and ask once.
    """

    def __init__(self, moderator: Moderator, *, window_chars: int, whole: bool) -> None:
        self._moderator = moderator
        self._window_chars = window_chars
        self._whole = whole
        self._waiting: deque[_Waiting] = deque()
        self._unchecked_chars = 0
        self._tails: dict[int, str] = {}
        self._verdict: Verdict | None = None
        self._turn = asyncio.Lock()

    @property
    def is_blocked(self) -> bool:
        """Whether a window was flagged: nothing is returned any more."""
        return self._verdict is not None

    def push(self, events: Sequence[bytes], text: str, run: int = 0) -> None:
        """Take the next events of the stream with the text of one run that they release.

        Args:
            events: in order; may be empty where the text comes out with later ones.
            text: what a reader of the events would see; empty for events without text.
            run: which run of text it goes on with.
        """
        if self._verdict is None and (events or text):
            self._waiting.append((events, text, run))
            self._unchecked_chars += len(text)

    def ready(self) -> bool:
        """Return whether `drain(False)` has something to ask or to return."""
        if self._whole or self._verdict is not None or not self._waiting:
            return False
        return self._unchecked_chars >= self._window_chars or not self._waiting[0][1]

    async def drain(self, final: bool) -> tuple[list[bytes], Verdict | None]:
        """Ask about what waits where a window is full, and return the events that may go out.

        Args:
            final: the stream is over: ask about all that is left.

        Returns:
            The events, and None; or no event and the verdict on a window that was flagged, now and ever after.

        Raises:
            ModerationUnavailable: nothing is released; the same is asked again by the next `drain`.
        """
        async with self._turn:
            if self._verdict is not None:
                return [], self._verdict
            if self._whole and not final:
                return [], None
            if final or self._unchecked_chars >= self._window_chars:
                return await self._ask()
            return self._release_free(), None

    async def release_unchecked(self) -> list[bytes]:
        """Return every event that waits, unchecked: for a moderator that is not required and has failed."""
        async with self._turn:
            if self._verdict is not None:
                return []
            self._tails |= {run: text[-OVERLAP_CHARS:] for run, text in self._join_texts().items()}
            return self._release(len(self._waiting))

    async def _ask(self) -> tuple[list[bytes], Verdict | None]:
        count = len(self._waiting)
        asked = self._join_texts()
        if asked:
            verdicts = await self._moderator.check(list(asked.values()), "output")
            if len(verdicts) != len(asked):
                raise ModerationUnavailable("The moderator did not judge every text.")
            flagged = [verdict for verdict in verdicts if verdict.is_flagged]
            if flagged:
                self._verdict = next((one for one in flagged if one.severity == "high"), flagged[0])
                self._waiting.clear()
                return [], self._verdict
            self._tails |= {run: text[-OVERLAP_CHARS:] for run, text in asked.items()}
        return self._release(count), None

    def _join_texts(self) -> dict[int, str]:
        texts: dict[int, list[str]] = {}
        for _, text, run in self._waiting:
            if text:
                texts.setdefault(run, [self._tails.get(run, "")]).append(text)
        return {run: "".join(parts) for run, parts in texts.items()}

    def _release_free(self) -> list[bytes]:
        free = 0
        for _, text, _ in self._waiting:
            if text:
                break
            free += 1
        return self._release(free)

    def _release(self, count: int) -> list[bytes]:
        events: list[bytes] = []
        for _ in range(count):
            part, text, _ = self._waiting.popleft()
            events += part
            self._unchecked_chars -= len(text)
        return events
