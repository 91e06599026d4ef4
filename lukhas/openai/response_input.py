"""Finds in a Responses request what a model will read, what no moderator can read, and which objects it names.

Every string counts as text unless its place is known to hold something else, so that a field that is new to this
dialect is moderated before anybody has heard of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, Literal, cast

import msgspec

from lukhas.errors import InvalidRequest
from lukhas.openai.call import Media, ObjectRef, Path, RequestPoint, Text, walk_strings
from lukhas.openai.wire import encode_json

# Top-level fields that steer the service and that no model reads.
_STEERING: Final = frozenset(
    {"model", "previous_response_id", "service_tier", "truncation", "include", "user", "safety_identifier"}
    | {"prompt_cache_key", "prompt_cache_retention", "stream_options", "background_options", "access_programs"}
    | {"prompt_cache_options", "moderation", "conversation"}
)
# Members that say what a thing is or how it is to be treated, wherever they stand.
_STRUCTURAL: Final = frozenset(
    {"type", "role", "status", "id", "call_id", "item_id", "phase", "detail", "execution", "fingerprint", "created_by"}
    | {"file_id", "file_ids", "container_id", "vector_store_ids", "caller_id", "approval_request_id", "connector_id"}
    | {"tunnel_id", "skill_id", "effort", "summary", "generate_summary", "verbosity", "mode", "ttl", "media_type"}
    | {"format", "syntax", "allowed_callers", "search_context_size", "memory_limit", "quality", "background"}
    | {"output_format", "size", "moderation", "input_fidelity", "encrypted_content", "ranker", "context_compression"}
)
# Below these a caller or a model chooses the names of members, so that no name says what its value is.
_FREE: Final = frozenset(
    {"arguments", "parameters", "schema", "input_schema", "output_schema", "metadata", "attributes", "variables"}
    | {"env", "filters"}
)
# What stands below these was brought by a tool in an earlier turn; the model reads it, upstream opens none of it.
_CITED: Final = frozenset(("annotations", "results"))
_SCHEMA_WORDS: Final = frozenset(("object", "string", "number", "integer", "boolean", "array", "null"))
# What looks like a key, an address or a sentence is text wherever it stands.
_is_enum: Final = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}").fullmatch
_is_id: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}").fullmatch
_IDS: Final = frozenset(
    {"id", "call_id", "item_id", "fingerprint", "file_id", "file_ids", "container_id", "vector_store_ids"}
    | {"caller_id", "approval_request_id", "connector_id", "tunnel_id", "skill_id", "created_by"}
)
# Credentials for a tool's own server: no model reads them, and a rule against secrets would refuse every use.
_LONGEST_NAME_CHARS: Final = 256
_CREDENTIALS: Final = frozenset(("authorization", "headers", "domain_secrets"))
_MEDIA_NAMES: Final[Mapping[str, Literal["image", "audio", "video", "file"]]] = {
    "image_url": "image",
    "video_url": "video",
    "file_url": "file",
    "file_data": "file",
    "audio_url": "audio",
    "partial_image_b64": "image",
    "b64_json": "image",
}
_INSTRUCTING_ROLES: Final = frozenset(("system", "developer"))
_RESULT_FIELDS: Final = frozenset(("output", "outputs", "results", "result", "error"))
_INSTRUCTION_FIELDS: Final = frozenset(("instructions", "tools", "tool_choice", "text", "functions"))
_OBJECT_NAMES: Final[Mapping[str, str]] = {
    "file_id": "file",
    "file_ids": "file",
    "vector_store_ids": "vector_store",
    "container_id": "container",
    "skill_id": "skill",
    "comparison_response_id": "response",
}


# Applications offer the same tools with every call, so what stands in them is remembered.
_REMEMBERED_LISTS: Final = 128
_LARGEST_REMEMBERED_BYTES: Final = 65_536
# Their groups are apart from all others.
_TOOL_GROUPS: Final = 1 << 32


class RequestContent(msgspec.Struct):
    """What a request's body holds, in the order in which it stands there."""

    texts: list[Text] = []
    media: list[Media] = []
    objects: list[ObjectRef] = []


def read_content(body: Mapping[str, Any]) -> RequestContent:
    """Return every text, medium and named object of a request that `ResponseDialect.parse` has checked."""
    found = RequestContent()
    group = 0
    for name, value in body.items():
        if value is None:
            continue
        if name == "tools" and isinstance(value, list):
            _read_tools(found, cast("list[Any]", value))
        elif name == "input" and isinstance(value, list):
            for index, entry in enumerate(cast("list[Any]", value)):
                group += 1
                _read_part(found, entry, (name, index), group)
        else:
            group += 1
            _read_part(found, value, (name,), group)
    _name_top_objects(found, body)
    return found


def _read_tools(found: RequestContent, tools: list[Any]) -> None:
    written = encode_json(tools)
    known = _remember_tools(written) if len(written) <= _LARGEST_REMEMBERED_BYTES else _gather_tools(tools)
    found.texts += known.texts
    found.media += known.media
    found.objects += known.objects


@lru_cache(_REMEMBERED_LISTS)
def _remember_tools(written: bytes) -> RequestContent:
    return _gather_tools(msgspec.json.decode(written))


def _gather_tools(tools: list[Any]) -> RequestContent:
    found = RequestContent()
    for index, entry in enumerate(tools):
        _read_part(found, entry, ("tools", index), _TOOL_GROUPS + index)
    return found


