"""What the items of a Responses answer are: which of them are tool calls, and what in them the server itself wrote.

Reference: `openai.types.responses.ResponseOutputItem` of the official client.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, TypeGuard, cast

from lukhas.openai.call import ObjectRef, ToolCall
from lukhas.openai.wire import encode_json

Item = dict[str, Any]


class CallForm(NamedTuple):
    """How one type of item writes a tool call.

    Attributes:
        tool: the hosted tool's type as a request writes it; empty where the item names its function.
        payload: the fields that the model wrote, what the tool is to do.
    """

    kind: Literal["function", "custom", "hosted"]
    tool: str
    payload: tuple[str, ...]


CALLS: Final[Mapping[str, CallForm]] = {
    "function_call": CallForm("function", "", ("arguments",)),
    "custom_tool_call": CallForm("custom", "", ("input",)),
    "web_search_call": CallForm("hosted", "web_search", ("action",)),
    "file_search_call": CallForm("hosted", "file_search", ("queries",)),
    "code_interpreter_call": CallForm("hosted", "code_interpreter", ("code",)),
    "computer_call": CallForm("hosted", "computer_use", ("action", "actions")),
    "mcp_call": CallForm("hosted", "mcp", ("arguments",)),
    "mcp_approval_request": CallForm("hosted", "mcp", ("arguments",)),
    "mcp_list_tools": CallForm("hosted", "mcp", ()),
    "local_shell_call": CallForm("hosted", "local_shell", ("action",)),
    "shell_call": CallForm("hosted", "shell", ("action",)),
    "apply_patch_call": CallForm("hosted", "apply_patch", ("operation",)),
    "image_generation_call": CallForm("hosted", "image_generation", ("revised_prompt",)),
    "tool_search_call": CallForm("hosted", "tool_search", ("arguments",)),
    "program": CallForm("hosted", "programmatic_tool_calling", ("code",)),
}
# Some tools have several types; the one that the request used is what the allowlist was asked about.
_VARIANTS: Final[Mapping[str, tuple[str, ...]]] = {
    "web_search": ("web_search", "web_search_preview", "web_search_2025_08_26", "web_search_preview_2025_03_11"),
    "computer_use": ("computer_use", "computer_use_preview", "computer"),
}

# Strings that the server writes, by their member's name; everything else in an item may be the model's.
SERVER_WRITTEN: Final = frozenset(
    {"type", "id", "object", "role", "status", "call_id", "item_id", "response_id", "file_id", "container_id"}
    | {"phase", "execution", "fingerprint", "created_by", "caller_id", "approval_request_id", "service_tier"}
    | {"model", "output_format", "quality", "previous_response_id"}
)
# Below these the model or a tool chooses the names of members too.
FREE: Final = frozenset({"arguments", "input_schema", "output_schema", "parameters", "schema", "attributes", "env"})
# What a response repeats of its request; it came from the caller, or was added by the policy's style.
ECHOED: Final = frozenset(
    {"instructions", "tools", "tool_choice", "metadata", "prompt", "text", "reasoning", "user", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "truncation", "conversation"}
    | {"access_programs", "image"}
)
_is_word: Final = re.compile(r"[A-Za-z0-9_.:/=+-]{1,256}").fullmatch


def find_call(kind: str) -> CallForm | None:
    """Return how an item of this type writes a tool call; None where it is none.

    An unknown type that ends in `_call` counts as a hosted tool named by it.
    """
    form = CALLS.get(kind)
    if form is None and kind.endswith("_call"):
        return CallForm("hosted", kind.removesuffix("_call"), ())
    return form


def read_payload(item: Item, form: CallForm) -> tuple[str, tuple[str, ...], bool]:
    """Return a call's arguments as one text, the fields that they stand in, and whether the text is JSON of several."""
    fields = tuple(name for name in form.payload if item.get(name) is not None)
    if not form.payload:
        # Nobody knows which fields of an unknown call are its arguments: so all that the server does not write.
        fields = tuple(name for name, value in item.items() if name not in SERVER_WRITTEN and value is not None)
    if len(fields) == 1 and isinstance(item[fields[0]], str):
        return item[fields[0]], fields, False
    if not fields:
        return "", fields, False
    return encode_text({name: item[name] for name in fields}), fields, True


