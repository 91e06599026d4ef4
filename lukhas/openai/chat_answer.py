"""Guards a plain answer of the chat dialect, choice by choice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from lukhas.errors import UpstreamBroken
from lukhas.openai.answer_text import Found, find_texts, guard_texts
from lukhas.openai.call import AnswerGuard, Summary
from lukhas.openai.chat_tool import judge_call, judge_function_call, settle_finish
from lukhas.openai.logprob import LogprobGuard

MAX_CHOICES: Final = 128
# Fields whose text the whole answer hangs on: where it cannot be read, nothing can be judged.
TEXT_FIELDS: Final = frozenset(("content", "refusal", "reasoning_content", "reasoning"))
_MAX_NAME_CHARS: Final = 64
_MAX_MODEL_CHARS: Final = 256


class MediaDesk:
    """Remembers what a guard said of each kind of media, so that it is asked once for each answer."""

    __slots__ = ("_guard", "_said")

    def __init__(self, guard: AnswerGuard) -> None:
        self._guard = guard
        self._said: dict[str, bool] = {}

    def admits(self, kind: str) -> bool:
        """Say whether media of a kind may pass."""
        if kind not in self._said:
            self._said[kind] = self._guard.admit_media(kind)
        return self._said[kind]


def guard_chat_answer(answer: dict[str, Any], guard: AnswerGuard) -> bool:
    """Guard an answer in place; return whether anything was changed.

    Raises:
        UpstreamBroken: its choices cannot be read.
    """
    try:
        return _guard_choices(answer, guard)
    except RecursionError:
        raise UpstreamBroken("The upstream's answer is nested too deeply.") from None


def _guard_choices(answer: dict[str, Any], guard: AnswerGuard) -> bool:
    choices: Any = answer.get("choices")
    if choices is not None and not isinstance(choices, list):
        raise UpstreamBroken("The upstream's answer has choices that are no list.")
    desk = MediaDesk(guard)
    is_changed = False
    for choice in cast("list[Any]", choices or []):
        if not isinstance(choice, dict):
            raise UpstreamBroken("The upstream's answer has a choice that is no object.")
        is_changed = _guard_choice(cast("dict[str, Any]", choice), guard, desk) or is_changed
    return guard_members(answer, guard, desk, leave=("choices",)) or is_changed


def guard_members(answer: dict[str, Any], guard: AnswerGuard, desk: MediaDesk, *, leave: tuple[str, ...]) -> bool:
    """Guard what belongs to no choice, in place: what is blocked goes, an error stays an error."""
    is_changed = False
    for name in [name for name, value in answer.items() if isinstance(value, (str, dict, list)) and name not in leave]:
        found = find_texts(answer, name)
        if not found:
            continue
        outcome = guard_texts(guard, found, desk.admits)
        if outcome.is_blocked:
            answer[name] = {"message": guard.refusal, "type": "upstream_error"} if name == "error" else None
        is_changed = is_changed or outcome.is_blocked or outcome.is_changed
    return is_changed


def _guard_choice(choice: dict[str, Any], guard: AnswerGuard, desk: MediaDesk) -> bool:
    message: Any = choice.get("message")
    if message is None:
        message = {}
    if not isinstance(message, dict):
        raise UpstreamBroken("The upstream's answer has a message that is no object.")
    members = cast("dict[str, Any]", message)
    found: list[Found] = []
    for name, value in members.items():
        if isinstance(value, (str, dict, list)):
            if name not in ("tool_calls", "function_call"):
                found += find_texts(members, name)
        elif name in TEXT_FIELDS and value is not None:
            raise UpstreamBroken(f"The upstream's answer has a '{name}' that is no text.")
    for name, value in choice.items():
        if isinstance(value, (str, dict, list)) and name not in ("message", "logprobs"):
            found += find_texts(choice, name)
    outcome = guard_texts(guard, found, desk.admits) if found else None
    if outcome is not None and outcome.is_blocked:
        _end_choice(choice, members, guard)
        return True
    is_changed = outcome is not None and outcome.is_changed
    if choice.get("logprobs") is not None:
        logprobs = LogprobGuard(guard)
        first, rest = logprobs.feed(choice["logprobs"]), logprobs.finish()
        if logprobs.is_blocked:
            _end_choice(choice, members, guard)
            return True
        whole = join_logprobs(first, rest)
        if whole != choice["logprobs"]:
            choice["logprobs"] = whole
            is_changed = True
    if members.get("tool_calls") is not None or members.get("function_call") is not None:
        is_changed = _guard_calls(choice, members, guard, desk) or is_changed
    return is_changed


def join_logprobs(first: dict[str, Any] | None, rest: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return logprobs that were released in two parts as one."""
    if first is None or rest is None:
        return first if rest is None else rest
    joined = dict(first)
    for name, entries in rest.items():
        joined[name] = [*(joined.get(name) or []), *(entries or [])] if name in joined else entries
    return joined


