"""Tools end to end: what is advertised, called and answered, who owns what was made, and what is not served at all."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import pytest
from conftest import Answer, Gateway, start_gateway
from guarded_call import DIALECTS, PATHS, Said, clean_call, decode, function, plain, script, see
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lukhas.testing import FakeUpstream

OPEN_SCHEMA = {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]}
OPEN = ("open_url", '{"url": "https://birds.example/"}')
EXEC = ("exec_code", '{"language": "python", "source": "1"}')
NAMES = ("open_url", "exec_code", "retrieve_knowledge", "schedule_task", "send_money", "search_docs", "a b", "")
HOSTED = ("web_search", "file_search", "code_interpreter", "mcp", "computer_use_preview", "brand_new", "local_shell")
STREAM = pytest.mark.parametrize("stream", [pytest.param(False, id="plain"), pytest.param(True, id="stream")])
DIALECT = pytest.mark.parametrize("dialect", DIALECTS)


@contextlib.contextmanager
def opened(folder: Any, **options: Any) -> Iterator[Gateway]:
    with FakeUpstream() as upstream:
        gateway = start_gateway(folder / "data", upstream, options)
        yield gateway
        gateway.stop()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose policy allows no tool at all."""
    folder = tmp_path_factory.mktemp("bare")
    text = resources.files("lukhas.modulation").joinpath("modulation_policy.yaml").read_text("utf-8")
    given_default = "default: [retrieval, browser]"
    assert given_default in text
    policy = folder / "policy.yaml"
    policy.write_text(text.replace(given_default, "default: []"))
    with opened(folder, policy=policy) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with opened(tmp_path_factory.mktemp("guarded")) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def shadow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with opened(tmp_path_factory.mktemp("shadow"), mode="shadow") as gateway:
        yield gateway


@pytest.fixture(autouse=True)
def start_calm(request: pytest.FixtureRequest) -> None:
    for name in ("bare", "guarded", "shadow"):
        if name in request.fixturenames:
            gateway: Gateway = request.getfixturevalue(name)
            gateway.relax()
            gateway.upstream.requests.clear()
            gateway.upstream._replies.clear()


def send(gateway: Gateway, dialect: str, fields: Mapping[str, Any], **more: Any) -> Answer:
    return gateway.http("POST", PATHS[dialect], {**clean_call(dialect), **fields}, **more)


def outcome_of(gateway: Gateway, answer: Answer) -> dict[str, Any]:
    return gateway.wait_for(answer.headers["x-lukhas-audit-id"])


def incidents_of(gateway: Gateway, answer: Answer) -> list[dict[str, Any]]:
    listed = gateway.http("GET", "/api/v1/incidents?limit=500").json["incidents"]
    return [one for one in listed if one["audit_id"] == answer.headers["x-lukhas-audit-id"]]


calls = st.lists(st.tuples(st.sampled_from(NAMES[:6]), st.sampled_from(("{}", '{"url": "x"}', "no json"))), max_size=3)


