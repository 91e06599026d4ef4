"""The Responses dialect: how a request is read, styled and set, and who guards its answers.

Reference: the request types of the official client, `openai.types.responses.ResponseCreateParams`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from lukhas.errors import InvalidRequest
from lukhas.openai.call import AnswerGuard, Call, DialectName, StreamRewriter, Summary
from lukhas.openai.response_answer import guard_response, summarise_response
from lukhas.openai.response_input import read_content
from lukhas.openai.response_item import read_object_ids
from lukhas.openai.response_stream import ResponseRewriter
from lukhas.openai.wire import MAX_MODEL_CHARS, parse_extension, parse_json_object, read_end_user

__all__ = ("RESPONSE_FIELDS", "ResponseDialect", "read_field", "read_object_ids", "write_field")

# Every field of a request by which a caller may set a parameter; a dot leads into an object.
RESPONSE_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "max_output_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning.effort",),
    "verbosity": ("text.verbosity",),
}
_SYSTEM_ROLES: Final = ("system", "developer")


class ResponseDialect:
    """Reads and writes the Responses API; see `lukhas.openai.call.Dialect`."""

    name: DialectName = "responses"

    def parse(self, raw: bytes) -> Call:
        """Read a request: only what governance needs is checked, the rest is the upstream's to judge.

        Raises:
            InvalidRequest: not JSON, or a field that governance needs has the wrong type.
        """
        body = parse_json_object(raw)
        model = _read_model(body)
        _check_input(body.get("input"))
        for name in ("stream", "background", "store"):
            flag: Any = body.get(name)
            if flag is not None and not isinstance(flag, bool):
                raise InvalidRequest(f"'{name}' must be true or false.", param=name)
        instructions: Any = body.get("instructions")
        if instructions is not None and not isinstance(instructions, str):
            raise InvalidRequest("'instructions' must be a text.", param="instructions")
        extension = parse_extension(body.pop("lukhas", None))
        end_user = read_end_user(body)
        content = read_content(body)
        return Call(
            dialect="responses",
            upstream_path="/responses",
            body=body,
            model=model,
            stream=body.get("stream") is True,
            end_user=extension.user or end_user,
            extension=extension,
            texts=tuple(content.texts),
            media=tuple(content.media),
            objects=tuple(content.objects),
        )

    def add_style(self, body: Mapping[str, Any], *, preamble: str, prefix: str, stop: Sequence[str]) -> dict[str, Any]:
        """Return the fields that change when a prompt style is added; the body is not changed.

        The preamble follows the caller's own leading instructions. This dialect knows no stop sequences.
        """
        if not preamble and not prefix:
            return {}
        given: Any = body.get("input")
        if isinstance(given, str):
            text = prefix + given
            return {
                "input": [_instruction("system", preamble), {"role": "user", "content": text}] if preamble else text
            }
        items = list(cast("list[Any]", given)) if isinstance(given, list) else []
        is_changed = bool(prefix) and _add_prefix(items, prefix)
        if preamble:
            place = 0
            while place < len(items) and _role(items[place]) in _SYSTEM_ROLES:
                place += 1
            items.insert(place, _instruction(_role(items[place - 1]) if place else "system", preamble))
            is_changed = True
        return {"input": items} if is_changed else {}

    def guard_answer(self, answer: dict[str, Any], guard: AnswerGuard) -> bool:
        """Guard a plain answer in place, a stored one included; return whether anything was changed."""
        return guard_response(answer, guard).is_changed

    def open_stream(self, guard: AnswerGuard, summary: Summary, choices: int | None = None) -> StreamRewriter:
        """Open the guard of one streamed answer; it is a `ResponseRewriter`."""
        return ResponseRewriter(guard, summary)

    def summarise(self, answer: Mapping[str, Any], summary: Summary) -> None:
        """Take a plain answer's status, usage and model into a summary."""
        summarise_response(answer, summary)


def read_field(body: Mapping[str, Any], dotted: str) -> Any:
    """Return the value at a dotted path; None where a step is missing.

    Raises:
        InvalidRequest: a step on the way is not an object.
    """
    value: Any = body
    steps = dotted.split(".")
    for number, step in enumerate(steps):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            name = ".".join(steps[:number])
            raise InvalidRequest(f"'{name}' must be an object.", param=name)
        value = cast("Mapping[str, Any]", value).get(step)
    return value


def write_field(body: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """Return the one top-level field that changes when a dotted path is set, by name; the body is not changed.

    Raises:
        InvalidRequest: a step on the way is not an object.
    """
    first, _, rest = dotted.partition(".")
    if not rest:
        return {first: value}
    holder: Any = body.get(first)
    if holder is not None and not isinstance(holder, Mapping):
        raise InvalidRequest(f"'{first}' must be an object.", param=first)
    fields = cast("Mapping[str, Any]", holder or {})
    return {first: {**fields, **write_field(fields, rest, value)}}


def _read_model(body: Mapping[str, Any]) -> str:
    model: Any = body.get("model")
    if model is None and isinstance(body.get("prompt"), dict):
        # A stored prompt names its own model.
        return ""
    if not isinstance(model, str) or not model.strip() or len(model) > MAX_MODEL_CHARS:
        raise InvalidRequest("'model' must be the name of a model.", param="model")
    return model


def _check_input(value: Any) -> None:
    if value is None or isinstance(value, str):
        return
    if not isinstance(value, list):
        raise InvalidRequest("'input' must be a text or a list of items.", param="input")
    for position, item in enumerate(cast("list[Any]", value)):
        if not isinstance(item, dict):
            raise InvalidRequest(f"input[{position}] must be an object.", param=f"input[{position}]")
        for name in ("type", "role"):
            kind: Any = cast("dict[str, Any]", item).get(name)
            if kind is not None and not isinstance(kind, str):
                place = f"input[{position}].{name}"
                raise InvalidRequest(f"'{place}' must be a text.", param=place)


def _role(item: Any) -> str:
    role: Any = cast("dict[str, Any]", item).get("role") if isinstance(item, dict) else None
    return role if isinstance(role, str) else ""


def _instruction(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": text}


def _add_prefix(items: list[Any], prefix: str) -> bool:
    """Put the prefix before the last text that a user wrote; return whether there is one."""
    for position in range(len(items) - 1, -1, -1):
        if _role(items[position]) != "user":
            continue
        item = cast("dict[str, Any]", items[position])
        content: Any = item.get("content")
        if isinstance(content, str):
            items[position] = {**item, "content": prefix + content}
            return True
        if not isinstance(content, list):
            continue
        parts = list(cast("list[Any]", content))
        for index, part in enumerate(parts):
            fields = cast("dict[str, Any]", part) if isinstance(part, dict) else {}
            text: Any = fields.get("text")
            if fields.get("type") == "input_text" and isinstance(text, str):
                parts[index] = {**fields, "text": prefix + text}
                items[position] = {**item, "content": parts}
                return True
    return False
