"""What the records of one audit id say, in sentences: for whoever is on call and asks why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

_ENDINGS: Final[Mapping[str, str]] = {
    "ok": "The model answered.",
    "upstream_error": "The upstream answered with an error, which was passed on.",
    "denied": "Policy or moderation refused the call; nothing was sent.",
    "blocked": "The guard withheld the answer, or its rest; the caller got a refusal.",
    "broken": "The upstream's stream broke off; the caller got an error at its end.",
    "withheld": "The answer was here, its record was not in time; the caller did not get it.",
    "failed": "The call failed.",
    "client_gone": "The client went away before the end.",
    "lost": "The process ended before the call did; what came of it is not known.",
}
_CAUSES: Final[Mapping[str, str]] = {
    "bounds": "because of the policy's bounds",
    "nudge": "because of the feedback table",
    "caller": "because of the caller's own value",
    "choose": "because of the policy's choice of a prompt style",
    "capability": "because of what the model takes",
    "tools": "because of the tools that the call offered",
}
_SCOPES: Final[Mapping[str, str]] = {
    "call": "this call",
    "session": "this session",
    "user": "this end user",
    "key": "this API key",
    "tenant": "the tenant",
    "everyone": "everyone",
}
_POINTS: Final[Mapping[str, str]] = {
    "instruction": "the application's instructions",
    "input": "the user's input",
    "tool_result": "a tool's result",
    "output": "the answer",
    "arguments": "a tool call's arguments",
}
_DEEDS: Final[Mapping[str, str]] = {
    "block": "blocked it",
    "redact": "redacted the match",
    "tighten": "let it pass and tightened",
    "record": "only recorded it",
}
_KINDS: Final[Mapping[str, str]] = {
    "signal": "Signals were sent, or taken back.",
    "key": "An API key was changed.",
    "policy": "The policy was changed, or a change was tried.",
    "limit": "A limit was changed.",
    "refusal": "Calls were refused before they were governed; they are counted here and not recorded one by one.",
    "note": "A program wrote this with audit_log_write.",
    "erasure": "A subject was erased: its key was destroyed, and its proofs still hold.",
    "segment": "Months of the log were sealed, archived or pruned.",
    "unrecorded": "Calls passed while the log could not be written (LUKHAS_AUDIT_ON_FAILURE=open); they were counted.",
}
_LONGEST: Final = 300


def explain_document(document: Mapping[str, Any], covered: tuple[int, int] | None = None) -> list[str]:
    """Return the records of one id (`AuditStore.read_document`) in sentences, in the order that one asks.

    Args:
        document: whole or with parts cut, as a record that was too large has.
        covered: size, and time in ms, of the first signed checkpoint that covers the newest of the records.
    """
    decision = document.get("decision")
    lines: list[str] = []
    if isinstance(decision, dict):
        body = cast("dict[str, Any]", decision)
        lines += _tell_settings(body)
        lines += _tell_tools(body)
        lines += _tell_moderation(_table(body.get("moderation")), "the request")
        lines += _tell_end(body, document.get("outcome"))
    else:
        for kind in dict.fromkeys(_word(_table(one).get("kind")) for one in _list(document.get("records"))):
            lines.append(_KINDS.get(kind, f"A record of kind {kind}."))
    return lines + _tell_place(document, covered)


def describe_ending(status: str) -> str:
    """Return what an outcome's status means."""
    return _ENDINGS.get(status, "see --json")


def explain_text(document: Mapping[str, Any], covered: tuple[int, int] | None = None) -> str:
    """Return the sentences as one text, a line each, with who and when above them."""
    head = (
        f"{_word(document.get('audit_id'))} at {_word(document.get('time'))}: key {_word(document.get('key_id'))} "
        f"of tenant {_word(document.get('tenant')) or '-'}"
    )
    return "\n".join((head, *explain_document(document, covered))) + "\n"


def _tell_settings(body: Mapping[str, Any]) -> list[str]:
    inputs = _table(body.get("inputs"))
    levels, evidence = _table(inputs.get("levels")), _table(inputs.get("evidence"))
    policy = _word(body.get("policy"))
    lines: list[str] = []
    if body.get("mode") == "shadow":
        lines.append("Shadow mode: what follows was only recorded, and nothing of it was applied.")
    steps = [step for step in map(_table, _list(body.get("trace"))) if "parameter" in step]
    for step in steps:
        lines.append(_tell_step(step, policy, evidence))
    if not steps:
        why = "no signal counted" if not levels else "no signal that counted changes any"
        lines.append(f"Every setting is the policy's default or the caller's own: {why}.")
    for name in evidence:
        if name not in levels:
            level = _word(_table(evidence[name]).get("level"))
            lines.append(f"{_word(name)} at {level} is below the level from which it counts.")
    for one in map(_table, _list(inputs.get("ignored"))):
        lines.append(
            f"{_word(one.get('signal'))} at {_word(one.get('level'))} was ignored: it came inside its cooldown."
        )
    return lines