def _guard_calls(choice: dict[str, Any], message: dict[str, Any], guard: AnswerGuard, desk: MediaDesk) -> bool:
    calls: Any = message.get("tool_calls")
    if calls is None:
        calls = []
    if not isinstance(calls, list) or not all(isinstance(call, dict) for call in cast("list[Any]", calls)):
        raise UpstreamBroken("The upstream's answer has tool calls that are no list of objects.")
    entries = cast("list[dict[str, Any]]", calls)
    judged = [judge_call(call, guard, desk.admits) for call in entries]
    released = [one.call for one in judged if one.call is not None]
    why = [one.message for one in judged if one.call is None]
    older: Any = message.get("function_call")
    if older is not None:
        if not isinstance(older, dict):
            raise UpstreamBroken("The upstream's answer has a function call that is no object.")
        verdict = judge_function_call(cast("dict[str, Any]", older), guard, desk.admits)
        if verdict.call is None:
            del message["function_call"]
            why.append(verdict.message)
        elif verdict.call != older:
            message["function_call"] = verdict.call
    is_changed = bool(why) or released != entries or message.get("function_call") != older
    if released != entries:
        message["tool_calls"] = released
    if why:
        if not released:
            message.pop("tool_calls", None)
        has_text = bool(message.get("content") or message.get("refusal"))
        reason: Any = choice.get("finish_reason")
        has_call = bool(released) or message.get("function_call") is not None
        choice["finish_reason"] = settle_finish(reason, has_call=has_call, has_text=has_text)
        message["refusal"] = join_refusals(message.get("refusal"), why)
        message.setdefault("content", None)
    return is_changed


def join_refusals(own: Any, why: list[str]) -> str:
    """Return the model's own refusal, if it made one, and why calls were blocked, each reason once."""
    said = [own] if isinstance(own, str) and own else []
    return " ".join([*said, *dict.fromkeys(why)])


def _end_choice(choice: dict[str, Any], message: dict[str, Any], guard: AnswerGuard) -> None:
    """Leave of a blocked choice only that it was one."""
    role: Any = message.get("role")
    ended = {"role": role if role in ("assistant", "model") else "assistant", "content": None, "refusal": guard.refusal}
    index: Any = choice.get("index")
    choice.clear()
    if type(index) is int:
        choice["index"] = index
    choice |= {"message": ended, "logprobs": None, "finish_reason": "content_filter"}


def summarise_chat(part: Mapping[str, Any], summary: Summary) -> None:
    """Take an answer's or a chunk's finish reasons, usage and model into a summary; what is odd is left out."""
    choices: Any = part.get("choices")
    if isinstance(choices, list):
        for position, choice in enumerate(cast("list[Any]", choices)):
            fields = cast("dict[str, Any]", choice) if isinstance(choice, dict) else {}
            reason: Any = fields.get("finish_reason")
            if isinstance(reason, str):
                index: Any = fields.get("index", position)
                summary.finish_reasons[index if isinstance(index, int) else position] = reason[:_MAX_NAME_CHARS]
    usage: Any = part.get("usage")
    if isinstance(usage, dict):
        summary.usage = {
            name: count
            for name, count in cast("dict[str, Any]", usage).items()
            if isinstance(count, int) and not isinstance(count, bool) and len(name) <= _MAX_NAME_CHARS
        }
    model: Any = part.get("model")
    if summary.model is None and isinstance(model, str):
        summary.model = model[:_MAX_MODEL_CHARS]
