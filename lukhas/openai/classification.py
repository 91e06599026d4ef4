"""The moderations dialect: texts in, categories out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from lukhas.errors import InvalidRequest, UpstreamBroken
from lukhas.openai.call import AnswerGuard, Call, DialectName, Summary
from lukhas.openai.chat_answer import MediaDesk, guard_members, summarise_chat
from lukhas.openai.request_text import RequestText
from lukhas.openai.wire import MAX_MODEL_CHARS, parse_extension, parse_json_object, read_end_user


class ClassificationDialect:
    """See `lukhas.openai.call.Dialect`."""

    name: DialectName = "moderations"

    def parse(self, raw: bytes) -> Call:
        """Read a request; it may name no model.

        Raises:
            InvalidRequest: not JSON, no input, or a model that is no name.
        """
        body = parse_json_object(raw)
        model: Any = body.get("model")
        if model is not None and (not isinstance(model, str) or not model.strip() or len(model) > MAX_MODEL_CHARS):
            raise InvalidRequest("'model' must be the name of a model.", param="model")
        given: Any = body.get("input")
        if not isinstance(given, (str, list)) or not given:
            raise InvalidRequest("'input' must be a text, or a list with at least one entry.", param="input")
        extension = parse_extension(body.pop("lukhas", None))
        end_user = extension.user or read_end_user(body)
        found = RequestText()
        if isinstance(given, list) and all(isinstance(entry, str) for entry in cast("list[Any]", given)):
            found.gather("input", ("input",), given, is_known=False)
        elif isinstance(given, str):
            found.add("input", ("input",), given)
        else:
            found.gather_parts("input", ("input",), given)
        for name, value in body.items():
            if isinstance(value, (str, dict, list)) and name not in ("model", "input"):
                found.gather("input", (name,), value, is_known=False)
        return Call(
            "moderations",
            "/moderations",
            body,
            model or "",
            False,
            end_user,
            extension,
            tuple(found.texts),
            tuple(found.media),
            tuple(found.objects),
        )

    def add_style(self, body: Mapping[str, Any], *, preamble: str, prefix: str, stop: Sequence[str]) -> dict[str, Any]:
        """Return nothing: a style would change what is judged."""
        return {}

    def guard_answer(self, answer: dict[str, Any], guard: AnswerGuard) -> bool:
        """Guard a plain answer in place; return whether anything was changed."""
        return guard_members(answer, guard, MediaDesk(guard), leave=())

    def open_stream(self, guard: AnswerGuard, summary: Summary, choices: int | None = None) -> NoReturn:
        """Refuse: there is no streamed form.

        Raises:
            UpstreamBroken: always.
        """
        raise UpstreamBroken("The upstream streamed an answer that has no streamed form.")

    def summarise(self, answer: Mapping[str, Any], summary: Summary) -> None:
        """Take a plain answer's model into a summary."""
        summarise_chat(answer, summary)
