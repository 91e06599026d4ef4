"""The stage of both client suites: a gateway with two rules of its own, and the means to script its upstream."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import upstream_shape as shape
from conftest import ADMIN_KEY, Gateway, start_gateway

from lukhas.testing import FakeUpstream

# Words that no packaged rule knows, so that these suites do not depend on what those rules say.
RULES = """
version: 1
rules:
  - id: test.forbidden
    category: forbidden-bird
    severity: high
    literals: [zanzibar-bustard]
    actions:
      standard: {instruction: record, input: block, tool_result: block, output: block}
      high: {instruction: record, input: block, tool_result: block, output: block}
  - id: test.hidden
    category: hidden-bird
    severity: medium
    literals: [quokka-wren]
    actions:
      standard: {instruction: record, input: redact, tool_result: redact, output: redact}
      high: {instruction: record, input: redact, tool_result: redact, output: redact}
"""
FORBIDDEN = "zanzibar-bustard"
HIDDEN = "quokka-wren"
HIDDEN_SHOWN = "[redacted:hidden-bird]"
RETRIEVE: dict[str, Any] = {
    "name": "retrieve_knowledge",
    "description": "Search the knowledge base.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string"}, "k": {"type": "integer"}},
        "required": ["query"],
        "additionalProperties": False,
    },
}
OPEN: dict[str, Any] = {
    "name": "open_url",
    "description": "Open a page.",
    "parameters": {"type": "object", "properties": {"url": {"type": "string"}}, "required": ["url"]},
}
EXEC: dict[str, Any] = {
    "name": "exec_code",
    "description": "Run a program.",
    "parameters": {"type": "object", "properties": {"source": {"type": "string"}}, "required": ["source"]},
}
CHAT_TOOLS: list[Any] = [{"type": "function", "function": tool} for tool in (RETRIEVE, OPEN)]
RESPONSE_TOOLS: list[Any] = [{"type": "function", "strict": False, **tool} for tool in (RETRIEVE, OPEN)]


class Scene:
    """One running gateway, from the point of view of a client's user."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.upstream = gateway.upstream

    @property
    def calls(self) -> int:
        """How many requests reached the upstream."""
        return len(self.upstream.requests)

    def clear(self) -> None:
        """Forget what earlier cases did."""
        self.upstream._replies.clear()
        self.upstream.requests.clear()
        self.gateway.relax()

    def answer(self, body: Mapping[str, Any], **more: Any) -> None:
        """Script one plain answer, as OpenAI's servers send it."""
        headers = {"x-request-id": "req_up_1", "openai-version": "2020-10-01", "openai-processing-ms": "32"}
        self.upstream.reply(json=dict(body), **{**more, "headers": headers | dict(more.get("headers") or {})})

    def stream_chat(self, *pieces: str, **more: Any) -> None:
        """Script one streamed chat answer."""
        sending = {name: more.pop(name) for name in ("done", "ending", "between_ms", "delay_ms") if name in more}
        self.upstream.reply_events(shape.chat_chunks(*pieces, **more), **sending)

    def stream_response(self, output: list[Any], **more: Any) -> None:
        """Script one streamed Responses answer; it has no [DONE]."""
        self.upstream.reply_events(shape.encode_events(shape.response_events(output, **more)), done=False)

    def refuse(self, status: int, body: Any = None, **headers: str) -> None:
        """Script one error; an underscore in a header's name stands for a hyphen."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        self.upstream.reply(status=status, json=shape.error() if body is None else body, headers=fields)

    def limited_key(self, **limits: int) -> str:
        """Make a key of a tenant of its own with limits, and return its secret."""
        gateway = self.gateway
        secret = gateway.key(tenant=f"limited-{uuid4().hex[:12]}")
        key_id = gateway.runtime.keys.ring.authenticate(secret, gateway.runtime.clock.now_ms()).key_id
        path = f"/api/v1/limits/keys/{key_id}"
        tag = gateway.http("GET", path).headers["etag"]
        put = gateway.http("PUT", path, {"limits": limits, "reason": "a test"}, {"if-match": tag})
        assert put.status == 200, put.body
        return secret

    def outcome(self, audit_id: str) -> dict[str, Any]:
        """Return a call's outcome as soon as it is on record."""
        return self.gateway.wait_for(audit_id)

    def last_outcome(self) -> dict[str, Any]:
        """Return the newest call's outcome."""
        return self.outcome(self.gateway.last_audit_id())


@contextlib.contextmanager
def open_scene(folder: Path) -> Iterator[Scene]:
    """Start a gateway with the two rules, and stop it at the end."""
    rules = folder / "rules.yaml"
    rules.write_text(RULES, "utf-8")
    options = {"upstream_read_timeout_s": 5.0, "upstream_max_retries": 0, "moderation_rules": rules}
    with FakeUpstream() as upstream:
        gateway = start_gateway(folder / "data", upstream, options)
        try:
            yield Scene(gateway)
        finally:
            gateway.stop()


_SHARED = pytest.StashKey[Scene]()


def stage() -> Any:
    """Return a fixture: the one scene of the whole run, since compiling its rules takes seconds."""

    @pytest.fixture(scope="module")
    def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scene:
        config = request.config
        shared = config.stash.get(_SHARED, None)
        if shared is None:
            stack = contextlib.ExitStack()
            shared = config.stash[_SHARED] = stack.enter_context(open_scene(tmp_path_factory.mktemp("stage")))
            config.add_cleanup(stack.close)
        return shared

    return stage


def scene() -> Any:
    """Return a fixture: that scene, with an upstream that has seen nothing yet."""

    @pytest.fixture
    def scene(stage: Scene) -> Iterator[Scene]:
        stage.clear()
        yield stage
        left = len(stage.upstream._replies)
        stage.clear()
        assert left == 0, "the case scripted answers that nobody asked for"
        for client in stage.gateway.clients:
            client.close()
        stage.gateway.clients.clear()

    return scene


__all__ = ("ADMIN_KEY", "Scene", "open_scene", "scene", "stage")