def _tell_step(step: Mapping[str, Any], policy: str, evidence: Mapping[str, Any]) -> str:
    said = f"{_word(step.get('parameter'))} was {_word(step.get('before'))} and became {_word(step.get('after'))}"
    signal, rule, place = _word(step.get("signal")), _word(step.get("rule")), _word(step.get("place"))
    if signal:
        found = _table(evidence.get(signal))
        whose = _SCOPES.get(_word(found.get("scope")))
        source = _word(found.get("source"))
        said += f", because {signal} stood at {_word(step.get('level'))}"
        said += f" for {whose}" if whose else ""
        said += f" (sent by {source})" if source else ""
    else:
        kind = _word(step.get("step"))
        said += f", {_CAUSES.get(kind, f'in the step {kind}')}"
    said += f"; rule: {rule}" if rule else ""
    return said + (f" ({policy}, {place})." if place else ".")


def _tell_tools(body: Mapping[str, Any]) -> list[str]:
    offered = [_word(one) for one in _list(_table(body.get("inputs")).get("tools"))]
    if not offered:
        return []
    allowlist = _word(_table(body.get("parameters")).get("tools"))
    stripped = [_word(one) for one in _list(body.get("stripped"))]
    kept = [name for name in offered if name not in stripped]
    lines: list[str] = []
    causes = [
        f"{_word(step.get('signal'))} at {_word(step.get('level'))}, {_word(step.get('place'))}"
        for step in map(_table, _list(body.get("trace")))
        if step.get("parameter") == "tools" and step.get("signal")
    ]
    why = f"the allowlist of {_word(body.get('policy'))} was {allowlist or 'not recorded'}"
    why += f", set by {'; '.join(causes)}" if causes else ", the policy's default"
    if kept:
        lines.append(f"Tools let through: {', '.join(kept)}; {why}.")
    if stripped:
        lines.append(f"Tools stripped before the call: {', '.join(stripped)}; {why}.")
    return lines


def _tell_moderation(moderation: Mapping[str, Any], where: str) -> list[str]:
    lines: list[str] = []
    if moderation.get("moderator") == "failed":
        lines.append(f"The moderation API could not be asked about {where}.")
    for one in map(_table, _list(moderation.get("findings"))):
        if one:
            point = _POINTS.get(_word(one.get("point")), where)
            deed = _DEEDS.get(_word(one.get("action")), _word(one.get("action")))
            place = _word(one.get("place"))
            at = f" at {place}" if place else ""
            lines.append(
                f"Moderation found {_word(one.get('category'))} in {point}{at} by the rule {_word(one.get('rule'))}, "
                f"and {deed}."
            )
    return lines


def _tell_end(body: Mapping[str, Any], outcome: Any) -> list[str]:
    lines: list[str] = []
    if body.get("denied"):
        lines.append(f"The call was refused: {_word(body['denied'])}")
    if not isinstance(outcome, dict):
        return [*lines, "There is no outcome yet: the call is still running, or its process ended a moment ago."]
    ended = cast("dict[str, Any]", outcome)
    status = _word(ended.get("status"))
    said = f"It ended as {status}. {describe_ending(status)}"
    details = [
        f"{title} {_word(ended[name])}"
        for title, name in (
            ("HTTP", "http_status"),
            ("error", "error"),
            ("attempts:", "attempts"),
            ("ms:", "duration_ms"),
        )
        if ended.get(name) is not None
    ]
    lines.append(f"{said} ({', '.join(details)})" if details else said)
    lines += _tell_moderation(_table(ended.get("moderation")), "the answer")
    for one in map(_table, _list(ended.get("blocked_calls"))):
        lines.append(f"The model's call of {_word(one.get('tool'))} was blocked by {_word(one.get('rule'))}.")
    incidents = dict.fromkeys(_word(one) for one in (*_list(body.get("incidents")), *_list(ended.get("incidents"))))
    if incidents:
        lines.append(f"Incidents: {', '.join(incidents)}. Read on with: lukhas incident show ID")
    return lines


def _tell_place(document: Mapping[str, Any], covered: tuple[int, int] | None) -> list[str]:
    lines: list[str] = []
    for one in map(_table, _list(document.get("records"))):
        tree = _table(one.get("tree"))
        index, sequence = (_word(tree.get(name)).lstrip("0") for name in ("index", "sequence"))
        lines.append(
            f"The {_word(one.get('kind'))} is record {index or '0'} of the log, "
            f"and number {sequence or '0'} of its key."
        )
    if covered is not None:
        from lukhas.clock import format_utc

        lines.append(f"The checkpoint over {covered[0]} records, signed at {format_utc(covered[1])}, covers it.")
    else:
        lines.append("No signed checkpoint covers it yet.")
    return [*lines, f"Its proof: lukhas audit proof {_word(document.get('audit_id'))}"]


def _word(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return ", ".join(_word(one) for one in cast("list[Any]", value)) or "nothing"
    text = str(value) if isinstance(value, (str, int)) else "..."
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "..."
    # What could steer a terminal is shown by its code.
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _table(value: Any) -> dict[str, Any]:
    # A record that was too large has parts cut, so no part is sure to have its usual form.
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
