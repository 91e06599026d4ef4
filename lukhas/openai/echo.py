"""The built-in upstream `echo`: answers in process with what it received. No model is called, and it says so.

It is there for trying the gateway without a key. Answers have the shapes of OpenAI's API, so that the official client
parses them. Three things are its own:

- the content begins with the line "[echo] No model was called. LUKHAS received:", then a JSON object of the parameters
  that arrived (all but `messages` or `input`; tools by name), then the last user text
- the answer, or the last chunk before the end of a stream, carries the received body whole in `lukhas_echo`
- an embedding is made from the hash of its text, and a moderation flags nothing: neither says anything of the text
- no response is stored, so none is found later
- a model named `echo-error-<status>`, such as `echo-error-429`, answers with that status (400-599)
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Final, cast

import orjson

from lukhas.clock import Clock, SystemClock
from lukhas.errors import UpstreamBroken
from lukhas.ids import make_id
from lukhas.openai.echo_response import PIECE_CHARS, make_response, read_items, stream_response
from lukhas.openai.echo_text import UnfitInput, embed, moderate
from lukhas.openai.upstream import UpstreamRequest, check_path

MODELS: Final = ("echo-1", "gpt-4o-mini", "gpt-4o", "gpt-4.1", "o3-mini", "gpt-5")
LABEL: Final = "[echo] No model was called. LUKHAS received:"
_ERROR_MODEL: Final = re.compile(r"echo-error-([45][0-9]{2})\Z", re.ASCII)
_MAX_CHOICES: Final = 128
_MADE_AT: Final = 1_735_689_600  # 2025-01-01, so that model lists do not change from call to call

Body = dict[str, Any]


class EchoAnswer:
    """A whole answer made in memory; see `lukhas.openai.upstream.UpstreamAnswer`."""

    __slots__ = ("_parts", "attempts", "headers", "status")

    def __init__(self, status: int, parts: list[bytes], *, content_type: str = "application/json") -> None:
        self.status = status
        self.headers: Mapping[str, str] = {"content-type": content_type, "x-request-id": "echo"}
        self.attempts = 1
        self._parts = parts

    async def read(self, limit_bytes: int) -> bytes:
        """Return the whole body; UpstreamBroken where it is over `limit_bytes`."""
        body = b"".join(self._parts)
        if len(body) > limit_bytes:
            raise UpstreamBroken(f"The upstream's answer is larger than {limit_bytes} bytes.")
        return body

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body's parts, one event each where it is a stream."""
        for part in self._parts:
            yield part

    async def close(self) -> None:
        """Do nothing: there is no connection."""

    def abort(self) -> None:
        """Do nothing: there is no connection."""


class EchoUpstream:
    """Answers each dialect and model lists without a model. Every model name but the empty one is taken."""

    name = "echo"

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()

    async def send(self, request: UpstreamRequest, *, deadline: float | None = None) -> EchoAnswer:
        """Answer at once; see `lukhas.openai.upstream.Upstream.send`."""
        path = check_path(request.path).partition("?")[0]
        if path == "/models" and request.method == "GET":
            return _json(200, {"object": "list", "data": [_model(name) for name in MODELS]})
        if path.startswith("/models/") and request.method == "GET":
            name = path.removeprefix("/models/")
            if name in MODELS:
                return _json(200, _model(name))
            return _error(404, f"The model '{name}' does not exist.", param="model", code="model_not_found")
        answer = _ANSWERS.get(path) if request.method == "POST" else None
        if answer is not None:
            try:
                return _answer(request.body, answer, self._clock.now_ms() // 1000)
            except orjson.JSONEncodeError:
                # What was read cannot always be written: orjson reads 1024 levels and writes 254.
                return _error(400, "The body is nested too deeply.")
        if path.startswith("/responses/"):
            return _error(404, "The built-in upstream stores no responses.", code="not_found")
        return _error(404, f"Unknown request URL: {request.method} {path}.", code="unknown_url")

    async def check(self) -> str | None:
        """Return None: it is always there."""
        return None

    async def close(self) -> None:
        """Do nothing: there is no connection."""


def _answer(raw: bytes, answer: Callable[[Body, str, int], EchoAnswer], now_s: int) -> EchoAnswer:
    try:
        parsed: object = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return _error(400, "The body is not valid JSON.")
    if not isinstance(parsed, dict):
        return _error(400, "The body must be a JSON object.")
    body = cast(Body, parsed)
    model: object = body.get("model")
    if model is None:
        # A stored prompt names its own model, and a moderation has one.
        model = "echo-1" if body.get("prompt") is not None or answer is _moderate else None
    if not isinstance(model, str) or not model:
        return _error(400, "You must provide a model parameter.", param="model")
    wished = _ERROR_MODEL.match(model)
    try:
        if wished is None:
            return answer(body, model, now_s)
        # What is wrong with the body comes first, as it does where a model is asked.
        if (refused := answer(body, model, now_s)).status >= 400:
            return refused
    except UnfitInput as wrong:
        return _error(400, str(wrong), param=wrong.param)
    status = int(wished[1])
    return _error(status, f"The model '{model}' answers every call with status {status}.", code="echo_error")


def _respond(body: Body, model: str, now_s: int) -> EchoAnswer:
    given: object = body.get("input")
    if given is not None and not isinstance(given, (str, list)):
        return _error(400, "'input' must be a text or a list of items.", param="input")
    if given is None and not any(body.get(name) for name in ("prompt", "previous_response_id", "conversation")):
        return _error(400, "'input' is missing.", param="input")
    content = _describe(body, read_items(body), "input")
    number = make_id("req")[4:]
    response = make_response(body, content, model=model, number=number, now_s=now_s)
    if body.get("stream") is True:
        return EchoAnswer(200, stream_response(response), content_type="text/event-stream; charset=utf-8")
    return _json(200, response)


def _embed(body: Body, model: str, now_s: int) -> EchoAnswer:
    return _json(200, embed(body, model))


def _moderate(body: Body, model: str, now_s: int) -> EchoAnswer:
    return _json(200, moderate(body, model, make_id("req")[4:]))


def _complete(body: Body, model: str, now_s: int) -> EchoAnswer:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        return _error(400, "'messages' must be a list of at least one message.", param="messages")
    count = body.get("n")
    if count is None:
        count = 1
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= _MAX_CHOICES:
        return _error(400, f"'n' must be a whole number from 1 to {_MAX_CHOICES}.", param="n")
    content = _describe(body, cast(list[object], messages), "messages")
    usage = _count_usage(cast(list[object], messages), content, count)
    if body.get("stream") is True:
        return _stream(body, _envelope("chat.completion.chunk", model, now_s), content, count, usage)
    answer = _envelope("chat.completion", model, now_s)
    answer["choices"] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": content, "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for index in range(count)
    ]
    answer["usage"] = usage
    answer["lukhas_echo"] = body
    return _json(200, answer)


