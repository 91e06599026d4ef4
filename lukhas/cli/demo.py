"""`lukhas demo`: eight situations played through the official client, with what changed and why."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lukhas.cli.output import JsonOption, failing_clearly, print_json, print_line, show
from lukhas.cli.scene import SCENES, Scene
from lukhas.errors import IntegrityError, UnavailableError, UpstreamBroken
from lukhas.settings import Secret, Settings

if TYPE_CHECKING:
    import openai

MODEL: Final = "gpt-4o-mini"
_TIMEOUT_S: Final = 30.0
_SAID_ABOUT: Final = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}


def demo(as_json: JsonOption = False) -> None:
    """Start a gateway of its own, play eight situations through the official openai client, and show what changed."""
    with failing_clearly(as_json):
        try:
            import openai
        except ImportError as missing:
            raise UnavailableError(
                "The demo plays through the official openai client, which is not installed.",
                hint="Run: pip install 'lukhas-pwm[demo]'",
            ) from missing
        from lukhas.cli.log import configure_logging
        from lukhas.cli.server import serving_beside

        with tempfile.TemporaryDirectory(prefix="lukhas-demo-") as folder:
            key = secrets.token_urlsafe(32)
            settings = Settings(port=0, data_dir=Path(folder), admin_key=Secret(key), log_level="error")
            configure_logging(settings)
            with serving_beside(settings) as (_, port):
                base = f"http://127.0.0.1:{port}"
                if not as_json:
                    print_line(f"A gateway serves on {base}, with the built-in upstream echo: no model is called.")
                # Proxies of the environment have no business between this process and itself.
                http = openai.DefaultHttpxClient(trust_env=False)
                with openai.OpenAI(
                    base_url=f"{base}/v1", api_key=key, http_client=http, max_retries=0, timeout=_TIMEOUT_S
                ) as client:
                    try:
                        _play_all(client, port, key, as_json)
                    except openai.OpenAIError as failure:
                        raise UpstreamBroken(f"A call of the demo failed: {failure}") from failure
        if not as_json:
            print_line("The gateway of the demo has stopped, and its data is gone. Your own: lukhas serve")


def play(client: openai.OpenAI, scene: Scene) -> tuple[str, str, dict[str, Any]]:
    """Make one call as an application would.

    Returns:
        The audit id, the answer's text or why there is none, and the request that reached the upstream, if any did.
    """
    import openai

    headers: dict[str, str] = {}
    extension: dict[str, Any] = {}
    if scene.by_body:
        extension = {"session": scene.session, "signals": dict(scene.signals)}
    else:
        if scene.signals:
            headers["X-Lukhas-Signals"] = ", ".join(f"{name}={level:g}" for name, level in scene.signals.items())
        if scene.session is not None:
            headers["X-Lukhas-Session"] = scene.session
    options: dict[str, Any] = {**scene.request, "stream": scene.streamed}
    if extension:
        options["extra_body"] = {"lukhas": extension}
    create: Any = client.chat.completions.with_raw_response.create
    try:
        raw: Any = create(
            model=MODEL, messages=[{"role": "user", "content": scene.question}], extra_headers=headers, **options
        )
    except openai.PermissionDeniedError as denied:
        if not scene.is_denied:
            raise
        body: Any = denied.body
        return denied.response.headers["x-lukhas-audit-id"], body["message"], {}
    audit_id: str = raw.headers["x-lukhas-audit-id"]
    parts: list[Any] = list(raw.parse()) if scene.streamed else [raw.parse()]
    received: dict[str, Any] = {}
    text = ""
    for part in parts:
        extra: dict[str, Any] = part.model_extra or {}
        received = extra.get("lukhas_echo") or received
        for choice in part.choices:
            piece = choice.delta if scene.streamed else choice.message
            text += piece.content or ""
    return audit_id, text, received


def list_changes(sent: Mapping[str, Any], received: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Return every field that differs between a request and what reached the upstream, before and after."""
    changes: dict[str, tuple[Any, Any]] = {}
    for name in dict.fromkeys((*sent, *received)):
        before, after = sent.get(name), received.get(name)
        if name == "tools":
            before, after = _tool_names(before), _tool_names(after)
        if name == "messages":
            before, after = len(before or []), len(after or [])
        if before != after and name not in ("model", "stream", "lukhas"):
            changes[name] = (before, after)
    return changes