def _read_part(found: RequestContent, value: Any, path: Path, group: int) -> None:
    kind = _type_of(value)
    point = _find_point(path, value, kind)
    if path[0] == "input" and isinstance(value, dict):
        _name_item(found, cast("dict[str, Any]", value), kind, path)
    for place, text in walk_strings(value, path, skip=_skip_nothing):
        name = _last_name(place)
        media = _find_media(place, name, kind)
        if media is not None and text:
            found.media.append(Media(media, place))
            if not text.startswith(("http://", "https://")):
                continue
        is_free = any(step in _FREE for step in place[:-1])
        if name in _OBJECT_NAMES and text and not is_free and _CITED.isdisjoint(place):
            found.objects.append(ObjectRef(_OBJECT_NAMES[name], text, place))
            holder = _type_of(_follow(value, place[len(path) : -1]))
            if holder in ("input_image", "computer_screenshot"):
                found.media.append(Media("image", place))
            elif holder == "input_file":
                found.media.append(Media("file", place))
        if name == "container" and place[0] == "tools" and text:
            found.objects.append(ObjectRef("container", text, place))
        if not text or _is_unread(place, name, text, is_free):
            continue
        found.texts.append(Text(_refine_point(point, kind, place), place, text, group))


def _is_unread(place: Path, name: str, text: str, is_free: bool) -> bool:
    """Say whether a string is known to be no text that a model reads."""
    top = place[0]
    if len(place) <= 2 and (top in _STEERING or (top == "tool_choice" and len(place) == 1)):
        # Names of people and of caches may have any form; a sentence has blanks.
        return len(text) <= _LONGEST_NAME_CHARS and not any(character.isspace() for character in text)
    if top in _STEERING and name in ("id", *_STRUCTURAL, *_OBJECT_NAMES):
        return _is_word(name, text)
    if name == "encrypted_content":
        return True
    if is_free:
        return name == "type" and text in _SCHEMA_WORDS
    if any(step in _CREDENTIALS for step in place) and any(step == "tools" for step in place):
        return True
    return name in _STRUCTURAL and _is_word(name, text)


def _is_word(name: str, text: str) -> bool:
    # What is long or holds blanks is no identifier, whatever its place; then it is read like any other text.
    return (_is_id(text) if name in _IDS or name not in _STRUCTURAL else _is_enum(text)) is not None


def _find_media(place: Path, name: str, kind: str) -> Literal["image", "audio", "video", "file"] | None:
    if any(step in _FREE and step != "variables" for step in place[:-1]):
        return None
    media = _MEDIA_NAMES.get(name)
    if media is not None:
        return media
    if len(place) < 2:
        return None
    above = place[-2]
    if name == "url" and isinstance(above, str):
        return _MEDIA_NAMES.get(above)
    if name == "url" and kind == "code_interpreter_call":
        return "image"
    if name == "data":
        return "audio" if above == "input_audio" or kind == "input_audio" or "content" in place else "file"
    if name == "result" and kind == "image_generation_call":
        return "image"
    return None


def _find_point(path: Path, value: Any, kind: str) -> RequestPoint:
    if path[0] in _INSTRUCTION_FIELDS:
        return "instruction"
    if path[0] != "input" or not isinstance(value, dict):
        return "input"
    if kind in ("additional_tools", "configuration_update"):
        return "instruction"
    if kind.endswith("_output") or kind.startswith("mcp_"):
        return "tool_result"
    if kind in ("", "message"):
        role: Any = cast("dict[str, Any]", value).get("role")
        if role in _INSTRUCTING_ROLES:
            return "instruction"
        if role in ("tool", "function"):
            return "tool_result"
    return "input"


def _refine_point(point: RequestPoint, kind: str, place: Path) -> RequestPoint:
    """Tell what a hosted tool brought from what the model asked it for; both stand in one item."""
    if point == "input" and kind.endswith("_call") and len(place) > 2 and place[2] in _RESULT_FIELDS:
        return "tool_result"
    return point


def _name_item(found: RequestContent, item: dict[str, Any], kind: str, path: Path) -> None:
    given: Any = item.get("id")
    if not isinstance(given, str) or not given:
        return
    is_bare = kind == "" and "content" not in item and "role" not in item
    is_image = kind == "image_generation_call" and not item.get("result")
    if kind == "item_reference" or is_bare or is_image:
        found.objects.append(ObjectRef("item", given, (*path, "id")))


def _name_top_objects(found: RequestContent, body: Mapping[str, Any]) -> None:
    previous: Any = body.get("previous_response_id")
    if previous is not None and not isinstance(previous, str):
        raise _not_an_id("previous_response_id")
    if previous:
        found.objects.append(ObjectRef("response", previous, ("previous_response_id",)))
    for name in ("conversation", "prompt"):
        holder: Any = body.get(name)
        named: Any = cast("dict[str, Any]", holder).get("id") if isinstance(holder, dict) else holder
        if holder is not None and not isinstance(named, str):
            # Whose it is could not be judged, and upstream may read it otherwise.
            raise _not_an_id(name)
        if isinstance(holder, str) and holder and name == "conversation":
            found.objects.append(ObjectRef(name, holder, (name,)))
        elif isinstance(holder, dict):
            given: Any = cast("dict[str, Any]", holder).get("id")
            if isinstance(given, str) and given:
                found.objects.append(ObjectRef(name, given, (name, "id")))


def _not_an_id(field: str) -> InvalidRequest:
    return InvalidRequest(f"'{field}' must name one object by its id.", param=field)


def _type_of(value: Any) -> str:
    kind: Any = cast("dict[str, Any]", value).get("type") if isinstance(value, dict) else None
    return kind if isinstance(kind, str) else ""


def _last_name(place: Path) -> str:
    for step in reversed(place):
        if isinstance(step, str):
            return step
    return ""


def _follow(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value


def _skip_nothing(path: Path) -> bool:
    return False