@given(
    dialect=st.sampled_from(DIALECTS),
    stream=st.booleans(),
    names=st.lists(st.sampled_from(NAMES[:-1]), max_size=4),
    hosted=st.lists(st.sampled_from(HOSTED), max_size=2),
    is_required=st.booleans(),
    said=calls,
    text=st.sampled_from(("", "A bird.")),
)
@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_empty_allowlist_advertises_and_executes_nothing(
    bare: Gateway,
    dialect: str,
    stream: bool,
    names: list[str],
    hosted: list[str],
    is_required: bool,
    said: list[tuple[str, str]],
    text: str,
) -> None:
    """Whatever is offered and whatever the model calls: nothing goes out, nothing comes back, and each denial shows."""
    bare.relax()
    bare.upstream.requests.clear()
    tools = [*(function(dialect, name) for name in names), *({"type": kind} for kind in hosted)]
    fields: dict[str, Any] = {"stream": stream, **({"tools": tools} if tools else {})}
    if is_required and tools:
        fields["tool_choice"] = "required"
    is_forced = "tool_choice" in fields
    if not is_forced:
        script(bare, dialect, Said(text=text, calls=said), stream=stream)
    answer = send(bare, dialect, fields)
    decision = bare.document(answer.headers["x-lukhas-audit-id"])["decision"]
    assert decision["inputs"]["tools"] == [*names, *hosted]
    if is_forced:
        assert decision["denied"]
        assert answer.status == 403 and answer.error["code"] == "policy_denied" and not bare.upstream.requests
        assert [one["point"] for one in incidents_of(bare, answer)] == ["advertise"]
        return
    assert decision.get("stripped", []) == [*names, *hosted]
    assert not {"tools", "tool_choice", "functions", "web_search_options"} & bare.sent().keys()
    assert bool(names or hosted) == bool(answer.headers.get("x-lukhas-tools-stripped"))
    seen = see(dialect, answer)
    assert seen.calls == [] and seen.text == text and seen.error is None
    assert bool(seen.refusal) == bool(said)
    for name, _ in said:
        assert f"'{name}' was blocked" in seen.refusal
    assert seen.ending == ("content_filter" if said and not text else "stop")
    blocked = outcome_of(bare, answer).get("moderation", {}).get("blocked_calls", [])
    assert [one["tool"] for one in blocked] == [name for name, _ in said]
    assert {one["tool"] for one in incidents_of(bare, answer)} == {name for name, _ in said}


@STREAM
@DIALECT
def test_parallel_calls_of_which_one_is_denied(guarded: Gateway, dialect: str, stream: bool) -> None:
    """The allowed ones go out whole, the denied one is answered once, and the turn still ends in tool calls."""
    script(guarded, dialect, Said(calls=[OPEN, EXEC, OPEN]), stream=stream)
    tools = [function(dialect, "open_url", OPEN_SCHEMA), function(dialect, "exec_code")]
    answer = send(guarded, dialect, {"tools": tools, "stream": stream})
    seen = see(dialect, answer)
    assert seen.calls == [OPEN, OPEN] and seen.ending == "tool_calls"
    assert seen.refusal.count("was blocked") == 1 and "exec_code" in seen.refusal
    assert b"call_1" not in answer.body, "no id of a blocked call is left dangling"
    assert answer.headers["x-lukhas-tools-stripped"] == "exec_code"
    (incident,) = incidents_of(guarded, answer)
    assert (incident["point"], incident["tool"], incident["rule"]) == ("call", "exec_code", "not_allowed")


@STREAM
@DIALECT
def test_escaped_letters_in_arguments_hide_nothing(guarded: Gateway, dialect: str, stream: bool) -> None:
    """The rules read what the JSON means."""
    pem = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA7" * 6 + "\n-----END RSA " + "PRIVATE KEY-----"
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in pem)
    script(guarded, dialect, Said(calls=[("open_url", f'{{"url": "{escaped}"}}')]), stream=stream)
    answer = send(guarded, dialect, {"tools": [function(dialect, "open_url", OPEN_SCHEMA)], "stream": stream})
    seen = see(dialect, answer)
    assert seen.calls == [] and seen.ending == "content_filter" and escaped.encode() not in answer.body


def chat_answer(message: dict[str, Any], finish: str = "tool_calls") -> dict[str, Any]:
    answer = plain("chat", Said())
    answer["choices"][0] |= {"message": {"role": "assistant", "content": None, **message}, "finish_reason": finish}
    return answer


