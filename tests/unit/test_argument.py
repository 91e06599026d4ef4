"""Arguments against a function's schema: untrusted on both sides, bounded, and never echoed (I4)."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import InvalidRequest
from lukhas.openai.argument import check_arguments, check_schema, join_schemas

TEXT = {"type": "object", "properties": {"q": {"type": "string"}}, "required": ["q"], "additionalProperties": False}
TREE: dict[str, Any] = {
    "$ref": "#/$defs/node",
    "$defs": {"node": {"type": "object", "properties": {"n": {"type": "integer"}, "next": {"$ref": "#/$defs/node"}}}},
}


def nest(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(depth):
        schema = {"not": schema}
    return schema


def double(depth: int) -> dict[str, Any]:
    """Return a schema whose references double at every step."""
    steps = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": {**steps, f"d{depth}": {"type": "string"}}}


@pytest.mark.parametrize(
    ("schema", "arguments"),
    [
        pytest.param(TEXT, '{"q": "x"}', id="plain"),
        pytest.param({"type": "object"}, "", id="nothing-is-an-empty-object"),
        pytest.param({}, " \n", id="blank"),
        pytest.param({}, '{"a": [1, 2.5, -3e4, true, null, "\\u00e9"]}', id="every-type"),
        pytest.param({"properties": {"n": {"maximum": 10**30}}}, '{"n": 100000000000000000000}', id="long-number"),
        pytest.param(TREE, '{"next": {"next": {"n": 1}}}', id="recursive"),
        pytest.param({"$ref": "#/properties/a~1b%25", "properties": {"a/b%": {}}}, "{}", id="escaped-pointer"),
        pytest.param({"$defs": {"x": {"$anchor": "here"}}, "$ref": "#here"}, "{}", id="anchor"),
        pytest.param(
            {"properties": {"p": {"pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}}}, '{"p": "1.50"}', id="ahead"
        ),
        pytest.param(
            {"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {}}, "$ref": "#/definitions/a"},
            "{}",
            id="draft-7",
        ),
        pytest.param({"properties": {"$ref": {"type": "string"}}}, '{"$ref": "http://x/"}', id="property-named-ref"),
        pytest.param(nest(30), "{}", id="deepest"),
    ],
)
def test_valid_arguments_pass(schema: Any, arguments: str) -> None:
    """What usual clients send and models write is fine."""
    check_schema(schema)
    assert check_arguments(schema, arguments) is None


@pytest.mark.parametrize(
    ("schema", "arguments", "said"),
    [
        pytest.param(TEXT, "{}", "at '/' (rule: required)", id="missing"),
        pytest.param(TEXT, '{"q": 5}', "at '/q' (rule: type)", id="type"),
        pytest.param(TEXT, '{"q": "x", "hunter2": 1}', "at '/' (rule: additionalProperties)", id="too-many"),
        pytest.param(
            {"additionalProperties": {"items": {"type": "integer"}}},
            '{"hunter2": [1, "hunter2"]}',
            "at '/*/1' (rule: type)",
            id="made-up-key",
        ),
        pytest.param(TREE, '{"next": {"n": "hunter2"}}', "do not match", id="recursive"),
        pytest.param({}, "[]", "one JSON object", id="list"),
        pytest.param({}, '"{}"', "one JSON object", id="text"),
        pytest.param({}, "null", "one JSON object", id="null"),
        pytest.param({}, '{"a": 1} {}', "not valid JSON", id="two"),
        pytest.param({}, '{"a": hunter2}', "not valid JSON", id="no-json"),
        pytest.param({}, '{"a": 1, "b": {"c": 1, "c": 2}}', "name a key twice", id="duplicate"),
        pytest.param({}, '{"a": 1, "\\u0061": 2}', "name a key twice", id="escaped-duplicate"),
        pytest.param({}, '{"a": NaN}', "number that is none", id="nan"),
        pytest.param({}, '{"a": -Infinity}', "number that is none", id="infinity"),
        pytest.param({}, '{"a": 1e999}', "number that is too large", id="float-past-all"),
        pytest.param({}, '{"a": ' + "9" * 5000 + "}", "not valid JSON", id="digits"),
        pytest.param({}, '{"a": "\\ud800"}', "not valid JSON", id="half-a-character"),
        pytest.param({}, '{"a": "\ud800"}', "not valid JSON", id="raw-half-a-character"),
        pytest.param({}, '{"a": "' + "x" * 256_000 + '"}', "too large", id="huge"),
        pytest.param({}, '{"a":' * 65 + "1" + "}" * 65, "nested too deeply", id="deep"),
        pytest.param({}, "[" * 100_000, "nested too deeply", id="deep-and-broken"),
        pytest.param({"$ref": "https://x/"}, "{}", "cannot be used", id="refused-schema"),
        pytest.param(None, "{}", "cannot be used", id="no-schema"),
    ],
)
def test_wrong_arguments_are_told_without_their_values(schema: Any, arguments: str, said: str) -> None:
    """One sentence with place and rule; what the model wrote may be a secret."""
    sentence = check_arguments(schema, arguments)
    assert sentence is not None and said in sentence
    assert sentence.endswith(".") and "hunter2" not in sentence


def test_brackets_inside_a_text_are_no_depth() -> None:
    """A program's source is full of them."""
    assert check_arguments({}, json.dumps({"source": '{["\\"' * 500})) is None


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        pytest.param(None, "must be a JSON object", id="null"),
        pytest.param(True, "must be a JSON object", id="boolean"),
        pytest.param([TEXT], "must be a JSON object", id="list"),
        pytest.param({"type": "nope"}, "not a valid JSON Schema", id="unknown-type"),
        pytest.param({"required": "q"}, "not a valid JSON Schema", id="wrong-keyword"),
        pytest.param({"$ref": "other.json#/x"}, "another document", id="relative"),
        pytest.param({"items": [{"$dynamicRef": "http://x/"}]}, "another document", id="dynamic"),
        pytest.param({"$ref": "#/nowhere"}, "not a valid JSON Schema", id="to-nothing"),
        pytest.param({"properties": {"a": {"$id": "http://x/"}}}, "'$id'", id="inner-id"),
        pytest.param({"description": "x" * 64_000}, "larger than", id="large"),
        pytest.param(nest(32), "deeper than", id="deep"),
        pytest.param(nest(2000), "too deeply", id="too-deep-to-write"),
        pytest.param({"anyOf": [{}] * 2_000}, "more than 2,000 parts", id="parts"),
        pytest.param(double(20), "multiply", id="doubling-references"),
        pytest.param({"pattern": "("}, "pattern", id="broken-pattern"),
        pytest.param({"pattern": "(a{1000}){1000}"}, "pattern", id="pattern-that-grows"),
        pytest.param({"pattern": "a" * 1001}, "pattern", id="long-pattern"),
        pytest.param({"allOf": [{"pattern": str(n)} for n in range(33)]}, "pattern", id="patterns"),
        pytest.param({"const": "\ud800"}, "cannot be written", id="half-a-character"),
        pytest.param(
            {"allOf": [{"$ref": f"#/$defs/d{n}"} for n in range(129)], "$defs": {f"d{n}": {} for n in range(129)}},
            "128 places",
            id="many-references",
        ),
    ],
)
def test_schema_that_cannot_be_used_is_refused(schema: Any, said: str) -> None:
    """Before it reaches a model, with the field at fault."""
    with pytest.raises(InvalidRequest) as caught:
        check_schema(schema, "tools[3]")
    assert said in caught.value.message and caught.value.param == "tools[3]"


