"""The embeddings dialect: texts in, numbers out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn, cast

from lukhas.errors import InvalidRequest, UpstreamBroken
from lukhas.openai.answer_text import find_texts, guard_texts
from lukhas.openai.call import AnswerGuard, Call, DialectName, Media, Summary
from lukhas.openai.chat_answer import MediaDesk, guard_members, summarise_chat
from lukhas.openai.request_text import RequestText
from lukhas.openai.wire import MAX_MODEL_CHARS, parse_extension, parse_json_object, read_end_user

_ENUMS: Final = ("encoding_format", "input_type", "truncate", "truncation", "output_dtype")


class EmbeddingDialect:
    """See `lukhas.openai.call.Dialect`."""

    name: DialectName = "embeddings"

    def parse(self, raw: bytes) -> Call:
        """Read a request. Input that comes as token numbers is noted as media: no text moderator can read it.

        Raises:
            InvalidRequest: not JSON, no model, or no input.
        """
        body = parse_json_object(raw)
        model: Any = body.get("model")
        if not isinstance(model, str) or not model.strip() or len(model) > MAX_MODEL_CHARS:
            raise InvalidRequest("'model' must be the name of a model.", param="model")
        given: Any = body.get("input")
        if not isinstance(given, (str, list)) or not given:
            raise InvalidRequest("'input' must be a text, or a list with at least one entry.", param="input")
        extension = parse_extension(body.pop("lukhas", None))
        end_user = extension.user or read_end_user(body)
        found = RequestText()
        for name, value in body.items():
            if name == "input" and isinstance(value, list) and _has_object(cast("list[Any]", value)):
                found.gather_parts("input", (name,), cast("Any", value))
            elif isinstance(value, (str, dict, list)) and name != "model":
                found.gather("input", (name,), value, is_known=name in _ENUMS)
        if _has_number(given):
            found.media.append(Media("file", ("input",)))
        return Call(
            "embeddings",
            "/embeddings",
            body,
            model,
            False,
            end_user,
            extension,
            tuple(found.texts),
            tuple(found.media),
            tuple(found.objects),
        )

    def add_style(self, body: Mapping[str, Any], *, preamble: str, prefix: str, stop: Sequence[str]) -> dict[str, Any]:
        """Return nothing: a style would change what the numbers mean."""
        return {}

    def guard_answer(self, answer: dict[str, Any], guard: AnswerGuard) -> bool:
        """Guard a plain answer in place; return whether anything was changed.

        Raises:
            UpstreamBroken: its data cannot be read.
        """
        desk = MediaDesk(guard)
        data: Any = answer.get("data")
        if data is not None and not isinstance(data, list):
            raise UpstreamBroken("The upstream's answer has data that are no list.")
        is_changed = False
        for entry in cast("list[Any]", data or []):
            if not isinstance(entry, dict):
                raise UpstreamBroken("The upstream's answer has an embedding that is no object.")
            members = cast("dict[str, Any]", entry)
            # The numbers themselves, as a list or in base64, are no text.
            found = [one for name in members if name != "embedding" for one in find_texts(members, name)]
            if found:
                outcome = guard_texts(guard, found, desk.admits)
                if outcome.is_blocked:
                    kept = {name: members[name] for name in ("index", "embedding") if name in members}
                    members.clear()
                    members |= {"object": "embedding", **kept}
                is_changed = is_changed or outcome.is_blocked or outcome.is_changed
        return guard_members(answer, guard, desk, leave=("data",)) or is_changed

    def open_stream(self, guard: AnswerGuard, summary: Summary, choices: int | None = None) -> NoReturn:
        """Refuse: there is no streamed form.

        Raises:
            UpstreamBroken: always.
        """
        raise UpstreamBroken("The upstream streamed an answer that has no streamed form.")

    def summarise(self, answer: Mapping[str, Any], summary: Summary) -> None:
        """Take a plain answer's usage and model into a summary."""
        summarise_chat(answer, summary)


def _has_object(entries: list[Any]) -> bool:
    return any(isinstance(entry, dict) for entry in entries)


def _has_number(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    for entry in cast("list[Any]", value):
        if isinstance(entry, (int, float)) or (isinstance(entry, list) and entry):
            return True
    return False
