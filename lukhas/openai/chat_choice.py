"""Guards one choice of a streamed chat answer: what comes in are its chunks, what goes out is what may be released.

Members of `delta` that are strings are runs of text, released as they come. Whatever else may hold text (lists of
parts, annotations, details) is held whole until the choice ends, since nothing says how its pieces belong together;
so are tool calls, which can be judged only whole. The choice's finish is held until something follows it: some
upstreams name a finish reason in every chunk.
"""

from __future__ import annotations

from typing import Any, Final, cast

from lukhas.errors import UpstreamBroken
from lukhas.openai.answer_text import KINDS, Found, find_texts, guard_texts, is_server_written
from lukhas.openai.call import AnswerGuard, TextChannel
from lukhas.openai.chat_answer import TEXT_FIELDS, MediaDesk
from lukhas.openai.chat_tool import CallAssembly, judge_call, judge_function_call, settle_finish
from lukhas.openai.logprob import LogprobGuard

MAX_HELD_CHARS: Final = 16_000_000
# A short string costs its objects too.
HELD_COST_CHARS: Final = 256
MAX_RUNS: Final = 64
# What a caller reads as the answer.
ANSWERS: Final = frozenset(("content", "refusal"))
_CALLS: Final = frozenset(("tool_calls", "function_call"))
OWN_MEMBERS: Final = frozenset(("index", "delta", "finish_reason", "logprobs"))
Chunk = dict[str, Any]


