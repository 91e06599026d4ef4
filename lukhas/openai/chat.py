"""The chat completions dialect: how requests and answers are written there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from lukhas.errors import InvalidRequest
from lukhas.openai.call import AnswerGuard, Call, DialectName, ObjectRef, RequestPoint, Summary
from lukhas.openai.chat_answer import guard_chat_answer, summarise_chat
from lukhas.openai.chat_stream import ChatRewriter
from lukhas.openai.request_text import RequestText
from lukhas.openai.wire import MAX_MODEL_CHARS, parse_extension, parse_json_object, read_end_user

MAX_STOPS: Final = 4
_SYSTEM_ROLES: Final = ("system", "developer")
_POINTS: Final[dict[str, RequestPoint]] = {
    "system": "instruction",
    "developer": "instruction",
    "user": "input",
    "assistant": "input",
    "tool": "tool_result",
    "function": "tool_result",
}
# Fields whose every word is the dialect's own, so that what is no plain word in them is text.
_STRUCTURED: Final = frozenset(
    (
        *("tool_choice", "function_call", "response_format", "web_search_options", "audio", "modalities", "reasoning"),
        *("reasoning_effort", "verbosity", "service_tier", "prompt_cache_retention", "prompt_cache_options"),
        *("moderation", "stream_options"),
    )
)


class ChatDialect:
    """See `lukhas.openai.call.Dialect`."""

    name: DialectName = "chat"

    def parse(self, raw: bytes) -> Call:
        """Read a request: what governance needs is checked, the rest is the upstream's to judge.

        Raises:
            InvalidRequest: not JSON, or a field that governance needs has the wrong type.
        """
        body = parse_json_object(raw)
        model: Any = body.get("model")
        if not isinstance(model, str) or not model.strip() or len(model) > MAX_MODEL_CHARS:
            raise InvalidRequest("'model' must be the name of a model.", param="model")
        messages: Any = body.get("messages")
        if not isinstance(messages, list) or not messages:
            raise InvalidRequest("'messages' must be a list with at least one message.", param="messages")
        found = RequestText()
        for position, message in enumerate(cast("list[Any]", messages)):
            _read_message(found, position, message)
        stream: Any = body.get("stream")
        if stream is not None and not isinstance(stream, bool):
            raise InvalidRequest("'stream' must be true or false.", param="stream")
        extension = parse_extension(body.pop("lukhas", None))
        end_user = read_end_user(body)
        _read_fields(found, body)
        choices: Any = body.get("n")
        return Call(
            "chat",
            "/chat/completions",
            body,
            model,
            bool(stream),
            extension.user or end_user,
            extension,
            tuple(found.texts),
            tuple(found.media),
            tuple(found.objects),
            choices if type(choices) is int and choices > 0 else 1,
        )

    def add_style(self, body: Mapping[str, Any], *, preamble: str, prefix: str, stop: Sequence[str]) -> dict[str, Any]:
        """Return the fields that change: messages for the preamble and the prefix, and the stop sequences.

        The preamble follows the caller's own leading instructions, the prefix precedes the last user text.
        """
        fields: dict[str, Any] = {}
        messages = cast("list[dict[str, Any]]", body["messages"])
        if preamble or prefix:
            changed = list(messages)
            if prefix:
                _add_prefix(changed, prefix)
            if preamble:
                # After the caller's own leading instructions, so that ours is the last word on how to answer.
                place = 0
                while place < len(changed) and changed[place].get("role") in _SYSTEM_ROLES:
                    place += 1
                role = changed[place - 1]["role"] if place else "system"
                changed.insert(place, {"role": role, "content": preamble})
            fields["messages"] = changed
        if stop:
            own: Any = body.get("stop")
            stops = [own] if isinstance(own, str) else list(cast("list[Any]", own)) if isinstance(own, list) else []
            new = [text for text in stop if text not in stops]
            stops, added = stops + new, len(new)
            # The caller's come first, and are the upstream's to judge where they are too many.
            fields["stop"] = stops[: max(MAX_STOPS, len(stops) - added)]
        return fields

    def guard_answer(self, answer: dict[str, Any], guard: AnswerGuard) -> bool:
        """Guard a plain answer in place; return whether anything was changed.

        Raises:
            UpstreamBroken: it cannot be read, and so not be guarded.
        """
        return guard_chat_answer(answer, guard)

    def open_stream(self, guard: AnswerGuard, summary: Summary, choices: int | None = None) -> ChatRewriter:
        """Open the guard of one streamed answer.

        Args:
            guard: what judges it.
            summary: filled while the answer is read.
            choices: how many answers were asked for, where that is known: a block of fewer does not end the stream.
        """
        return ChatRewriter(guard, summary, choices)

    def summarise(self, answer: Mapping[str, Any], summary: Summary) -> None:
        """Take a plain answer's finish reasons, usage and model into a summary."""
        summarise_chat(answer, summary)


def _read_message(found: RequestText, position: int, message: Any) -> None:
    members = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
    role: Any = members.get("role")
    if not isinstance(role, str):
        raise InvalidRequest(f"messages[{position}] must be an object with a role.", param=f"messages[{position}].role")
    point = _POINTS.get(role)
    content: Any = members.get("content")
    if point is not None and len(members) == 2 and type(content) is str:
        found.add(point, ("messages", position, "content"), content)
        return
    if point is None:
        # A template writes any role into the prompt.
        point = "input"
        found.add(point, ("messages", position, "role"), role)
    for name, value in members.items():
        if name == "role":
            continue
        path = ("messages", position, name)
        if name == "content":
            if isinstance(value, str):
                found.add(point, path, value)
            else:
                found.gather_parts(point, path, value)
        elif name == "audio" and isinstance(value, dict):
            held: Any = cast("dict[str, Any]", value).get("id")
            if isinstance(held, str) and held:
                found.objects.append(ObjectRef("audio", held, (*path, "id")))
            found.gather(point, path, value, is_known=True)
        elif isinstance(value, (str, dict, list)):
            found.gather(point, path, value, is_known=True)


def _read_fields(found: RequestText, body: dict[str, Any]) -> None:
    for name, value in body.items():
        # Numbers and truths are no text; most fields are one of these.
        if not isinstance(value, (str, dict, list)) or name == "messages" or name == "model":
            continue
        if name == "tools" or name == "functions":
            found.gather_tools(name, value)
        elif not found.gather_object(name, value):
            found.gather("input", (name,), value, is_known=name in _STRUCTURED)


def _add_prefix(messages: list[dict[str, Any]], prefix: str) -> None:
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if message.get("role") != "user":
            continue
        content: Any = message.get("content")
        if isinstance(content, str):
            messages[position] = {**message, "content": f"{prefix}{content}"}
            return
        if isinstance(content, list):
            parts = list(cast("list[Any]", content))
            for index, part in enumerate(parts):
                if isinstance(part, dict) and cast("dict[str, Any]", part).get("type") == "text":
                    text: Any = cast("dict[str, Any]", part).get("text")
                    if isinstance(text, str):
                        parts[index] = {**part, "text": f"{prefix}{text}"}
                        messages[position] = {**message, "content": parts}
                        return
