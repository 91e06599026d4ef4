"""Applies a decision to a request: parameters under the model's own field names, the prompt style, the tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from lukhas.audit.redaction import redact_text
from lukhas.errors import PolicyDenied
from lukhas.modulation.dispatcher import Decision, Dispatcher, Step
from lukhas.modulation.policy import UNKNOWN_CLASS, Policy, Style
from lukhas.openai.capabilities import CHAT_FIELDS, Capability, decode, is_foreign_word
from lukhas.openai.tooling import Stripped, strip_tools

MAX_STOPS: Final = 4
_SYSTEM_ROLES: Final = ("system", "developer")


class Applied(msgspec.Struct, frozen=True):
    """A request as it goes upstream, and what was changed in it.

    Attributes:
        body: the request's fields.
        written: the fields that were set, with what was written.
        stripped: the tools that were taken out.
    """

    body: dict[str, Any]
    written: dict[str, Any]
    stripped: Stripped


def read_caller(body: Mapping[str, Any], dispatcher: Dispatcher) -> dict[str, float | int]:
    """Return the caller's own parameters in the policy's units; of several spellings the tightest.

    Raises:
        InvalidRequest: a value of the wrong type.
    """
    found: dict[str, float | int] = {}
    specs = dispatcher.policy.parameters
    for parameter, names in CHAT_FIELDS.items():
        spec = specs.get(parameter)
        if spec is None or spec.kind not in ("number", "integer"):
            continue
        for name in names:
            value = body.get(name)
            if value is None:
                continue
            if isinstance(value, str) and is_foreign_word(parameter, value):
                continue  # another provider's word: an error only where a signal touches the parameter
            number = decode(parameter, name, value)
            if parameter in found and spec.tighter is not None:
                is_lower = spec.tighter == "lower"
                number = min(number, found[parameter]) if is_lower else max(number, found[parameter])
            found[parameter] = number
    return found


def apply_decision(body: dict[str, Any], decision: Decision, dispatcher: Dispatcher, capability: Capability) -> Applied:
    """Return the request with the decision written into it; the given body is not changed.

    Adds to the decision's trace what a model could not take and which tools went.

    Raises:
        InvalidRequest: a tool-bearing field that cannot be read.
        PolicyDenied: `tool_choice` forces a tool that is not allowed.
    """
    policy = dispatcher.policy
    allowlist = decision.tools
    kept, stripped = strip_tools(
        body,
        lambda name: policy.allows_tool(allowlist, name),
        lambda kind: policy.allows_hosted(allowlist, kind),
    )
    if stripped.forced is not None:
        raise denied_tool(policy, stripped.forced)
    if stripped.removed:
        # The trace goes on record, and a tool's name is a caller's text.
        before = [redact_text(name) for name in stripped.offered]
        left = [redact_text(name) for name in stripped.offered if name not in stripped.removed]
        decision.trace.append(Step("tools", "tools", before, left, rule=f"allowlist [{', '.join(allowlist)}]"))
    written: dict[str, Any] = {}
    for parameter in decision.touched:
        _write_parameter(parameter, body, written, decision, dispatcher, capability)
    style = policy.styles.get(decision.style)
    changed = {**kept, **written}
    if style is not None:
        changed |= _style_fields(body, style)
    return Applied(changed, written, stripped)


def denied_tool(policy: Policy, name: str) -> PolicyDenied:
    """Return the refusal of a forced tool, with the change that would allow it."""
    kind = policy.classify_tool(name)
    if kind == UNKNOWN_CLASS:
        kind = policy.classify_hosted(name)
    shown = name if len(name) <= 64 and name.isprintable() else "the named tool"
    if kind == UNKNOWN_CLASS:
        hint = f"To allow it, list '{shown}' under a tool class in the policy and put the class on tools.default."
    else:
        hint = f"It is of class '{kind}'. To allow it, put '{kind}' on parameters.tools.default in the policy."
    return PolicyDenied(
        f"tool_choice forces '{shown}', which the policy in force does not allow for this call.",
        hint=f"{hint} Start from a copy: lukhas policy init",
        param="tool_choice",
    )


def _write_parameter(
    parameter: str,
    body: dict[str, Any],
    written: dict[str, Any],
    decision: Decision,
    dispatcher: Dispatcher,
    capability: Capability,
) -> None:
    spec = dispatcher.policy.parameters[parameter]
    if parameter not in CHAT_FIELDS or spec.kind not in ("number", "integer"):
        return
    sent = [name for name in CHAT_FIELDS[parameter] if body.get(name) is not None]
    if not sent:
        field = capability.chat_field(parameter)
        if field is not None:
            written[field] = capability.encode(parameter, decision.parameters[parameter])
            return
        value = decision.parameters[parameter]
        decision.trace.append(Step(parameter, "capability", value, "left out", rule="the model does not take it"))
        return
    for name in sent:
        own = decode(parameter, name, body[name])
        # Every further spelling is limited by itself: any of them may be the one that the upstream reads.
        value = decision.parameters[parameter] if len(sent) == 1 else dispatcher.limit(decision, parameter, own)
        if value != own:
            written[name] = capability.encode(parameter, value)


def _style_fields(body: dict[str, Any], style: Style) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    messages = cast("list[dict[str, Any]]", body["messages"])
    if style.preamble or style.prefix:
        changed = list(messages)
        if style.prefix:
            _add_prefix(changed, style.prefix)
        if style.preamble:
            # After the caller's own leading instructions, so that ours is the last word on how to answer.
            place = 0
            while place < len(changed) and changed[place].get("role") in _SYSTEM_ROLES:
                place += 1
            role = changed[place - 1]["role"] if place else "system"
            changed.insert(place, {"role": role, "content": style.preamble})
        fields["messages"] = changed
    if style.stop:
        own: Any = body.get("stop")
        stops = [own] if isinstance(own, str) else list(cast("list[Any]", own)) if isinstance(own, list) else []
        new = [stop for stop in style.stop if stop not in stops]
        stops, added = stops + new, len(new)
        # The caller's come first, and are the upstream's to judge where they are too many.
        fields["stop"] = stops[: max(MAX_STOPS, len(stops) - added)]
    return fields


def _add_prefix(messages: list[dict[str, Any]], prefix: str) -> None:
    for position in range(len(messages) - 1, -1, -1):
        message = messages[position]
        if message.get("role") != "user":
            continue
        content: Any = message.get("content")
        if isinstance(content, str):
            messages[position] = {**message, "content": f"{prefix}{content}"}
            return
        if isinstance(content, list):
            parts = list(cast("list[Any]", content))
            for index, part in enumerate(parts):
                if isinstance(part, dict) and cast("dict[str, Any]", part).get("type") == "text":
                    text: Any = cast("dict[str, Any]", part).get("text")
                    if isinstance(text, str):
                        parts[index] = {**part, "text": f"{prefix}{text}"}
                        messages[position] = {**message, "content": parts}
                        return
