"""A key and an e-mail address, put into every field there is, are found in nothing that the gateway keeps or says.

What the gateway keeps is looked for on disk, byte by byte, in every file of its data directory: records, incidents,
objects, the vault. What it says are its logs, metrics, headers and errors. That a model's answer repeats what the
caller wrote is no leak.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog
from canary_field import salted
from conftest import Answer, Gateway, start_gateway
from guarded_call import DIALECTS, PATHS, Said, clean_call, events, function, plain
from openai.types.chat import completion_create_params
from openai.types.responses import response_create_params

from lukhas.testing import FakeUpstream

BODY = "Qx7Zk3Wn9Rt5Yp2Lm8Vd4Bc6"
EMAIL = "canary.kestrel@" + "marsh.example.org"
# Put together here, so that no file of this repository looks as if it held a key.
KEYS = (
    "sk-" + "proj-" + BODY * 2,
    "sk-" + "ant-api03-" + BODY * 2,
    "AKIA" + "QX7ZK3WN6RT5YP2L",
    "gh" + "p_" + BODY + "0123456789ab",
    "xox" + "b-1234567890-" + BODY,
    "AI" + "za" + BODY + "01234567890",
    "sk" + "_live_" + BODY,
    "lk" + "_" + BODY,
)
FORMS = tuple(form for key in KEYS for form in (key, EMAIL))
TRACES = (BODY, "QX7ZK3WN6RT5YP2L", "canary.kestrel")
TYPES: dict[str, Any] = {
    "chat": completion_create_params.CompletionCreateParamsNonStreaming,
    "responses": response_create_params.ResponseCreateParamsNonStreaming,
}


class Watched(NamedTuple):
    """A gateway, and what it has logged since."""

    gateway: Gateway
    logs: list[Any]

    def check(self, answer: Answer, where: str) -> None:
        """Fail where a canary is in an answer's headers, or in the body of an error."""
        said = str(answer.headers)
        if answer.status >= 400:
            said += answer.body.decode()
        found = [trace for trace in TRACES if trace in said]
        assert not found, (where, answer.status, said)

    def check_kept(self) -> None:
        """Fail where a canary is in a file, a log line, a metric or anything else that the control plane shows."""
        gateway = self.gateway
        gateway.http("GET", "/v1/models")  # whatever was written before this is on disk when it is answered
        shown = {
            path: gateway.http("GET", path).body for path in ("/metrics", "/readyz", "/api/v1/incidents?limit=500")
        }
        shown["logs"] = str(self.logs).encode()
        folder: Path = gateway.runtime.settings.data_dir
        shown |= {str(file): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
        assert any(name.endswith(".db") for name in shown)
        for name, content in shown.items():
            for trace in TRACES:
                place = content.find(trace.encode())
                assert place < 0, (name, content[max(0, place - 300) : place + 100])


class _Lines(logging.Handler):
    def __init__(self, lines: list[Any]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append((record.name, record.getMessage(), str(record.exc_info)))


@pytest.fixture(scope="module")
def canary_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with FakeUpstream() as upstream:
        options = {"on_unmoderated": "record", "upstream_max_retries": 0}
        gateway = start_gateway(tmp_path_factory.mktemp("canary"), upstream, options)
        yield gateway
        gateway.stop()


@pytest.fixture
def watched(canary_gateway: Gateway) -> Iterator[Watched]:
    canary_gateway.upstream.requests.clear()
    canary_gateway.relax()
    handler = _Lines([])
    root = logging.getLogger()
    root.addHandler(handler)
    with structlog.testing.capture_logs() as logs:
        both = Watched(canary_gateway, logs)
        yield both
    root.removeHandler(handler)
    assert not any(trace in str(handler._lines) for trace in TRACES)


def list_places(dialect: str) -> list[str]:
    """Return one place of each name in a dialect's requests; of a union's arms with one name the first."""
    first: dict[str, str] = {}
    for place, _ in salted(TYPES[dialect], "canary"):
        first.setdefault("".join(c for c in place if not c.isdigit()), place)
    return list(first.values())


def make_bodies(dialect: str, shift: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield requests with a canary in one place each; `shift` turns the forms, so that each place meets several."""
    wanted = list_places(dialect)
    by_form: dict[str, dict[str, Any]] = {form: dict(salted(TYPES[dialect], form)) for form in FORMS}
    for number, place in enumerate(wanted):
        body = by_form[FORMS[(number + shift) % len(FORMS)]][place]
        if "model" in place.split("."):
            yield place, {**clean_call(dialect), **body}
        else:
            base = clean_call(dialect)
            yield place, {**base, **{name: value for name, value in body.items() if name in place or name not in base}}


@pytest.mark.parametrize(("stream", "shift"), [pytest.param(False, 0, id="plain"), pytest.param(True, 1, id="stream")])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_field_of_the_clients_types_stays_unwritten(
    watched: Watched, dialect: str, stream: bool, shift: int
) -> None:
    """Every string, name of a member, enumerated word and unheard-of field of the official client's request types."""
    statuses: dict[int, int] = {}
    for place, body in make_bodies(dialect, shift):
        answer = watched.gateway.http("POST", PATHS[dialect], {**body, "stream": stream})
        watched.check(answer, place)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
        assert answer.status in (200, 400, 403, 404, 502), (place, answer.body)
    assert statuses.get(200, 0) > 50, statuses
    watched.check_kept()


def own_places(dialect: str, form: str) -> dict[str, tuple[dict[str, Any], dict[str, str]]]:
    """Return requests and headers with a canary where only the gateway reads it, or where tools are named."""
    named = function(dialect, form)
    choice = (
        {"type": "function", "function": {"name": form}} if dialect == "chat" else {"type": "function", "name": form}
    )
    described = function(dialect, "open_url", {"type": "object", "title": form, "properties": {form: {"enum": [form]}}})
    return {
        "session-header": ({}, {"X-Lukhas-Session": form}),
        "session": ({"lukhas": {"session": form}}, {}),
        "two-sessions": ({"lukhas": {"session": form}}, {"X-Lukhas-Session": "another"}),
        "user": ({"lukhas": {"user": form}}, {}),
        "task": ({"lukhas": {"task": form}}, {}),
        "signal": ({"lukhas": {"signals": {form: 1}}}, {}),
        "signal-level": ({"lukhas": {"signals": {"stress": form}}}, {}),
        "signals-header": ({}, {"X-Lukhas-Signals": f"{form}=0.5"}),
        "signals-header-level": ({}, {"X-Lukhas-Signals": f"stress={form}"}),
        "lukhas-member": ({"lukhas": {form: 1}}, {}),
        "lukhas-value": ({"lukhas": form}, {}),
        "member": ({form: form}, {}),
        "tool-like-member": ({f"tools_{form}": [{"type": "function", "name": form}]}, {}),
        "metadata": ({"metadata": {form: form}}, {}),
        "tool": ({"tools": [named]}, {}),
        "tool-type": ({"tools": [{"type": form}]}, {}),
        "tool-schema": ({"tools": [described]}, {}),
        "forced-tool": ({"tools": [named], "tool_choice": choice}, {}),
        "forced-other": ({"tool_choice": choice}, {}),
        "choice-word": ({"tool_choice": form}, {}),
        "functions": ({"functions": [{"name": form}], "function_call": {"name": form}}, {}),
        "tools-word": ({"tools": form}, {}),
        "stream-word": ({"stream": form}, {}),
        "temperature-word": ({"temperature": form}, {}),
        "limit-word": ({"max_tokens": form, "max_output_tokens": form, "max_completion_tokens": form}, {}),
        "count-word": ({"n": form, "top_p": form}, {}),
        "model": ({"model": form}, {}),
        "model-list": ({"model": [form]}, {}),
        "previous": ({"previous_response_id": form}, {}),
        "conversation": ({"conversation": form}, {}),
        "prompt": ({"prompt": {"id": form, "variables": {form: form}}}, {}),
        "file": ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": form}]}]}, {}),
        "image": (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": form}}]}]},
            {},
        ),
        "role": ({"messages": [{"role": form, "content": "x"}], "input": [{"role": form, "content": "x"}]}, {}),
        "items": ({"messages": form, "input": {form: form}}, {}),
        "idempotency": ({}, {"idempotency-key": form, "user-agent": form, "cookie": f"a={form}"}),
        "traces": ({}, {"traceparent": form, "tracestate": f"a={form}", "baggage": form, "x-request-id": form}),
    }


@pytest.mark.parametrize(
    "form", [pytest.param(KEYS[0], id="key"), pytest.param(KEYS[2], id="aws"), pytest.param(EMAIL, id="email")]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_speaks_to_the_gateway_stays_unwritten(watched: Watched, dialect: str, form: str) -> None:
    """Headers, the `lukhas` field, names of tools and objects, and words where numbers belong."""
    for name, (fields, headers) in own_places(dialect, form).items():
        body = clean_call(dialect)
        answer = watched.gateway.http("POST", PATHS[dialect], {**body, **fields}, headers)
        watched.check(answer, name)
    watched.check_kept()


@pytest.mark.parametrize("form", [pytest.param(KEYS[1], id="key"), pytest.param(EMAIL, id="email")])
def test_paths_and_keys_stay_unwritten(watched: Watched, form: str) -> None:
    """A canary as a path, a query or a wrong API key."""
    gateway = watched.gateway
    for method, path in (
        ("GET", f"/v1/responses/{form}"),
        ("DELETE", f"/v1/responses/{form}"),
        ("POST", f"/v1/responses/{form}/cancel"),
        ("GET", f"/v1/{form}"),
        ("GET", f"/api/v1/incidents/{form}"),
        ("GET", f"/api/v1/incidents?cursor={form}"),
        ("GET", f"/api/v1/audit/{form}"),
        ("GET", f"/{form}"),
    ):
        watched.check(gateway.http(method, path), path.replace(form, "*"))
    watched.check(gateway.http("POST", PATHS["chat"], clean_call("chat"), key=form), "api-key")
    watched.check(gateway.http("POST", PATHS["chat"], b'{"model": "' + form.encode()), "broken-json")
    watched.check_kept()


def salt_answer(value: Any, salt: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield copies of an answer with a canary in one place: each value, and each member's name."""
    if isinstance(value, dict):
        yield f"{path}.?", {**value, salt: salt}
        for name, held in value.items():
            for place, salty in salt_answer(held, salt, f"{path}.{name}"):
                yield place, {**value, name: salty}
    elif isinstance(value, list):
        for index, held in enumerate(value):
            for place, salty in salt_answer(held, salt, f"{path}[{index}]"):
                yield place, [*value[:index], salty, *value[index + 1 :]]
    else:
        yield path, salt


SAID = Said(text="A bird.", reasoning="Well.", calls=[("open_url", '{"url": "https://birds.example/"}')])


@pytest.mark.parametrize("form", [pytest.param(KEYS[0], id="key"), pytest.param(EMAIL, id="email")])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_field_of_an_answer_stays_unwritten(watched: Watched, dialect: str, form: str) -> None:
    """Ids, models, reasons, names of tools and unheard-of fields of plain answers."""
    gateway = watched.gateway
    fields = clean_call(dialect, tools=[function(dialect, "open_url", {"type": "object"})])
    for place, salty in salt_answer(plain(dialect, SAID), form):
        gateway.upstream.reply(json=salty)
        answer = gateway.http("POST", PATHS[dialect], fields)
        watched.check(answer, place)
        assert answer.status in (200, 502), place
        gateway.relax()
    watched.check_kept()


@pytest.mark.parametrize("form", [pytest.param(KEYS[3], id="key"), pytest.param(EMAIL, id="email")])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_field_of_a_stream_stays_unwritten(watched: Watched, dialect: str, form: str) -> None:
    """Each event once with a canary in all its strings, and in the name of a member."""
    gateway = watched.gateway
    fields = clean_call(dialect, stream=True, tools=[function(dialect, "open_url", {"type": "object"})])
    scripted = events(dialect, SAID)
    for position, event in enumerate(scripted):
        for place, salty in list(salt_answer(event, form))[:: 1 if dialect == "chat" else 4]:
            gateway.upstream.reply_events([*scripted[:position], salty, *scripted[position + 1 :]])
            watched.check(gateway.http("POST", PATHS[dialect], fields), f"{position}{place}")
            gateway.relax()
    watched.check_kept()


@pytest.mark.parametrize(
    "form", [pytest.param(form, id=name) for name, form in zip(("key", "email"), (KEYS[0], EMAIL), strict=True)]
)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_errors_of_the_upstream_tell_no_canary(watched: Watched, dialect: str, form: str) -> None:
    """An upstream that quotes a key or a person in its error does so to nobody: neither plain nor within a stream."""
    gateway = watched.gateway
    error = {"error": {"message": f"No {form} here.", "type": "x", "param": None, "code": None}}
    for place, salty in salt_answer(error, form):
        for status in (400, 401, 429, 500):
            gateway.upstream.reply(json=salty, status=status)
            watched.check(gateway.http("POST", PATHS[dialect], clean_call(dialect)), f"{status}{place}")
        stream = [salty]
        if dialect == "responses" and isinstance(salty["error"], dict):
            stream.append({**salty["error"], "type": "error"})
        for event in stream:
            gateway.upstream.reply_events([*events(dialect, SAID)[:2], event], done=False)
            answer = gateway.http("POST", PATHS[dialect], clean_call(dialect, stream=True))
            watched.check(answer, place)
            assert not any(trace.encode() in answer.body for trace in TRACES), (place, answer.body)
    for body in (f"<html>{form}</html>".encode(), json.dumps([form]).encode(), json.dumps({"detail": form}).encode()):
        gateway.upstream.reply(body=body, status=502)
        watched.check(gateway.http("POST", PATHS[dialect], clean_call(dialect)), "page")
    gateway.upstream.reply_raw([b"HTTP/1.1 302 x\r\nlocation: http://x/" + form.encode() + b"\r\n\r\n"])
    watched.check(gateway.http("POST", PATHS[dialect], clean_call(dialect)), "redirect")
    gateway.upstream.reply_events([f"data: {form}\n\n".encode()])
    watched.check(gateway.http("POST", PATHS[dialect], clean_call(dialect, stream=True)), "garbage")
    watched.check_kept()


@pytest.mark.parametrize("form", [pytest.param(KEYS[0], id="key"), pytest.param(EMAIL, id="email")])
@pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
def test_headers_of_the_upstream_tell_no_canary(watched: Watched, stream: bool, form: str) -> None:
    """A header that is passed on is dropped where it holds a key or a person."""
    names = ("x-request-id", "openai-organization", "openai-version", "retry-after", "x-ratelimit-reset-requests")
    headers = dict.fromkeys((*names, "set-cookie", "server", "x-unheard-of"), form)
    gateway = watched.gateway
    if stream:
        gateway.upstream.reply_events(events("chat", SAID), headers=headers)
    else:
        gateway.upstream.reply(json=plain("chat", SAID), headers=headers)
    answer = gateway.http("POST", PATHS["chat"], clean_call("chat", stream=stream))
    assert answer.status == 200
    watched.check(answer, "header")
    gateway.upstream.reply(json={"object": "list", "data": []}, headers=headers)
    watched.check(gateway.http("GET", "/v1/models"), "header-of-models")
    gateway.upstream.reply(json={"error": {"message": form}}, status=404, headers=headers)
    watched.check(gateway.http("GET", "/v1/models/heron"), "error-of-models")
    watched.check_kept()
