"""What a request offers the model to call, and how what is not allowed is taken out (invariant I4: advertise)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import msgspec

from lukhas.errors import InvalidRequest
from lukhas.openai.argument import Schema, join_schemas
from lukhas.openai.call import DialectName
from lukhas.openai.field import HOSTED_FIELDS, find_odd_member
from lukhas.openai.tool_choice import names_tool, narrow_choice

Allows = Callable[[str], bool]

PROMPT: Final = "prompt"
# Functions of one name, in different namespaces; a caller has a few.
MAX_NAMESAKES: Final = 32
_LISTS: Final = ("tools", "functions")
_SEARCH: Final = "web_search_options"
# Input items of the Responses API that bear tools, and the one that lets a tool of a server run.
_BEARING_ITEMS: Final = ("additional_tools", "tool_search_output")
_MCP_LIST: Final = "mcp_list_tools"
_MCP_APPROVAL: Final = "mcp_approval_response"
_ITEM_TYPES: Final = frozenset({*_BEARING_ITEMS, _MCP_LIST, _MCP_APPROVAL})
_MCP: Final = "mcp"
# What asks for more of a hosted tool's output: the part before the dot begins with the tool's name.
_INCLUDE: Final = "include"


class Stripped(msgspec.Struct, frozen=True):
    """What stripping a request's tools did.

    Attributes:
        offered: names of every tool that the request offered, in order; a hosted tool goes by its type or field.
        removed: those that were not allowed.
        forced: a tool that the request forces and that is not allowed, else None: such a request is to be refused.
        kept_functions: the JSON Schema of each function that stays; None for a custom tool, which takes any text. Of
            functions of one name, as namespaces may have them, one that admits what any of them does.
        servers: labels of the MCP servers that the request offered, as the caller wrote them.
    """

    offered: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    forced: str | None = None
    kept_functions: Mapping[str, Schema | None] = {}
    servers: tuple[str, ...] = ()


NOTHING: Final = Stripped()


def strip_tools(
    dialect: DialectName, body: dict[str, Any], allows_function: Allows, allows_hosted: Allows
) -> tuple[dict[str, Any], Stripped]:
    """Return a request without the tools that are not allowed, and what was taken out.

    The given body is not changed. Where no tool is left, the fields that only steer tools go too. A stored prompt may
    bear tools that nobody here can read: it is not taken out but reported as forced.

    Raises:
        InvalidRequest: a tool-bearing field of the wrong shape; what cannot be read cannot be judged.
    """
    if not _offers_tools(dialect, body):
        return body, NOTHING
    sieve = _Sieve(dialect, allows_function, allows_hosted)
    kept = dict(body)
    hosted = HOSTED_FIELDS[dialect]
    for field in _LISTS:
        entries = body.get(field)
        if entries is None or field in hosted:
            continue
        left = sieve.sift(field, entries)
        if left or not entries:
            kept[field] = left
        else:
            del kept[field]
    if dialect == "responses" and isinstance(body.get("input"), list):
        kept["input"] = sieve.sift_items(cast("list[Any]", body["input"]))
    for field in sorted((hosted | {_SEARCH}) & body.keys()):
        # A stored prompt cannot be looked into, and without it the call is another one.
        if field == PROMPT and dialect == "responses":
            continue
        # False and an empty list are how these fields say that nothing is wanted.
        value = body[field]
        if value is not None and value is not False and value != [] and not sieve.admits(field, is_hosted=True):
            del kept[field]
    forced: str | None = None
    if dialect == "responses" and body.get(PROMPT) is not None and not sieve.admits(PROMPT, is_hosted=True):
        forced = PROMPT
    chosen, named = narrow_choice(kept, sieve.judge, sieve.removed, sieve.namespaces, has_tools=sieve.has_tools)
    for name in named:
        if name not in sieve.removed:
            sieve.offered.append(name)
            sieve.removed.append(name)
    if _INCLUDE in kept and sieve.removed:
        _narrow_include(kept, sieve.removed)
    functions = {name: join_schemas(found) if found else None for name, found in sieve.functions.items()}
    return kept, Stripped(tuple(sieve.offered), tuple(sieve.removed), chosen or forced, functions, tuple(sieve.servers))


def list_tools(dialect: DialectName, body: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of every tool that a request offers.

    Raises:
        InvalidRequest: a tool-bearing field of the wrong shape.
    """
    return strip_tools(dialect, body, _allow, _allow)[1].offered


