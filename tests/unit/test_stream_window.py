"""Streams under a moderator of whole texts: order, completeness, and nothing that was not in a passing question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import ModerationUnavailable
from lukhas.moderation.moderator import Verdict
from lukhas.moderation.rule import Point
from lukhas.moderation.window import OVERLAP_CHARS, StreamWindow

HARM = "BAD"
FLAGGED = Verdict((("violence", 0.9),))


class WordModerator:
    """Flags every text that holds the word, and remembers what passed."""

    name = "word"

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.asked: list[list[str]] = []
        self.failures_left = 0
        self.answering: asyncio.Event | None = None

    async def check(self, texts: Sequence[str], point: Point) -> Sequence[Verdict]:
        assert point == "output"
        self.asked.append(list(texts))
        if self.answering is not None:
            await self.answering.wait()
        if self.failures_left:
            self.failures_left -= 1
            raise ModerationUnavailable("down")
        self.passed += [text for text in texts if HARM not in text]
        return [FLAGGED if HARM in text else Verdict() for text in texts]

    async def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def moderator() -> WordModerator:
    """Give a moderator that knows one bad word."""
    return WordModerator()


def window_of(moderator: WordModerator, window_chars: int = 10, *, whole: bool = False) -> StreamWindow:
    return StreamWindow(moderator, window_chars=window_chars, whole=whole)


async def test_drain_full_window_is_asked_and_released(moderator: WordModerator) -> None:
    """Below the window's size text waits; with it, one question releases all."""
    window = window_of(moderator)
    window.push([b"1"], "hello")
    assert (window.ready(), await window.drain(False)) == (False, ([], None))
    window.push([b"2", b"3"], " world")
    assert window.ready()
    assert await window.drain(False) == ([b"1", b"2", b"3"], None)
    assert moderator.asked == [["hello world"]]
    assert not window.ready()


async def test_drain_final_asks_about_the_rest(moderator: WordModerator) -> None:
    """The end of a stream is checked however short it is, after the text before it."""
    window = window_of(moderator, 5)
    window.push([b"1"], "hello")
    await window.drain(False)
    window.push([b"2"], "!")
    window.push([b"3"], "")
    assert await window.drain(True) == ([b"2", b"3"], None)
    assert moderator.asked == [["hello"], ["hello!"]]


async def test_drain_events_without_text_go_out_at_once_unless_text_waits_before_them(
    moderator: WordModerator,
) -> None:
    """The first chunk of a stream, which holds a role only, need not wait; the usage after a text must."""
    window = window_of(moderator)
    window.push([b"role"], "")
    assert window.ready()
    assert await window.drain(False) == ([b"role"], None)
    window.push([b"1"], "hello")
    window.push([b"usage"], "")
    assert not window.ready()
    assert await window.drain(False) == ([], None)
    assert moderator.asked == []


async def test_drain_flagged_window_is_never_returned(moderator: WordModerator) -> None:
    """What was flagged stays in, with all that waits and comes after it; the verdict is told again."""
    window = window_of(moderator, 3)
    window.push([b"1"], "good")
    await window.drain(False)
    window.push([b"2"], "a BAD b")
    assert await window.drain(False) == ([], FLAGGED)
    assert window.is_blocked
    window.push([b"3"], "good")
    assert not window.ready()
    assert await window.drain(True) == ([], FLAGGED)
    assert await window.release_unchecked() == []
    assert len(moderator.asked) == 2


async def test_drain_flagged_runs_the_gravest_verdict_is_told() -> None:
    """Of several flagged runs the high one counts."""
    high = Verdict((("sexual/minors", 0.9),), "high")

    class Two(WordModerator):
        async def check(self, texts: Sequence[str], point: Point) -> Sequence[Verdict]:
            return [FLAGGED, high]

    window = window_of(Two())
    window.push([b"1"], "a", 0)
    window.push([b"2"], "b", 1)
    assert await window.drain(True) == ([], high)


async def test_drain_harm_across_two_windows_is_seen(moderator: WordModerator) -> None:
    """The overlap shows the moderator what a cut between two windows would hide."""
    window = window_of(moderator, 3)
    window.push([b"1"], "xxB")
    assert await window.drain(False) == ([b"1"], None)
    window.push([b"2"], "ADx")
    assert await window.drain(False) == ([], FLAGGED)


async def test_drain_runs_are_asked_side_by_side(moderator: WordModerator) -> None:
    """Two choices that are written at the same time do not tear each other's words apart."""
    window = window_of(moderator, 3)
    window.push([b"1"], "B", 0)
    window.push([b"2"], "x", 1)
    window.push([b"3"], "AD", 0)
    assert await window.drain(False) == ([], FLAGGED)
    assert moderator.asked == [["BAD", "x"]]


async def test_drain_whole_keeps_everything_until_the_end(moderator: WordModerator) -> None:
    """A buffered stream is one question, and before it nothing goes out, text or not."""
    window = window_of(moderator, whole=True)
    window.push([b"role"], "")
    window.push([b"1"], "x" * 50)
    assert (window.ready(), await window.drain(False)) == (False, ([], None))
    window.push([b"2"], "y")
    assert await window.drain(True) == ([b"role", b"1", b"2"], None)
    assert moderator.asked == [["x" * 50 + "y"]]


@pytest.mark.parametrize("whole", [False, True])
async def test_drain_of_nothing_asks_nothing(moderator: WordModerator, whole: bool) -> None:
    """An empty stream, and a second end, are no question."""
    window = window_of(moderator, whole=whole)
    assert await window.drain(True) == ([], None)
    window.push([], "")
    window.push([b"1"], "x")
    assert await window.drain(True) == ([b"1"], None)
    assert await window.drain(True) == ([], None)
    assert moderator.asked == [["x"]]


