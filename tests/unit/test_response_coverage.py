"""Every item and every event that the installed official client knows: a blocked word in any of its texts stays in."""

from __future__ import annotations

import copy
import types
import typing
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from openai import BaseModel
from openai.types.responses import ResponseOutputItem, ResponseStreamEvent
from response_scene import BLOCKED, WordGuard, decode, encode, events_of, message, response, rewrite

from lukhas.openai.response_answer import guard_response
from lukhas.openai.response_guard import EVENT_FIELDS
from lukhas.openai.response_item import CALLS, ECHOED, SERVER_WRITTEN, find_call

# What stands there is the server's: an id, a type, an opaque text.
QUIET = SERVER_WRITTEN | EVENT_FIELDS | {"encrypted_content"}
# Data of pictures and sounds; that these are asked about is tested elsewhere.
MEDIA = ("result", "partial_image_b64")


def variants(kind: Any) -> list[Any]:
    """Return the types that a union is made of."""
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return variants(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return [found for one in typing.get_args(kind) if one is not type(None) for found in variants(one)]
    return [kind]


def make(kind: Any, name: str, text: str, depth: int = 0) -> Any:
    """Make a value of a type with `text` in every string that is not the server's."""
    options = variants(kind)
    first = next((one for one in options if one is str), options[0])
    origin = typing.get_origin(first)
    if origin is typing.Literal:
        return typing.get_args(first)[0]
    if first is str:
        return "id_1" if name in QUIET else text
    if first is bool:
        return True
    if first in (int, float):
        return 0
    if origin is list:
        inner = typing.get_args(first)[0]
        return [make(one, name, text, depth + 1) for one in variants(inner)] if depth < 6 else []
    if origin is dict:
        return {"name": make(typing.get_args(first)[1], "", text, depth + 1)}
    if isinstance(first, type) and issubclass(first, BaseModel):
        return make_model(first, text, depth + 1)
    return {"free": text}


def make_model(model: type[BaseModel], text: str, depth: int = 0) -> dict[str, Any]:
    """Make an object of a model, its optional members included."""
    named = [(field.alias or name, field.annotation) for name, field in model.model_fields.items()]
    made = {name: make(kind, name, text, depth) for name, kind in named}
    if "ImageGen" in model.__name__:
        made |= {name: "AAAA" for name in MEDIA if name in made}
    return made


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where the blocked word stands."""
    if isinstance(value, dict):
        for name, member in value.items():
            yield from places(member, (*path, name))
    elif isinstance(value, list):
        for index, member in enumerate(value):
            yield from places(member, (*path, index))
    elif value == BLOCKED:
        yield path


def only(value: Any, place: tuple[Any, ...], path: tuple[Any, ...] = ()) -> Any:
    """Return a copy in which the word stands at one place alone."""
    if isinstance(value, dict):
        return {name: only(member, place, (*path, name)) for name, member in value.items()}
    if isinstance(value, list):
        return [only(member, place, (*path, index)) for index, member in enumerate(value)]
    return "fine" if value == BLOCKED and path != place else value


ITEMS = {make_model(one, "")["type"]: one for one in variants(ResponseOutputItem)}
EVENTS = {make_model(one, "")["type"]: one for one in variants(ResponseStreamEvent)}


def item_cases() -> list[Any]:
    cases: list[Any] = []
    for kind, model in ITEMS.items():
        item = {**make_model(model, BLOCKED), "id": "id_1"}
        item.pop("caller", None)
        for place in places(item):
            cases.append(pytest.param(only(item, place), id=f"{kind}:{'.'.join(map(str, place))}"))
    return cases


def event_cases() -> list[Any]:
    cases: list[Any] = []
    for kind, model in EVENTS.items():
        event = make_model(model, BLOCKED)
        for place in places(event):
            if place[0] == "response" and place[1] in (*ECHOED, "output"):
                continue
            if kind == "response.audio.delta":
                continue
            cases.append(pytest.param(only(event, place), id=f"{kind}:{'.'.join(map(str, place))}"))
    return cases


def test_every_call_item_of_the_client_is_known() -> None:
    """A call that is only known by its ending would be judged under a guessed name."""
    calls = {kind for kind in ITEMS if find_call(kind) is not None}
    assert calls <= CALLS.keys()
    assert {"function_call", "custom_tool_call", "web_search_call", "mcp_call", "program"} <= calls


@pytest.mark.parametrize("item", item_cases())
def test_item_with_a_blocked_text_anywhere_is_stopped(item: dict[str, Any]) -> None:
    """In a plain answer and in a stream, whichever field of the item holds it."""
    answer = response([item, message("after", item_id="msg_9")])
    plain = copy.deepcopy(answer)
    outcome = guard_response(plain, WordGuard())
    assert outcome.is_changed
    assert BLOCKED.encode() not in orjson.dumps(plain)
    _, raw = rewrite(events_of(answer))
    assert BLOCKED.encode() not in raw
    assert decode(raw)[-1]["response"]["output"] == plain["output"]


@pytest.mark.parametrize("event", event_cases())
def test_event_with_a_blocked_text_anywhere_is_stopped(event: dict[str, Any]) -> None:
    """Whichever field of the event holds it, also where upstream announced nothing before."""
    for begun in ([], events_of(response([message("text")]))[:4]):
        events = [*begun, event, *events_of(response([message("text")]))[-2:]]
        _, raw = rewrite([encode(one) for one in events])
        assert BLOCKED.encode() not in raw


@pytest.mark.parametrize("kind", EVENTS)
def test_event_with_harmless_texts_passes(kind: str) -> None:
    """No event of the client's is lost, changed or refused for want of a reader; calls wait until they are whole."""
    event = {**make_model(EVENTS[kind], "fine"), "sequence_number": 0}
    rewriter, raw = rewrite([encode(event)])
    if kind == "response.content_part.added":
        event["part"]["logprobs"] = []
    if kind == "response.output_item.added":
        event["item"]["content"] = []
    assert decode(raw) == [event]
    assert rewriter.is_over == (kind in ("error", "response.completed", "response.failed", "response.incomplete"))


@pytest.mark.parametrize("kind", ITEMS)
def test_item_with_harmless_texts_is_unchanged(kind: str) -> None:
    """What nothing matches comes out as upstream wrote it, from a stream as from a plain answer."""
    item = {**make_model(ITEMS[kind], "fine"), "id": "id_1"}
    answer = response([item])
    plain = copy.deepcopy(answer)
    assert not guard_response(plain, WordGuard()).is_changed
    assert plain == answer
    _, raw = rewrite(events_of(answer))
    assert decode(raw)[-1]["response"] == answer
