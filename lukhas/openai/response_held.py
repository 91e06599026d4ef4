"""Tool calls, tool outputs and unknown items of a Responses stream: held until they are whole, and judged then."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from lukhas.errors import UpstreamBroken
from lukhas.openai.response_guard import AnswerPass
from lukhas.openai.response_item import Item, type_of

# Partial images are large; more than this in one stream is no answer that anybody waits for.
_MOST_HELD_BYTES: Final = 64_000_000

# Events that carry a piece of a call's arguments, and the item's field which they add up to.
ARGUMENT_DELTAS: Final[Mapping[str, str]] = {
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "input",
    "response.mcp_call_arguments.delta": "arguments",
    "response.code_interpreter_call_code.delta": "code",
}
ARGUMENT_DONES: Final[Mapping[str, str]] = {
    name.removesuffix(".delta") + ".done": field for name, field in ARGUMENT_DELTAS.items()
}
_COMMANDS: Final[Mapping[str, str]] = {
    "response.shell_call_command.added": "command",
    "response.shell_call_command.delta": "delta",
    "response.shell_call_command.done": "command",
}
_OUTPUT_DELTA: Final = "response.shell_call_output_content.delta"


class HeldItem:
    """One item that is not whole yet, with its events.

    Attributes:
        index: its place in the output, as upstream counts.
        added: the item as it was when it began.
    """

    __slots__ = ("_size", "added", "arguments", "events", "index")

    def __init__(self, index: int, event: Item, raw: bytes) -> None:
        self.index = index
        self.added = cast("Item", event["item"])
        self.events: list[tuple[bytes, Item, bool]] = []
        self.arguments: str | None = None
        self._size = 0
        self.hold(raw, event, is_plain=False)

    def hold(self, raw: bytes, event: Item, *, is_plain: bool) -> None:
        """Keep one event of it.

        Raises:
            UpstreamBroken: there are more than can be kept.
        """
        self._size += len(raw)
        if self._size > _MOST_HELD_BYTES:
            raise UpstreamBroken("The upstream sent a tool call that is too large to be judged.")
        field = ARGUMENT_DONES.get(event["type"])
        if field is not None and isinstance(event.get(field), str):
            self.arguments = event[field]
        self.events.append((raw, event, is_plain))

    def complete(self) -> Item | None:
        """Return the whole item where upstream never said that it is done; None if its arguments are not whole."""
        if self.arguments is None:
            return None
        field = next(ARGUMENT_DONES[event["type"]] for _, event, _ in self.events if event["type"] in ARGUMENT_DONES)
        return {**self.added, field: self.arguments, "status": "completed"}

    def release(self, item: Item, one: AnswerPass) -> Iterator[tuple[bytes, Item, bool | None]]:
        """Yield its events for an item that may pass, with the arguments in one piece.

        Each comes as (bytes, event, whether the bytes hold nothing beside the event); None in the third place says
        that the event was changed here. What the others hold is still to be guarded.
        """
        types = {event["type"] for _, event, _ in self.events}
        given: set[object] = set()
        for raw, event, is_plain in self.events:
            kind = event["type"]
            if kind == "response.output_item.added":
                yield raw, {**event, "item": self._open(item, types, one)}, None
            elif kind in ARGUMENT_DELTAS:
                text: Any = item.get(ARGUMENT_DELTAS[kind])
                if kind not in given and isinstance(text, str):
                    given.add(kind)
                    yield raw, _strip(event, "delta", text), None
            elif kind in ARGUMENT_DONES:
                field = ARGUMENT_DONES[kind]
                yield raw, _strip(event, field, item.get(field) or ""), None
            elif kind in _COMMANDS:
                place = (kind, event.get("command_index"))
                if place not in given:
                    given.add(place)
                    text = "" if kind.endswith(".added") else _find_command(item, event.get("command_index"))
                    yield raw, _strip(event, _COMMANDS[kind], text), None
            elif kind == _OUTPUT_DELTA:
                continue  # its `.done` event carries it whole
            else:
                yield raw, event, is_plain

    def _open(self, item: Item, types: set[str], one: AnswerPass) -> Item:
        """Return the item as it began, with nothing in it that the guard has not seen."""
        later = {field for kind, field in ARGUMENT_DELTAS.items() if kind in types}
        opened: Item = {}
        for name, value in self.added.items():
            if name in later:
                opened[name] = ""
            elif value is None or value in ("", [], {}) or name == "status":
                opened[name] = value if name != "status" or isinstance(value, str) else "in_progress"
            elif name in item:
                opened[name] = item[name]
            else:
                guarded = one.tree(value, name)
                if not one.take_hit():
                    opened[name] = guarded
        return opened


def _strip(event: Item, field: str, text: Any) -> Item:
    """Return an event with another text, and without the padding that hides the length of the first."""
    return {**{name: value for name, value in event.items() if name != "obfuscation"}, field: text}


def _find_command(item: Item, index: Any) -> str:
    action: Any = item.get("action")
    commands: Any = cast("Item", action).get("commands") if isinstance(action, dict) else None
    known = cast("list[Any]", commands) if isinstance(commands, list) else []
    if isinstance(index, int) and 0 <= index < len(known) and isinstance(known[index], str):
        return known[index]
    return ""


def is_live(item: Any) -> bool:
    """Say whether an item is released as it comes; all others are held until they are whole."""
    return type_of(item) in ("message", "reasoning")