def _allow(_: str) -> bool:
    return True


def _offers_tools(dialect: DialectName, body: dict[str, Any]) -> bool:
    if any(body.get(field) is not None for field in (*_LISTS, _SEARCH)):
        return True
    if not HOSTED_FIELDS[dialect].isdisjoint(body) or names_tool(body):
        return True
    if dialect != "responses":
        return False
    items: Any = body.get("input")
    return body.get(PROMPT) is not None or (
        isinstance(items, list) and any(_item_type(item) in _ITEM_TYPES for item in cast("list[Any]", items))
    )


def _item_type(item: Any) -> Any:
    kind: Any = cast("dict[str, Any]", item).get("type") if isinstance(item, dict) else None
    return kind if isinstance(kind, str) else None


class _Sieve:
    """Judges one request's tools, and keeps account.

    Attributes:
        functions: the schemas of each function that stays; none for a custom tool.
        namespaces: names of the namespaces of which something is left.
        has_tools: whether any list of tools has one left.
    """

    def __init__(self, dialect: DialectName, allows_function: Allows, allows_hosted: Allows) -> None:
        self.offered: list[str] = []
        self.removed: list[str] = []
        self.functions: dict[str, list[Schema]] = {}
        self.servers: list[str] = []
        self.namespaces: set[str] = set()
        self.has_tools = False
        self._dialect = dialect
        self._allows_function = allows_function
        self._allows_hosted = allows_hosted

    def judge(self, name: str, *, is_hosted: bool) -> bool:
        """Say whether a tool is allowed."""
        return self._allows_hosted(name) if is_hosted else self._allows_function(name)

    def admits(self, name: str, *, is_hosted: bool) -> bool:
        """Say whether a tool that the request offers is allowed, and note it."""
        is_allowed = self.judge(name, is_hosted=is_hosted)
        self.offered.append(name)
        if not is_allowed:
            self.removed.append(name)
        return is_allowed

    def sift(self, field: str, entries: Any) -> list[Any]:
        """Return the entries of a list of tools that may stay."""
        left: list[Any] = []
        for entry in _read_list(field, entries):
            kept = self._sift_entry(field, entry)
            if kept is not None:
                left.append(kept)
                self.has_tools = True
        return left

    def sift_items(self, items: list[Any]) -> list[Any]:
        """Return the input items of a Responses call with the tools that they may bear."""
        left: list[Any] = []
        for position, item in enumerate(items):
            kind = _item_type(item)
            field = f"input[{position}]"
            if kind in _BEARING_ITEMS and item.get("tools") is not None:
                tools = self.sift(f"{field}.tools", item["tools"])
                # A search's output answers a call, and so stays, if empty.
                if tools or not item["tools"] or kind == "tool_search_output":
                    left.append({**item, "tools": tools})
            elif kind == _MCP_LIST:
                if self.admits(_MCP, is_hosted=True):
                    left.append(item)
            elif kind == _MCP_APPROVAL and item.get("approve") is not False:
                is_allowed = self.admits(_MCP, is_hosted=True)
                left.append(item if is_allowed else {**item, "approve": False})
            else:
                left.append(item)
        return left

    def _sift_entry(self, field: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        kind = _read_kind(field, entry)
        if kind == "namespace" and self._dialect == "responses":
            return self._sift_namespace(field, entry)
        if kind not in ("function", "custom"):
            label = entry.get("server_label")
            if isinstance(label, str):
                self.servers.append(label)
            return entry if self.admits(kind, is_hosted=True) else None
        name, holder = _read_named(field, kind, entry, is_flat=field == "functions" or self._dialect != "chat")
        odd = find_odd_member(entry) or (find_odd_member(holder) if holder is not entry else None)
        if odd is not None:
            raise InvalidRequest(
                f"A {kind} in '{field}' has a member '{odd[:64]}' that may be another tool.", param=field
            )
        if not self.admits(name, is_hosted=False):
            return None
        schemas = self.functions.setdefault(name, [])
        if kind == "function":
            schema = _read_schema(field, name, holder)
            try:
                if schema not in schemas:
                    schemas.append(schema)
            except RecursionError:
                raise InvalidRequest(
                    f"A function's parameters in '{field}' are nested too deeply.", param=field
                ) from None
            if len(schemas) > MAX_NAMESAKES:
                # Each is compared with all before it, and arguments with all of them.
                raise InvalidRequest(
                    f"'{field}' offers '{name[:64]}' with more than {MAX_NAMESAKES} different parameters.", param=field
                )
        return entry

    def _sift_namespace(self, field: str, entry: dict[str, Any]) -> dict[str, Any] | None:
        name: Any = entry.get("name")
        if not isinstance(name, str) or not name:
            raise InvalidRequest(f"Every namespace in '{field}' needs a name.", param=field)
        inner = _read_list(f"{field}.tools", entry.get("tools"))
        if any(one.get("type") == "namespace" for one in inner):
            raise InvalidRequest(f"A namespace in '{field}' holds a namespace.", param=field)
        left = self.sift(f"{field}.tools", inner)
        if not left:
            return None if inner else entry
        self.namespaces.add(name)
        return {**entry, "tools": left}


def _read_list(field: str, entries: Any) -> list[dict[str, Any]]:
    if not isinstance(entries, list) or not all(isinstance(e, dict) for e in cast("list[Any]", entries)):
        raise InvalidRequest(f"'{field}' must be a list of objects.", param=field)
    return cast("list[dict[str, Any]]", entries)


def _read_kind(field: str, entry: dict[str, Any]) -> str:
    kind: Any = "function" if field == "functions" else entry.get("type")
    if not isinstance(kind, str) or not kind:
        raise InvalidRequest(f"Every entry of '{field}' needs a type.", param=field)
    return kind


def _read_named(field: str, kind: str, entry: dict[str, Any], *, is_flat: bool) -> tuple[str, dict[str, Any]]:
    """Return a function's name and what holds its definition: in chat a member of the type's name, else the entry."""
    holders = [cast("dict[str, Any]", h) for h in (entry.get("function"), entry.get("custom")) if isinstance(h, dict)]
    names = [(h["name"], h) for h in [*holders, entry] if h.get("name") is not None]
    is_whole = is_flat or isinstance(entry.get(kind), dict)
    if not names or not is_whole or not all(isinstance(name, str) and name for name, _ in names):
        raise InvalidRequest(f"Every {kind} in '{field}' needs a name.", param=field)
    if len({name for name, _ in names}) > 1:
        # Which of the names an upstream reads is anybody's guess.
        raise InvalidRequest(f"A {kind} in '{field}' has two names.", param=field)
    return names[0]


def _read_schema(field: str, name: str, holder: dict[str, Any]) -> Schema:
    schema: Any = holder.get("parameters")
    if schema is None:
        return {"type": "object"}
    if not isinstance(schema, dict):
        raise InvalidRequest(f"The parameters of '{name[:64]}' in '{field}' must be an object.", param=field)
    return cast("Schema", schema)


def _narrow_include(kept: dict[str, Any], removed: list[str]) -> None:
    """Take out what asks for the output of a tool that is gone."""
    given: Any = kept[_INCLUDE]
    if not isinstance(given, list):
        return
    prefixes = tuple(f"{name}_call." for name in removed)
    left = [one for one in cast("list[Any]", given) if not (isinstance(one, str) and one.startswith(prefixes))]
    if left or not given:
        kept[_INCLUDE] = left
    else:
        del kept[_INCLUDE]
