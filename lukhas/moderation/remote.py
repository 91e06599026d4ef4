"""A moderator over HTTP: the `/moderations` endpoint of any OpenAI-compatible API.

Answers are read strictly: what is not surely a verdict on every text is no verdict, and the moderator counts as
unavailable. Source of the format: https://platform.openai.com/docs/api-reference/moderations.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Final

import aiohttp
import msgspec
import orjson
from yarl import URL

from lukhas.errors import ModerationUnavailable, SettingsError
from lukhas.moderation.moderator import Verdict
from lukhas.moderation.rule import Point, Severity
from lukhas.settings import Secret

PIECE_CHARS: Final = 20_000
OVERLAP_CHARS: Final = 200
MAX_INPUTS: Final = 32
MAX_ANSWER_BYTES: Final = 1_000_000
QUESTIONS_AT_ONCE: Final = 4
# The category of what was flagged without one.
UNNAMED: Final = "unspecified"

_CONNECTIONS: Final = 100
# uvicorn and Node close an idle connection after 5 s, most others after 60 s or more.
_KEEPALIVE_S: Final = 4.0
_HEADER_LIMIT_BYTES: Final = 65_536
_HIGH: Final = frozenset({"violence/graphic", "sexual/minors", "illicit/violent", "hate/threatening"})
_HIGH_PREFIX: Final = "self-harm/"
# A category's name goes into records, so a server that writes anything else there does not get it written.
_CATEGORY: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./&+-]{0,63}\Z", re.ASCII)
_HINT: Final = "Check LUKHAS_MODERATION_URL, LUKHAS_MODERATION_API_KEY and LUKHAS_MODERATION_MODEL."


class _Result(msgspec.Struct):
    flagged: bool | None = None
    categories: dict[str, bool | None] | None = None
    category_scores: dict[str, float | None] | None = None


class _Answer(msgspec.Struct):
    results: list[_Result]


class RemoteModerator:
    """Asks a moderation API; see `lukhas.moderation.moderator.Moderator`.

    Every question is asked: a server that failed is asked again by the next call. The session is made on the first
    question, on the loop that runs then.

    Attributes:
        failures: questions that failed, by kind: 'connect', 'timeout', 'broken', 'status' or 'answer'.
    """

    name = "remote"

    def __init__(self, base_url: str, *, api_key: Secret | None, model: str, timeout_s: float) -> None:
        """Keep what is needed to ask `base_url` (up to and with `/v1`); opens no connection.

        Args:
            timeout_s: deadline of one `check`, connecting and all its questions included.

        Raises:
            SettingsError: the key holds characters that no header can carry.
        """
        key = api_key.reveal() if api_key is not None else ""
        if key and not (key.isascii() and key.isprintable() and " " not in key):
            raise SettingsError(
                "LUKHAS_MODERATION_API_KEY holds a blank, a line end or a character that no header can carry.",
                param="LUKHAS_MODERATION_API_KEY",
            )
        self.failures: dict[str, int] = {}
        self._url = URL(f"{base_url.rstrip('/')}/moderations", encoded=True)
        self._api_key = key
        self._model = model
        self._timeout_s = timeout_s
        self._failure: str | None = None
        self._session: aiohttp.ClientSession | None = None

    def status(self) -> str | None:
        """Return why the last `check` failed; None where it succeeded, or nothing was asked yet."""
        return self._failure

    async def check(self, texts: Sequence[str], point: Point) -> Sequence[Verdict]:
        """Judge texts, one verdict each, in order. Long ones are asked in overlapping pieces, empty ones not at all.

        Raises:
            ModerationUnavailable: no answer in time, or none that is a verdict on every text.
        """
        pieces = [(index, piece) for index, text in enumerate(texts) for piece in split_text(text)]
        questions = [pieces[start : start + MAX_INPUTS] for start in range(0, len(pieces), MAX_INPUTS)]
        verdicts = [Verdict()] * len(texts)
        if not questions:
            return verdicts
        try:
            async with asyncio.timeout(self._timeout_s):
                answers = await self._ask_all([[piece for _, piece in question] for question in questions])
        except TimeoutError:
            raise self._fail("timeout", f"it did not answer within {self._timeout_s:g} s") from None
        self._failure = None
        for question, answer in zip(questions, answers, strict=True):
            for (index, _), verdict in zip(question, answer, strict=True):
                verdicts[index] = join_verdicts(verdicts[index], verdict)
        return verdicts

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask_all(self, questions: list[list[str]]) -> list[list[Verdict]]:
        if len(questions) == 1:
            return [await self._ask(questions[0])]
        places = asyncio.Semaphore(QUESTIONS_AT_ONCE)

        async def ask_in_turn(question: list[str]) -> list[Verdict]:
            async with places:
                return await self._ask(question)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(ask_in_turn(question)) for question in questions]
        except ExceptionGroup as failed:
            for failure in failed.exceptions:
                if isinstance(failure, ModerationUnavailable):
                    raise failure from None
            raise
        return [task.result() for task in tasks]

    async def _ask(self, inputs: list[str]) -> list[Verdict]:
        body = orjson.dumps({"model": self._model, "input": inputs})
        # aiohttp's errors hold the request's headers and parts of the answer, so none goes on as a cause.
        try:
            response = await self._post(body)
            async with response:
                if response.status != 200:
                    raise self._fail("status", f"it answered with status {response.status}")
                answer = await _read(response)
        except aiohttp.ClientConnectorCertificateError:
            raise self._fail("connect", "its certificate was not accepted") from None
        except aiohttp.ClientConnectorError as failure:
            raise self._fail("connect", f"it cannot be connected to: {_describe_os(failure.os_error)}") from None
        except (aiohttp.ClientError, ConnectionError):
            raise self._fail("broken", "the connection broke before its answer was here") from None
        if answer is None:
            raise self._fail("answer", f"its answer is larger than {MAX_ANSWER_BYTES} bytes")
        verdicts = read_answer(answer, len(inputs))
        if verdicts is None:
            raise self._fail("answer", "its answer is not a verdict on every text")
        return verdicts

    async def _post(self, body: bytes) -> aiohttp.ClientResponse:
        reused: list[bool] = []
        session = self._open_session()
        try:
            return await session.post(self._url, data=body, allow_redirects=False, trace_request_ctx=reused)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A server may close a kept connection just as it is used again. Asking twice changes nothing there.
            if not reused:
                raise
        return await session.post(self._url, data=body, allow_redirects=False)

    def _fail(self, kind: str, reason: str) -> ModerationUnavailable:
        self.failures[kind] = self.failures.get(kind, 0) + 1
        self._failure = reason
        return ModerationUnavailable(f"The moderation API cannot be asked: {reason}.", hint=_HINT)

    def _open_session(self) -> aiohttp.ClientSession:
        session = self._session
        if session is None or session.closed:
            headers = {
                "Accept": "application/json",
                "Accept-Encoding": "identity",
                "Content-Type": "application/json",
                "User-Agent": "lukhas-pwm",
            }
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            trace = aiohttp.TraceConfig()
            trace.on_connection_reuseconn.append(_note_reuse)
            session = self._session = aiohttp.ClientSession(
                trace_configs=[trace],
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS, keepalive_timeout=_KEEPALIVE_S),
                headers=headers,
                cookie_jar=aiohttp.DummyCookieJar(),
                # No proxy, no .netrc: where texts go is a setting of this gateway alone.
                trust_env=False,
                # `check` has the one deadline.
                timeout=aiohttp.ClientTimeout(),
                max_line_size=_HEADER_LIMIT_BYTES,
                max_field_size=_HEADER_LIMIT_BYTES,
            )
        return session


def split_text(text: str) -> list[str]:
    """Split a text into pieces of at most PIECE_CHARS, each beginning with the last OVERLAP_CHARS of the one before.

    Halves of characters, which no JSON can carry, become question marks.
    """
    if not text:
        return []
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    step = PIECE_CHARS - OVERLAP_CHARS
    return [text[start : start + PIECE_CHARS] for start in range(0, max(1, len(text) - OVERLAP_CHARS), step)]


def read_answer(raw: bytes, count: int) -> list[Verdict] | None:
    """Read an answer to `count` inputs; None where it is not a verdict on each of them.

    An input is flagged where `flagged` says so or any category is true; a server may leave out one of the two. A
    score that is missing counts as 1, one outside [0, 1] as the nearer end.
    """
    try:
        results = msgspec.json.decode(raw, type=_Answer).results
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if len(results) != count or any(one.flagged is None and one.categories is None for one in results):
        return None
    return [_judge(result) for result in results]


def join_verdicts(one: Verdict, other: Verdict) -> Verdict:
    """Return the verdict on a text of which two pieces were judged: every category, at its highest score."""
    if not one.categories or not other.categories:
        return one if one.categories else other
    scores = dict(one.categories)
    for category, score in other.categories:
        scores[category] = max(score, scores.get(category, 0.0))
    return _make_verdict(scores)


def _judge(result: _Result) -> Verdict:
    scores = result.category_scores or {}
    found: dict[str, float] = {}
    for category, is_true in (result.categories or {}).items():
        if is_true:
            name = category if _CATEGORY.match(category) else UNNAMED
            found[name] = max(found.get(name, 0.0), _read_score(scores.get(category)))
    if result.flagged and not found:
        found[UNNAMED] = 1.0
    return _make_verdict(found)


def _read_score(score: float | None) -> float:
    return 1.0 if score is None else min(1.0, max(0.0, score))


def _make_verdict(scores: dict[str, float]) -> Verdict:
    severity: Severity = "medium"
    if any(name.lower() in _HIGH or name.lower().startswith(_HIGH_PREFIX) for name in scores):
        severity = "high"
    return Verdict(tuple(sorted(scores.items(), key=lambda item: (-item[1], item[0]))), severity)


async def _note_reuse(session: object, context: SimpleNamespace, params: object) -> None:
    if context.trace_request_ctx is not None:
        context.trace_request_ctx.append(True)


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            response.close()
            return None
        parts.append(chunk)
    return b"".join(parts)


def _describe_os(failure: OSError) -> str:
    # asyncio writes the address into its own text, and where the moderator lives is not every caller's to know.
    if isinstance(failure, socket.gaierror):
        return "its name cannot be resolved"
    number = failure.errno
    return os.strerror(number) if number is not None and number in errno.errorcode else type(failure).__name__