@pytest.mark.parametrize(
    ("offered", "called", "is_allowed"),
    [
        pytest.param("open_url", "open_url", True, id="allowed"),
        pytest.param("exec_code", "exec_code", False, id="denied"),
        pytest.param("open_url", "search_docs", False, id="not-offered"),
    ],
)
def test_custom_tools_in_both_dialects(guarded: Gateway, offered: str, called: str, is_allowed: bool) -> None:
    """Free text goes to custom tools that were offered and are allowed, and to no others."""
    call = {"id": "call_1", "type": "custom", "custom": {"name": called, "input": "herons"}}
    guarded.upstream.reply(json=chat_answer({"tool_calls": [call]}))
    answer = send(guarded, "chat", {"tools": [{"type": "custom", "custom": {"name": offered}}]})
    message = answer.json["choices"][0]["message"]
    assert (message.get("tool_calls") == [call]) == is_allowed
    assert ("was blocked" in (message.get("refusal") or "")) == (not is_allowed)
    item = {"id": "ctc_1", "type": "custom_tool_call", "call_id": "call_1", "name": called, "input": "herons"}
    guarded.upstream.reply(json=plain("responses", Said(), output=[item]))
    answer = send(guarded, "responses", {"tools": [{"type": "custom", "name": offered}]})
    (out,) = answer.json["output"]
    assert out["type"] == ("custom_tool_call" if is_allowed else "message")
    assert answer.json["status"] == ("completed" if is_allowed else "incomplete")


def test_custom_call_does_not_go_round_a_schema(guarded: Gateway) -> None:
    """A function that was offered with a schema takes no free text."""
    call = {"id": "call_1", "type": "custom", "custom": {"name": "open_url", "input": "rm -rf"}}
    guarded.upstream.reply(json=chat_answer({"tool_calls": [call]}))
    answer = send(guarded, "chat", {"tools": [function("chat", "open_url", OPEN_SCHEMA)]})
    assert b"rm -rf" not in answer.body and see("chat", answer).ending == "content_filter"
    assert incidents_of(guarded, answer)[0]["rule"] == "arguments"


@pytest.mark.parametrize(
    ("item", "is_allowed"),
    [
        pytest.param({"type": "file_search_call", "queries": ["herons"], "results": None}, True, id="file-search"),
        pytest.param(
            {"type": "web_search_call", "action": {"type": "search", "query": "herons"}}, False, id="web-search"
        ),
        pytest.param({"type": "code_interpreter_call", "code": "1", "container_id": "cntr_1"}, False, id="code"),
        pytest.param({"type": "mcp_call", "name": "x", "server_label": "y", "arguments": "{}"}, False, id="mcp"),
        pytest.param(
            {"type": "local_shell_call", "action": {"command": ["ls"]}, "call_id": "call_9"}, False, id="shell"
        ),
        pytest.param({"type": "teleport_call", "goal": "moon"}, False, id="of-tomorrow"),
    ],
)
def test_hosted_calls_in_an_answer(guarded: Gateway, item: dict[str, Any], is_allowed: bool) -> None:
    """What the provider has run although nobody allowed it is taken out, and a refusal stands in its place."""
    whole = {"id": "ht_1", "status": "completed", **item}
    guarded.upstream.reply(json=plain("responses", Said(text="A bird."), output=[whole]))
    fields = {"tools": [{"type": "file_search", "vector_store_ids": []}]}
    answer = send(guarded, "responses", fields)
    (out,) = answer.json["output"]
    if is_allowed:
        assert out == whole
    else:
        assert out["type"] == "message" and out["content"][0]["type"] == "refusal"
        assert incidents_of(guarded, answer)[0]["point"] == "call"


