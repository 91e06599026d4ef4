"""Guards a streamed answer of the chat dialect, event by event.

An event of which nothing was held or changed goes out byte for byte as it came; any other is written anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, cast

import orjson

from lukhas.errors import UpstreamBroken
from lukhas.openai.answer_text import Found, find_texts, guard_texts, is_server_written
from lukhas.openai.call import AnswerGuard, ObjectRef, Summary
from lukhas.openai.chat_answer import MAX_CHOICES, MediaDesk, guard_members, summarise_chat
from lukhas.openai.chat_choice import ANSWERS, HELD_COST_CHARS, MAX_HELD_CHARS, OWN_MEMBERS, ChoiceGuard, Chunk
from lukhas.openai.sse import event_data, is_done
from lukhas.openai.wire import encode_json

DONE: Final = b"data: [DONE]\n\n"
_QUIET: Final = b":\n\n"
# Comments by which servers keep a connection alive.
_KEEP_ALIVE: Final = frozenset((b"", b"keep-alive", b"keepalive", b"ping", b"heartbeat", b"OPENROUTER PROCESSING"))
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
# Fields of an event beside its data that the gateway passes on, as long as they are plain words.
_FIELD_LINE: Final = re.compile(rb"(?:event|id): ?[A-Za-z0-9_.:-]{0,128}|retry: ?[0-9]{1,9}")


class ChatRewriter:
    """See `lukhas.openai.call.StreamRewriter`.

    Args:
        guard: what judges the answer.
        summary: filled with finish reasons as released, usage and model.
        choices: how many answers were asked for; None where that is not known.

    Attributes:
        is_over: nothing more is to be read.
        is_blocked: every choice was ended by a block.
        has_error: upstream sent an error event.
    """

    __slots__ = (
        "_choices",
        "_desk",
        "_envelope",
        "_expected",
        "_guard",
        "_held",
        "_held_chars",
        "_held_found",
        "_is_flushed",
        "_last",
        "_summary",
        "has_error",
        "is_blocked",
        "is_over",
    )

    def __init__(self, guard: AnswerGuard, summary: Summary, choices: int | None = None) -> None:
        self._guard = guard
        self._summary = summary
        self._expected = choices
        self._desk = MediaDesk(guard)
        self._choices: dict[int, ChoiceGuard] = {}
        self._envelope: dict[str, Any] = {}
        self._held: list[dict[str, Any]] = []
        self._held_found: list[Found] = []
        self._held_chars = 0
        self._is_flushed = False
        self._last = DONE
        self.is_over = False
        self.is_blocked = False
        self.has_error = False

    @property
    def objects(self) -> Sequence[ObjectRef]:
        """Upstream objects that the answer made: none in this dialect."""
        return ()

    def take(self, raw: bytes) -> Sequence[bytes]:
        """Take one whole event and return the events to release now.

        Raises:
            UpstreamBroken: it cannot be read, and so not be guarded.
        """
        if self.is_over:
            return ()
        try:
            return self._take(raw)
        except RecursionError:
            raise UpstreamBroken("The upstream sent an event that is nested too deeply.") from None

    def _take(self, raw: bytes) -> Sequence[bytes]:
        if raw.startswith(b"data: ") and raw.find(b"\n") == len(raw) - 2 and raw.endswith(b"\n\n") and b"\r" not in raw:
            data, prefix, is_clean = raw[6:-2], b"", True
        else:
            found = event_data(raw)
            prefix, is_clean = _read_lines(raw)
            if found is None or not found.strip():
                if found is None and prefix and is_clean:
                    return (raw,)
                return (prefix + b"\n",) if prefix else (_QUIET,)
            data = found
        if is_done(data):
            self.is_over = True
            self._last = raw if is_clean else DONE
            return ()
        event = _parse(data)
        choices: Any = event.get("choices")
        if type(choices) is list and len(cast("list[Any]", choices)) == 1:
            released = self._take_token(raw, event, cast("list[Any]", choices)[0], is_clean)
            if released is not None:
                return released
            event["choices"] = choices
        events = self._take_event(event)
        if events is None:
            return (raw,) if is_clean else (prefix + _write(event),)
        return [prefix + _write(one) for one in events]

    def flush(self) -> Sequence[bytes]:
        """Return everything that is still held: each unfinished choice's, then what belongs to none.

        Where upstream's stream broke off, or ended in an error, only of the choices that upstream had finished.
        """
        if self._is_flushed or self.is_blocked:
            return ()
        # A text that was cut was never seen whole: what is held of it may be half of what may not pass.
        self._is_flushed = self.is_over and not self.has_error
        released = [_write(event) for event in self._finish_choices()]
        if (
            self._is_flushed
            and self._held_found
            and not guard_texts(self._guard, self._held_found, self._desk.admits).is_blocked
        ):
            released += [_write({**self._bare_envelope(), "choices": [], **part}) for part in self._held]
        return released

    def stop(self, refusal: str) -> Sequence[bytes]:
        """End every choice here, whatever was released of it; what is held is dropped."""
        indices = sorted(self._choices) or list(range(min(self._expected or 1, MAX_CHOICES)))
        events: list[dict[str, Any]] = []
        for index in indices:
            events += self._wrap(self._bare_envelope(), self._find(index).block(refusal))
            self._summary.finish_reasons[index] = "content_filter"
        self._held.clear()
        self._held_found.clear()
        self.is_over = self.is_blocked = True
        return [_write(event) for event in events]

    def end(self) -> bytes:
        """Return the last event; empty where upstream's stream broke off before it. An error is its last word."""
        return self._last if self.is_over or self.has_error else b""

    def _take_token(self, raw: bytes, event: dict[str, Any], choice: Any, is_clean: bool) -> Sequence[bytes] | None:
        """Take the usual event, one piece of text of one choice; None where it is another one.

        Takes the choices out of the event.
        """
        if type(choice) is not dict or not is_clean:
            return None
        members = cast("dict[str, Any]", choice)
        delta: Any = members.get("delta")
        index: Any = members.get("index")
        if type(delta) is not dict or type(index) is not int:
            return None
        name = text = None
        for member, value in cast("dict[str, Any]", delta).items():
            if value is None or (member == "role" and value == "assistant"):
                continue
            if name is not None or type(value) is not str:
                return None
            name, text = member, value
        state = self._choices.get(index)
        if (
            state is None
            or name is None
            or text is None
            or state.is_over
            or members.get("finish_reason") not in (None, "")
            or members.get("logprobs") is not None
        ):
            return None
        outer: Chunk = {}
        if not OWN_MEMBERS.issuperset(members):
            outer = {key: value for key, value in members.items() if key not in OWN_MEMBERS}
            if outer != state.plain_outer:
                return None
        del event["choices"]
        if "obfuscation" in event:
            padding: Any = event.pop("obfuscation")
            if not isinstance(padding, str) or not is_server_written("obfuscation", padding):
                event["obfuscation"] = padding
                return None
        if event != self._envelope:
            if not _differs_in_numbers(event, self._envelope):
                return None
            self._envelope = event
        channel = state.find_channel(name)
        if channel is None or not text:
            return None
        released = channel.feed(text)
        piece: Chunk = {"index": index, "delta": {name: released}, "logprobs": None, "finish_reason": None, **outer}
        if channel.is_blocked:
            before = [piece] if released else []
            return [_write(one) for one in self._wrap(event, [*before, *self._block(state)])]
        if not released:
            return ()
        if name in ANSWERS:
            state.has_text = True
        return (raw,) if released == text else (_write({**event, "choices": [piece]}),)

    def _take_event(self, event: dict[str, Any]) -> list[dict[str, Any]] | None:
        """Take any event; return what is released of it, None where it may go as it came."""
        if "error" in event and event["error"] is not None:
            self.has_error = True
        choices: Any = event.get("choices")
        if choices is not None and not isinstance(choices, list):
            raise UpstreamBroken("The upstream sent choices that are no list.")
        summarise_chat({name: value for name, value in event.items() if name != "choices"}, self._summary)
        envelope, is_changed = self._take_envelope(event)
        if not choices:
            finished = [] if self.has_error else self._finish_choices()
            if not finished and not is_changed:
                return None
            rest: dict[str, Any] = {**envelope, "choices": []} if "choices" in event else envelope
            return [*finished, rest] if not is_changed or _carries(envelope) else finished
        released: list[dict[str, Any]] = []
        bare = {**envelope, "usage": None} if envelope.get("usage") is not None else envelope
        for position, choice in enumerate(cast("list[Any]", choices)):
            chunks = self._take_choice(position, choice)
            if chunks is None:
                released.append({**bare, "choices": [choice]})
            else:
                is_changed = True
                released += self._wrap(bare, chunks)
        if not is_changed:
            return None
        if bare is not envelope:
            # The counts go out once, with whatever is released last of this event.
            if released:
                released[-1] = {**released[-1], "usage": envelope["usage"]}
            else:
                released.append({**envelope, "choices": []})
        return released

    def _take_choice(self, position: int, choice: Any) -> list[Chunk] | None:
        if not isinstance(choice, dict):
            raise UpstreamBroken("The upstream sent a choice that is no object.")
        members = cast("Chunk", choice)
        index: Any = members.get("index", position)
        if type(index) is not int or not 0 <= index < max(MAX_CHOICES, self._expected or 0):
            raise UpstreamBroken("The upstream sent a choice with an index that is none.")
        state = self._find(index)
        if state.is_over:
            if not state.is_blocked and any(
                find_texts(members, name) for name in members if isinstance(members[name], (str, dict, list))
            ):
                raise UpstreamBroken("The upstream went on with a choice that had ended.")
            return []
        chunks = state.take(members)
        if state.is_blocked:
            self._note_block(state)
        return chunks

    def _find(self, index: int) -> ChoiceGuard:
        state = self._choices.get(index)
        if state is None:
            state = self._choices[index] = ChoiceGuard(index, self._guard, self._desk)
        return state

    def _block(self, state: ChoiceGuard) -> list[Chunk]:
        chunks = state.block()
        self._note_block(state)
        return chunks

    def _note_block(self, state: ChoiceGuard) -> None:
        self._summary.finish_reasons[state.index] = "content_filter"
        blocked = sum(one.is_blocked for one in self._choices.values())
        if blocked == len(self._choices) and blocked >= (self._expected or 0):
            self.is_over = self.is_blocked = True

    def _finish_choices(self) -> list[dict[str, Any]]:
        """End the choices that have not ended yet; those that upstream has not finished only at the stream's end."""
        events: list[dict[str, Any]] = []
        for index in sorted(self._choices):
            state = self._choices[index]
            if state.is_over or not (state.is_finishing or self._is_flushed):
                continue
            events += self._wrap(self._bare_envelope(), state.finish())
            if state.is_blocked:
                self._note_block(state)
            elif state.reason is not None:
                self._summary.finish_reasons[index] = state.reason
        return events

    def _take_envelope(self, event: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Return what may be released of an event beside its choices, and whether that is not all of it."""
        envelope = {name: value for name, value in event.items() if name != "choices"}
        if "error" in envelope:
            return envelope, guard_members(envelope, self._guard, self._desk, leave=())
        is_changed = False
        for name in [name for name, value in envelope.items() if isinstance(value, (str, dict, list))]:
            part = {name: envelope[name]}
            found = find_texts(part, name)
            if found:
                del envelope[name]
                self._hold(part, found)
                is_changed = True
        self._envelope = {name: value for name, value in envelope.items() if name != "obfuscation"}
        return envelope, is_changed

    def _hold(self, part: dict[str, Any], found: list[Found]) -> None:
        # What is the same in every event is said once.
        if any(held == part for held in self._held[-4:]):
            return
        self._held.append(part)
        self._held_found += found
        self._held_chars += sum(len(one.text) + HELD_COST_CHARS for one in found)
        if self._held_chars > MAX_HELD_CHARS:
            raise UpstreamBroken("The upstream sent more than can be held to be judged.")

    def _bare_envelope(self) -> dict[str, Any]:
        return {name: value for name, value in self._envelope.items() if name not in ("usage", "error")}

    def _wrap(self, envelope: dict[str, Any], chunks: list[Chunk]) -> list[dict[str, Any]]:
        return [{**envelope, "choices": [chunk]} for chunk in chunks]


def _differs_in_numbers(event: dict[str, Any], other: dict[str, Any]) -> bool:
    """Say whether two events beside their choices are the same but for times and counters."""
    return event.keys() == other.keys() and all(
        value == other[name] or type(value) is int or type(value) is float for name, value in event.items()
    )


def _carries(envelope: dict[str, Any]) -> bool:
    """Say whether an event without choices still tells anything."""
    return any(envelope.get(name) is not None for name in envelope if name not in ("id", "object", "created", "model"))


def _parse(data: bytes) -> dict[str, Any]:
    try:
        value: Any = orjson.loads(data)
    except orjson.JSONDecodeError as wrong:
        raise UpstreamBroken("The upstream sent an event that is not JSON.") from wrong
    if not isinstance(value, dict):
        raise UpstreamBroken("The upstream sent an event that is no JSON object.")
    return cast("dict[str, Any]", value)


def _write(event: dict[str, Any]) -> bytes:
    return b"data: " + encode_json(event) + b"\n\n"


def _read_lines(raw: bytes) -> tuple[bytes, bool]:
    """Return an event's lines beside its data as they may be released, and whether that is all of them.

    A comment may say anything, so of one that is not known only the colon stays.
    """
    lines: list[bytes] = []
    is_clean = True
    for line in _LINE_END.split(raw.removeprefix(b"\xef\xbb\xbf")):
        if not line or line.partition(b":")[0] == b"data":
            continue
        if line.startswith(b":"):
            is_known = line[1:].strip() in _KEEP_ALIVE
            is_clean = is_clean and is_known
            lines.append(line if is_known else b":")
        elif _FIELD_LINE.fullmatch(line):
            lines.append(line)
        else:
            is_clean = False
    return b"".join(line + b"\n" for line in lines), is_clean
