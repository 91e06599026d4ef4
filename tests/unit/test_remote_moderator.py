"""The remote moderator against a real server that judges, and one that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
import traceback
from collections.abc import AsyncIterator, Iterator
from typing import Any

import orjson
import pytest
from http_upstream import free_port
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import ModerationUnavailable, SettingsError
from lukhas.moderation.moderator import Moderator, Verdict
from lukhas.moderation.remote import (
    MAX_ANSWER_BYTES,
    MAX_INPUTS,
    OVERLAP_CHARS,
    PIECE_CHARS,
    RemoteModerator,
    join_verdicts,
    read_answer,
    split_text,
)
from lukhas.settings import Secret
from lukhas.testing import FakeUpstream

CLEAN: dict[str, Any] = {"flagged": False, "categories": {"violence": False}, "category_scores": {"violence": 0.01}}
VIOLENT: dict[str, Any] = {"flagged": True, "categories": {"violence": True}, "category_scores": {"violence": 0.93}}
CANARY = "canary-4711"


@pytest.fixture
def server() -> Iterator[FakeUpstream]:
    """Give a scripted server."""
    with FakeUpstream() as fake:
        yield fake


@pytest.fixture
async def moderator(server: FakeUpstream) -> AsyncIterator[RemoteModerator]:
    """Give a moderator with a short deadline."""
    made = RemoteModerator(server.base_url, api_key=Secret("sk-mod"), model="m-1", timeout_s=1.0)
    yield made
    await made.close()
    # Whatever a test did, nothing of it runs on.
    assert asyncio.all_tasks() == {asyncio.current_task()}


def results(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"id": "modr-1", "model": "m-1", "results": list(entries)}


async def failure_of(moderator: RemoteModerator, texts: list[str]) -> ModerationUnavailable:
    with pytest.raises(ModerationUnavailable) as refusal:
        await moderator.check(texts, "input")
    return refusal.value


async def test_check_texts_are_asked_in_one_question_and_judged_in_order(
    server: FakeUpstream, moderator: RemoteModerator
) -> None:
    """One POST carries model, key and every text; each text gets its own verdict."""
    server.reply(json=results(CLEAN, VIOLENT))
    verdicts = await moderator.check(["good", "bad"], "input")
    assert list(verdicts) == [Verdict(), Verdict((("violence", 0.93),), "medium")]
    got = server.requests[0]
    assert (got.method, got.path, len(server.requests)) == ("POST", "/v1/moderations", 1)
    assert got.json == {"model": "m-1", "input": ["good", "bad"]}
    assert got.headers["authorization"] == "Bearer sk-mod"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["accept-encoding"] == "identity"


async def test_remote_moderator_satisfies_the_port(moderator: RemoteModerator) -> None:
    """It is what the gateway takes as a moderator, and names itself."""
    port: Moderator = moderator
    assert port.name == "remote"


async def test_check_without_key_sends_no_authorization(server: FakeUpstream) -> None:
    """A local moderation server wants no key, and gets none."""
    moderator = RemoteModerator(server.base_url + "/", api_key=None, model="m", timeout_s=1.0)
    server.reply(json=results(CLEAN))
    await moderator.check(["x"], "input")
    await moderator.close()
    assert "authorization" not in server.requests[0].headers
    assert server.requests[0].path == "/v1/moderations"


async def test_check_nothing_to_read_asks_nothing(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """Empty texts hold nothing, and servers refuse them."""
    assert list(await moderator.check([], "input")) == []
    assert list(await moderator.check(["", ""], "output")) == [Verdict(), Verdict()]
    assert server.requests == []


async def test_check_empty_text_among_others_keeps_the_order(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """A text that is not asked still has its place in the answer."""
    server.reply(json=results(VIOLENT))
    verdicts = await moderator.check(["", "bad", ""], "input")
    assert [verdict.is_flagged for verdict in verdicts] == [False, True, False]


async def test_check_half_a_character_is_asked_as_a_question_mark(
    server: FakeUpstream, moderator: RemoteModerator
) -> None:
    """A text that no JSON can carry is still judged."""
    server.reply(json=results(CLEAN))
    await moderator.check(["a\ud800b"], "input")
    assert server.requests[0].json["input"] == ["a?b"]


async def test_check_long_text_is_flagged_by_any_piece(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """Harm in the last piece of a long text flags the text, and no other."""
    server.reply(json=results(CLEAN, CLEAN, VIOLENT, CLEAN))
    verdicts = await moderator.check(["x" * 45_000, "short"], "input")
    assert [verdict.is_flagged for verdict in verdicts] == [True, False]
    assert all(len(piece) <= PIECE_CHARS for piece in server.requests[0].json["input"])


async def test_check_many_texts_are_asked_in_several_questions(
    server: FakeUpstream, moderator: RemoteModerator
) -> None:
    """At most 32 inputs go into one question; the verdicts come back in the texts' order."""
    for _ in range(5):
        server.reply(json=results(*[CLEAN] * MAX_INPUTS))
    server.reply(json=results(*[CLEAN] * MAX_INPUTS))
    texts = [f"text {number}" for number in range(6 * MAX_INPUTS)]
    verdicts = await moderator.check(texts, "input")
    assert len(verdicts) == len(texts)
    assert sorted(text for got in server.requests for text in got.json["input"]) == sorted(texts)
    assert {len(got.json["input"]) for got in server.requests} == {MAX_INPUTS}
    assert 1 < server.connections <= 4


