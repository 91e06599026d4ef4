"""Applies a decision to a request: parameters under the model's own field names, the prompt style, the tools."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from lukhas.audit.redaction import redact_text
from lukhas.errors import PolicyDenied
from lukhas.modulation.dispatcher import Decision, Dispatcher, Step
from lukhas.modulation.policy import UNKNOWN_CLASS, Policy
from lukhas.openai.call import Call, Dialect, DialectName
from lukhas.openai.capabilities import CHAT_FIELDS, Capability, decode, is_foreign_word
from lukhas.openai.chat import ChatDialect
from lukhas.openai.offer import Stripped, strip_tools
from lukhas.openai.response import RESPONSE_FIELDS, read_field, write_field

# By dialect, every field by which a caller may set a parameter; a dot leads into an object.
FIELDS: Final[Mapping[DialectName, Mapping[str, tuple[str, ...]]]] = {
    "chat": CHAT_FIELDS,
    "responses": RESPONSE_FIELDS,
    "embeddings": {},
    "moderations": {},
}
CHAT: Final = ChatDialect()
OUTPUT: Final = "max_output_tokens"
_WRITTEN_OUT: Final = ("tools", "functions", "response_format", "text")


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


def read_caller(
    body: Mapping[str, Any], dispatcher: Dispatcher, dialect: DialectName = "chat"
) -> dict[str, float | int]:
    """Return the caller's own parameters in the policy's units; of several spellings the tightest.

    Raises:
        InvalidRequest: a value of the wrong type.
    """
    found: dict[str, float | int] = {}
    specs = dispatcher.policy.parameters
    for parameter, names in FIELDS[dialect].items():
        spec = specs.get(parameter)
        if spec is None or spec.kind not in ("number", "integer"):
            continue
        for name in names:
            value = read_field(body, name)
            if value is None:
                continue
            if isinstance(value, str) and is_foreign_word(parameter, value):
                continue  # another provider's word: an error only where a signal touches the parameter
            number = decode(parameter, name, value)
            if parameter == OUTPUT and number < 1:
                continue  # some servers read it as: no limit
            if parameter in found and spec.tighter is not None:
                is_lower = spec.tighter == "lower"
                number = min(number, found[parameter]) if is_lower else max(number, found[parameter])
            found[parameter] = number
    return found


def apply_decision(
    body: dict[str, Any],
    decision: Decision,
    dispatcher: Dispatcher,
    capability: Capability,
    *,
    dialect: Dialect = CHAT,
    allows_function: Callable[[str], bool] | None = None,
    allows_hosted: Callable[[str], bool] | None = None,
) -> Applied:
    """Return the request with the decision written into it; the given body is not changed.

    Adds to the decision's trace what a model could not take and which tools went.

    Args:
        dialect: how the request is written.
        allows_function, allows_hosted: which tools may stay; by default what the decision's allowlist says.

    Raises:
        InvalidRequest: a tool-bearing field that cannot be read.
        PolicyDenied: `tool_choice` forces a tool that is not allowed.
    """
    policy = dispatcher.policy
    allowlist = decision.tools
    kept, stripped = strip_tools(
        dialect.name,
        body,
        allows_function or (lambda name: policy.allows_tool(allowlist, name)),
        allows_hosted or (lambda kind: policy.allows_hosted(allowlist, kind)),
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
        _write_parameter(parameter, body, written, decision, dispatcher, capability, dialect.name)
    changed = dict(kept)
    for name, value in written.items():
        changed |= write_field(changed, name, value)
    style = policy.styles.get(decision.style)
    if style is not None and (style.preamble or style.prefix or style.stop):
        changed |= dialect.add_style(body, preamble=style.preamble, prefix=style.prefix, stop=style.stop)
    return Applied(changed, written, stripped)


def denied_tool(policy: Policy, name: str) -> PolicyDenied:
    """Return the refusal of a forced tool, with the change that would allow it."""
    kind = policy.classify_tool(name)
    if kind == UNKNOWN_CLASS:
        kind = policy.classify_hosted(name)
    if name == "prompt":
        return PolicyDenied(
            "The request names a stored prompt, which may carry tools that nobody here can see.",
            hint="To allow it, list 'prompt' under 'hosted' of a tool class that parameters.tools.default holds.",
            param="prompt",
        )
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
    dialect: DialectName,
) -> None:
    spec = dispatcher.policy.parameters[parameter]
    fields = FIELDS[dialect]
    if parameter not in fields or spec.kind not in ("number", "integer"):
        return
    sent = [name for name in fields[parameter] if read_field(body, name) is not None]
    if not sent:
        field = capability.field(dialect, parameter)
        if field is not None:
            written[field] = capability.encode(parameter, decision.parameters[parameter])
            return
        value = decision.parameters[parameter]
        decision.trace.append(Step(parameter, "capability", value, "left out", rule="the model does not take it"))
        return
    for name in sent:
        own = decode(parameter, name, read_field(body, name))
        if parameter == OUTPUT and own < 1:
            written[name] = capability.encode(parameter, decision.parameters[parameter])
            continue
        # Every further spelling is limited by itself: any of them may be the one that the upstream reads.
        value = decision.parameters[parameter] if len(sent) == 1 else dispatcher.limit(decision, parameter, own)
        if value != own:
            written[name] = capability.encode(parameter, value)


def limit_output(body: Mapping[str, Any], dialect: DialectName, capability: Capability, cap: int) -> dict[str, Any]:
    """Return the fields that change so that an answer has at most `cap` tokens; every spelling is limited."""
    changed: dict[str, Any] = {}
    names = FIELDS[dialect].get("max_output_tokens", ())
    sent = [name for name in names if read_field(body, name) is not None]
    for name in sent:
        value: Any = read_field(body, name)
        # Some servers read a number below zero as 'without end'.
        if isinstance(value, int) and not 0 <= value <= cap:
            changed |= write_field({**body, **changed}, name, cap)
    if not sent:
        field = capability.field(dialect, "max_output_tokens")
        if field is not None:
            changed |= write_field(body, field, cap)
    return changed


def wish_output(call: Call) -> int | None:
    """Return how many tokens a call may produce at most, all its choices together; None where it does not say."""
    names = FIELDS[call.dialect].get("max_output_tokens")
    if names is None:
        return 0
    limits = [value for name in names if isinstance(value := read_field(call.body, name), int)]
    return min(limits) * call.choices if limits and min(limits) >= 0 else None


def count_prompt_bytes(call: Call, body_bytes: int) -> int:
    """Return how many bytes of a request the model reads as text, media left out."""
    if not call.media and any(call.body.get(name) for name in _WRITTEN_OUT):
        return body_bytes  # schemas are read with their brackets and names
    return sum(len(text.text.encode("utf-8", "replace")) for text in call.texts)
