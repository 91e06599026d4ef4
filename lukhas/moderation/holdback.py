"""The streaming guard: releases text as it comes, and never a character of what may not pass.

What it decides is what a scan of the whole text would decide, however the text is cut into pieces. Each rule goes
through the text by itself, from match to match. At its first place that what comes can still decide, it waits: nothing
from there on is released before it knows. See docs/explanation/streaming.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from lukhas.moderation.rule import Finding
from lukhas.moderation.stream_plan import SearchTimeout, StreamPlan, Watch

__all__ = ["Holdback", "StreamPlan"]


class _Match(NamedTuple):
    """A sure match, in characters of the whole run; ordered as a scan's findings are."""

    start: int
    end: int
    number: int
    is_told: bool = False


class _State(NamedTuple):
    """All that a step changes.

    Attributes:
        held: what is kept of the run: what is not released yet, and a little before it.
        base: where `held` begins in the run.
        released: up to where the run is decided.
        alive: by rule, the place that it cannot decide yet, and how long the run must be to look there again.
        pending: sure matches of withholding rules in text that is not decided yet, in order.
        notes: sure matches of other rules in such text.
    """

    held: str
    base: int
    released: int
    alive: dict[int, tuple[int, int]]
    pending: list[_Match]
    notes: list[_Match]