async def test_check_one_of_several_questions_fails_and_so_does_the_check(
    server: FakeUpstream, moderator: RemoteModerator
) -> None:
    """Where any part could not be judged, nothing was."""
    server.reply(json=results(*[CLEAN] * MAX_INPUTS))
    server.reply(status=500)
    server.reply(json=results(*[CLEAN] * MAX_INPUTS))
    refusal = await failure_of(moderator, ["x"] * (3 * MAX_INPUTS))
    assert "status 500" in refusal.message


@pytest.mark.parametrize(
    ("category", "severity"),
    [
        pytest.param("violence/graphic", "high", id="graphic"),
        pytest.param("sexual/minors", "high", id="minors"),
        pytest.param("self-harm/intent", "high", id="self-harm-intent"),
        pytest.param("self-harm/instructions", "high", id="self-harm-instructions"),
        pytest.param("illicit/violent", "high", id="illicit-violent"),
        pytest.param("hate/threatening", "high", id="threat"),
        pytest.param("harassment", "medium", id="harassment"),
        pytest.param("self-harm", "medium", id="self-harm"),
        pytest.param("a-new-one", "medium", id="unknown"),
    ],
)
def test_read_answer_category_has_its_severity(category: str, severity: str) -> None:
    """The gravest categories are high, every other one medium."""
    (verdict,) = read_answer(orjson.dumps(results({"flagged": True, "categories": {category: True}})), 1) or []
    assert (verdict.categories, verdict.severity) == (((category, 1.0),), severity)