def make_call(item: Item, form: CallForm, arguments: str, tools: Any) -> ToolCall:
    """Return an item as the tool call that the guard judges.

    Args:
        tools: the request's tools as the response repeats them, to tell which type of a hosted tool was offered.
    """
    name: Any = item.get("name") if form.kind != "hosted" else _offered(form.tool, tools)
    call_id: Any = item.get("call_id") or item.get("id")
    return ToolCall(
        form.kind, name if isinstance(name, str) else "", arguments, call_id if isinstance(call_id, str) else None
    )


def _offered(tool: str, tools: Any) -> str:
    variants = _VARIANTS.get(tool)
    if variants is not None and isinstance(tools, list):
        for entry in cast("list[Any]", tools):
            kind: Any = cast("dict[str, Any]", entry).get("type") if isinstance(entry, dict) else None
            if kind in variants:
                return kind
    return tool


def is_server_word(name: str, text: str) -> bool:
    """Say whether a string is one that the server writes: of a known name, and short and without blanks."""
    return name in SERVER_WRITTEN and _is_word(text) is not None


def is_id(value: Any) -> bool:
    """Say whether a value is an identifier, by its form."""
    return isinstance(value, str) and _is_word(value) is not None


def refusal_part(text: str) -> Item:
    """Return a refusal as a part of a message."""
    return {"type": "refusal", "refusal": text}


def refusal_item(item: Item, text: str, *, status: str) -> Item:
    """Return the message that stands in the place of a blocked item; its id is made from the item's."""
    given: Any = item.get("id") or item.get("call_id")
    name = given if isinstance(given, str) and is_server_word("id", given) else "item"
    return {
        "id": f"msg_refused_{name}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [refusal_part(text)],
    }


def type_of(value: Any) -> str:
    """Return a JSON object's `type`; empty where it has none."""
    kind: Any = cast("dict[str, Any]", value).get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""


def encode_text(value: Any) -> str:
    """Return a value as JSON text."""
    return encode_json(value).decode()


def has_substance(output: list[Any]) -> bool:
    """Say whether an output still holds a text or a call."""
    for entry in output:
        kind = type_of(entry)
        if find_call(kind) is not None:
            return True
        if kind == "message":
            content: Any = cast("Item", entry).get("content")
            parts = cast("list[Any]", content) if isinstance(content, list) else []
            if any(isinstance(part, dict) and cast("Item", part).get("text") for part in parts):
                return True
    return False


def read_object_ids(answer: Mapping[str, Any]) -> list[ObjectRef]:
    """Return the objects that an answer brought into being upstream: response, conversation, items, containers."""
    found = [ObjectRef("response", answer["id"], ("id",))] if _is_named(answer.get("id")) else []
    conversation: Any = answer.get("conversation")
    if isinstance(conversation, dict):
        given: Any = cast("Item", conversation).get("id")
        if _is_named(given):
            found.append(ObjectRef("conversation", given, ("conversation", "id")))
    elif _is_named(conversation):
        found.append(ObjectRef("conversation", conversation, ("conversation",)))
    output: Any = answer.get("output")
    for index, entry in enumerate(cast("list[Any]", output) if isinstance(output, list) else []):
        found += read_item_ids(entry, index)
    first: dict[tuple[str, str], ObjectRef] = {}
    for one in found:
        first.setdefault((one.kind, one.id), one)
    return list(first.values())


def read_item_ids(entry: Any, index: int) -> list[ObjectRef]:
    """Return the objects that one output item brought into being: itself, and the container that it ran in."""
    if not isinstance(entry, dict):
        return []
    item = cast("Item", entry)
    environment: Any = item.get("environment")
    inner = cast("Item", environment) if isinstance(environment, dict) else {}
    named = (
        ("item", item.get("id"), ("id",)),
        ("container", item.get("container_id"), ("container_id",)),
        ("container", inner.get("container_id"), ("environment", "container_id")),
    )
    return [ObjectRef(kind, given, ("output", index, *path)) for kind, given, path in named if _is_named(given)]


def _is_named(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and bool(value)