_ANSWERS: Final[Mapping[str, Callable[[Body, str, int], EchoAnswer]]] = {
    "/chat/completions": _complete,
    "/responses": _respond,
    "/embeddings": _embed,
    "/moderations": _moderate,
}


def _stream(body: Body, envelope: Body, content: str, count: int, usage: Body) -> EchoAnswer:
    options: object = body.get("stream_options")
    with_usage = isinstance(options, dict) and cast(Body, options).get("include_usage") is True

    def event(choices: list[Body], **more: object) -> bytes:
        chunk = {**envelope, "choices": choices, **({"usage": None} if with_usage else {}), **more}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def choice(index: int, delta: Body, finish: str | None = None) -> Body:
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}

    indices = range(count)
    pieces = [content[at : at + PIECE_CHARS] for at in range(0, len(content), PIECE_CHARS)]
    parts = [event([choice(i, {"role": "assistant", "content": ""})]) for i in indices]
    parts += [event([choice(i, {"content": piece})]) for piece in pieces for i in indices]
    last = count - 1
    parts += [event([choice(i, {}, "stop")]) for i in indices if i != last]
    if with_usage:
        parts += [event([choice(last, {}, "stop")]), event([], usage=usage, lukhas_echo=body)]
    else:
        parts.append(event([choice(last, {}, "stop")], lukhas_echo=body))
    parts.append(b"data: [DONE]\n\n")
    return EchoAnswer(200, parts, content_type="text/event-stream; charset=utf-8")


def _describe(body: Body, messages: list[object], left_out: str) -> str:
    shown = {name: value for name, value in body.items() if name != left_out}
    tools: object = body.get("tools")
    if isinstance(tools, list):
        shown["tools"] = [_tool_name(tool) for tool in cast(list[object], tools)]
    text = orjson.dumps(shown, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
    return f"{LABEL}\n{text}\n{_last_user_text(messages)}".rstrip("\n")


def _tool_name(tool: object) -> object:
    if isinstance(tool, dict):
        fields = cast(Body, tool)
        function: object = fields.get("function")
        name = cast(Body, function).get("name") if isinstance(function, dict) else None
        return name or fields.get("name") or fields.get("type")
    return None


def _last_user_text(messages: list[object]) -> str:
    for message in reversed(messages):
        if isinstance(message, dict) and cast(Body, message).get("role") == "user":
            return _text(cast(Body, message).get("content"))
    return ""


def _text(content: object) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [cast(Body, part).get("text") for part in cast(list[object], content) if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str))


def _count_usage(messages: list[object], content: str, count: int) -> Body:
    # Four bytes a token is the usual rule of thumb; nothing was really tokenised.
    prompt = max(1, len(orjson.dumps(messages)) // 4)
    completion = max(1, len(content.encode()) // 4) * count
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _envelope(kind: str, model: str, now_s: int) -> Body:
    return {"id": f"chatcmpl-echo-{make_id('req')[4:]}", "object": kind, "created": now_s, "model": model}


def _model(name: str) -> Body:
    return {"id": name, "object": "model", "created": _MADE_AT, "owned_by": "lukhas-echo"}


def _json(status: int, content: Body) -> EchoAnswer:
    return EchoAnswer(status, [orjson.dumps(content)])


def _error(status: int, message: str, *, param: str | None = None, code: str | None = None) -> EchoAnswer:
    kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return _json(status, {"error": {"message": message, "type": kind, "param": param, "code": code}})
