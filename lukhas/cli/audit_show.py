"""`lukhas audit show`: what happened in one call, who did it, and why, in words and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from lukhas.audit.explanation import describe_ending, explain_document
from lukhas.cli.modulate import print_trace
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.cli.store import open_existing, open_log
from lukhas.errors import NotFound
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.audit.checkpoint_store import StoredCheckpoint
    from lukhas.settings import Settings


def show_record(
    audit_id: Annotated[str, typer.Argument(metavar="ID", help="aud_..., from the header X-Lukhas-Audit-Id.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Explain one audit record: who called which model, which signals counted, what changed and why."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.ids import check_id

        check_id("aud", audit_id)
        with open_log(settings) as log:
            document = log.read_document(audit_id)
            pruned = log.explain_absence(audit_id) if document is None else ""
        if document is None:
            raise NotFound(f"There is no record {audit_id}.", hint=pruned or f"Looked in: {settings.data_dir}")
        if as_json:
            print_json(document)
        else:
            newest = max(int(one["tree"]["index"]) for one in document["records"])
            explain(document, _find_covering(settings, newest))


def _find_covering(settings: Settings, index: int) -> StoredCheckpoint | None:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.clock import SystemClock
    from lukhas.storage.writer import GroupCommitWriter

    with open_existing(settings) as database:
        unused = GroupCommitWriter(database, max_rows=1, name="unused")
        return CheckpointStore(database, unused, SystemClock()).first_covering(index)


def explain(document: Mapping[str, Any], covering: StoredCheckpoint | None = None) -> None:
    """Print what the records of one audit id say."""
    print_line(f"record    {document['audit_id']}")
    print_line(f"when      {document['time']}")
    print_line(f"who       key {show(document['key_id'])} of tenant {show(document['tenant'] or None)}")
    for title, name in (("session", "session"), ("end user", "end_user"), ("request", "request_id")):
        if document[name] is not None:
            print_line(f"{title:9} {show(document[name])}")
    decision = document["decision"]
    if isinstance(decision, dict):
        _explain_call(cast("dict[str, Any]", decision), document["outcome"])
    else:
        for record in document["records"]:
            print_line()
            _print_plain(record)
    print_line()
    rows = [
        (r["tree"]["index"].lstrip("0") or "0", r["kind"], r["time"], r["tree"]["sequence"].lstrip("0"))
        for r in document["records"]
    ]
    print_table(("in the log at", "kind", "time", "number of this key"), rows)
    print_line()
    print_line("in words")
    for line in explain_document(document, None if covering is None else (covering.size, covering.time_ms)):
        print_line(f"  {line}")


def _explain_call(decision: Mapping[str, Any], outcome: Any) -> None:
    form = "streamed" if decision.get("stream") else "plain"
    print_line(f"call      {show(decision.get('dialect'))} to {show(decision.get('model'))}, {form}")
    is_shadow = decision.get("mode") == "shadow"
    print_line(f"mode      {'shadow: only recorded, nothing below was applied' if is_shadow else 'enforce'}")
    print_line(f"policy    {show(decision.get('policy'))}")
    print_line(f"style     {show(decision.get('style'))}")
    if decision.get("denied"):
        print_line(f"denied    {show(decision['denied'])}")
    _print_moderation("in the request", _table(decision.get("moderation")))
    inputs = _table(decision.get("inputs"))
    print_line()
    _print_signals(inputs)
    print_line()
    trace = cast("list[Any]", decision.get("trace") or [])
    print_trace([step for step in map(_table, trace) if "parameter" in step])
    for title, part in (("the caller's own", inputs.get("caller")), ("written into the call", decision.get("written"))):
        values = _table(part)
        if values:
            print_line()
            print_table((title, "value"), values.items())
    if inputs.get("tools"):
        print_line()
        print_line(f"tools offered   {show(inputs['tools'])}")
        print_line(f"tools stripped  {show(decision.get('stripped') or [])}")
    print_line()
    _print_outcome(outcome)


def _print_signals(inputs: Mapping[str, Any]) -> None:
    levels, evidence = _table(inputs.get("levels")), _table(inputs.get("evidence"))
    if not evidence:
        print_line("No signal counted for this call.")
        return
    rows: list[tuple[object, ...]] = []
    for name, found in evidence.items():
        effective = _table(found)
        counted = "" if name in levels else "below its minimum"
        rows.append((name, effective.get("level"), effective.get("scope"), effective.get("source"), counted))
    print_table(("signal", "level", "from scope", "source", ""), rows)
    for one in map(_table, cast("list[Any]", inputs.get("ignored") or [])):
        print_line(f"ignored in its cooldown: {show(one.get('signal'))} {show(one.get('level'))}")


def _print_outcome(outcome: Any) -> None:
    if not isinstance(outcome, dict):
        print_line("outcome   none yet: the call is still running, or its process ended a moment ago")
        return
    ended = cast("dict[str, Any]", outcome)
    status = str(ended.get("status"))
    print_line(f"outcome   {show(status)}: {describe_ending(status)}")
    shown = {
        "error": ended.get("error"),
        "HTTP": ended.get("http_status"),
        "attempts": ended.get("attempts"),
        "took ms": ended.get("duration_ms"),
        "finish": list(dict.fromkeys(_list(ended.get("finish_reasons")))) or None,
        "usage": ", ".join(f"{name} {show(count)}" for name, count in _table(ended.get("usage")).items()) or None,
        "bytes": ended.get("answer_bytes"),
    }
    for title, value in shown.items():
        if value is not None:
            print_line(f"{title:9} {show(value)}")
    _print_moderation("in the answer", _table(ended.get("moderation")))
    if ended.get("incidents"):
        print_line()
        print_line(f"incidents  {show(ended['incidents'])}   (see: lukhas incident show ID)")


def _print_moderation(where: str, moderation: Mapping[str, Any]) -> None:
    """Print what moderation found; findings hold places and rules, never a text."""
    if moderation.get("moderator") == "failed":
        print_line()
        print_line(f"The moderation API could not be asked {where}.")
    found = [_table(one) for one in _list(moderation.get("findings"))]
    if found:
        print_line()
        rows = [
            (one.get("category"), one.get("rule"), one.get("action"), one.get("point"), one.get("place"))
            for one in found
        ]
        print_table((f"found {where}", "rule", "action", "at", "place"), rows)


def _print_plain(record: Mapping[str, Any]) -> None:
    """Print a record that is not a call's: a signal, a change of keys or policy, a program's own note."""
    print_line(f"{record['kind']}")
    body = record["body"]
    flat = list(_flatten("", body)) if isinstance(body, dict) else [("", body)]
    print_table(("what", "value"), flat)


def _flatten(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        found: list[tuple[str, Any]] = []
        for name, part in cast("dict[str, Any]", value).items():
            found += _flatten(f"{prefix}.{name}" if prefix else name, part)
        return found
    if isinstance(value, list) and any(isinstance(part, dict) for part in cast("list[Any]", value)):
        found = []
        for number, part in enumerate(cast("list[Any]", value)):
            found += _flatten(f"{prefix}[{number}]", part)
        return found
    return [(prefix, value)]


def _list(value: Any) -> list[Any]:
    # In older records the finish reasons stand by their choice.
    items: Any = list(cast("dict[str, Any]", value).values()) if isinstance(value, dict) else value
    return cast("list[Any]", items) if isinstance(items, list) else []


def _table(value: Any) -> dict[str, Any]:
    # A record that was too large has parts cut, so no part is sure to have its usual form.
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
