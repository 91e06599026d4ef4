"""Guards a whole Responses answer, in whichever state it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec

from lukhas.errors import UpstreamBroken
from lukhas.openai.call import AnswerGuard, Summary
from lukhas.openai.response_guard import AnswerPass
from lukhas.openai.response_item import Item, has_substance, type_of
from lukhas.openai.wire import MAX_MODEL_CHARS

# A stored answer that has ended so stays so; a block does not change how it ended.
_FINAL_FAILURES: Final = ("failed", "cancelled")
_CUT: Final = {"reason": "content_filter"}


class GuardedResponse(msgspec.Struct):
    """What guarding a whole answer did.

    Attributes:
        is_changed: whether anything was.
        is_blocked: whether a text ended the answer.
        blocked_calls: ids of the tool calls that did not pass; upstream's stored answer still holds them.
    """

    is_changed: bool = False
    is_blocked: bool = False
    blocked_calls: list[str] = []


def guard_response(answer: Item, guard: AnswerGuard) -> GuardedResponse:
    """Guard a whole response in place, in whichever state it is.

    Raises:
        UpstreamBroken: nested deeper than can be guarded.
    """
    one = AnswerPass(guard)
    one.tools = answer.get("tools")
    outcome = GuardedResponse(blocked_calls=one.blocked_calls)
    output: Any = answer.get("output")
    fields = one.envelope(answer)
    items: list[Any] | None = None
    if isinstance(output, list):
        given = cast("list[Any]", output)
        items = []
        for entry in given:
            items += one.item(entry)
            if one.is_ended:
                break
        if len(items) == len(given) and all(new is old for new, old in zip(items, given, strict=True)):
            items = None
    elif output is not None:
        raise UpstreamBroken("The upstream's answer has an output of an unknown shape.")
    joined: Any = answer.get("output_text")
    close_response(fields, answer, items, one)
    is_rewritten = answer.get("output_text") != joined
    outcome.is_changed = items is not None or fields is not answer or one.is_ended or is_rewritten
    outcome.is_blocked = one.is_ended
    return outcome


def close_response(fields: Item, answer: Item, items: list[Any] | None, one: AnswerPass) -> None:
    """Write guarded fields and items into a response, and the state that a block leaves it in."""
    answer.update(fields)
    if items is not None:
        answer["output"] = items
    convenience: Any = answer.get("output_text")
    if isinstance(convenience, str) and convenience:
        held = cast("list[Any]", answer.get("output") or [])
        joined = join_output_text(held)
        if joined != convenience:
            answer["output_text"] = joined if items is not None else one.text("text", convenience)
            if one.take_hit():
                answer["output_text"] = ""
    if is_cut_short(answer, one):
        answer["status"] = "incomplete"
        answer["incomplete_details"] = dict(_CUT)


def is_cut_short(answer: Mapping[str, Any], one: AnswerPass) -> bool:
    """Say whether a block leaves a response incomplete: a text was blocked, or a call and nothing is left."""
    if answer.get("status") in _FINAL_FAILURES:
        return False
    if one.is_ended:
        return True
    output: Any = answer.get("output")
    return (
        bool(one.blocked_calls)
        and answer.get("status") == "completed"
        and isinstance(output, list)
        and not has_substance(cast("list[Any]", output))
    )


def join_output_text(output: list[Any]) -> str:
    """Return the texts of an output as the official client's `output_text` joins them."""
    texts: list[str] = []
    for entry in output:
        if type_of(entry) != "message":
            continue
        content: Any = cast("Item", entry).get("content")
        for part in cast("list[Any]", content) if isinstance(content, list) else []:
            if type_of(part) == "output_text":
                text: Any = cast("Item", part).get("text")
                texts.append(text if isinstance(text, str) else "")
    return "".join(texts)


def summarise_response(answer: Mapping[str, Any], summary: Summary) -> None:
    """Take a response's status, usage and model into a summary; what has an unexpected shape is left out."""
    status: Any = answer.get("status")
    details: Any = answer.get("incomplete_details")
    if status == "incomplete" and isinstance(details, dict):
        status = cast("Item", details).get("reason", status)
    if isinstance(status, str):
        summary.finish_reasons[0] = status[:64]
    usage: Any = answer.get("usage")
    if isinstance(usage, dict):
        summary.usage = {
            name: count
            for name, count in cast("Item", usage).items()
            if isinstance(count, int) and not isinstance(count, bool) and len(name) <= 64
        }
    model: Any = answer.get("model")
    if summary.model is None and isinstance(model, str):
        summary.model = model[:MAX_MODEL_CHARS]