class Holdback:
    """Guards one run of text.

    Satisfies `lukhas.openai.call.TextChannel`. What it keeps is bounded by the longest match and look-ahead of its
    rules, however long the run is.
    """

    __slots__ = ("_blocked", "_is_over", "_on_finding", "_plan", "_reports", "_state")

    def __init__(self, plan: StreamPlan, on_finding: Callable[[Finding], None]) -> None:
        """Open a run.

        Args:
            plan: the rules.
            on_finding: takes each match once it is sure and its text is decided; what blocks comes last.
        """
        self._plan = plan
        self._on_finding = on_finding
        self._blocked = False
        self._is_over = False
        alive = {number: (0, plan.watches[number].next_look(0, 0)) for number in plan.unprobed}
        self._state = _State("", 0, 0, alive, [], [])
        self._reports: list[Finding] = []

    @property
    def is_blocked(self) -> bool:
        """Whether a match has ended the run. A search that took too long ends it too."""
        return self._blocked

    def feed(self, text: str) -> str:
        """Take the next piece and return what may be released now; nothing any more once it is blocked."""
        released: list[str] = []
        place = 0
        try:
            while place < len(text) and not self._is_over:
                size = self._room()
                released.append(self._take(text[place : place + size]))
                place += size
        except SearchTimeout as slow:
            self._fail(slow.watch)
        self._report()
        return "".join(released)

    def finish(self) -> str:
        """Say that the run is over and return the rest that may be released."""
        if self._is_over:
            return ""
        self._is_over = True
        held, base, released, alive, pending, notes = self._state
        text = ""
        try:
            for number, (start, _) in alive.items():
                watch = self._plan.watches[number]
                found = pending if watch.withholds else notes
                found += (_Match(base + a, base + b, number) for a, b in watch.find_all(held, start - base))
            text = self._settle(_State(held, base, released, {}, sorted(pending), notes))
        except SearchTimeout as slow:
            self._fail(slow.watch)
        self._report()
        return text

    def _report(self) -> None:
        reports, self._reports = self._reports, []
        for finding in reports:
            self._on_finding(finding)

    def _fail(self, watch: Watch) -> None:
        """Block, since a rule could not be decided."""
        state = self._state
        rule = watch.compiled.rule
        end = state.base + len(state.held)
        self._reports.append(Finding(rule.id, rule.category, rule.severity, "block", state.released, end))
        self._blocked = self._is_over = True
        self._state = _State("", end, end, {}, [], [])

    def _room(self) -> int:
        """Return how much may be taken until a rule reaches its limit."""
        state, watches = self._state, self._plan.watches
        room = self._plan.piece_chars
        for number, (start, _) in state.alive.items():
            if watches[number].is_open:
                room = min(room, start + watches[number].limit_chars - state.base - len(state.held))
        return max(1, room)

    def _take(self, piece: str) -> str:
        """Take a piece; of one that blocks only as much as that needs, so that cuts make no difference."""
        before, reports = self._state, len(self._reports)
        released = self._step(piece)
        if not self._blocked or not self._plan.notes:
            return released
        few, many = 1, len(piece)
        while few < many:
            middle = (few + many) // 2
            self._restore(before, reports)
            self._step(piece[:middle])
            few, many = (few, middle) if self._blocked else (middle + 1, many)
        self._restore(before, reports)
        return self._step(piece[:few])

    def _restore(self, state: _State, reports: int) -> None:
        self._state = state
        del self._reports[reports:]
        self._blocked = self._is_over = False

    def _step(self, piece: str) -> str:
        held, base, released, alive, pending, notes = self._state
        text = held + piece
        due = self._find_due(text, len(held), alive)
        if not due and not alive and not pending and not notes:
            # What was held before was context alone.
            low = max(0, len(text) - self._plan.context_chars)
            self._state = _State(text[low:], base + low, base + len(text), alive, pending, notes)
            return piece
        state = _State(text, base, released, dict(alive), list(pending), list(notes))
        watches = self._plan.watches
        for number, (start, next_look) in alive.items():
            if next_look <= base + len(text):
                self._follow(watches[number], state, start - base)
        for number, place in due.items():
            self._follow(watches[number], state, place)
        if len(state.pending) > 1:
            state.pending.sort()
        return self._settle(state)

    def _find_due(self, text: str, place: int, alive: dict[int, tuple[int, int]]) -> dict[int, int]:
        """Return the rules that may begin in what has come, each with the first place; those alive are left out."""
        due: dict[int, int] = {}
        starts = self._plan.starts
        known = starts.known.get
        for at in range(place, len(text)):
            if known(text[at - 1 : at + 1]) == () and at:
                continue
            for number in starts.find(text, at):
                if number not in due and number not in alive:
                    due[number] = at
        return due

    def _follow(self, watch: Watch, state: _State, place: int) -> None:
        """Take one rule from a place on from match to match, to where it must wait or to the end."""
        number, text, base = watch.number, state.held, state.base
        state.alive.pop(number, None)
        size = len(text)
        while watch.probe is not None:
            found = watch.search(watch.probe.pattern, text, place)
            start = size if found is None else found.start()
            if found is None or start >= size:
                return
            end = found.start(watch.probe.end_group)
            if end < 0:
                if size - start < watch.limit_chars:
                    state.alive[number] = (base + start, watch.next_look(base + start, base + size))
                    return
                if not watch.withholds:
                    place = start
                    break
                # Whether it is a match cannot be waited for: it counts as one. Later places are looked at all the same.
                end = start + watch.longest_chars
                is_told = any(match.number == number and match.end > base + start for match in state.pending)
                state.pending.append(_Match(base + start, base + end, number, is_told))
                place = start + 1
            elif end == start:
                place = start + 1
            else:
                if watch.compiled.passes(text[start:end]):
                    found_in = state.pending if watch.withholds else state.notes
                    found_in.append(_Match(base + start, base + watch.cut(start, end), number))
                place = end
        # A rule that withholds nothing has waited long enough, and is judged on what there is.
        state.notes.extend(_Match(base + a, base + b, number) for a, b in watch.find_all(text, place))
        if watch.probe is None:
            state.alive[number] = (base + size, watch.next_look(base + size, base + size))

    def _settle(self, state: _State) -> str:
        """Release what is decided, and keep the rest."""
        text, base, released, alive, pending, notes = state
        watches = self._plan.watches
        size = base + len(text)
        frontier = block_frontier = size
        for number, (start, _) in alive.items():
            if watches[number].withholds and start < frontier:
                frontier = start
            if watches[number].blocks and start < block_frontier:
                block_frontier = start
        block = next((match for match in pending if watches[match.number].blocks), None)
        limit = frontier
        if block is not None:
            limit = min(frontier, block.start)
            if frontier >= block.start and block_frontier > block.start:
                self._blocked = self._is_over = True
                self._finish_notes(state, block.start)
        parts: list[str] = []
        told: list[_Match] = []
        while pending and pending[0].start < limit:
            start, end = pending[0].start, pending[0].end
            count = 1
            while count < len(pending) and pending[count].start < end:
                end = max(end, pending[count].end)
                count += 1
            if end > limit:
                if not self._blocked:
                    limit = start
                    break
                end = limit
            category = watches[pending[0].number].compiled.rule.category
            parts += (text[released - base : start - base], f"[redacted:{category}]")
            told += (match for match in pending[:count] if not match.is_told and match.start < limit)
            del pending[:count]
            released = end
        parts.append(text[released - base : limit - base])
        released = limit
        if self._blocked and block is not None:
            pending.clear()
        told += (match for match in notes if match.end <= released)
        told.sort()
        if self._blocked and block is not None:
            told.append(block)
        self._reports += map(self._to_finding, told)
        low = max(0, min((released, *(start for start, _ in alive.values()))) - base - self._plan.context_chars)
        notes = [match for match in notes if match.end > released]
        self._state = _State(text[low:], base + low, released, alive, pending, notes)
        return "".join(parts)

    def _finish_notes(self, state: _State, end: int) -> None:
        """Let rules that only report judge the text as it ends: with what blocks it."""
        watches = self._plan.watches
        for number, (start, _) in list(state.alive.items()):
            watch = watches[number]
            if watch.withholds:
                continue
            if watch.probe is not None:
                self._follow(watch, state, start - state.base)
            left = state.alive.pop(number, None)
            if left is not None:
                text = state.held[: end - state.base]
                state.notes.extend(
                    _Match(state.base + a, state.base + b, number)
                    for a, b in watch.find_all(text, max(0, left[0] - state.base))
                )

    def _to_finding(self, match: _Match) -> Finding:
        compiled = self._plan.watches[match.number].compiled
        rule = compiled.rule
        return Finding(rule.id, rule.category, rule.severity, compiled.action, match.start, match.end)