async def test_drain_moderator_down_raises_and_keeps(moderator: WordModerator) -> None:
    """Nothing goes out unchecked; when the moderator is back, nothing is lost."""
    window = window_of(moderator, 3)
    moderator.failures_left = 1
    window.push([b"1"], "good")
    with pytest.raises(ModerationUnavailable):
        await window.drain(False)
    window.push([b"2"], " day")
    assert await window.drain(False) == ([b"1", b"2"], None)


async def test_drain_verdicts_that_are_missing_raise() -> None:
    """A moderator that judges fewer texts than it was given has not judged."""

    class Lazy(WordModerator):
        async def check(self, texts: Sequence[str], point: Point) -> Sequence[Verdict]:
            return []

    window = window_of(Lazy())
    window.push([b"1"], "x")
    with pytest.raises(ModerationUnavailable):
        await window.drain(True)


async def test_release_unchecked_gives_what_waits_and_remembers_it_as_context(moderator: WordModerator) -> None:
    """Where the moderator is not required a failure loses no event, and the next window still sees across the cut."""
    window = window_of(moderator, 3)
    moderator.failures_left = 1
    window.push([b"1"], "xxB")
    with pytest.raises(ModerationUnavailable):
        await window.drain(False)
    assert await window.release_unchecked() == [b"1"]
    window.push([b"2"], "ADx")
    assert await window.drain(False) == ([], FLAGGED)


async def test_drain_pushed_while_asking_waits_for_the_next_question(moderator: WordModerator) -> None:
    """What arrives during a question was not in it, and a second drain waits its turn."""
    window = window_of(moderator, 3)
    moderator.answering = asyncio.Event()
    window.push([b"1"], "good")
    first = asyncio.ensure_future(window.drain(False))
    await asyncio.sleep(0)
    window.push([b"2"], "BAD!")
    second = asyncio.ensure_future(window.drain(False))
    await asyncio.sleep(0)
    assert len(moderator.asked) == 1
    moderator.answering.set()
    assert await first == ([b"1"], None)
    assert await second == ([], FLAGGED)


async def test_drain_cancelled_keeps_everything(moderator: WordModerator) -> None:
    """A question that is given up has released nothing and lost nothing."""
    window = window_of(moderator, 3)
    moderator.answering = asyncio.Event()
    window.push([b"1"], "good")
    asking = asyncio.ensure_future(window.drain(False))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    moderator.answering.set()
    assert await window.drain(True) == ([b"1"], None)


pieces = st.lists(
    st.tuples(st.text("BAD x", max_size=12), st.integers(0, 2), st.integers(0, 2), st.booleans(), st.integers(0, 5)),
    max_size=40,
)


@given(pieces=pieces, window_chars=st.integers(1, 30), whole=st.booleans())
def test_window_any_stream_releases_in_order_once_and_only_what_passed(
    pieces: list[tuple[str, int, int, bool, int]], window_chars: int, whole: bool
) -> None:
    """Every event comes out once and in order, after its text was in a passing question; harm never does."""
    moderator = WordModerator()
    window = window_of(moderator, window_chars, whole=whole)
    texts: dict[bytes, tuple[str, int]] = {}
    runs: dict[int, str] = {}
    out: list[bytes] = []
    verdict: Verdict | None = None

    async def drain(final: bool) -> None:
        nonlocal verdict
        try:
            events, verdict = await window.drain(final)
        except ModerationUnavailable:
            return
        assert not (events and verdict)
        out.extend(events)
        for event in events:
            text = texts[event][0]
            assert not text or any(text in passed for passed in moderator.passed)

    async def run() -> None:
        for number, (text, count, run, is_draining, fails) in enumerate(pieces):
            events = [b"%d.%d" % (number, part) for part in range(count)]
            # Text without an event of its own would be released by nothing.
            text = text if events else ""
            for part, event in enumerate(events):
                texts[event] = (text if part == 0 else "", run)
            runs[run] = runs.get(run, "") + text
            window.push(events, text, run)
            moderator.failures_left = int(fails == 0)
            if is_draining or window.ready():
                await drain(False)
        moderator.failures_left = 0
        await drain(True)

    asyncio.run(run())
    assert out == list(texts)[: len(out)]
    is_harmful = any(HARM in text for text in runs.values())
    assert (verdict is not None) == is_harmful
    assert is_harmful or out == list(texts)
    released: dict[int, str] = {}
    for event in out:
        text, run_number = texts[event]
        released[run_number] = released.get(run_number, "") + text
    assert all(HARM not in text for text in released.values())


@given(before=st.integers(0, 3 * OVERLAP_CHARS), cut=st.integers(1, OVERLAP_CHARS))
def test_window_harm_as_long_as_the_overlap_is_seen_wherever_it_is_cut(before: int, cut: int) -> None:
    """A match of up to 201 characters that two windows share stands whole in the second question."""

    class Long(WordModerator):
        async def check(self, texts: Sequence[str], point: Point) -> Sequence[Verdict]:
            return [FLAGGED if "h" * (OVERLAP_CHARS + 1) in text else Verdict() for text in texts]

    async def run() -> Verdict | None:
        window = window_of(Long(), 1)
        window.push([b"1"], "x" * before + "h" * cut)
        assert (await window.drain(False))[1] is None
        window.push([b"2"], "h" * (OVERLAP_CHARS + 1 - cut) + "x")
        return (await window.drain(False))[1]

    assert asyncio.run(run()) == FLAGGED
