"""The results that a request brings back for calls that were not allowed (invariant I4: result).

In the history of a request, each call to a denied function gets exactly one answer, ours, whatever the caller wrote.
Nothing else is touched: results of allowed calls, and results whose call stands nowhere, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Literal, cast

import msgspec

from lukhas.openai.call import DialectName

Denies = Callable[[str], bool]
Item = dict[str, Any]

MESSAGE: Final = "This tool call was not allowed, and was not carried out."
_OUTPUTS: Final = {"function_call": "function_call_output", "custom_tool_call": "custom_tool_call_output"}
# What every call and result has one of, a message's role aside.
_TOOL_MEMBERS: Final = frozenset(("tool_calls", "function_call", "call_id", "output"))


class Settled(msgspec.Struct, frozen=True):
    """A call that was answered by us.

    Attributes:
        name: the function's; empty where only the call's id is known.
        call_id: the dialect's own id; None for a legacy function.
        kind: 'replaced' where the caller brought a result, 'added' where it brought none.
    """

    name: str
    call_id: str | None
    kind: Literal["replaced", "added"]


def settle_results(
    dialect: DialectName,
    body: dict[str, Any],
    is_denied: Denies,
    blocked_calls: Sequence[str] = (),
    message: str = MESSAGE,
) -> tuple[dict[str, Any], tuple[Settled, ...]]:
    """Return a request in which every call that is not allowed has exactly one answer: ours.

    The given body is not changed, and is returned itself where there is nothing to settle. Settling twice changes
    nothing more.

    Args:
        dialect: chat or Responses; the others have no calls.
        body: the request.
        is_denied: whether a function, by its name, is not allowed.
        blocked_calls: ids of calls that were blocked in an earlier answer. In the Responses API upstream's stored
            response still holds them, so they are answered at the front of the input.
        message: what the model is told instead of a result.
    """
    field = {"chat": "messages", "responses": "input"}.get(dialect)
    if field is None:
        return body, ()
    given: Any = body.get(field)
    blocked = tuple(dict.fromkeys(blocked_calls))
    if not isinstance(given, list):
        if dialect == "chat" or not blocked or not (given is None or isinstance(given, str)):
            return body, ()
        given = [] if given is None else [{"role": "user", "content": given}]
    if not blocked and not any(map(_is_of_tools, cast("list[Any]", given))):
        return body, ()
    settling = _Settling(cast("list[Any]", given), is_denied, frozenset(blocked), message)
    items = settling.settle(_read_message if dialect == "chat" else _read_item, blocked if dialect != "chat" else ())
    if not settling.settled:
        return body, ()
    return {**body, field: items}, tuple(settling.settled)


def unmatched_results(dialect: DialectName, body: dict[str, Any]) -> tuple[str, ...]:
    """Return the call ids of results whose call does not stand before them in the request, in order."""
    read = {"chat": _read_message, "responses": _read_item}.get(dialect)
    items: Any = body.get("messages" if dialect == "chat" else "input")
    if read is None or not isinstance(items, list):
        return ()
    known: set[str] = set()
    unmatched: list[str] = []
    for item in cast("list[Any]", items):
        calls, result = read(item)
        known.update(call.id for call in calls if call.id is not None)
        if result is not None and result.id is not None and result.id not in known:
            unmatched.append(result.id)
    return tuple(dict.fromkeys(unmatched))


class _Call(msgspec.Struct, frozen=True):
    """A call in the history, and what its answer looks like but for the text."""

    id: str | None
    name: str
    answer: Item


class _Result(msgspec.Struct, frozen=True):
    """A result in the history: of a call by its id, or, where it has none, of a function by its name."""

    id: str | None
    name: str | None
    text_field: str


_Reading = tuple[Sequence[_Call], _Result | None]
_Reader = Callable[[Any], _Reading]
# What a result names its call by: its id, else its name.
_Handle = tuple[str, str]
# The call's place in the history before that.
_Key = tuple[int, str, str]


class _Settling:
    def __init__(self, items: list[Any], is_denied: Denies, blocked: frozenset[str], message: str) -> None:
        self.settled: list[Settled] = []
        self._items = items
        self._is_denied = is_denied
        self._blocked = blocked
        self._message = message

    def settle(self, read: _Reader, owed: Iterable[str]) -> list[Any]:
        """Return the history with our answers; `owed` are calls that upstream holds and the history may not."""
        readings = [read(item) for item in self._items]
        denied, first = self._find_denied(readings)
        owed = [call_id for call_id in owed if ("id", call_id) not in first]
        fronted: dict[str, Item] = {}
        answered: set[_Key] = set()
        kept: list[tuple[int, Any]] = []
        seen: dict[_Handle, int] = {}
        by_name = {call.name: key for key, call in denied.items()}
        for place, (calls, result) in enumerate(readings):
            for call in calls:
                seen[_handle(call.id, call.name)] = place
            if result is None:
                kept.append((place, self._items[place]))
                continue
            handle = _handle(result.id, result.name or "")
            # A result that stands before its call is taken for that call's: it may not stay beside our answer.
            key = (seen.get(handle, first.get(handle, -1)), *handle)
            if key[0] < 0 and result.id is None:
                key = by_name.get(result.name or "", key)
            if key in denied:
                answered.add(key)
            elif result.id is not None and result.id in owed:
                fronted.setdefault(result.id, self._items[place])
            elif result.name is not None and key[0] < 0 and self._is_denied(result.name):
                kept.append((place, {**self._items[place], result.text_field: self._message}))
                self.settled.append(Settled(result.name, result.id, "replaced"))
            else:
                kept.append((place, self._items[place]))
        front = [self._front(call_id, fronted.get(call_id)) for call_id in owed]
        return [*front, *self._weave(kept, denied, answered)]

    def _find_denied(self, readings: Sequence[_Reading]) -> tuple[dict[_Key, _Call], dict[_Handle, int]]:
        """Return the calls that are not allowed, in order, and where each call, allowed or not, first stands."""
        denied: dict[_Key, _Call] = {}
        first: dict[_Handle, int] = {}
        for place, (calls, _) in enumerate(readings):
            for call in calls:
                first.setdefault(_handle(call.id, call.name), place)
                if self._is_denied(call.name) or call.id in self._blocked:
                    denied.setdefault((place, *_handle(call.id, call.name)), call)
        return denied, first

    def _weave(self, kept: list[tuple[int, Any]], denied: dict[_Key, _Call], answered: set[_Key]) -> list[Any]:
        """Put each of our answers right behind what holds its call."""
        by_place: dict[int, list[Item]] = {}
        for key, call in denied.items():
            by_place.setdefault(key[0], []).append(_fill(call.answer, self._message))
            self.settled.append(Settled(call.name, call.id, "replaced" if key in answered else "added"))
        woven: list[Any] = []
        for place, item in kept:
            woven.append(item)
            woven += by_place.get(place, ())
        return woven

    def _front(self, call_id: str, own: Item | None) -> Item:
        kind = own["type"] if own is not None else "function_call_output"
        self.settled.append(Settled("", call_id, "added" if own is None else "replaced"))
        return {"type": kind, "call_id": call_id, "output": self._message}


def _is_of_tools(item: Any) -> bool:
    if not isinstance(item, dict):
        return False
    given = cast("Item", item)
    return not _TOOL_MEMBERS.isdisjoint(given) or given.get("role") in ("tool", "function")


def _handle(call_id: str | None, name: str) -> _Handle:
    return ("id", call_id) if call_id is not None else ("", name)


def _fill(answer: Item, message: str) -> Item:
    return {name: message if value is None else value for name, value in answer.items()}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _read_message(message: Any) -> _Reading:
    if not isinstance(message, dict):
        return (), None
    given = cast("Item", message)
    role = given.get("role")
    if role == "tool":
        return (), _Result(_text(given.get("tool_call_id")), _text(given.get("name")), "content")
    if role == "function":
        return (), _Result(None, _text(given.get("name")), "content")
    calls: list[_Call] = []
    listed: Any = given.get("tool_calls")
    for entry in cast("list[Any]", listed) if isinstance(listed, list) else []:
        call = _read_tool_call(entry)
        if call is not None:
            calls.append(call)
    legacy: Any = given.get("function_call")
    name = _text(cast("Item", legacy).get("name")) if isinstance(legacy, dict) else None
    if name is not None:
        calls.append(_Call(None, name, {"role": "function", "name": name, "content": None}))
    return calls, None


def _read_tool_call(entry: Any) -> _Call | None:
    given = cast("Item", entry) if isinstance(entry, dict) else {}
    call_id = _text(given.get("id"))
    for holder in (given.get("function"), given.get("custom")):
        name = _text(cast("Item", holder).get("name")) if isinstance(holder, dict) else None
        if name is None:
            continue
        answer: Item = {"role": "tool", "content": None}
        # Without an id some upstreams go by the name.
        answer |= {"name": name} if call_id is None else {"tool_call_id": call_id}
        return _Call(call_id, name, answer)
    return None


def _read_item(item: Any) -> _Reading:
    if not isinstance(item, dict):
        return (), None
    given = cast("Item", item)
    kind = given.get("type")
    if not isinstance(kind, str):
        return (), None
    call_id, name = _text(given.get("call_id")), _text(given.get("name"))
    if kind in _OUTPUTS.values():
        return (), _Result(call_id, name, "output")
    if kind not in _OUTPUTS or name is None or call_id is None:
        return (), None
    answer: Item = {"type": _OUTPUTS[kind], "call_id": call_id, "output": None}
    if given.get("caller") is not None:
        answer["caller"] = given["caller"]
    return (_Call(call_id, name, answer),), None