@STREAM
@pytest.mark.parametrize(
    ("name", "is_allowed"),
    [pytest.param("open_url", True, id="allowed"), pytest.param("exec_code", False, id="denied")],
)
def test_legacy_function_calls(guarded: Gateway, stream: bool, name: str, is_allowed: bool) -> None:
    """The older form with one call and no id is governed like the newer one."""
    call = {"name": name, "arguments": OPEN[1] if is_allowed else EXEC[1]}
    if stream:
        base = {key: value for key, value in plain("chat", Said()).items() if key not in ("choices", "usage")}
        deltas: list[Any] = [{"role": "assistant", "function_call": {**call, "arguments": ""}}]
        deltas += [{"function_call": {"arguments": call["arguments"][at : at + 4]}} for at in range(0, 80, 4)]
        chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        last = {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "function_call"}]}
        guarded.upstream.reply_events([*chunks, last])
    else:
        guarded.upstream.reply(json=chat_answer({"function_call": call}, "function_call"))
    functions = [{"name": "open_url", "parameters": OPEN_SCHEMA}, {"name": "exec_code"}]
    answer = send(guarded, "chat", {"functions": functions, "stream": stream})
    if stream:
        choices = [chunk["choices"][0] for chunk in decode(answer.body) if chunk["choices"]]
        found = [choice["delta"]["function_call"] for choice in choices if choice["delta"].get("function_call")]
        ending = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
        got = {"name": "".join(part.get("name") or "" for part in found)}
        got["arguments"] = "".join(part.get("arguments") or "" for part in found)
    else:
        (choice,) = answer.json["choices"]
        got, ending = choice["message"].get("function_call") or {"name": "", "arguments": ""}, [choice["finish_reason"]]
    assert got == (call if is_allowed else {"name": "", "arguments": ""})
    assert ending == ["function_call" if is_allowed else "content_filter"]


@STREAM
def test_blocked_call_is_answered_once_in_the_next_turn(guarded: Gateway, stream: bool) -> None:
    """Upstream's stored response waits for the call's result: the next turn brings it, whatever the caller writes."""
    name = f"resp_with_a_blocked_call_{stream}"
    script(guarded, "responses", Said(calls=[EXEC]), stream=stream, response_id=name)
    first = send(guarded, "responses", {"stream": stream})
    assert see("responses", first).calls == []
    for own in ("Go on.", [{"type": "function_call_output", "call_id": "call_0", "output": "I ran it myself."}]):
        guarded.relax()
        guarded.upstream.reply(json=plain("responses", Said(text="Well."), id=f"{name}_next"))
        answer = send(guarded, "responses", {"previous_response_id": name, "input": own})
        assert answer.status == 200, answer.body
        outputs = [item for item in guarded.sent()["input"] if item.get("type") == "function_call_output"]
        assert [one["call_id"] for one in outputs] == ["call_0"] and "blocked" in outputs[0]["output"]
        assert b"I ran it myself" not in guarded.upstream.requests[-1].body
    guarded.upstream.reply(json=plain("responses", Said(text="Well."), id=f"{name}_last"))
    send(guarded, "responses", {"previous_response_id": f"{name}_next", "input": "And then?"})
    assert guarded.sent()["input"] == "And then?", "it is owed once"