class ChoiceGuard:
    """The guard of one choice.

    Attributes:
        plain_outer: what stood in the last chunk beside its delta and held no text.
        has_text: text that a caller reads as the answer was released.
        is_blocked: a block ended it.
        is_over: it has ended, by a block or by its finish.
        reason: the finish reason that was released.
    """

    __slots__ = (
        "_assembly",
        "_channels",
        "_desk",
        "_direct",
        "_final",
        "_found",
        "_guard",
        "_held",
        "_held_chars",
        "_logprobs",
        "has_text",
        "index",
        "is_blocked",
        "is_over",
        "plain_outer",
        "reason",
    )

    def __init__(self, index: int, guard: AnswerGuard, desk: MediaDesk) -> None:
        self.index = index
        self.plain_outer: Chunk = {}
        self.has_text = False
        self.is_blocked = False
        self.is_over = False
        self.reason: str | None = None
        self._guard = guard
        self._desk = desk
        self._channels: dict[tuple[str, ...], TextChannel] = {}
        self._direct: dict[str, TextChannel] = {}
        self._held: list[Chunk] = []
        self._found: list[Found] = []
        self._held_chars = 0
        self._assembly: CallAssembly | None = None
        self._logprobs: LogprobGuard | None = None
        self._final: Chunk | None = None

    @property
    def is_finishing(self) -> bool:
        """Whether upstream has named a finish reason, which is held."""
        return self._final is not None

    def find_channel(self, name: str) -> TextChannel | None:
        """Return the run of one string member of `delta`, where it has begun."""
        return self._direct.get(name)

    def take(self, choice: Chunk) -> list[Chunk] | None:
        """Take the choice's next chunk.

        Returns:
            What is released now; None where the chunk may go as it came.

        Raises:
            UpstreamBroken: it cannot be read.
        """
        delta: Any = choice.get("delta")
        if delta is None:
            delta = {}
        if not isinstance(delta, dict):
            raise UpstreamBroken("The upstream sent a delta that is no object.")
        passed: Chunk = {}
        is_changed = self._take_delta(cast("Chunk", delta), passed)
        if self.is_blocked:
            return self._end([self._chunk(passed)] if _says(passed) else [])
        outer: Chunk = {}
        if self._take_outer(choice, outer):
            is_changed = True
        else:
            self.plain_outer = outer
        logprobs: Any = choice.get("logprobs")
        if logprobs is not None:
            if self._logprobs is None:
                self._logprobs = LogprobGuard(self._guard)
            released = self._logprobs.feed(logprobs)
            if self._logprobs.is_blocked:
                return self.block()
            is_changed = is_changed or released != logprobs
            logprobs = released
        self._check_size()
        reason = _read_reason(choice)
        if reason is None and not is_changed:
            return None
        if reason is not None:
            before = [self._chunk(passed, logprobs)] if _says(passed) or logprobs else []
            role = {} if before else passed
            self._final = {"index": self.index, "delta": role, "logprobs": None, **outer, "finish_reason": reason}
            return before
        if not _says(passed) and not logprobs and not outer:
            return []
        return [{**self._chunk(passed, logprobs), **outer}]

    def finish(self) -> list[Chunk]:
        """End the choice and return everything that is still held, its finish last."""
        if self.is_over:
            return []
        tails: Chunk = {}
        for names, channel in self._channels.items():
            rest = channel.finish()
            if rest:
                _place(tails, names, rest)
                self.has_text = self.has_text or names[0] in ANSWERS
            if channel.is_blocked:
                return self._end([self._chunk(tails)] if tails else [])
        if self._found and guard_texts(self._guard, self._found, self._desk.admits).is_blocked:
            return self.block()
        logprobs = self._logprobs.finish() if self._logprobs is not None else None
        if self._logprobs is not None and self._logprobs.is_blocked:
            return self.block()
        released = [self._chunk(tails, logprobs)] if tails or logprobs else []
        released += self._held
        reason = self._final["finish_reason"] if self._final is not None else None
        if self._assembly is not None:
            reason = self._judge_calls(self._assembly, released, reason)
        if self._final is not None or reason is not None:
            final = self._final or self._chunk({})
            released.append({**final, "finish_reason": reason})
        self.is_over = True
        self.reason = reason
        return released

    def block(self, refusal: str | None = None) -> list[Chunk]:
        """End the choice as blocked and return the chunks that say so; what is held is dropped."""
        return self._end([], refusal)

    def _end(self, before: list[Chunk], refusal: str | None = None) -> list[Chunk]:
        self.is_blocked = self.is_over = True
        self.reason = "content_filter"
        self._held.clear()
        self._found.clear()
        self._assembly = self._final = None
        why = self._guard.refusal if refusal is None else refusal
        return [
            *before,
            self._chunk({"refusal": why}),
            {"index": self.index, "delta": {}, "logprobs": None, "finish_reason": "content_filter"},
        ]

    def _chunk(self, delta: Chunk, logprobs: Any = None) -> Chunk:
        return {"index": self.index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _take_delta(self, delta: Chunk, passed: Chunk) -> bool:
        """Take a delta, put into `passed` what is released of it; return whether that is not the same."""
        is_changed = False
        for name, value in delta.items():
            if name in _CALLS and value is not None:
                self._assemble(name, value)
                is_changed = True
            elif isinstance(value, str):
                if not value or is_server_written(name, value):
                    passed[name] = value
                    continue
                released = self._feed((name,), value)
                if released or self.is_blocked:
                    passed[name] = released
                if self.is_blocked:
                    return True
                is_changed = is_changed or released != value
            elif value is None or isinstance(value, (bool, int, float)):
                if value is not None and name in TEXT_FIELDS:
                    raise UpstreamBroken(f"The upstream sent a '{name}' that is no text.")
                passed[name] = value
            elif name == "audio" and isinstance(value, dict):
                is_changed = self._take_audio(cast("Chunk", value), passed) or is_changed
                if self.is_blocked:
                    return True
            elif self._hold(delta, name, is_outer=False):
                is_changed = True
            else:
                passed[name] = value
        return is_changed

    def _take_outer(self, choice: Chunk, outer: Chunk) -> bool:
        is_changed = False
        for name, value in choice.items():
            if name in OWN_MEMBERS:
                continue
            if name == "message" and "delta" in choice:
                # Some upstreams repeat the whole answer so far beside each piece of it.
                is_changed = True
            elif isinstance(value, (str, dict, list)) and self._hold(choice, name, is_outer=True):
                is_changed = True
            else:
                outer[name] = value
        return is_changed

    def _take_audio(self, audio: Chunk, passed: Chunk) -> bool:
        """Take `delta.audio`: its transcript is a run of text, its data are media."""
        kept: Chunk = {}
        is_changed = False
        for name, value in audio.items():
            if name == "transcript" and isinstance(value, str):
                released = self._feed(("audio", name), value)
                if released:
                    kept[name] = released
                is_changed = is_changed or released != value
            elif name == "data" and isinstance(value, str) and value:
                if not self._desk.admits("audio"):
                    self.is_blocked = True
                kept[name] = value
            elif isinstance(value, (str, dict, list)) and find_texts(audio, name):
                self._hold({"audio": {name: value}}, "audio", is_outer=False)
                is_changed = True
            else:
                kept[name] = value
            if self.is_blocked:
                kept.pop("data", None)
                break
        if kept or not is_changed:
            passed["audio"] = kept
        return is_changed

    def _feed(self, names: tuple[str, ...], text: str) -> str:
        channel = self._channels.get(names)
        if channel is None:
            if len(self._channels) >= MAX_RUNS:
                raise UpstreamBroken(f"The upstream sent more than {MAX_RUNS} kinds of text.")
            channel = self._channels[names] = self._guard.open(KINDS.get(names[-1], "other"))
            if len(names) == 1:
                self._direct[names[0]] = channel
        released = channel.feed(text)
        if channel.is_blocked:
            self.is_blocked = True
        if released and names[0] in ANSWERS:
            self.has_text = True
        return released

    def _hold(self, holder: Chunk, name: str, *, is_outer: bool) -> bool:
        """Hold a member until the choice ends if it has text in it; return whether it has."""
        # What is guarded later is the very object that is released.
        part = {name: holder[name]}
        found = find_texts(part, name)
        if not found:
            return False
        chunk = self._chunk(part)
        if is_outer:
            chunk = {**self._chunk({}), **part}
            found = find_texts(chunk, name)
        elif name in ANSWERS:
            self.has_text = True
        self._found += found
        self._held_chars += sum(len(one.text) + HELD_COST_CHARS for one in found)
        self._held.append(chunk)
        return True

    def _assemble(self, name: str, value: Any) -> None:
        if self._assembly is None:
            self._assembly = CallAssembly()
        if name == "tool_calls":
            self._assembly.add(value)
        else:
            self._assembly.add_function_call(value)

    def _check_size(self) -> None:
        held = self._held_chars + (self._assembly.size_chars if self._assembly is not None else 0)
        if held > MAX_HELD_CHARS:
            raise UpstreamBroken("The upstream sent more than can be held to be judged.")

    def _judge_calls(self, assembly: CallAssembly, released: list[Chunk], reason: str | None) -> str | None:
        """Judge the choice's tool calls, add what is released of them, and return its finish reason."""
        why: list[str] = []
        count = 0
        for call in assembly.take_calls():
            judged = judge_call(call, self._guard, self._desk.admits)
            if judged.call is None:
                why.append(judged.message)
            else:
                released.append(self._chunk({"tool_calls": [{"index": count, **judged.call}]}))
                count += 1
        older = assembly.take_function_call()
        if older is not None:
            judged = judge_function_call(older, self._guard, self._desk.admits)
            if judged.call is None:
                why.append(judged.message)
            else:
                released.append(self._chunk({"function_call": judged.call}))
                count += 1
        if not why:
            return reason
        blank = " " if ("refusal",) in self._channels else ""
        released.append(self._chunk({"refusal": blank + " ".join(dict.fromkeys(why))}))
        return settle_finish(reason, has_call=count > 0, has_text=self.has_text)


def _read_reason(choice: Chunk) -> str | None:
    reason: Any = choice.get("finish_reason")
    if reason is None or reason == "":
        return None
    if not isinstance(reason, str):
        raise UpstreamBroken("The upstream sent a finish reason that is no text.")
    return reason if is_server_written("finish_reason", reason) else "stop"


def _says(delta: Chunk) -> bool:
    return any(value is not None and value != "" for value in delta.values())


def _place(delta: Chunk, names: tuple[str, ...], text: str) -> None:
    for name in names[:-1]:
        delta = delta.setdefault(name, {})
    delta[names[-1]] = text