def _play_all(client: openai.OpenAI, port: int, key: str, as_json: bool) -> None:
    from lukhas.cli.audit_show import explain

    played: list[dict[str, Any]] = []
    explained: dict[str, Any] = {}
    for number, scene in enumerate(SCENES, start=1):
        audit_id, text, received = play(client, scene)
        record = _read_record(port, key, audit_id)
        sent = {"messages": [{"role": "user", "content": scene.question}], **scene.request}
        changes = {} if scene.is_denied else list_changes(sent, received)
        result = {
            "title": scene.title,
            "signals": dict(scene.signals),
            "session": scene.session,
            "streamed": scene.streamed,
            "denied": scene.is_denied,
            "sent": sent,
            "received": received,
            "changes": {name: {"before": pair[0], "after": pair[1]} for name, pair in changes.items()},
            "style": record["decision"]["style"],
            "trace": record["decision"]["trace"],
            "audit_id": audit_id,
            "answer": text,
        }
        played.append(result)
        if "tools" in scene.request and not explained:
            explained = record
        if not as_json:
            _print(number, scene, result, changes)
    if as_json:
        print_json({"situations": played, "record": explained})
        return
    print_line()
    print_line(f"The record of the risky request, as `lukhas audit show {explained['audit_id']}` would explain it:")
    print_line()
    explain(explained)
    print_line()


def _print(number: int, scene: Scene, result: Mapping[str, Any], changes: Mapping[str, tuple[Any, Any]]) -> None:
    signals = ", ".join(f"{name} {level:g}" for name, level in scene.signals.items()) or "none"
    where = " in the body" if scene.by_body else " in the header" if scene.signals else ""
    session = f", session {scene.session}" if scene.session else ""
    print_line()
    print_line(f"{number}. {scene.title}")
    print_line(f"   signals  {signals}{where}{session}; {'streamed' if scene.streamed else 'plain'}")
    if scene.is_denied:
        print_line(f"   denied   {show(result['answer'])}")
    elif not changes:
        print_line("   changed  nothing")
    for name, (before, after) in changes.items():
        shown = (
            f"{show(before)} -> {show(after)}"
            if name != "messages"
            else f"style {result['style']}, one instruction more"
        )
        print_line(f"   changed  {name}: {shown}{_explain(name, result['trace'])}")
    for step in result["trace"]:
        if step["step"] == "caller" and step["rule"].endswith("is kept"):
            print_line(f"   kept     {step['parameter']}: decided {show(step['before'])}, and {step['rule']}")
    print_line(f"   record   {result['audit_id']}")


def _explain(field: str, trace: list[dict[str, Any]]) -> str:
    """Return why a field changed: the last signal or rule that moved its parameter."""
    parameter = "style" if field == "messages" else _SAID_ABOUT.get(field, field)
    steps = [step for step in trace if step["parameter"] == parameter and step["step"] not in ("caller", "bounds")]
    if not steps:
        return ""
    last = steps[-1]
    cause = f"{last['signal']} {last['level']:.3g}: " if last.get("signal") else ""
    return f"   ({cause}{last.get('rule', '')})"


def _tool_names(tools: Any) -> list[str] | None:
    return None if tools is None else [tool["function"]["name"] for tool in tools]


def _read_record(port: int, key: str, audit_id: str) -> dict[str, Any]:
    """Read a record over HTTP, as any program with the key can."""
    import http.client

    import orjson

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", f"/api/v1/audit/{audit_id}", headers={"Authorization": f"Bearer {key}"})
        answer = connection.getresponse()
        body = answer.read()
    finally:
        connection.close()
    if answer.status != 200:
        raise IntegrityError(f"The record {audit_id} cannot be read: HTTP {answer.status}.")
    return orjson.loads(body)
