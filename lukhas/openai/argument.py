"""A tool call's arguments against the function's JSON Schema (invariant I4: call).

Schemas are the caller's and arguments the model's, so neither is trusted. What bounds the work: a schema's size, depth
and nodes; its references, which must be local, followed at most 20,000 steps in all; patterns in an engine that cannot
backtrack, or, where look-ahead needs one that can, at most 2,000 steps of it; and schema times arguments.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple, cast

import jsonschema_rs
import msgspec
import orjson

from lukhas.errors import InvalidRequest
from lukhas.openai.schema_cost import Cost, SchemaRefused, measure_schema

Schema = dict[str, Any]

MAX_ARGUMENT_CHARS: Final = 256_000
MAX_ARGUMENT_DEPTH: Final = 64
# A quarter of a second's work at worst; a usual call needs a few hundred.
MAX_WORK: Final = 4_000_000
MAX_PATTERN_WORK: Final = 8_000_000
MAX_LOOK_AHEAD_WORK: Final = 2_000
# Past this the broken rule is not looked for: collecting what each branch of a schema has to say can take minutes.
MAX_DETAIL_WORK: Final = 200_000

_BACKTRACK_STEPS: Final = 2_000
_PATTERN_BYTES: Final = 2 << 20
_AUTOMATON_BYTES: Final = 1 << 18
# A schema with patterns, or a large one, holds megabytes once compiled.
_LARGE_BYTES: Final = 8_000
_LIGHT_SCHEMAS: Final = 512
_HEAVY_SCHEMAS: Final = 16

_NOT_BUILT: Final = (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError)
_DRAFTS: Final[Mapping[str, type[jsonschema_rs.Validator]]] = {
    "draft-04": jsonschema_rs.Draft4Validator,
    "draft-06": jsonschema_rs.Draft6Validator,
    "draft-07": jsonschema_rs.Draft7Validator,
    "2019-09": jsonschema_rs.Draft201909Validator,
}


class _Compiled(NamedTuple):
    """A schema that is ready, or why it is not."""

    validator: jsonschema_rs.Validator | None
    problem: str
    cost: Cost


def check_schema(schema: Any, param: str = "tools") -> None:
    """Refuse a schema that arguments cannot safely be checked by.

    Raises:
        InvalidRequest: it is no JSON Schema, refers to another document, or is too large or too deep.
    """
    problem = _compile(schema).problem
    if problem:
        raise InvalidRequest(f"A function's parameters are refused: {problem}.", param=param)


def check_arguments(schema: Any, arguments: str) -> str | None:
    """Check a call's arguments.

    Args:
        schema: the function's JSON Schema.
        arguments: as the model wrote them; nothing at all counts as an empty object.

    Returns:
        None where they are valid, else one sentence with the place and the rule, and never a value.
    """
    compiled = _compile(schema)
    if compiled.validator is None:
        return "The function's schema cannot be used, so no arguments can be checked by it."
    try:
        value = parse_arguments(arguments)
        work = _measure_work(compiled.cost, arguments)
        if compiled.validator.is_valid(value):
            return None
        return _explain(compiled, value, work)
    except _Refused as wrong:
        return f"The arguments {wrong}."


def parse_arguments(arguments: str) -> dict[str, Any]:
    """Parse a call's arguments: one JSON object without duplicate keys or numbers that are none, of bounded size."""
    if len(arguments) > MAX_ARGUMENT_CHARS:
        raise _Refused("are too large")
    if not arguments or arguments.isspace():
        return {}
    try:
        value: Any = json.loads(
            arguments, object_pairs_hook=_collect, parse_constant=_refuse_constant, parse_float=_read_float
        )
        # Half a character is no text, whatever JSON's escapes can write.
        arguments.encode()
        if "\\u" in arguments:
            orjson.loads(arguments)
    except _Refused:
        raise
    except RecursionError:
        raise _Refused("are nested too deeply") from None
    except ValueError:
        raise _Refused("are not valid JSON") from None
    if not isinstance(value, dict):
        raise _Refused("are not one JSON object")
    if arguments.count("{") + arguments.count("[") > MAX_ARGUMENT_DEPTH and _is_deep(value):
        raise _Refused("are nested too deeply")
    return cast("dict[str, Any]", value)


def join_schemas(schemas: Sequence[Schema], how: Literal["anyOf", "allOf"] = "anyOf") -> Schema:
    """Return a schema that admits what any of the given ones admits, or what all of them do."""
    if len(schemas) == 1:
        return schemas[0]
    return {how: [_rebase(schema, f"#/{how}/{place}", 0) for place, schema in enumerate(schemas)]}


class _Refused(Exception):
    """Why arguments are refused, as the rest of a sentence."""


def _collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _Refused("name a key twice")
    return found


def _refuse_constant(_: str) -> float:
    raise _Refused("hold a number that is none")


def _read_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused("hold a number that is too large")
    return value


def _is_deep(value: Any) -> bool:
    level: list[Any] = [value]
    for _ in range(MAX_ARGUMENT_DEPTH):
        level = [child for one in level for child in _list_children(one) if isinstance(child, (dict, list))]
        if not level:
            return False
    return True