@pytest.mark.parametrize(
    ("result", "categories"),
    [
        pytest.param({"flagged": True}, (("unspecified", 1.0),), id="flagged-alone"),
        pytest.param({"flagged": True, "categories": {"hate": False}}, (("unspecified", 1.0),), id="no-true-category"),
        pytest.param({"flagged": False, "categories": {"hate": True}}, (("hate", 1.0),), id="category-alone"),
        pytest.param({"categories": {"pii": True, "law": False}}, (("pii", 1.0),), id="no-flagged"),
        pytest.param({"flagged": None, "categories": {"law": False}}, (), id="flagged-null"),
        pytest.param({"flagged": False}, (), id="clean-alone"),
        pytest.param({"flagged": False, "categories": {"illicit": None}}, (), id="category-null"),
        pytest.param(
            {"flagged": True, "categories": {"a": True, "b": True}, "category_scores": {"a": 0.2, "b": 0.4, "c": 1}},
            (("b", 0.4), ("a", 0.2)),
            id="highest-first",
        ),
        pytest.param(
            {"flagged": True, "categories": {"a": True}, "category_scores": {"a": None}}, (("a", 1.0),), id="score-null"
        ),
        pytest.param(
            {"flagged": True, "categories": {"a": True}, "category_scores": {"a": 7}}, (("a", 1.0),), id="score-over"
        ),
        pytest.param(
            {"flagged": True, "categories": {"a": True}, "category_scores": {"a": -7}}, (("a", 0.0),), id="score-under"
        ),
        pytest.param(
            {"flagged": True, "categories": {f"you wrote {CANARY}": True, "x" * 65: True}},
            (("unspecified", 1.0),),
            id="names-that-are-none",
        ),
    ],
)
def test_read_answer_partial_result_is_read(result: dict[str, Any], categories: tuple[tuple[str, float], ...]) -> None:
    """Servers leave fields out and add categories; what they say of harm counts."""
    assert read_answer(orjson.dumps(results(result)), 1) == [Verdict(categories)]


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<html>busy</html>", id="html"),
        pytest.param(b"null", id="null"),
        pytest.param(b"[]", id="list"),
        pytest.param(b"{}", id="no-results"),
        pytest.param(b'{"results": null}', id="results-null"),
        pytest.param(b'{"results": {}}', id="results-object"),
        pytest.param(b'{"results": []}', id="fewer-results"),
        pytest.param(b'{"results": [{"flagged": false}, {"flagged": false}]}', id="more-results"),
        pytest.param(b'{"results": [null]}', id="result-null"),
        pytest.param(b'{"results": [{}]}', id="result-empty"),
        pytest.param(b'{"results": [{"flagged": "false"}]}', id="flagged-text"),
        pytest.param(b'{"results": [{"flagged": 0}]}', id="flagged-number"),
        pytest.param(b'{"results": [{"flagged": false, "categories": ["hate"]}]}', id="categories-list"),
        pytest.param(b'{"results": [{"flagged": false, "categories": {"hate": 0.3}}]}', id="category-number"),
        pytest.param(b'{"results": [{"flagged": true, "category_scores": {"a": "x"}}]}', id="score-text"),
        pytest.param(b'{"results": [{"flagged": true, "category_scores": {"a": NaN}}]}', id="score-nan"),
        pytest.param(b'{"results": [{"flagged": true, "category_scores": {"a": 1e999}}]}', id="score-infinite"),
        pytest.param(b'{"results": [{"flagged": false}]', id="cut-off"),
        pytest.param(b'{"results": [{"flagged": false}]} {}', id="two-documents"),
        pytest.param(b'{"results": [{"flagged": false, "categories": {"\xff": true}}]}', id="not-utf-8"),
        pytest.param(b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b', "results": [{"flagged": false}]}', id="deep"),
    ],
)
async def test_check_answer_that_is_no_verdict_is_unavailable(
    server: FakeUpstream, moderator: RemoteModerator, raw: bytes
) -> None:
    """What is not surely a verdict on every text passes nothing."""
    assert read_answer(raw, 1) is None
    server.reply(body=raw)
    refusal = await failure_of(moderator, [CANARY])
    assert refusal.message == "The moderation API cannot be asked: its answer is not a verdict on every text."
    assert moderator.failures == {"answer": 1}


@pytest.mark.parametrize("status", [201, 204, 301, 302, 307, 400, 401, 404, 429, 500, 503])
async def test_check_status_that_is_no_answer_is_unavailable(
    server: FakeUpstream, moderator: RemoteModerator, status: int
) -> None:
    """Only 200 is an answer; a redirect is not followed, so that no text goes elsewhere."""
    with FakeUpstream() as elsewhere:
        server.reply(
            status=status,
            body=b"" if status == 204 else orjson.dumps(results(CLEAN)),
            headers={"location": f"{elsewhere.base_url}/moderations"},
        )
        refusal = await failure_of(moderator, [CANARY])
        assert elsewhere.requests == []
    assert refusal.message.endswith(f"it answered with status {status}.")
    assert moderator.failures == {"status": 1}


