"""One run of text in a Responses stream: what upstream wrote of it, and what was released."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

import msgspec

from lukhas.openai.call import AnswerGuard, TextChannel, TextKind
from lukhas.openai.response_guard import clean_logprobs, read_tokens
from lukhas.openai.response_item import Item


class RunForm(msgspec.Struct, frozen=True):
    """How the events of one kind of run are called.

    Attributes:
        place: the item's field that holds the parts: 'content' or 'summary'.
        index: the events' field for the part's place in it.
        part: the type of the part.
    """

    kind: TextKind
    delta: str
    done: str
    field: str
    place: str
    index: str
    part: str


FORMS: Final = (
    RunForm(
        "text", "response.output_text.delta", "response.output_text.done", "text", "content", "content_index",
        "output_text",
    ),
    RunForm(
        "refusal", "response.refusal.delta", "response.refusal.done", "refusal", "content", "content_index", "refusal"
    ),
    RunForm(
        "reasoning", "response.reasoning_text.delta", "response.reasoning_text.done", "text", "content",
        "content_index", "reasoning_text",
    ),
    RunForm(
        "reasoning", "response.reasoning_summary_text.delta", "response.reasoning_summary_text.done", "text",
        "summary", "summary_index", "summary_text",
    ),
)  # fmt: skip
DELTAS: Final = {form.delta: form for form in FORMS}
DONES: Final = {form.done: form for form in FORMS}
PARTS: Final = {form.part: form for form in FORMS}


class Run:
    """The text of one part of an item, as it comes.

    Attributes:
        upstream: the pieces as upstream wrote them.
        released: the pieces that the caller has got.
        logprobs: what goes with them; None until upstream sends some.
        item_id: how upstream's events name the item, once that was seen to be an id.
    """

    __slots__ = ("_channel", "_guard", "form", "is_finished", "item_id", "logprobs", "released", "upstream")

    def __init__(self, form: RunForm, guard: AnswerGuard) -> None:
        self.form = form
        self.upstream: list[str] = []
        self.released: list[str] = []
        self.logprobs: LogprobRun | None = None
        self.is_finished = False
        self.item_id: str | None = None
        self._guard = guard
        self._channel: TextChannel = guard.open(form.kind)

    @property
    def is_blocked(self) -> bool:
        """Whether it holds something that may not pass."""
        return self._channel.is_blocked or (self.logprobs is not None and self.logprobs.is_blocked)

    @property
    def text(self) -> str:
        """What was released so far."""
        return "".join(self.released)

    def feed(self, text: str) -> str:
        """Take upstream's next piece and return what may be released now."""
        self.upstream.append(text)
        out = self._channel.feed(text)
        if out:
            self.released.append(out)
        return out

    def feed_logprobs(self, entries: list[Any]) -> list[Any]:
        """Take the logprobs of a piece and return those that may be released now."""
        if self.logprobs is None:
            self.logprobs = LogprobRun(self._guard)
        return self.logprobs.feed(entries)

    def finish(self) -> tuple[str, list[Any]]:
        """Say that the run is over and return the rest that may be released, with its logprobs."""
        if self.is_finished:
            return "", []
        self.is_finished = True
        out = self._channel.finish()
        if out:
            self.released.append(out)
        return out, [] if self.logprobs is None else self.logprobs.finish()

    def settle(self, upstream: str, released: str) -> None:
        """Take a whole text that was judged by itself in the place of the pieces."""
        self.is_finished = True
        self.upstream, self.released = [upstream], [released]

    def matches(self, text: str) -> bool:
        """Say whether a text is the one that upstream's pieces add up to."""
        return "".join(self.upstream) == text


class LogprobRun:
    """Logprobs as they come: each entry is held until all its tokens have passed, the alternatives' too.

    Once a guard changes anything in a run, nothing more of the run is released: half a token says too much.
    """

    __slots__ = ("_channels", "_fed", "_guard", "_passed", "_waiting", "is_blocked", "is_dropped", "released")

    def __init__(self, guard: AnswerGuard) -> None:
        self._guard = guard
        self._channels: list[TextChannel] = []
        self._fed: list[str] = []
        self._passed: list[int] = []
        self._waiting: deque[tuple[Any, list[int]]] = deque()
        self.released: list[Any] = []
        self.is_dropped = False
        self.is_blocked = False

    def feed(self, entries: list[Any]) -> list[Any]:
        """Take the next entries and return those that may be released now."""
        if self.is_dropped:
            return []
        entries = clean_logprobs(entries)
        ends: list[list[int]] = []
        totals = [passed + len(held) for passed, held in zip(self._passed, self._fed, strict=True)]
        for entry in entries:
            for rank, reading in enumerate(read_tokens([entry])):
                if rank == len(totals):
                    totals.append(0)
                totals[rank] += len(reading[0]) if reading else 0
            ends.append(list(totals))
        for rank, reading in enumerate(read_tokens(entries)):
            if rank == len(self._channels):
                self._channels.append(self._guard.open("logprobs"))
                self._fed.append("")
                self._passed.append(0)
            self._advance(rank, "".join(reading), is_last=False)
        self._waiting += zip(entries, ends, strict=True)
        return self._take()

    def finish(self) -> list[Any]:
        """Say that the run is over and return the entries that may still be released."""
        if not self.is_dropped:
            for rank in range(len(self._channels)):
                self._advance(rank, "", is_last=True)
        return self._take()

    def _advance(self, rank: int, text: str, *, is_last: bool) -> None:
        channel = self._channels[rank]
        out = channel.finish() if is_last else channel.feed(text) if text else ""
        held = self._fed[rank] + text
        if channel.is_blocked or not held.startswith(out):
            self.is_dropped = True
            self.is_blocked = self.is_blocked or channel.is_blocked
            return
        self._fed[rank] = held[len(out) :]
        self._passed[rank] += len(out)

    def _take(self) -> list[Any]:
        if self.is_dropped:
            self._waiting.clear()
            self.released = []
            return []
        passed = self._passed
        out: list[Any] = []
        while self._waiting:
            entry, ends = self._waiting[0]
            if any(end > done for end, done in zip(ends, passed, strict=False)):
                break
            out.append(entry)
            self._waiting.popleft()
        self.released += out
        return out


def index_of(event: Item, form: RunForm) -> int:
    """Return which part of its item an event belongs to; the first where upstream does not say."""
    index: Any = event.get(form.index)
    return index if isinstance(index, int) else 0
