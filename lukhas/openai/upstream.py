"""The port to the model's side: what the gateway asks of any upstream.

Two implementations: `AiohttpUpstream` speaks HTTP to a model API, `EchoUpstream` answers in process without a model.
Both hold to one contract suite, tests/contract/test_upstream_port.py.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from lukhas.errors import InvalidRequest

if TYPE_CHECKING:
    from lukhas.settings import Settings

# The path becomes part of a request line: no blank, control character or fragment may stand in it, and no dot segment
# may climb out of the base URL.
_SAFE_PATH: Final = re.compile(r"/[!$&-;=?-Z_a-z~%]*\Z", re.ASCII)
_DOT_SEGMENT: Final = re.compile(r"/(?:\.|%2e){1,2}(?:/|\?|\Z)", re.ASCII | re.IGNORECASE)


class UpstreamRequest(msgspec.Struct, frozen=True):
    """One call as it goes upstream.

    Attributes:
        method: `GET` or `POST`, in upper case.
        path: relative to the base URL and percent-encoded, such as `/chat/completions`.
        body: the JSON text; empty for none.
        headers: what `lukhas.openai.headers.request_headers` let through.
        stream: whether the caller asked for server-sent events.
    """

    method: str
    path: str
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False


class UpstreamAnswer(Protocol):
    """An answer whose status and headers are here; its body is read once, by `read` or by `chunks`.

    Attributes:
        attempts: how many times the call was tried, 1 or more.
    """

    attempts: int

    @property
    def status(self) -> int:
        """The HTTP status, 200-299 or 400-599."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers by lower-case name; repeated ones joined by a comma."""
        ...

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body.

        Raises:
            UpstreamBroken: the body was cut off, or is longer than `limit_bytes`.
            UpstreamTimeout: the upstream fell silent, or the call's deadline passed.
        """
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body's bytes as they arrive.

        Cancellation and errors close the upstream's connection; whoever leaves by `break` calls `abort` or `close`.

        Raises:
            UpstreamBroken: the body was cut off.
            UpstreamTimeout: the upstream fell silent, or the call's deadline passed.
        """
        ...

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it. May be called twice."""
        ...

    def abort(self) -> None:
        """Close the connection at once unless the body was read to its end. May be called twice."""
        ...


class Upstream(Protocol):
    """A model API, or something that answers like one."""

    @property
    def name(self) -> str:
        """What it is, for records and `/readyz`: `http` or `echo`."""
        ...

    async def send(self, request: UpstreamRequest, *, deadline: float | None = None) -> UpstreamAnswer:
        """Send one call and return when the answer's status and headers are here.

        Retries inside, as `lukhas.openai.retry` decides. An error status is an answer, not an exception.

        Args:
            request: the call.
            deadline: the moment, in seconds of `time.monotonic()`, by which the whole call must be over, body
                included; None takes the setting `upstream_total_timeout_s` from now.

        Raises:
            UpstreamUnreachable: the call was surely not sent.
            UpstreamBroken: no understandable answer came, or a redirect.
            UpstreamTimeout: no answer came in time.
            InvalidRequest: a path that cannot stand in a request line.
        """
        ...

    async def check(self) -> str | None:
        """Return None if the upstream can be reached, else the reason. Cheap and cached; sends no call."""
        ...

    async def close(self) -> None:
        """Close every connection. May be called twice."""
        ...


def check_path(path: str) -> str:
    """Return `path` where it can stand behind the base URL in a request line.

    Raises:
        InvalidRequest: no leading slash, a character that must be percent-encoded, or a dot segment.
    """
    if _SAFE_PATH.match(path) is None or _DOT_SEGMENT.search(path) is not None:
        raise InvalidRequest("The upstream path is not a plain, percent-encoded path.")
    return path


def make_upstream(settings: Settings) -> Upstream:
    """Make the upstream that `LUKHAS_UPSTREAM_BASE_URL` names. Opens no connection.

    Raises:
        SettingsError: `LUKHAS_UPSTREAM_API_KEY` holds characters that no header can carry.
    """
    if settings.upstream_base_url == "echo":
        from lukhas.openai.echo import EchoUpstream

        return EchoUpstream()
    from lukhas.openai.aiohttp_upstream import AiohttpUpstream

    return AiohttpUpstream(
        settings.upstream_base_url,
        api_key=settings.upstream_api_key,
        connect_timeout_s=settings.upstream_connect_timeout_s,
        read_timeout_s=settings.upstream_read_timeout_s,
        total_timeout_s=settings.upstream_total_timeout_s,
        max_retries=settings.upstream_max_retries,
        max_connections=settings.upstream_max_connections,
    )
