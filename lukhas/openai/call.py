"""One internal call type for every dialect: each check runs on this, so that no dialect can go round one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeAlias, cast

import msgspec

from lukhas.openai.wire import Extension

DialectName = Literal["chat", "responses", "embeddings", "moderations"]
RequestPoint = Literal["instruction", "input", "tool_result"]
TextKind = Literal["text", "reasoning", "refusal", "arguments", "transcript", "logprobs", "other"]
Path: TypeAlias = tuple[str | int, ...]
"""Where a value stands in a JSON document: names and indices from its root."""


class Text(msgspec.Struct, frozen=True, gc=False):
    """One string of a request that a model will read.

    Attributes:
        point: 'instruction' (system and developer messages, tool descriptions), 'tool_result', or 'input' for all else.
        path: where it stands in the call's body.
        text: the string.
        group: texts of one group stand next to each other in the model's eyes and are also read as one.
    """

    point: RequestPoint
    path: Path
    text: str
    group: int


class Media(msgspec.Struct, frozen=True, gc=False):
    """Something in a request that no text moderator can read: an image, audio, a video, a file."""

    kind: Literal["image", "audio", "video", "file"]
    path: Path


class ObjectRef(msgspec.Struct, frozen=True, gc=False):
    """An upstream object that a request names by id: a response, conversation, file, vector store or container."""

    kind: str
    id: str
    path: Path


class Call(msgspec.Struct, frozen=True):
    """One request to a model, whatever the dialect it came in.

    Attributes:
        upstream_path: relative to the upstream's base URL.
        body: every field that goes upstream, as it came.
        model: the model's name; empty where a dialect needs none.
        stream: whether the answer is to be streamed.
        end_user: the end user as the caller named it.
        extension: the `lukhas` field.
        texts: every string of the body that a model reads, unknown fields included.
        media: what no text moderator can read.
        objects: upstream objects that the body names.
        choices: how many answers are asked for.
    """

    dialect: DialectName
    upstream_path: str
    body: dict[str, Any]
    model: str
    stream: bool
    end_user: str | None
    extension: Extension
    texts: tuple[Text, ...] = ()
    media: tuple[Media, ...] = ()
    objects: tuple[ObjectRef, ...] = ()
    choices: int = 1


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call that a model has made, whole.

    Attributes:
        kind: 'function', 'custom' (free text arguments), or 'hosted' (the provider runs it; `name` is its type, such
            as `web_search`).
        arguments: as the model wrote them.
        call_id: the dialect's own id, where there is one.
    """

    kind: Literal["function", "custom", "hosted"]
    name: str
    arguments: str
    call_id: str | None


class CallVerdict(msgspec.Struct, frozen=True):
    """What becomes of a tool call.

    Attributes:
        is_allowed: whether it reaches the caller.
        arguments: what the caller gets; redaction may have changed them.
        message: why it was blocked, for the caller: the one answer that a blocked call gets.
    """

    is_allowed: bool
    arguments: str = ""
    message: str = ""


class TextChannel(Protocol):
    """One run of text that a model writes, guarded as it comes."""

    def feed(self, text: str) -> str:
        """Take the next piece and return what may be released now; nothing any more once it is blocked."""
        ...

    def finish(self) -> str:
        """Say that the run is over and return the rest that may be released."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether it holds something that may not pass: what it belongs to ends here."""
        ...


class AnswerGuard(Protocol):
    """What judges an answer, part by part; the dialects find the parts. One per call."""

    def open(self, kind: TextKind) -> TextChannel:
        """Open one run of text."""
        ...

    def judge(self, call: ToolCall) -> CallVerdict:
        """Judge a tool call by allowlist, schema and moderation."""
        ...

    def admit_media(self, kind: str) -> bool:
        """Say whether media that no moderator can read (audio, an image) may pass."""
        ...

    @property
    def refusal(self) -> str:
        """Why the last thing was blocked, for the caller."""
        ...


class Summary(Protocol):
    """What the record says of an answer, filled while it is read."""

    finish_reasons: dict[int, str]
    usage: dict[str, int] | None
    model: str | None