async def test_check_answer_of_two_megabytes_is_unavailable(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """An answer far larger than verdicts are is not read to its end."""
    server.reply(json=results(CLEAN | {"note": "x" * 2_000_000}))
    refusal = await failure_of(moderator, [CANARY])
    assert str(MAX_ANSWER_BYTES) in refusal.message


async def test_check_compressed_answer_counts_unpacked(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """A small body that unpacks to a huge one meets the same limit."""
    packed = gzip.compress(orjson.dumps(results(CLEAN | {"note": "x" * 5_000_000})))
    server.reply(body=packed, headers={"content-encoding": "gzip"})
    refusal = await failure_of(moderator, [CANARY])
    assert str(MAX_ANSWER_BYTES) in refusal.message


@pytest.mark.parametrize("ending", ["truncate", "reset"])
async def test_check_connection_that_breaks_is_unavailable(
    server: FakeUpstream, moderator: RemoteModerator, ending: Any
) -> None:
    """Half an answer is none."""
    server.reply(json=results(CLEAN), ending=ending)
    await failure_of(moderator, [CANARY])
    assert moderator.failures == {"broken": 1}


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param([], id="no-answer"),
        pytest.param([b"SSH-2.0-OpenSSH_9\r\n"], id="not-http"),
        pytest.param([b"HTTP/1.1 200 OK\r\nbroken " + CANARY.encode() + b"\r\n\r\n"], id="broken-header"),
        pytest.param([b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n"], id="huge-header"),
    ],
)
async def test_check_answer_that_is_not_http_is_unavailable(
    server: FakeUpstream, moderator: RemoteModerator, parts: list[bytes]
) -> None:
    """Whatever else listens there has not judged anything."""
    server.reply_raw(parts)
    refusal = await failure_of(moderator, [CANARY])
    assert CANARY not in "".join(traceback.format_exception(refusal))
    assert moderator.failures == {"broken": 1}


async def test_check_kept_connection_that_the_server_closes_is_replaced_once(
    server: FakeUpstream, moderator: RemoteModerator
) -> None:
    """A server that lets go of an idle connection costs no call; one that goes on doing so is broken."""
    server.reply(json=results(CLEAN))
    server.reply_raw([])
    server.reply(json=results(VIOLENT))
    server.reply_raw([])
    server.reply_raw([])
    await moderator.check(["x"], "input")
    (verdict,) = await moderator.check(["bad"], "input")
    assert (verdict.is_flagged, moderator.failures, len(server.requests)) == (True, {}, 3)
    await failure_of(moderator, ["x"])
    assert (moderator.failures, len(server.requests)) == ({"broken": 1}, 5)


@pytest.mark.parametrize("how", ["silent", "half"])
async def test_check_server_that_hangs_is_unavailable_at_the_deadline(server: FakeUpstream, how: str) -> None:
    """The deadline covers the whole question, and the connection is closed when it passes."""
    moderator = RemoteModerator(server.base_url, api_key=None, model="m", timeout_s=0.2)
    if how == "silent":
        server.reply_raw([b""], ending="stall")
    else:
        server.reply(json=results(CLEAN), ending="stall")
    began = time.monotonic()
    refusal = await failure_of(moderator, [CANARY])
    assert time.monotonic() - began < 1.0
    assert refusal.message.endswith("it did not answer within 0.2 s.")
    assert await asyncio.to_thread(server.requests[0].closed.wait, 2)
    assert moderator.failures == {"timeout": 1}
    await moderator.close()


async def test_check_connecting_that_hangs_is_unavailable_at_the_deadline() -> None:
    """Connecting is part of the deadline."""
    with FakeUpstream(accepting=False) as full:
        moderator = RemoteModerator(full.base_url, api_key=None, model="m", timeout_s=0.2)
        refusal = await failure_of(moderator, [CANARY])
        await moderator.close()
    assert "within 0.2 s" in refusal.message


@pytest.mark.parametrize(
    "base_url",
    [
        pytest.param("http://127.0.0.1:{port}/v1", id="refused"),
        pytest.param("http://absent.invalid/v1", id="no-such-name"),
    ],
)
async def test_check_server_that_is_not_there_is_unavailable(base_url: str) -> None:
    """The reason is told without the address, which is not every caller's to know."""
    moderator = RemoteModerator(base_url.format(port=free_port()), api_key=None, model="m", timeout_s=5.0)
    refusal = await failure_of(moderator, [CANARY])
    await moderator.close()
    assert "cannot be connected to" in refusal.message
    assert "127.0.0.1" not in str(refusal)
    assert "absent" not in str(refusal)
    assert moderator.failures == {"connect": 1}


async def test_check_cancelled_closes_the_connection(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """A caller that leaves takes its question with it, and that is no failure of the moderator."""
    server.reply_raw([b""], ending="stall")
    asking = asyncio.ensure_future(moderator.check(["x"], "input"))
    while not server.requests:
        await asyncio.sleep(0.005)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert await asyncio.to_thread(server.requests[0].closed.wait, 2)
    assert (moderator.status(), moderator.failures) == (None, {})


async def test_status_tells_the_last_failure_until_a_check_succeeds(
    server: FakeUpstream, moderator: RemoteModerator
) -> None:
    """Readiness says what is wrong as long as it is; every question is asked all the same."""
    assert moderator.status() is None
    server.reply(status=500)
    server.reply(status=502)
    server.reply(json=results(CLEAN))
    await failure_of(moderator, ["x"])
    assert moderator.status() == "it answered with status 500"
    await failure_of(moderator, ["x"])
    assert moderator.status() == "it answered with status 502"
    await moderator.check(["x"], "input")
    assert (moderator.status(), moderator.failures) == (None, {"status": 2})
    assert len(server.requests) == 3


async def test_failure_carries_neither_text_nor_key(
    server: FakeUpstream, moderator: RemoteModerator, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the message, not in the causes, not in a log, even where the server repeats what it was asked."""
    caplog.set_level(logging.DEBUG, logger="lukhas")
    for body in (CANARY.encode(), b'{"results": "' + CANARY.encode() + b'"}'):
        server.reply(body=body)
        refusal = await failure_of(moderator, [CANARY])
        seen: BaseException | None = refusal
        while seen is not None:
            assert CANARY not in repr(seen) + str(vars(seen))
            assert "sk-mod" not in repr(seen) + str(vars(seen))
            seen = seen.__cause__
        assert refusal.__suppress_context__ or refusal.__context__ is None
    assert CANARY not in caplog.text
    assert "sk-mod" not in repr(moderator)


@pytest.mark.parametrize("key", ["sk a", "sk\n", "sk\u00e9", "sk\x00"])
def test_key_that_no_header_carries_is_a_settings_error(key: str) -> None:
    """A key with a stray line end is told of at start, and not printed."""
    with pytest.raises(SettingsError, match="LUKHAS_MODERATION_API_KEY") as refusal:
        RemoteModerator("http://127.0.0.1:1/v1", api_key=Secret(key), model="m", timeout_s=1)
    assert "sk" not in str(refusal.value)


async def test_check_cookies_and_proxies_do_not_exist_here(
    server: FakeUpstream, moderator: RemoteModerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that one answer sets, and nothing in the environment, changes where or what is asked."""
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    for _ in range(2):
        server.reply(json=results(CLEAN), headers={"set-cookie": "who=alice; Path=/"})
        await moderator.check(["x"], "input")
    assert "cookie" not in server.requests[1].headers
    assert server.connections == 1


async def test_close_twice_closes_once(server: FakeUpstream, moderator: RemoteModerator) -> None:
    """Closing is harmless, before the first question and again."""
    await moderator.close()
    server.reply(json=results(CLEAN))
    await moderator.check(["x"], "input")
    await moderator.close()
    await moderator.close()


@given(length=st.integers(0, 3 * PIECE_CHARS), width=st.integers(1, OVERLAP_CHARS), at=st.integers(0))
def test_split_text_any_text_is_covered_with_its_overlap(length: int, width: int, at: int) -> None:
    """Each run of up to 200 characters stands whole in some piece, and no piece is too long."""
    text = "".join(chr(0x4E00 + number % 20_000) for number in range(length))
    pieces = split_text(text)
    assert all(0 < len(piece) <= PIECE_CHARS for piece in pieces)
    assert text.startswith(pieces[0]) if pieces else not text
    start = at % max(1, length - width + 1)
    assert not text or any(text[start : start + width] in piece for piece in pieces)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)), min_size=1, max_size=4))
def test_join_verdicts_keeps_every_category_at_its_highest(scores: list[dict[str, float]]) -> None:
    """Joined pieces say at least what each of them said."""
    joined = Verdict()
    for one in scores:
        joined = join_verdicts(joined, Verdict(tuple(one.items())))
    assert dict(joined.categories) == {
        name: max(one[name] for one in scores if name in one) for name in set().union(*scores)
    }