@pytest.mark.parametrize("place", ["$ref", "$schema", "$id", "$dynamicRef", "$recursiveRef", "$vocabulary"])
def test_schema_never_opens_a_socket_or_a_file(place: str, tmp_path: Path) -> None:
    """Whatever names another document is refused or ignored; nothing is fetched."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        port = server.getsockname()[1]
        document = tmp_path / "schema.json"
        document.write_text('{"type": "integer"}')
        for address in (f"http://127.0.0.1:{port}/schema.json", f"//127.0.0.1:{port}/x", document.as_uri()):
            value: Any = {address: True} if place == "$vocabulary" else address
            for schema in ({place: value}, {"properties": {"a": {place: value, "$ref": "#"}}}):
                # The file would refuse this; a schema that was not fetched cannot.
                assert check_arguments(schema, '{"a": {}}') in (
                    None,
                    "The function's schema cannot be used, so no arguments can be checked by it.",
                )
        with pytest.raises(TimeoutError):
            server.accept()


def test_recursion_that_branches_is_answered_at_once() -> None:
    """Collecting what every branch has to say would take a minute here, so it is not collected."""
    branch = {"type": "object", "required": ["n"], "properties": {"n": {"$ref": "#/$defs/a"}}}
    schema = {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [branch, {**branch, "minProperties": 1}]}}}
    check_schema(schema)
    value: Any = 5
    for _ in range(40):
        value = {"n": value}
    assert check_arguments(schema, json.dumps(value)) == "The arguments do not match the function's schema."


def test_work_of_schema_and_arguments_together_is_bounded() -> None:
    """Each may be within its own limits and the product not."""
    many = {"properties": {"a": {"items": {"allOf": [{"minimum": n} for n in range(1_000)]}}}}
    check_schema(many)
    assert check_arguments(many, json.dumps({"a": [2_000] * 100})) is None
    told = check_arguments(many, json.dumps({"a": [2_000] * 20_000}))
    assert told == "The arguments are too large to be checked by the function's schema."
    ahead = {"properties": {"a": {"items": {"pattern": "^(?:(a|aa)(?=a?b?))+$"}}}}
    assert check_arguments(ahead, json.dumps({"a": ["a" * 60 + "c"]})) is not None
    assert "too large" in str(check_arguments(ahead, json.dumps({"a": ["a" * 60 + "c"] * 3_000})))


def test_joined_schemas_admit_what_either_does() -> None:
    """Functions of one name in two namespaces; references keep pointing into their own part."""
    other = {"$defs": {"n": {"type": "integer"}}, "properties": {"i": {"$ref": "#/$defs/n"}}, "required": ["i"]}
    assert join_schemas([TEXT]) is TEXT
    both = join_schemas([TEXT, other])
    check_schema(both)
    assert check_arguments(both, '{"q": "x"}') is None
    assert check_arguments(both, '{"i": 1}') is None
    assert check_arguments(both, '{"i": "x"}') is not None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.text(max_size=5) | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3))
def test_verdict_is_the_validators_own(value: dict[str, Any]) -> None:
    """Our bounds and parsing never change what the schema says of honest arguments."""
    schema = {
        "properties": {"a": {"type": ["string", "integer"]}, "b": {"items": {"type": "number"}}},
        "maxProperties": 2,
    }
    has_infinity = not all(math.isfinite(one) for one in _floats(value))
    valid = jsonschema_rs.Draft202012Validator(schema).is_valid(value) and not has_infinity
    assert (check_arguments(schema, json.dumps(value)) is None) == valid


def _floats(value: Any) -> list[float]:
    if isinstance(value, float):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [found for one in inner for found in _floats(one)]


@given(st.text(max_size=40) | JSON.map(json.dumps))
def test_any_text_is_answered_in_words(arguments: str) -> None:
    """Whatever a model writes, there is a verdict and no failure."""
    told = check_arguments(TEXT, arguments)
    assert told is None or told.startswith("The arguments ")
