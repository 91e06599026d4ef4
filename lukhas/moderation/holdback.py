"""The streaming guard: releases text as it comes, and never a character of what may not pass.

What it decides is what a scan of the whole text would decide, however the text is cut into pieces. Each rule goes
through the text by itself, from match to match. At its first place that what comes can still decide, it waits: nothing
from there on is released before it knows. See docs/explanation/streaming.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from lukhas.moderation.note import Notes
from lukhas.moderation.rule import Finding
from lukhas.moderation.stream_plan import Node, StreamPlan
from lukhas.moderation.watch import FAR_CHARS, Alive, Match, SearchTimeout, Watch

__all__ = ["Holdback", "StreamPlan"]

# So many pieces are kept as they came before they are put together.
_MAX_PAST: Final = 128


class Holdback:
    """Guards one run of text.

    Satisfies `lukhas.openai.call.TextChannel`. What it keeps is bounded by the longest match and look-ahead of its
    rules, however long the run is.
    """

    __slots__ = ("_base", "_blocked", "_is_over", "_node", "_notes", "_on_finding", "_past", "_pending", "_plan")

    def __init__(self, plan: StreamPlan, on_finding: Callable[[Finding], None]) -> None:
        """Open a run.

        Args:
            plan: the rules.
            on_finding: takes each match once it is sure, its places counted from the start of the run. What blocks
                comes last; what only reports may come as late as `finish`.
        """
        self._plan = plan
        self._on_finding = on_finding
        self._blocked = False
        self._is_over = False
        self._notes = Notes(plan.noted) if plan.noted.items else None
        # What is kept of the run; where that begins in the run; sure matches in what is not released yet.
        self._node = plan.root
        self._base = 0
        self._pending: list[Match] = []
        # The last pieces, for rules that look back further than what is kept.
        self._past: list[str] = []

    @property
    def is_blocked(self) -> bool:
        """Whether a match has ended the run. A search that took too long ends it too."""
        return self._blocked

    def feed(self, text: str) -> str:
        """Take the next piece and return what may be released now; nothing any more once it is blocked."""
        if self._is_over or not text:
            return ""
        plan = self._plan
        node = self._node
        reached = None
        if node.steps is not None and not self._pending:
            reached = node.steps.get(text)
            if reached is None and not node.size and not node.alive:
                reached = plan.calm.get(text)
        if reached is not None:
            # This piece was seen in this state before.
            held = node.held
            size = len(held) + len(text)
            released = (held + text)[len(held) - node.size : size - reached.size]
            self._base += size - len(reached.held)
            self._node = reached
            past = self._past
            past.append(text)
            if len(past) > _MAX_PAST:
                self._shorten(text)
            return self._note(released) if released and self._notes is not None else released
        if not plan.withholds:
            self._base += len(text)
            return self._note(text)
        if len(text) <= plan.guarded.piece_chars and not plan.guarded.is_open:
            return self._guard(text)
        parts: list[str] = []
        place = 0
        while place < len(text) and not self._is_over:
            room = plan.guarded.room(len(self._node.held), self._node.alive)
            parts.append(self._guard(text[place : place + room]))
            place += room
        return "".join(parts)

    def finish(self) -> str:
        """Say that the run is over and return the rest that may be released."""
        if self._is_over:
            return ""
        node = self._node
        try:
            found = self._plan.guarded.finish(node.held, node.alive, self._past)
        except SearchTimeout as slow:
            return self._fail(slow.watch)
        self._pending += [match.shift(self._base) for match in found]
        released = self._settle(node.held, node.size, {}, None)
        if self._is_over:
            return released
        return released if self._end("", self._base + len(self._node.held), None) else ""

    def _guard(self, piece: str) -> str:
        node = self._node
        text = node.held + piece
        self._past.append(piece)
        if len(self._past) > _MAX_PAST:
            self._shorten(piece)
        try:
            advance = self._plan.guarded.advance if len(piece) < FAR_CHARS else self._plan.guarded.advance_far
            alive, found, is_far = advance(text, len(node.held), node.alive, self._past)
        except SearchTimeout as slow:
            return self._fail(slow.watch)
        if not (alive or found or self._pending):
            return self._release_all(text, node, None if is_far else piece)
        is_plain = not (found or is_far or self._pending)
        self._pending += [match.shift(self._base) for match in found]
        return self._settle(text, node.size + len(piece), alive, piece if is_plain else None)

    def _release_all(self, text: str, node: Node, piece: str | None) -> str:
        """Release all that there is, where nothing is found and nothing must be waited for."""
        released = text[len(node.held) - node.size :]
        if released and self._notes is not None and not self._note(released):
            return ""
        held = text[-self._plan.guarded.context_chars :]
        self._node = self._plan.make(held, 0, {}) if piece is None else self._plan.reach(node, piece, held, 0, {})
        self._base += len(text) - len(held)
        return released

    def _shorten(self, piece: str) -> None:
        """Keep of the pieces, of which one was the last, what rules may still look at."""
        kept = len(self._node.held) + len(piece) + self._plan.guarded.far_chars
        self._past = ["".join(self._past)[-kept:]]

    def _settle(self, text: str, size: int, alive: Alive, piece: str | None) -> str:
        """Release what is decided, and keep the rest.

        Args:
            text: what is kept, and what has come.
            size: how much of it is not released.
            alive: which rules wait.
            piece: what has come, if no match is sure and none was.
        """
        base, pending, watches = self._base, self._pending, self._plan.guarded.items
        released = base + len(text) - size
        limit = base + min((start for start, _ in alive.values()), default=len(text))
        block: Match | None = None
        shown = text[released - base : limit - base]
        if pending:
            pending.sort()
            block = next((match for match in pending if watches[match.number].blocks), None)
            if block is not None:
                # Not yet, where another rule may block from an earlier place, or from the same as the first in order.
                waits = (base + start for number, (start, _) in alive.items() if watches[number].blocks)
                is_first = limit >= block.start and min(waits, default=limit + 1) > block.start
                limit = min(limit, block.start)
                block = block if is_first else None
            shown, limit = self._redact(text, released, limit, is_cut=block is not None)
        if block is not None:
            self._blocked = True
            return shown if self._end(text[released - base : block.end - base], limit, block) else ""
        if self._notes is not None and limit > released:
            before = self._note(text[released - base : limit - base])
            if not before:
                return ""
        low = max(0, limit - base - self._plan.guarded.context_chars)
        if low:
            alive = {number: (start - low, max(0, told - low)) for number, (start, told) in alive.items()}
        held, left = text[low:], base + len(text) - limit
        if piece is not None:
            self._node = self._plan.reach(self._node, piece, held, left, alive)
        else:
            self._node = self._plan.make(held, left, alive)
        self._base = base + low
        return shown

    def _redact(self, text: str, released: int, limit: int, *, is_cut: bool) -> tuple[str, int]:
        """Return what may be shown up to a limit, and up to where that is: matches that may still grow are held."""
        base, pending = self._base, self._pending
        parts: list[str] = []
        while pending and pending[0].start < limit:
            first, end, count = pending[0], pending[0].end, 1
            while count < len(pending) and pending[count].start < end:
                end = max(end, pending[count].end)
                count += 1
            if end > limit and not is_cut:
                limit = first.start
                break
            parts += (text[released - base : first.start - base], self._replacement(first))
            self._tell(match for match in pending[:count] if match.start < limit and not match.is_told)
            del pending[:count]
            released = min(end, limit)
        parts.append(text[released - base : limit - base])
        return "".join(parts), limit

    def _replacement(self, match: Match) -> str:
        return f"[redacted:{self._plan.guarded.items[match.number].compiled.rule.category}]"

    def _note(self, text: str) -> str:
        """Let the rules that only report see what is released, and return it."""
        if self._notes is not None:
            try:
                found = self._notes.take(text)
                if found:
                    self._tell(found)
            except SearchTimeout as slow:
                return self._fail(slow.watch)
        return text

    def _end(self, text: str, end: int, block: Match | None) -> bool:
        """End the run, and return whether all rules could be decided.

        Args:
            text: what the rules that only report have not seen yet; they see what blocks too, as the text's end.
            end: up to where the run was released.
        """
        self._is_over = True
        if self._notes is not None:
            try:
                self._tell(match for match in self._notes.finish(text) if match.end <= end)
            except SearchTimeout as slow:
                self._fail(slow.watch)
                return False
        if block is not None:
            self._tell((block,))
        self._forget()
        return True

    def _fail(self, watch: Watch) -> str:
        """Block, since a rule could not be decided; nothing more is released."""
        rule = watch.compiled.rule
        end = self._base + len(self._node.held)
        start = end - self._node.size
        self._blocked = self._is_over = True
        self._forget()
        self._on_finding(Finding(rule.id, rule.category, rule.severity, "block", start, end))
        return ""

    def _forget(self) -> None:
        self._node = Node("", 0, {}, None)
        self._pending = []
        self._past = []
        self._notes = None

    def _tell(self, matches: Iterable[Match]) -> None:
        plan = self._plan
        for match in sorted(matches):
            watch = plan.guarded.items.get(match.number) or plan.noted.items[match.number]
            compiled = watch.compiled
            rule = compiled.rule
            self._on_finding(Finding(rule.id, rule.category, rule.severity, compiled.action, match.start, match.end))
