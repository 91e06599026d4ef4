"""Cutting server-sent events out of a stream."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import UpstreamBroken
from lukhas.openai.sse import SseSplitter, event_data, is_done

PIECES = st.sampled_from(
    [b"\r", b"\n", b"\r\n", b"\xef\xbb\xbf", b"data: a", b"data:", b": ping", b"id: 1", "€".encode(), b" ", b"x", b":"]
)


def split_at(text: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


def split_events(chunks: list[bytes]) -> tuple[list[bytes], bytes]:
    splitter = SseSplitter()
    events = [event for chunk in chunks for event in splitter.feed(chunk)]
    return events, splitter.flush()


def read_by_the_standard(text: bytes) -> list[bytes]:
    """Parse line by line, as the standard's text does, with no chunks and no shortcut; return each event's data."""
    text = text.removeprefix(b"\xef\xbb\xbf")
    found: list[bytes] = []
    lines: list[bytes] = []
    while text:
        ends = [place for place in (text.find(b"\r"), text.find(b"\n")) if place >= 0]
        if not ends:
            break
        end = min(ends)
        line, text = text[:end], text[end + (2 if text[end : end + 2] == b"\r\n" else 1) :]
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                lines.append(value[1:] if value[:1] == b" " else value)
        else:
            if lines:
                found.append(b"\n".join(lines))
            lines = []
    return found


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(0, 10_000), max_size=12))
def test_feed_any_cutting_gives_same_events_and_loses_no_byte(text: bytes, cuts: list[int]) -> None:
    """However a text arrives, its events are the same and, with the leftover, are the text."""
    events, rest = split_events(split_at(text, cuts))
    assert b"".join(events) + rest == text
    assert (events, rest) == split_events([text[i : i + 1] for i in range(len(text))])


@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_feed_any_text_agrees_with_the_standard(text: bytes) -> None:
    """The events' data is what a parser written down from the standard finds."""
    events, rest = split_events([text])
    if rest.endswith(b"\r"):
        # The last empty line of a CR stream shows only when nothing follows.
        blank = rest.endswith((b"\r\r", b"\n\r")) or rest == b"\r"
        events, rest = ([*events, rest], b"") if blank else (events, rest)
    bom_inside = any(event.startswith(b"\xef\xbb\xbf") for event in events[1:])
    if not bom_inside:
        assert [data for event in events if (data := event_data(event)) is not None] == read_by_the_standard(text)


@pytest.mark.parametrize(
    ("chunks", "events", "rest"),
    [
        pytest.param([b"data: a\n\n"], [b"data: a\n\n"], b"", id="one-lf"),
        pytest.param([b"data: a\n\ndata: b\n\n"], [b"data: a\n\n", b"data: b\n\n"], b"", id="two-in-one-chunk"),
        pytest.param([b"data: a\r\n\r\n"], [b"data: a\r\n\r\n"], b"", id="crlf"),
        pytest.param([b"data: a\r\n\r", b"\n"], [b"data: a\r\n\r\n"], b"", id="crlf-cut-inside-end"),
        pytest.param([b"data: a\r", b"\n\r\n"], [b"data: a\r\n\r\n"], b"", id="crlf-cut-inside-first"),
        pytest.param([b"data: a\r\rdata: b\r\r"], [b"data: a\r\r"], b"data: b\r\r", id="cr-last-is-left"),
        pytest.param([b"data: a\n\r\nx"], [b"data: a\n\r\n"], b"x", id="mixed"),
        pytest.param([b"data: a\n", b"\n"], [b"data: a\n\n"], b"", id="lf-cut-inside-end"),
        pytest.param([b"\n\ndata: a\n\n"], [b"\n", b"\n", b"data: a\n\n"], b"", id="leading-empty-lines"),
        pytest.param([b"data: a\n\n\n\n"], [b"data: a\n\n", b"\n", b"\n"], b"", id="extra-empty-lines"),
        pytest.param([b"\xef\xbb", b"\xbfdata: a\n\n"], [b"\xef\xbb\xbfdata: a\n\n"], b"", id="bom-cut"),
        pytest.param([b": ping\n\n"], [b": ping\n\n"], b"", id="comment"),
        pytest.param([b"data: \xe2\x82", b"\xac\n\n"], ["data: €\n\n".encode()], b"", id="half-a-character"),
        pytest.param([b"data: unfinished\n"], [], b"data: unfinished\n", id="unfinished"),
        pytest.param([b"", b""], [], b"", id="nothing"),
    ],
)
def test_feed_known_texts_give_known_events(chunks: list[bytes], events: list[bytes], rest: bytes) -> None:
    """Each kind of line end, cut and oddity gives the events that the standard asks for."""
    assert split_events(chunks) == (events, rest)


