"""Rules that only report: they hold nothing back, so they look at a stream's text in batches.

Most have short matches. They are looked for where what they need stands, in the part of the text that is settled: so
far from its end that nothing which comes changes a match that begins there. The few others are followed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from lukhas.moderation.scan import Prefilter, Stretch, make_windows
from lukhas.moderation.watch import Alive, Match, SearchTimeout, Watch, Watches

# Wherever the text was cut, batches end at multiples of this, so that cuts make no difference.
_BATCH_CHARS: Final = 2048
# Much that comes at once is looked at in parts of so many characters.
_MAX_LOOK_CHARS: Final = 8 * _BATCH_CHARS


class Noted:
    """The rules of a profile that only report; shared by all its runs.

    Attributes:
        items: all of them, by number.
        late: those whose matches are short enough to be looked for afterwards.
        always: those of `late` that need nothing that could be looked for.
        prefilter: says which others can match.
        followed: the rest.
        reach_chars: how much text from its start on decides any late match.
        behind_chars: how much text before a place must be kept for them.
    """

    __slots__ = ("always", "behind_chars", "followed", "items", "late", "prefilter", "reach_chars")

    def __init__(self, watches: Sequence[Watch]) -> None:
        self.items = {watch.number: watch for watch in watches}
        self.late = {watch.number: watch for watch in watches if watch.is_late}
        self.always = tuple(number for number, watch in self.late.items() if not watch.clauses)
        self.prefilter = Prefilter(
            {number: (watch.clauses, watch.compiled.span_chars) for number, watch in self.late.items() if watch.clauses}
        )
        self.followed = Watches([watch for watch in watches if not watch.is_late])
        self.reach_chars = max((watch.reach_chars for watch in self.late.values()), default=0)
        self.behind_chars = max((watch.compiled.behind_chars or 0 for watch in self.late.values()), default=0)


class Notes:
    """Follows the rules that only report through one run. Places are in characters of the run."""

    __slots__ = (
        *("_alive", "_base", "_done", "_held", "_late_base", "_late_held", "_noted", "_settled", "_waiting"),
        "_waiting_chars",
    )

    def __init__(self, noted: Noted) -> None:
        self._noted = noted
        self._held = ""
        self._base = 0
        self._alive: Alive = noted.followed.alive
        self._late_held = ""
        self._late_base = 0
        # Up to where all late matches that begin there are known; by rule, up to where its last one went.
        self._settled = 0
        self._done: dict[int, int] = {}
        self._waiting: list[str] = []
        self._waiting_chars = 0

    def take(self, text: str) -> list[Match]:
        """Take the next text of the run and return matches that are sure by now.

        Raises:
            SearchTimeout: a rule took too long.
        """
        self._waiting.append(text)
        self._waiting_chars += len(text)
        if self._waiting_chars < _BATCH_CHARS:
            return []
        waiting = "".join(self._waiting)
        whole = len(waiting) - len(waiting) % _BATCH_CHARS
        found: list[Match] = []
        for place in range(0, whole, _BATCH_CHARS):
            found += self._follow(waiting[place : place + _BATCH_CHARS])
        for place in range(0, whole, _MAX_LOOK_CHARS):
            found += self._look(waiting[place : min(whole, place + _MAX_LOOK_CHARS)], is_last=False)
        self._waiting = [waiting[whole:]]
        self._waiting_chars = len(waiting) - whole
        return found

    def finish(self, text: str) -> list[Match]:
        """Take the last text of the run and return all matches that are left.

        Raises:
            SearchTimeout: a rule took too long.
        """
        found = self.take(text)
        last = "".join(self._waiting)
        found += self._look(last, is_last=True)
        if self._noted.followed.items:
            found += self._follow(last)
            left = self._noted.followed.finish(self._held, self._alive)
            found += [match.shift(self._base) for match in left]
        return found

    def _follow(self, batch: str) -> list[Match]:
        followed = self._noted.followed
        if not followed.items:
            return []
        text = self._held + batch
        alive, found, _ = followed.advance(text, len(self._held), self._alive)
        matches = [match.shift(self._base) for match in found]
        low = min((start for start, _ in alive.values()), default=len(text)) - followed.context_chars
        low = max(0, low)
        self._held, self._base = text[low:], self._base + low
        self._alive = {number: (start - low, told) for number, (start, told) in alive.items()}
        return matches

    def _look(self, batch: str, *, is_last: bool) -> list[Match]:
        noted = self._noted
        text, base = self._late_held + batch, self._late_base
        end = base + len(text)
        settled = end if is_last else max(self._settled, end - noted.reach_chars)
        near = noted.prefilter.find(text) or {}
        found: list[Match] = []
        for number in noted.always:
            self._find(number, text, ((0, len(text)),), settled, found)
        for number, stretches in near.items():
            windows: Iterable[Stretch] = ((0, len(text)),)
            if stretches:
                windows = make_windows(stretches, noted.late[number].compiled.span_chars, len(text))
            self._find(number, text, windows, settled, found)
        low = max(0, settled - noted.behind_chars - base)
        self._late_held, self._late_base, self._settled = text[low:], base + low, settled
        return found

    def _find(self, number: int, text: str, windows: Iterable[Stretch], settled: int, found: list[Match]) -> None:
        """Collect a rule's matches that begin in windows of the text, and before the place up to which it settles."""
        watch, base = self._noted.late[number], self._late_base
        compiled = watch.compiled
        done = max(self._settled, self._done.get(number, 0))
        try:
            for low, high in windows:
                seen = min(len(text), high + watch.reach_chars)
                for match in compiled.pattern.finditer(
                    text, max(low, done - base), seen, concurrent=False, timeout=watch.timeout_s
                ):
                    start, end = match.span()
                    if start > high or base + start >= settled:
                        break
                    done = base + end
                    if end > start and compiled.passes(match):
                        found.append(Match(base + start, done, number))
        except TimeoutError:
            raise SearchTimeout(watch) from None
        self._done[number] = done