def test_objects_belong_to_the_tenant_that_made_them(guarded: Gateway) -> None:
    """Another tenant's response is not there for others: to go on from, fetch, cancel or delete."""
    owner, other = guarded.key(tenant="herons"), guarded.key(tenant="storks")
    guarded.upstream.reply(json=plain("responses", Said(text="A bird."), id="resp_heron"))
    assert send(guarded, "responses", {}, key=owner).status == 200
    guarded.upstream.requests.clear()
    answer = send(guarded, "responses", {"previous_response_id": "resp_heron"}, key=other)
    assert answer.status == 404 and answer.error["code"] == "not_found"
    unknown = send(guarded, "responses", {"previous_response_id": "resp_nobody"}, key=other)
    assert unknown.error["message"] == answer.error["message"], "the answer does not say which of the two it is"
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel")):
        refused = guarded.http(method, f"/v1/responses/resp_heron{path}", key=other)
        assert refused.status == 404, (method, path, refused.body)
    assert not guarded.upstream.requests
    for method, path in (("GET", ""), ("POST", "/cancel"), ("DELETE", "")):
        guarded.upstream.reply(json=plain("responses", Said(text="A bird."), id="resp_heron"))
        answer = guarded.http(method, f"/v1/responses/resp_heron{path}", key=owner)
        assert answer.status == 200, (method, path, answer.body)
        request = guarded.upstream.requests[-1]
        assert (request.method, request.path) == (method, f"/v1/responses/resp_heron{path}")


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [
        pytest.param(
            "responses",
            {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "file-nobody"}]}]},
            id="file",
        ),
        pytest.param(
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-nobody"}}]}]},
            id="chat-file",
        ),
        pytest.param("responses", {"conversation": "conv_nobody"}, id="conversation"),
        pytest.param(
            "responses", {"tools": [{"type": "file_search", "vector_store_ids": ["vs_nobody"]}]}, id="vector-store"
        ),
    ],
)
def test_unknown_object_is_a_404(guarded: Gateway, dialect: str, fields: dict[str, Any]) -> None:
    """What nobody of the tenant has made or bound cannot be named."""
    answer = send(guarded, dialect, fields)
    assert answer.status == 404 and answer.error["code"] == "not_found", answer.body
    assert not guarded.upstream.requests


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"toolbox": [{"type": "function", "name": "x"}]}, id="name"),
        pytest.param({"extras": {"tools": [{"type": "function"}]}}, id="inside"),
        pytest.param({"extras": [{"name": "x", "parameters": {}}]}, id="shape"),
        pytest.param({"TOOLS": [{"type": "x"}]}, id="case"),
    ],
)
@DIALECT
def test_unlisted_tool_bearing_field(guarded: Gateway, shadow: Gateway, dialect: str, fields: dict[str, Any]) -> None:
    """Refused where the policy is enforced; in shadow mode it passes as it came."""
    answer = send(guarded, dialect, fields)
    assert answer.status == 400 and next(iter(fields)) in answer.error["param"] and not guarded.upstream.requests
    script(shadow, dialect, Said(text="A bird."), stream=False)
    assert send(shadow, dialect, fields).status == 200
    assert shadow.sent() == {**clean_call(dialect), **fields}


@DIALECT
def test_media_that_nobody_can_read(guarded: Gateway, shadow: Gateway, dialect: str) -> None:
    """Blocked by the packaged setting and recorded; in shadow mode only recorded."""
    url = "data:image/png;base64,iVBORw0KGgo="
    part: dict[str, Any] = {"type": "image_url", "image_url": {"url": url}}
    if dialect == "responses":
        part = {"type": "input_image", "image_url": url}
    turn = [{"role": "user", "content": [part]}]
    fields = {"messages": turn} if dialect == "chat" else {"input": turn}
    answer = send(guarded, dialect, fields)
    assert answer.status == 403 and answer.error["code"] == "moderation_denied" and not guarded.upstream.requests
    decision = guarded.document(answer.headers["x-lukhas-audit-id"])["decision"]
    assert decision["moderation"]["unmoderated"] == ["image"] and decision["denied"]
    script(shadow, dialect, Said(text="A bird."), stream=False)
    answer = send(shadow, dialect, fields)
    assert answer.status == 200
    assert shadow.document(answer.headers["x-lukhas-audit-id"])["decision"]["moderation"]["unmoderated"] == ["image"]


@pytest.mark.parametrize(
    "path",
    [
        *("/v1/completions", "/v1/files", "/v1/files/file-1", "/v1/assistants", "/v1/threads", "/v1/batches"),
        *("/v1/images/generations", "/v1/audio/speech", "/v1/audio/transcriptions", "/v1/fine_tuning/jobs"),
        *("/v1/vector_stores", "/v1/conversations", "/v1/responses/resp_1/input_items", "/v1/realtime", "/v1/evals"),
        *("/v1/chat/completions/x/messages", "/v1/responses/input_tokens/x", "/v1/containers", "/v1/uploads"),
    ],
)
def test_unlisted_path_is_a_404_and_never_proxied(guarded: Gateway, path: str) -> None:
    """What this gateway cannot govern it does not serve."""
    for method in ("GET", "POST", "DELETE"):
        answer = guarded.http(method, path, {} if method == "POST" else None)
        assert answer.status in (404, 405) and not guarded.upstream.requests
    assert json.loads(answer.body)["error"]["type"]