def test_feed_line_of_two_megabytes_in_small_chunks_arrives_whole() -> None:
    """A very long line costs no more than its length and is not cut."""
    line = b"data: " + b"x" * 2_000_000 + b"\n\n"
    events, rest = split_events([line[i : i + 1000] for i in range(0, len(line), 1000)])
    assert (events, rest) == ([line], b"")


@pytest.mark.parametrize("end", [pytest.param(b"\n\n", id="whole"), pytest.param(b"", id="unfinished")])
@pytest.mark.parametrize("size", [pytest.param(1, id="bytes"), pytest.param(10_000, id="one-chunk")])
def test_feed_event_over_limit_raises_broken(end: bytes, size: int) -> None:
    """An event longer than the limit is refused, however it arrives, instead of filling memory."""
    splitter = SseSplitter(limit_bytes=100)
    text = b"data: " + b"x" * 200 + end
    with pytest.raises(UpstreamBroken):
        for at in range(0, len(text), size):
            splitter.feed(text[at : at + size])
    assert splitter.flush() == b""


def test_feed_chunk_over_limit_of_short_events_passes() -> None:
    """The limit is one event's, not one chunk's."""
    splitter = SseSplitter(limit_bytes=20)
    assert len(splitter.feed(b"data: 12345\n\n" * 10)) == 10


@pytest.mark.parametrize(
    ("raw", "data"),
    [
        pytest.param(b"data: a\n\n", b"a", id="usual"),
        pytest.param(b"data:a\n\n", b"a", id="no-space"),
        pytest.param(b"data:  a\n\n", b" a", id="one-space-goes"),
        pytest.param(b"data: a\r\n\r\n", b"a", id="crlf"),
        pytest.param(b"data: a\rdata: b\r\r", b"a\nb", id="cr-two-lines"),
        pytest.param(b"event: x\ndata: a\nid: 3\n\n", b"a", id="among-fields"),
        pytest.param(b"data: a\ndata\ndata:\n\n", b"a\n\n", id="empty-lines-of-data"),
        pytest.param(b"data\n\n", b"", id="name-only"),
        pytest.param(b": ping\n\n", None, id="comment"),
        pytest.param(b"event: ping\n\n", None, id="no-data"),
        pytest.param(b"database: x\n\n", None, id="longer-name"),
        pytest.param(b"\xef\xbb\xbfdata: a\n\n", b"a", id="bom"),
        pytest.param(b"data: a", b"a", id="leftover"),
        pytest.param(b"\n", None, id="empty-line"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_event_data_joins_data_lines(raw: bytes, data: bytes | None) -> None:
    """Data is read by the standard's rules for fields."""
    assert event_data(raw) == data


@pytest.mark.parametrize(
    ("data", "done"),
    [
        pytest.param(b"[DONE]", True, id="done"),
        pytest.param(b" [DONE] ", True, id="with-blanks"),
        pytest.param(b'{"text":"[DONE]"}', False, id="quoted"),
        pytest.param(b"", False, id="empty"),
        pytest.param(None, False, id="comment"),
    ],
)
def test_is_done_only_for_the_last_word(data: bytes | None, done: bool) -> None:
    """Only the dialect's last word ends a stream."""
    assert is_done(data) is done