def _list_children(value: Any) -> Iterable[Any]:
    return cast("dict[str, Any]", value).values() if isinstance(value, dict) else cast("list[Any]", value)


def _measure_work(cost: Cost, arguments: str) -> int:
    values = 1 + arguments.count(",") + arguments.count("{") + arguments.count("[")
    work = cost.steps * values
    if (
        work > MAX_WORK
        or cost.patterns * len(arguments) > MAX_PATTERN_WORK
        or cost.look_aheads * values > MAX_LOOK_AHEAD_WORK
    ):
        raise _Refused("are too large to be checked by the function's schema")
    return work


def _explain(compiled: _Compiled, value: Any, work: int) -> str:
    if compiled.cost.is_recursive or work > MAX_DETAIL_WORK or compiled.validator is None:
        return "The arguments do not match the function's schema."
    try:
        compiled.validator.validate(value)
    except jsonschema_rs.ValidationError as wrong:
        place = "".join(f"/{_show_step(step, compiled.cost.names)}" for step in wrong.instance_path[:8])
        return f"The arguments do not match the function's schema at '{place or '/'}' (rule: {wrong.kind.name})."
    return "The arguments do not match the function's schema."


def _show_step(step: str | int, names: frozenset[str]) -> str:
    """Return a step of a path: a key that the schema does not know was made up by the model, and may tell something."""
    if isinstance(step, int):
        return str(step)
    return step[:64] if step in names and step.isprintable() else "*"


def _compile(schema: Any) -> _Compiled:
    if not isinstance(schema, dict):
        return _refuse("they must be a JSON object")
    try:
        raw = orjson.dumps(schema)
    except TypeError:
        raw = _write_odd(cast("Schema", schema))
    if raw is None:
        return _refuse("they are nested too deeply, or hold a number or text that cannot be written")
    return _compile_light(raw) or _compile_heavy(raw)


def _write_odd(schema: Schema) -> bytes | None:
    """Write a schema deeper than 254 levels, which is refused later, or with a number past 64 bits, which is fine."""
    try:
        return msgspec.json.encode(schema)
    except (TypeError, ValueError, RecursionError):
        return None


@lru_cache(maxsize=_LIGHT_SCHEMAS)
def _compile_light(raw: bytes) -> _Compiled | None:
    return None if len(raw) > _LARGE_BYTES or b'"pattern' in raw else _compile_bytes(raw)


@lru_cache(maxsize=_HEAVY_SCHEMAS)
def _compile_heavy(raw: bytes) -> _Compiled:
    return _compile_bytes(raw)


def _refuse(problem: str) -> _Compiled:
    return _Compiled(None, problem, Cost())


def _compile_bytes(raw: bytes) -> _Compiled:
    try:
        schema: Any = orjson.loads(raw)
        cost = measure_schema(schema, len(raw))
    except orjson.JSONDecodeError:
        return _refuse("they are nested too deeply")
    except SchemaRefused as wrong:
        return _refuse(str(wrong))
    named = str(schema.get("$schema"))
    kind = next((found for draft, found in _DRAFTS.items() if draft in named), jsonschema_rs.Draft202012Validator)
    linear = jsonschema_rs.RegexOptions(size_limit=_PATTERN_BYTES, dfa_size_limit=_AUTOMATON_BYTES)
    try:
        return _Compiled(_build(kind, schema, linear), "", cost)
    except _NOT_BUILT:
        if not cost.patterns:
            return _refuse("they are not a valid JSON Schema")
    bounded = jsonschema_rs.FancyRegexOptions(
        backtrack_limit=_BACKTRACK_STEPS, size_limit=_PATTERN_BYTES, dfa_size_limit=_AUTOMATON_BYTES
    )
    try:
        return _Compiled(_build(kind, schema, bounded), "", cost._replace(look_aheads=cost.patterns))
    except _NOT_BUILT:
        return _refuse("they are not a valid JSON Schema, or hold a pattern that is not supported")


def _build(
    kind: type[jsonschema_rs.Validator],
    schema: Schema,
    patterns: jsonschema_rs.RegexOptions | jsonschema_rs.FancyRegexOptions,
) -> jsonschema_rs.Validator:
    # The library would else fetch what a reference names, over HTTP or from disk.
    return kind(schema, pattern_options=patterns, offline=True)


def _rebase(value: Any, root: str, depth: int) -> Any:
    """Return a copy of a schema whose references to its own root point to where it will stand."""
    if depth > 64:
        return value  # too deep to be taken anyway
    if isinstance(value, list):
        return [_rebase(one, root, depth + 1) for one in cast("list[Any]", value)]
    if not isinstance(value, dict):
        return value
    copy: dict[str, Any] = {}
    for name, one in cast("dict[str, Any]", value).items():
        is_local = name == "$ref" and isinstance(one, str) and (one == "#" or one.startswith("#/"))
        copy[name] = f"{root}{one[1:]}" if is_local else _rebase(one, root, depth + 1)
    return copy
