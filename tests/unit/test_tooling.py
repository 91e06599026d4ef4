"""The registry of tools: the canonical ones, an operator's own, and copies for whoever asks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.errors import ConfigurationError
from lukhas.openai.argument import check_arguments, check_schema
from lukhas.openai.tooling import (
    CANONICAL,
    Registry,
    build_tools_from_allowlist,
    get_all_tools,
    get_tool_names,
    load_registry,
)

NAMES = ["retrieve_knowledge", "open_url", "schedule_task", "exec_code"]
CLASSES = ["retrieval", "browser", "scheduler", "code_exec"]
ENTRY = st.sampled_from([*NAMES, *CLASSES, "unknown", "nothing", "", "\u0435xec_code"])

OWN = """
tools:
  send_invoice:
    class: billing
    risk: high
    description: Send an invoice.
    parameters:
      type: object
      properties: {customer: {type: string, enum: [on, off, "7"]}, copies: {type: integer, maximum: 3}}
      required: [customer]
  look_up-2: {class: retrieval}
"""


def names_of(tools: list[dict[str, Any]]) -> list[str]:
    return [tool["function"]["name"] for tool in tools]


def load(tmp_path: Path, text: str | bytes) -> Registry:
    path = tmp_path / "tools.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_registry(path)


@pytest.mark.parametrize(
    ("allowlist", "expected"),
    [
        pytest.param([], [], id="empty"),
        pytest.param(["retrieval"], ["retrieve_knowledge"], id="class"),
        pytest.param(["code_exec", "retrieval"], ["exec_code", "retrieve_knowledge"], id="allowlist-order"),
        pytest.param(["open_url"], ["open_url"], id="name"),
        pytest.param(["browser", "open_url", "browser"], ["open_url"], id="once"),
        pytest.param(["nothing", "unknown", ""], [], id="unknown"),
        pytest.param(["EXEC_CODE", "Retrieval", " browser"], [], id="other-spelling"),
        pytest.param((name for name in CLASSES), NAMES, id="any-iterable"),
    ],
)
def test_build_tools_gives_what_the_allowlist_admits(allowlist: Any, expected: list[str]) -> None:
    """In its order, each once; what is not registered adds nothing."""
    assert names_of(build_tools_from_allowlist(allowlist)) == expected


def test_build_tools_refuses_a_text() -> None:
    """'retrieval' would else be read letter by letter, and silently admit nothing."""
    with pytest.raises(TypeError, match="not a text"):
        build_tools_from_allowlist("retrieval")


@given(st.lists(ENTRY, max_size=6))
def test_build_tools_admits_nothing_outside_the_allowlist(allowlist: list[str]) -> None:
    """Every tool that is built stands there by its name or its class."""
    classes = dict(zip(NAMES, CLASSES, strict=True))
    built = names_of(build_tools_from_allowlist(allowlist))
    assert len(built) == len(set(built))
    assert set(built) == {name for name in NAMES if name in allowlist or classes[name] in allowlist}


def test_what_is_handed_out_is_a_copy_every_time() -> None:
    """Whoever changes what they got changes nothing else."""
    before = copy.deepcopy(get_all_tools())
    registry = load_registry(None)
    for tools in (get_all_tools(), build_tools_from_allowlist(CLASSES), registry.build(CLASSES)):
        tools[0]["function"]["parameters"]["properties"].clear()
        tools[0]["function"]["parameters"]["required"].append("x")
        tools[1].clear()
        tools.clear()
    get_tool_names().clear()
    found = registry.find("exec_code")
    assert found is not None
    found.parameters.clear()
    assert get_all_tools() == build_tools_from_allowlist(CLASSES) == registry.build(CLASSES) == before
    assert get_tool_names() == NAMES
    assert set(registry.schemas["exec_code"]) > {"type", "properties"}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        pytest.param("retrieve_knowledge", '{"query": "a", "k": 20}', '{"query": "a", "k": 21}', id="k-at-most-20"),
        pytest.param("retrieve_knowledge", '{"query": "a", "k": 1}', '{"query": "a", "k": 0}', id="k-at-least-1"),
        pytest.param("retrieve_knowledge", '{"query": "a"}', '{"k": 2}', id="query-required"),
        pytest.param("open_url", '{"url": "https://example.com"}', "{}", id="url-required"),
        pytest.param("schedule_task", '{"when": "t", "note": "n"}', '{"when": "t"}', id="note-required"),
        pytest.param("schedule_task", '{"when": "t", "note": "n"}', '{"note": "t"}', id="when-required"),
        pytest.param(
            "exec_code", '{"language": "bash", "source": ""}', '{"language": "perl", "source": ""}', id="language"
        ),
        pytest.param("exec_code", '{"language": "javascript", "source": ""}', '{"language": "bash"}', id="source"),
    ],
)
def test_canonical_tools_take_what_they_are_said_to(name: str, good: str, bad: str) -> None:
    """Required fields, bounds and choices are in the schema that a model sees."""
    schema = load_registry(None).schemas[name]
    check_schema(schema)
    assert check_arguments(schema, good) is None
    assert check_arguments(schema, bad) is not None


def test_registry_without_a_file_is_the_canonical_one() -> None:
    """Classes and risks are those that the packaged policy has."""
    registry = load_registry(None)
    assert registry.names == tuple(NAMES) and registry.classes == tuple(CLASSES)
    assert [tool.risk for tool in CANONICAL] == ["low", "medium", "medium", "high"]
    assert [registry.classify(name) for name in (*NAMES, "retrieval", "Open_url")] == [*CLASSES, None, None]
    assert registry.find("nothing") is None


def test_registry_reads_an_operators_file(tmp_path: Path) -> None:
    """YAML 1.2: `on` is a word; what is left out has a default."""
    registry = load(tmp_path, OWN)
    assert registry.names == (*NAMES, "send_invoice", "look_up-2")
    tool = registry.find("send_invoice")
    assert tool is not None
    assert (tool.tool_class, tool.risk, tool.description) == ("billing", "high", "Send an invoice.")
    assert tool.parameters["properties"]["customer"]["enum"] == ["on", "off", "7"]
    assert tool.parameters["properties"]["copies"]["maximum"] == 3
    assert names_of(registry.build(["billing", "retrieval"])) == ["send_invoice", "retrieve_knowledge", "look_up-2"]
    other = registry.find("look_up-2")
    assert other is not None and (other.risk, other.parameters) == ("medium", {"type": "object"})
    assert names_of(build_tools_from_allowlist(["billing"])) == []


def test_registry_holds_callers_to_an_operators_parameters(tmp_path: Path) -> None:
    """A caller may narrow them; what the file does not say, and the canonical tools', a caller may define."""
    registry = load(tmp_path, OWN)
    loose: dict[str, Any] = {"type": "object", "properties": {"copies": {"$ref": "#/$defs/n"}}, "$defs": {"n": {}}}
    offered = {"send_invoice": loose, "look_up-2": loose, "exec_code": loose, "other": loose, "free": None}
    bound = registry.bind(offered)
    assert [bound[name] for name in ("look_up-2", "exec_code", "other", "free")] == [loose, loose, loose, None]
    assert bound["open_url"] == registry.schemas["open_url"]
    check_schema(bound["send_invoice"])
    assert check_arguments(bound["send_invoice"], '{"customer": "on", "copies": 3}') is None
    assert check_arguments(bound["send_invoice"], '{"customer": "on", "copies": 4}') is not None
    narrow = {"properties": {"copies": {"const": 1}}}
    assert check_arguments(registry.bind({"send_invoice": narrow})["send_invoice"], '{"customer": "on", "copies": 2}')
    assert registry.bind({"send_invoice": None})["send_invoice"] is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("", "line 1, column 1: the file: must be a table", id="empty"),
        pytest.param("tools: [", "not valid YAML", id="not-yaml"),
        pytest.param("- a", "line 1, column 1: the file: must be a table", id="list"),
        pytest.param("{}", "'tools' is missing", id="no-tools"),
        pytest.param("tools: {}\nmore: 1", "line 2, column 1: the file: unknown key 'more'", id="unknown-key"),
        pytest.param("tools: [a]", "line 1, column 8: tools: must be a table", id="tools-list"),
        pytest.param(
            "tools:\n  a: {class: b}\n  a: {class: b}", "line 3, column 3: tools: the key 'a' stands", id="twice"
        ),
        pytest.param(
            "tools:\n  exec_code: {class: retrieval}", "tools.exec_code: this tool is built in", id="canonical"
        ),
        pytest.param("tools:\n  'a b': {class: b}", "a name is 1 to 64", id="name"),
        pytest.param("tools:\n  a: {}", "line 2, column 6: tools.a: 'class' is missing", id="no-class"),
        pytest.param("tools:\n  a: {class: unknown}", "tools.a.class: a class is a word", id="class-unknown"),
        pytest.param("tools:\n  a: {class: CHOOSE}", "line 2, column 14: tools.a.class", id="class-to-choose"),
        pytest.param("tools:\n  a: {class: [b]}", "tools.a.class: must be a text", id="class-list"),
        pytest.param("tools:\n  a: {class: b, risk: none}", "risk: one of low, medium, high", id="risk"),
        pytest.param("tools:\n  a: {class: b, tool: c}", "unknown key 'tool'", id="field"),
        pytest.param("tools:\n  a: {class: b, parameters: [c]}", "tools.a.parameters: ", id="parameters"),
        pytest.param(
            "tools:\n  a: {class: b, parameters: {$ref: 'http://x/'}}", "refer to another document", id="reference"
        ),
        pytest.param("tools:\n  a: &x {class: b}\n  c: *x", "line 2, column 6: anchors and aliases", id="alias"),
        pytest.param("tools: !!python/object:os.system {}", "tags (!) are not allowed", id="tag"),
        pytest.param("tools: " + "[" * 50 + "]" * 50, "nested deeper than 40", id="deep"),
        pytest.param("tools: {}\n---\ntools: {}", "not valid YAML", id="two-documents"),
        pytest.param("a: " + "x" * 1_000_001, "larger than", id="large"),
        pytest.param(b"tools: {\xff: 1}", "is not UTF-8", id="bytes"),
        pytest.param("tools: {a: \x00}", "malformed", id="control-character"),
    ],
)
def test_registry_file_with_a_mistake_is_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    """Never 'no registry, so guess': the place and what would be right."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert said in caught.value.message and caught.value.param == "LUKHAS_TOOLS"


def test_registry_file_lists_every_mistake(tmp_path: Path) -> None:
    """Not only the first."""
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, "tools:\n  a: {class: B}\n  b: {class: c, risk: 7}\n  c: 5\n")
    lines = caught.value.message.splitlines()
    assert lines[0].endswith("has 3 mistakes:")
    assert [line.strip().split(":")[0] for line in lines[1:]] == [
        "line 2, column 14",
        "line 3, column 23",
        "line 4, column 6",
    ]


@pytest.mark.parametrize("text", ["tools:\n", "tools: {}\n", "\ufefftools:\n  # a:\n", "tools: ~\n"])
def test_registry_file_without_tools_adds_none(tmp_path: Path, text: str) -> None:
    """As a proposal is before anybody has edited it."""
    assert load(tmp_path, text).names == tuple(NAMES)


def test_registry_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A misspelt path must not leave the operator's tools out."""
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_registry(tmp_path / "nowhere.yaml")