class StreamRewriter(Protocol):
    """Guards one streamed answer: upstream's events in, the caller's events out.

    It never releases the stream's last event (`[DONE]`, `response.completed`): that is for `end` to return, because the
    outcome must be on record first.
    """

    @property
    def is_over(self) -> bool:
        """Whether the last event has come, or a block has ended every choice: nothing more is to be read."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether every choice was ended by a block, so that upstream's work may be stopped."""
        ...

    @property
    def objects(self) -> Sequence[ObjectRef]:
        """What upstream has made for this answer, as far as it has told."""
        ...

    @property
    def has_error(self) -> bool:
        """Whether upstream sent an error event."""
        ...

    def take(self, raw: bytes) -> Sequence[bytes]:
        """Take one whole event, its empty line included, and return the events to release now.

        Raises:
            UpstreamBroken: what cannot be read cannot be guarded, and is not passed on.
        """
        ...

    def flush(self) -> Sequence[bytes]:
        """Return what must be released before the last event: held text, and where blocked, the dialect's ending."""
        ...

    def stop(self, refusal: str) -> Sequence[bytes]:
        """End every choice here, as a moderator wants it that judged text after this guard; held text is dropped.

        Returns:
            The dialect's ending but for its last event, which `end` returns; `is_over` and `is_blocked` are then True.
        """
        ...

    def end(self) -> bytes:
        """Return the last event; empty where upstream's stream broke off before it."""
        ...


class Dialect(Protocol):
    """How one dialect writes calls and answers."""

    @property
    def name(self) -> DialectName:
        """Its name."""
        ...

    def parse(self, raw: bytes) -> Call:
        """Read a request.

        Raises:
            InvalidRequest: it cannot be understood, or holds a tool-bearing field that is not listed.
        """
        ...

    def add_style(self, body: Mapping[str, Any], *, preamble: str, prefix: str, stop: Sequence[str]) -> dict[str, Any]:
        """Return the fields that change when a prompt style is added; the body is not changed."""
        ...

    def guard_answer(self, answer: dict[str, Any], guard: AnswerGuard) -> bool:
        """Guard a plain answer in place; return whether anything was changed."""
        ...

    def open_stream(self, guard: AnswerGuard, summary: Summary, choices: int | None = None) -> StreamRewriter:
        """Open the guard of one streamed answer.

        Args:
            guard: judges its parts.
            summary: filled as the stream is read.
            choices: how many answers were asked for; None where that is not known.
        """
        ...

    def summarise(self, answer: Mapping[str, Any], summary: Summary) -> None:
        """Take a plain answer's finish reasons, usage and model into a summary."""
        ...


def walk_strings(value: Any, path: Path = (), *, skip: Callable[[Path], bool]) -> Iterator[tuple[Path, str]]:
    """Yield every string in a JSON value with its path, in order; names of members are not among them.

    Args:
        value: the JSON value.
        path: where the value itself stands.
        skip: says of a path that neither it nor anything below is wanted.
    """
    waiting: list[tuple[Path, Any]] = [(path, value)]
    while waiting:
        place, one = waiting.pop()
        if isinstance(one, str):
            yield place, one
        elif isinstance(one, dict):
            members = cast("dict[str, Any]", one)
            waiting += [((*place, name), members[name]) for name in reversed(members) if not skip((*place, name))]
        elif isinstance(one, list):
            entries = cast("list[Any]", one)
            waiting += [
                ((*place, index), entries[index])
                for index in range(len(entries) - 1, -1, -1)
                if not skip((*place, index))
            ]


def replace_values(body: dict[str, Any], edits: Mapping[Path, Any]) -> dict[str, Any]:
    """Return the body with other values at some paths; the given body is not changed, untouched parts are shared."""
    if not edits:
        return body
    copies: dict[Path, Any] = {(): dict(body)}
    for path, value in edits.items():
        for depth in range(1, len(path)):
            if path[:depth] not in copies:
                child = copies[path[: depth - 1]][path[depth - 1]]
                copy: Any = child.copy()
                copies[path[:depth]] = copy
                copies[path[: depth - 1]][path[depth - 1]] = copy
        copies[path[:-1]][path[-1]] = value
    return copies[()]
