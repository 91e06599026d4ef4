"""Tool calls of the chat dialect: put together from a stream's fragments, and judged when they are whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, cast

from lukhas.errors import UpstreamBroken
from lukhas.openai.answer_text import Found, find_texts, guard_texts, is_server_written
from lukhas.openai.call import AnswerGuard, ToolCall
from lukhas.openai.wire import encode_json

MAX_CALLS: Final = 1024
# Which members hold a call's name and its arguments, by the call's type.
_SHAPES: Final = {"function": ("function", "name", "arguments"), "custom": ("custom", "name", "input")}
_CALL_FINISHES: Final = ("tool_calls", "function_call")


class Judged(NamedTuple):
    """What became of one tool call: the call as it may be released, or None and why."""

    call: dict[str, Any] | None
    message: str = ""


def judge_call(call: dict[str, Any], guard: AnswerGuard, admits: Callable[[str], bool]) -> Judged:
    """Judge one whole entry of `tool_calls`; what is released is a new object."""
    kind: Any = call.get("type") or ("custom" if "custom" in call and "function" not in call else "function")
    shape = _SHAPES.get(kind) if isinstance(kind, str) else None
    identity: Any = call.get("id")
    call_id = identity if isinstance(identity, str) else None
    if shape is None:
        name = kind if isinstance(kind, str) else "unknown"
        return _judge_hosted(ToolCall("hosted", name, encode_json(call).decode(), call_id), call, guard, admits)
    member, _, field = shape
    holder: Any = call.get(member)
    payload = dict(cast("dict[str, Any]", holder)) if isinstance(holder, dict) else {}
    released = {name: value for name, value in call.items() if name not in ("function", "custom")}
    released[member] = payload
    return _judge_payload(released, payload, field, cast("Literal['function', 'custom']", kind), call_id, guard, admits)


def judge_function_call(call: dict[str, Any], guard: AnswerGuard, admits: Callable[[str], bool]) -> Judged:
    """Judge a whole `function_call`, the older form with one call and without id."""
    payload = dict(call)
    return _judge_payload(payload, payload, "arguments", "function", None, guard, admits)


def _judge_payload(
    released: dict[str, Any],
    payload: dict[str, Any],
    field: str,
    kind: Literal["function", "custom"],
    call_id: str | None,
    guard: AnswerGuard,
    admits: Callable[[str], bool],
) -> Judged:
    name: Any = payload.pop("name", None)
    given: Any = payload.pop(field, None)
    # Some servers send an object where the dialect has its JSON.
    arguments = given if isinstance(given, str) else "" if given is None else encode_json(given).decode()
    verdict = guard.judge(ToolCall(kind, name if isinstance(name, str) else "", arguments, call_id))
    if not verdict.is_allowed:
        return Judged(None, verdict.message or guard.refusal)
    # Whatever else stands in the call is text like any other.
    found = [one for member in released for one in find_texts(released, member, ("tool_calls",))]
    identity: Any = released.get("id")
    if isinstance(identity, str) and identity and is_server_written("id", identity):
        # Some models write their calls' ids themselves.
        found.append(Found(released, "id", identity, ("tool_calls", "id")))
    if guard_texts(guard, found, admits).is_blocked:
        return Judged(None, guard.refusal)
    rest = dict(payload)
    payload.clear()
    payload["name"] = name
    payload[field] = given if verdict.arguments == arguments else verdict.arguments
    payload.update(rest)
    return Judged(released)


def _judge_hosted(call: ToolCall, entry: dict[str, Any], guard: AnswerGuard, admits: Callable[[str], bool]) -> Judged:
    verdict = guard.judge(call)
    if not verdict.is_allowed:
        return Judged(None, verdict.message or guard.refusal)
    found = [one for member in entry for one in find_texts(entry, member, ("tool_calls",))]
    return Judged(None, guard.refusal) if guard_texts(guard, found, admits).is_blocked else Judged(entry)


def settle_finish(reason: str | None, *, has_call: bool, has_text: bool) -> str | None:
    """Return the finish reason of a choice of which tool calls were blocked.

    Args:
        reason: upstream's; None where it gave none.
        has_call: a call of the choice is released.
        has_text: text of the choice is.
    """
    if has_call:
        return reason
    if not has_text:
        return "content_filter"
    # A client that is told of calls, and finds none, waits for them.
    return "stop" if reason in _CALL_FINISHES else reason


class _Pieces(list[str]):
    """A string that still grows; joined once, when it is whole."""


class CallAssembly:
    """The tool calls of one choice, put together as their fragments come.

    Attributes:
        size_chars: how much is held.
    """

    __slots__ = ("_calls", "_current", "_function_call", "size_chars")

    def __init__(self) -> None:
        self._calls: list[tuple[int, dict[str, Any]]] = []
        self._function_call: dict[str, Any] | None = None
        self.size_chars = 0
        self._current: dict[int, dict[str, Any]] = {}

    def add(self, fragments: Any) -> None:
        """Take `delta.tool_calls`.

        Raises:
            UpstreamBroken: no list of objects, or an index that is none.
        """
        if not isinstance(fragments, list):
            raise UpstreamBroken("The upstream sent tool calls that are no list.")
        for position, fragment in enumerate(cast("list[Any]", fragments)):
            if not isinstance(fragment, dict):
                raise UpstreamBroken("The upstream sent a tool call that is no object.")
            members = cast("dict[str, Any]", fragment)
            index: Any = members.get("index")
            if index is None:
                index = position
            if type(index) is not int or not 0 <= index < MAX_CALLS:
                raise UpstreamBroken("The upstream sent a tool call with an index that is none.")
            self._merge(self._find(index, members.get("id")), members)

    def add_function_call(self, fragment: Any) -> None:
        """Take `delta.function_call`.

        Raises:
            UpstreamBroken: no object.
        """
        if not isinstance(fragment, dict):
            raise UpstreamBroken("The upstream sent a function call that is no object.")
        if self._function_call is None:
            self._function_call = {}
        self._merge_payload(self._function_call, cast("dict[str, Any]", fragment))

    def take_calls(self) -> list[dict[str, Any]]:
        """Return the calls as they are now, in order of their index, and hold none any more."""
        calls, self._calls, self._current = self._calls, [], {}
        return [_whole(call) for _, call in sorted(calls, key=lambda one: one[0])]

    def take_function_call(self) -> dict[str, Any] | None:
        """Return the older form's call, where one came, and hold it no more."""
        call, self._function_call = self._function_call, None
        return None if call is None else _whole(call)

    def _find(self, index: int, identity: Any) -> dict[str, Any]:
        held = self._current.get(index)
        # Some servers give every call the index 0, and only their ids tell them apart.
        is_other = held is not None and identity and held.get("id") and identity != held["id"]
        if held is None or is_other:
            if len(self._calls) >= MAX_CALLS:
                raise UpstreamBroken(f"The upstream sent more than {MAX_CALLS} tool calls.")
            held = self._current[index] = {}
            self._calls.append((index, held))
        return held

    def _merge(self, held: dict[str, Any], fragment: dict[str, Any]) -> None:
        for name, value in fragment.items():
            if name == "index" or value is None:
                continue
            if name in ("id", "type"):
                held[name] = held.get(name) or value
            elif name in ("function", "custom") and isinstance(value, dict):
                payload = held.setdefault(name, {})
                if not isinstance(payload, dict):
                    raise UpstreamBroken("The upstream sent a tool call whose parts do not fit.")
                self._merge_payload(cast("dict[str, Any]", payload), cast("dict[str, Any]", value))
            else:
                self._join(held, name, value)

    def _merge_payload(self, held: dict[str, Any], fragment: dict[str, Any]) -> None:
        for name, value in fragment.items():
            # A name that comes again whole with each fragment is one name.
            if value is None:
                continue
            before: Any = held.get(name)
            if not (name == "name" and isinstance(before, _Pieces) and "".join(before) == value):
                self._join(held, name, value)

    def _join(self, held: dict[str, Any], name: str, value: Any) -> None:
        if not isinstance(value, str):
            held[name] = value
            return
        self.size_chars += len(value)
        before: Any = held.get(name)
        if isinstance(before, _Pieces):
            before.append(value)
        else:
            held[name] = _Pieces((value,))


def _whole(call: dict[str, Any]) -> dict[str, Any]:
    joined: dict[str, Any] = {}
    for name, value in call.items():
        if isinstance(value, _Pieces):
            joined[name] = "".join(value)
        elif name in ("function", "custom") and isinstance(value, dict):
            joined[name] = _whole(cast("dict[str, Any]", value))
        else:
            joined[name] = value
    return joined
