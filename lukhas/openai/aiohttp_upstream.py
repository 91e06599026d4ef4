"""The upstream over HTTP, by aiohttp's client.

What a failure proves decides whether the call is tried again (lukhas/openai/retry.py). aiohttp tells it by class:
`ClientConnectorError` and `ConnectionTimeoutError` come before anything was sent; `ServerDisconnectedError` and
`SocketTimeoutError` come after; any other `ClientOSError` may be either, and counts as sent.

A kept-alive connection that the server closes just as a call goes out ends in `ServerDisconnectedError` too, and
nothing shows whether the server had read the call. RFC 9110 section 9.2.2 forbids repeating a POST then, so it is not
repeated; the race is kept rare by letting idle connections go before the usual servers do.
"""

from __future__ import annotations

import asyncio
import errno
import io
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Final, NoReturn
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from lukhas.errors import (
    SettingsError,
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from lukhas.openai.retry import Attempt, choose_pause, read_retry_after, read_should_retry
from lukhas.openai.upstream import UpstreamRequest, check_path
from lukhas.settings import Secret

# uvicorn and Node close an idle connection after 5 s, most others after 60 s or more.
KEEPALIVE_S: Final = 4.0
_HEADER_LIMIT_BYTES: Final = 65_536
# Past this size aiohttp warns of bytes that are written in one piece; a file object is written in pieces.
_LARGE_BODY_BYTES: Final = 2**20
_KNOWN_PATHS: Final = 256
_CHECK_GOOD_S: Final = 5.0
_CHECK_BAD_S: Final = 1.0
# Whatever the caller's headers hold, these are the connection's and this gateway's own.
_OWN_HEADERS: Final = frozenset(
    {"authorization", "cookie", "host", "connection", "content-length", "transfer-encoding", "content-type"}
    | {"accept", "accept-encoding", "user-agent", "te", "upgrade", "expect"}
)


class AiohttpAnswer:
    """An answer over HTTP; see `lukhas.openai.upstream.UpstreamAnswer`."""

    __slots__ = ("_finished", "_headers", "_response", "attempts", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._headers: dict[str, str] | None = None
        self._finished = False
        self.status = response.status
        self.attempts = 1

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers by lower-case name; repeated ones joined by a comma."""
        if self._headers is None:
            found: dict[str, str] = {}
            for name, value in self._response.headers.items():
                key = name.lower()
                found[key] = f"{found[key]}, {value}" if key in found else value
            self._headers = found
        return self._headers

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body; UpstreamBroken where it is cut off or over `limit_bytes`."""
        length = self._response.content_length
        if length is not None and length > limit_bytes:
            self.abort()
            raise _over_limit(limit_bytes)
        parts: list[bytes] = []
        size = 0
        content = self._response.content
        try:
            while chunk := await content.readany():
                size += len(chunk)
                if size > limit_bytes:
                    raise _over_limit(limit_bytes)
                parts.append(chunk)
            self._finished = True
        except (aiohttp.ClientError, OSError) as failure:
            raise _translate(failure)[0] from failure
        finally:
            self.abort()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body's bytes as they arrive; UpstreamBroken where it is cut off."""
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
            self._finished = True
        except (aiohttp.ClientError, OSError) as failure:
            # aiohttp raises before it hands out what had arrived until then, which may be the stream's last event.
            arrived = b"".join(getattr(content, "_buffer", ()))
            if arrived:
                yield arrived
            raise _translate(failure)[0] from failure
        finally:
            self.abort()

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        self.abort()

    def abort(self) -> None:
        """Close the connection at once unless the body was read to its end."""
        if not self._finished:
            self._finished = True
            self._response.close()

    def discard(self) -> None:
        """Leave the body unread; the connection is kept where the body has arrived already."""
        if not self._finished:
            self._finished = True
            self._response.release()


class AiohttpUpstream:
    """A model API over HTTP. The session is made on the first call, on the loop that runs then."""

    name = "http"

    def __init__(
        self,
        base_url: str,
        *,
        api_key: Secret | None = None,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 120.0,
        total_timeout_s: float = 600.0,
        max_retries: int = 2,
        max_connections: int = 1000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """Keep what is needed to call `base_url` (up to and with `/v1`); opens no connection.

        Raises:
            SettingsError: the key holds characters that no header can carry.
        """
        key = api_key.reveal() if api_key is not None else ""
        if not (key.isascii() and key.isprintable() and " " not in key) and key:
            raise SettingsError(
                "LUKHAS_UPSTREAM_API_KEY holds a blank, a line end or a character that no header can carry.",
                param="LUKHAS_UPSTREAM_API_KEY",
            )
        self._base_url = base_url.rstrip("/")
        self._api_key = key
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._total_timeout_s = total_timeout_s
        self._max_retries = max_retries
        self._max_connections = max_connections
        self._sleep = sleep
        self._draw = draw
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._seen_at = -1e9
        self._checked_at = -1e9
        self._checked: str | None = None
        self._checking: asyncio.Lock | None = None

    async def send(self, request: UpstreamRequest, *, deadline: float | None = None) -> AiohttpAnswer:
        """Send one call, with retries; see `lukhas.openai.upstream.Upstream.send`."""
        url = self._url(request.path)
        headers = {"Accept": "text/event-stream" if request.stream else "application/json"}
        if request.body:
            headers["Content-Type"] = "application/json"
        for name, value in request.headers:
            if name.lower() not in _OWN_HEADERS:
                headers[name] = value
        end = time.monotonic() + self._total_timeout_s if deadline is None else deadline
        number = 0
        while True:
            number += 1
            remaining_s = end - time.monotonic()
            if remaining_s <= 0:
                late = UpstreamTimeout("The call's deadline has passed.", hint=_HINT_TOTAL)
                late.attempts = number - 1
                raise late
            try:
                answer = await self._try_once(request, url, headers, remaining_s)
            except (aiohttp.ClientError, OSError) as failure:
                error, not_sent = _translate(failure)
                error.attempts = number
                pause_s = self._choose_pause(Attempt(number, surely_not_sent=not_sent), end)
                if pause_s is None:
                    raise error from failure
            except UpstreamError as refused:
                refused.attempts = number
                raise
            else:
                answer.attempts = number
                if answer.status < 400:
                    return answer
                pause_s = self._choose_pause(
                    Attempt(
                        number,
                        status=answer.status,
                        retry_after_s=read_retry_after(answer.headers),
                        should_retry=read_should_retry(answer.headers),
                    ),
                    end,
                )
                if pause_s is None:
                    return answer
                answer.discard()
            await self._sleep(pause_s)

    async def check(self) -> str | None:
        """Return None if a connection can be opened, or a call was answered within the last seconds; else why not."""
        if self._checking is None:
            self._checking = asyncio.Lock()
        async with self._checking:
            now = time.monotonic()
            if now - self._seen_at < _CHECK_GOOD_S:
                return None
            if now - self._checked_at < (_CHECK_GOOD_S if self._checked is None else _CHECK_BAD_S):
                return self._checked
            self._checked = await self._connect_only()
            self._checked_at = time.monotonic()
            return self._checked

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _try_once(
        self, request: UpstreamRequest, url: URL, headers: dict[str, str], remaining_s: float
    ) -> AiohttpAnswer:
        body = request.body
        response = await self._open_session().request(
            request.method,
            url,
            data=(body if len(body) <= _LARGE_BODY_BYTES else io.BytesIO(body)) if body else None,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                total=remaining_s,
                connect=self._connect_timeout_s,
                sock_connect=self._connect_timeout_s,
                sock_read=self._read_timeout_s,
            ),
        )
        status = response.status
        if status < 200 or 300 <= status < 400:
            response.close()
            _refuse_status(status, response.headers.get("Location", ""))
        self._seen_at = time.monotonic()
        return AiohttpAnswer(response)

    def _choose_pause(self, attempt: Attempt, end: float) -> float | None:
        return choose_pause(
            attempt, max_retries=self._max_retries, remaining_s=end - time.monotonic(), draw=self._draw()
        )

    def _url(self, path: str) -> URL:
        url = self._urls.get(path)
        if url is None:
            url = URL(self._base_url + check_path(path), encoded=True)
            if len(self._urls) < _KNOWN_PATHS:
                self._urls[path] = url
        return url

    def _open_session(self) -> aiohttp.ClientSession:
        session = self._session
        if session is None or session.closed:
            # Compressed chunks would arrive later and in other pieces than the model wrote them.
            headers = {"Accept-Encoding": "identity", "User-Agent": "lukhas-pwm"}
            if self._api_key:
                headers["Authorization"] = f"Bearer {self._api_key}"
            session = self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=KEEPALIVE_S),
                headers=headers,
                # A cookie set for one tenant's call must not travel with another's.
                cookie_jar=aiohttp.DummyCookieJar(),
                # No proxy, no .netrc: where calls go is a setting of this gateway alone.
                trust_env=False,
                max_line_size=_HEADER_LIMIT_BYTES,
                max_field_size=_HEADER_LIMIT_BYTES,
            )
        return session

    async def _connect_only(self) -> str | None:
        parts = urlsplit(self._base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, writer = await asyncio.open_connection(parts.hostname, port)
        except TimeoutError:
            return f"no connection within {self._connect_timeout_s:g} s"
        except OSError as failure:
            return _describe_os(failure)
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            # It was open a moment ago, and that was the question.
            pass
        return None


_HINT_CONNECT: Final = "Check LUKHAS_UPSTREAM_BASE_URL and the network."
_HINT_TOTAL: Final = "LUKHAS_UPSTREAM_TOTAL_TIMEOUT_S sets how long one call may take."


def _translate(failure: BaseException) -> tuple[UpstreamError, bool]:
    """Return the house's error for one of aiohttp's, and whether an unsent call is worth another attempt."""
    match failure:
        case aiohttp.ClientConnectorCertificateError():
            error = UpstreamUnreachable("The upstream's certificate was not accepted.", hint=_HINT_CONNECT)
            return error, False
        case aiohttp.ConnectionTimeoutError():
            return UpstreamUnreachable("No connection to the upstream came about in time.", hint=_HINT_CONNECT), True
        case aiohttp.ClientConnectorError():
            reason = _describe_os(failure.os_error)
            return UpstreamUnreachable(f"The upstream cannot be connected to: {reason}.", hint=_HINT_CONNECT), True
        case aiohttp.SocketTimeoutError():
            hint = "LUKHAS_UPSTREAM_READ_TIMEOUT_S sets the longest silence."
            return UpstreamTimeout("The upstream fell silent.", hint=hint), False
        case TimeoutError():
            return UpstreamTimeout("The call's deadline has passed.", hint=_HINT_TOTAL), False
        case aiohttp.ServerDisconnectedError():
            return UpstreamBroken("The upstream closed the connection without an answer."), False
        case aiohttp.ClientPayloadError():
            return UpstreamBroken("The upstream's answer was cut off."), False
        case aiohttp.ClientResponseError():
            return UpstreamBroken("The upstream's answer is not HTTP."), False
        case _:
            return UpstreamBroken("The connection to the upstream broke."), False


def _describe_os(failure: OSError) -> str:
    # asyncio writes the address into its own text, and where the model lives is not every caller's to know.
    if isinstance(failure, socket.gaierror):
        return "its name cannot be resolved"
    number = failure.errno
    return os.strerror(number) if number is not None and number in errno.errorcode else type(failure).__name__


def _over_limit(limit_bytes: int) -> UpstreamBroken:
    hint = "LUKHAS_MAX_RESPONSE_BYTES sets the largest answer."
    return UpstreamBroken(f"The upstream's answer is larger than {limit_bytes} bytes.", hint=hint)


def _refuse_status(status: int, location: str) -> NoReturn:
    if status < 300:
        raise UpstreamBroken(f"The upstream answered with status {status}, which no call asked for.")
    # The origin is what is usually wrong (http for https); a path or query may hold what is not ours to print.
    origin = ""
    try:
        parts = urlsplit(location)
        if parts.scheme in ("http", "https") and parts.hostname:
            origin = f" to {parts.scheme}://{parts.hostname}"
    except ValueError:
        pass
    raise UpstreamBroken(
        f"The upstream answered with a redirect ({status}){origin}, which is not followed.",
        hint="LUKHAS_UPSTREAM_BASE_URL must name the final address.",
    )
