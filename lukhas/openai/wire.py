"""JSON as it crosses the gateway, and what every dialect shares: the `lukhas` field, the end user, the summary."""

from __future__ import annotations

from typing import Any, Final, cast

import msgspec
import orjson

from lukhas.errors import InvalidRequest

MAX_SUBJECT_CHARS: Final = 256
MAX_MODEL_CHARS: Final = 256
# No whole number of fewer digits passes 64 bits.
_LONG_NUMBER: Final = b"0" * 19
_DIGITS_AS_ZERO: Final = bytes(48 if 48 <= byte < 58 else 32 for byte in range(256))
_EXTENSION_FIELDS: Final = ("session", "user", "signals", "task")


class Extension(msgspec.Struct, frozen=True):
    """The body field `lukhas`, which is removed before the call goes upstream.

    Attributes:
        session: whose conversation this is.
        user: the end user, instead of `safety_identifier` or `user`.
        signals: signals of this call, as JSON; parsed by the modulation domain.
        task: the task class that feedback is kept apart by.
    """

    session: str | None = None
    user: str | None = None
    signals: Any = None
    task: str | None = None


def parse_json_object(raw: bytes) -> dict[str, Any]:
    """Parse a request body that must be one JSON object.

    Raises:
        InvalidRequest: not UTF-8 JSON, or not an object.
    """
    if not raw.strip():
        raise InvalidRequest("The request body is empty.", hint="Send a JSON object.")
    try:
        value: Any = orjson.loads(raw)
        if _LONG_NUMBER in raw.translate(_DIGITS_AS_ZERO):
            # orjson reads a whole number past 64 bits as a float, and so would change it on its way.
            value = msgspec.json.decode(raw)
    except orjson.JSONDecodeError as wrong:
        raise InvalidRequest(f"The request body is not valid JSON: {wrong.msg} (character {wrong.pos}).") from None
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest("The request body holds a number that is too large.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The request body must be a JSON object.")
    return cast("dict[str, Any]", value)


def encode_json(value: Any) -> bytes:
    """Return what `parse_json_object` has read, or a part of it, as JSON: any depth, whole numbers of any size."""
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        # orjson writes 254 levels and 64 bits, less than it reads.
        return msgspec.json.encode(value)


def parse_extension(value: Any) -> Extension:
    """Read the body field `lukhas`, whatever the dialect.

    Raises:
        InvalidRequest: not an object, an unknown member, or one of the wrong type.
    """
    if value is None:
        return Extension()
    if not isinstance(value, dict):
        raise InvalidRequest("'lukhas' must be an object.", param="lukhas")
    given = cast("dict[str, Any]", value)
    for name in given:
        if name not in _EXTENSION_FIELDS:
            raise InvalidRequest(
                f"'lukhas' has no field '{name[:64]}'.",
                hint=f"It takes: {', '.join(_EXTENSION_FIELDS)}.",
                param=f"lukhas.{name[:64]}",
            )
    return Extension(
        session=_subject(given, "session", "lukhas."),
        user=_subject(given, "user", "lukhas."),
        signals=given.get("signals"),
        task=_subject(given, "task", "lukhas."),
    )


def _subject(holder: dict[str, Any], name: str, prefix: str = "") -> str | None:
    value: Any = holder.get(name)
    return None if value is None else check_subject(value, prefix + name)


def read_end_user(body: dict[str, Any]) -> str | None:
    """Return `safety_identifier`, else `user`, as the caller sent it.

    Raises:
        InvalidRequest: either is not a text of 1 to 256 characters.
    """
    return _end_user(body, "safety_identifier") or _end_user(body, "user")


def _end_user(body: dict[str, Any], name: str) -> str | None:
    # Applications send an empty name for whoever is not signed in.
    return None if body.get(name) == "" else _subject(body, name)


def check_subject(value: Any, param: str) -> str:
    """Return the name of a session, user or task: a text of 1 to 256 characters.

    Raises:
        InvalidRequest: anything else.
    """
    if not isinstance(value, str) or not value or len(value) > MAX_SUBJECT_CHARS:
        raise InvalidRequest(f"'{param}' must be a text of 1 to {MAX_SUBJECT_CHARS} characters.", param=param)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"'{param}' holds half a character.", param=param) from None
    return value


class AnswerSummary(msgspec.Struct):
    """What the record says of an answer.

    Attributes:
        finish_reasons: per choice, in order of their index.
        usage: token counts as the upstream reported them.
        model: the model that the upstream says answered.
    """

    finish_reasons: dict[int, str] = {}
    usage: dict[str, int] | None = None
    model: str | None = None

    def add(self, value: Any) -> None:
        """Take in one answer or one chunk; anything of an unexpected shape is left out."""
        if not isinstance(value, dict):
            return
        part = cast("dict[str, Any]", value)
        choices: Any = part.get("choices")
        if isinstance(choices, list):
            for position, choice in enumerate(cast("list[Any]", choices)):
                fields = cast("dict[str, Any]", choice) if isinstance(choice, dict) else {}
                reason: Any = fields.get("finish_reason")
                if isinstance(reason, str):
                    index: Any = fields.get("index", position)
                    self.finish_reasons[index if isinstance(index, int) else position] = reason[:64]
        usage: Any = part.get("usage")
        if isinstance(usage, dict):
            counts = {
                name: count
                for name, count in cast("dict[str, Any]", usage).items()
                if isinstance(count, int) and not isinstance(count, bool) and len(name) <= 64
            }
            self.usage = counts
        model: Any = part.get("model")
        if self.model is None and isinstance(model, str):
            self.model = model[:MAX_MODEL_CHARS]


def error_body(message: str, *, kind: str, code: str | None, param: str | None = None) -> bytes:
    """Return an error in OpenAI's shape."""
    return orjson.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})
