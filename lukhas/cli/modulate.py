"""`lukhas modulate`: what signals would make of a call, and why."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.errors import InvalidRequest, SignalError
from lukhas.settings import load_settings

_DECIMAL: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d{1,4})?\Z", re.ASCII)
_FORM: Final = "Write it as: --signal stress=0.7"
_PLACE: Final = re.compile(r"line (\d+), column (\d+)\Z")
_CAUSES: Final = {
    "choose": "style rule",
    "nudge": "feedback",
    "caller": "the caller",
    "capability": "the model",
    "tools": "allowlist",
}


def modulate(
    signal: Annotated[
        list[str] | None, typer.Option("--signal", "-s", help="A signal and its level, such as stress=0.7; repeatable.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model whose capabilities count (default: gpt-4o-mini).")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file (default: LUKHAS_POLICY, else packaged).")] = None,
    request: Annotated[
        str | None, typer.Option(help="JSON file with a chat request, or - for standard input; shows it changed.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Decide by the given signals, with nothing sent or recorded, and show the trace."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.gateway.preview import preview
        from lukhas.modulation.dispatcher import Modulator
        from lukhas.openai.capabilities import load_capabilities

        modulator = Modulator(policy or settings.policy)
        body = None if request is None else read_request(request, settings.max_body_bytes)
        signals = _join(read_signals(signal or []), body)
        document = preview(modulator, load_capabilities(settings.capabilities), signals, model=model, request=body)
        if as_json:
            print_json(document)
        else:
            _print(document, modulator)


def read_signals(texts: list[str]) -> list[Any]:
    """Parse `stress=0.7`; a name may stand once.

    Raises:
        SignalError: another form, a level outside [0, 1], or a name twice.
    """
    from lukhas.modulation.signals import Signal

    found: dict[str, Signal] = {}
    for text in (part for given in texts for part in given.split(",")):
        name, sign, level = (part.strip() for part in text.partition("="))
        if not name or not sign or not level:
            raise SignalError(f"'{text[:80]}' is not a signal.", hint=_FORM, param="--signal")
        if name in found:
            raise SignalError(f"Signal '{name[:64]}' stands twice.", hint="Give it once.", param="--signal")
        number = float(level) if _DECIMAL.match(level) else float("nan")
        found[name] = Signal(name, number)
    return list(found.values())


def read_request(place: str, max_bytes: int) -> dict[str, Any]:
    """Read a chat request from a file, or from standard input where the place is `-`.

    Raises:
        InvalidRequest: it cannot be read, is too large, or is not a JSON object.
    """
    import orjson

    try:
        if place == "-":
            raw = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with Path(place).open("rb") as stream:
                raw = stream.read(max_bytes + 1)
    except OSError as failure:
        raise InvalidRequest(f"The request {place} cannot be read: {failure.strerror}.", param="--request") from failure
    if len(raw) > max_bytes:
        raise InvalidRequest(f"The request is larger than {max_bytes} bytes.", param="--request")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as wrong:
        raise InvalidRequest(f"The request is not JSON: {wrong}.", param="--request") from None
    if not isinstance(body, dict):
        raise InvalidRequest("The request must be a JSON object.", param="--request")
    return body  # pyright: ignore[reportUnknownVariableType] - any JSON object


def _join(signals: list[Any], body: dict[str, Any] | None) -> list[Any]:
    """Add the signals that the request itself carries, as the gateway would take them."""
    extension: Any = (body or {}).get("lukhas")
    own: Any = cast("dict[str, Any]", extension).get("signals") if isinstance(extension, dict) else None
    if own is None:
        return signals
    from lukhas.gateway.intake import merge_signals
    from lukhas.modulation.signals import parse_signal_body

    try:
        return merge_signals(signals, parse_signal_body(own))
    except SignalError as wrong:
        raise SignalError(f"In the request: {wrong.message}", hint=wrong.hint, param=wrong.param) from None


def _print(document: dict[str, Any], modulator: Any) -> None:
    policy = modulator.policy
    signals = ", ".join(f"{name} {level:g}" for name, level in document["levels"].items())
    print_line(f"policy  {document['policy']} ({show(policy.source)})")
    print_line(f"model   {show(document['model'])}")
    print_line(f"signals {signals or 'none that count'}")
    print_line(f"style   {document['style']}")
    print_line(f"tools   {show(document['tools'])}")
    print_line()
    rows = [
        (name, value, policy.defaults[name], "yes" if name in document["touched"] else "")
        for name, value in document["parameters"].items()
    ]
    print_table(("parameter", "value", "default", "touched"), rows)
    print_line()
    print_trace(document["trace"])
    if document["written"]:
        print_line()
        print_table(("written into the call", "value"), document["written"].items())
    if "request" in document:
        print_line()
        print_line("request as it would go upstream")
        print_json(document["request"])


def print_trace(trace: list[dict[str, Any]]) -> None:
    """Print the steps of a decision: what changed, by which signal at which level, by which rule, and where it is."""
    if not trace:
        print_line("Nothing changed.")
        return
    print_table(("what changed", "before -> after", "because of", "rule", "line:column"), [_describe(s) for s in trace])


def _describe(step: dict[str, Any]) -> tuple[str, str, str, str, str]:
    signal: str = step.get("signal", "")
    cause = (
        f"{signal} {show(step.get('level'))}" if signal else _CAUSES.get(step.get("step", ""), show(step.get("step")))
    )
    change = f"{show(step['before'])} -> {show(step['after'])}"
    return step["parameter"], change, cause, step.get("rule", ""), _PLACE.sub(r"\1:\2", step.get("place", ""))
