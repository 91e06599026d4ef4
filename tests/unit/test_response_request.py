"""How a Responses request is read, styled and set."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from lukhas.errors import InvalidRequest
from lukhas.openai.call import Call, Dialect
from lukhas.openai.response import RESPONSE_FIELDS, ResponseDialect, read_field, write_field

IMAGE = "data:image/png;base64,AAAA"


def parse(**fields: Any) -> Call:
    return ResponseDialect().parse(orjson.dumps({"model": "m", "input": "hi", **fields}))


def texts(call: Call, point: str) -> list[str]:
    return [text.text for text in call.texts if text.point == point]


def test_dialect_satisfies_its_protocol() -> None:
    """It can stand wherever a dialect is asked for."""
    dialect: Dialect = ResponseDialect()
    assert dialect.name == "responses"


def test_parse_reads_what_governance_needs() -> None:
    """The extension goes, everything else stays as it came."""
    call = parse(stream=True, user="u", safety_identifier="s", lukhas={"session": "x"}, background=True, own=[1])
    assert (call.dialect, call.upstream_path, call.model, call.stream, call.choices) == (
        "responses",
        "/responses",
        "m",
        True,
        1,
    )
    assert (call.end_user, call.extension.session) == ("s", "x")
    assert call.body == {
        "model": "m",
        "input": "hi",
        "stream": True,
        "user": "u",
        "safety_identifier": "s",
        "background": True,
        "own": [1],
    }


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        pytest.param({"model": None}, "model", id="no-model"),
        pytest.param({"model": " "}, "model", id="blank-model"),
        pytest.param({"model": 7}, "model", id="number-model"),
        pytest.param({"model": "m" * 257}, "model", id="long-model"),
        pytest.param({"input": {}}, "input", id="object-input"),
        pytest.param({"input": ["text"]}, "input[0]", id="text-item"),
        pytest.param({"input": [{"role": 7}]}, "input[0].role", id="number-role"),
        pytest.param({"input": [{}, {"type": []}]}, "input[1].type", id="list-type"),
        pytest.param({"stream": "yes"}, "stream", id="text-stream"),
        pytest.param({"background": 1}, "background", id="number-background"),
        pytest.param({"store": "no"}, "store", id="text-store"),
        pytest.param({"instructions": ["a"]}, "instructions", id="list-instructions"),
        pytest.param({"user": 7}, "user", id="number-user"),
        pytest.param({"lukhas": []}, "lukhas", id="list-extension"),
    ],
)
def test_parse_wrong_field_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """What governance cannot read it refuses, and says where."""
    with pytest.raises(InvalidRequest) as refused:
        parse(**fields)
    assert refused.value.param == param


def test_parse_prompt_needs_neither_model_nor_input() -> None:
    """A stored prompt names its own model."""
    call = ResponseDialect().parse(b'{"prompt": {"id": "pmpt_1", "variables": {"id": "v"}}}')
    assert (call.model, [one.kind for one in call.objects], texts(call, "input")) == ("", ["prompt"], ["v"])


@pytest.mark.parametrize(
    ("item", "point", "found"),
    [
        pytest.param({"role": "user", "content": "t"}, "input", ["t"], id="user"),
        pytest.param({"role": "assistant", "content": "t"}, "input", ["t"], id="assistant"),
        pytest.param({"role": "system", "content": "t"}, "instruction", ["t"], id="system"),
        pytest.param(
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "t"}]},
            "instruction",
            ["t"],
            id="developer",
        ),
        pytest.param({"role": "tool", "content": "t"}, "tool_result", ["t"], id="tool-role"),
        pytest.param(
            {"type": "function_call_output", "call_id": "c", "output": "t"}, "tool_result", ["t"], id="function-output"
        ),
        pytest.param(
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "t"}]},
            "tool_result",
            ["t"],
            id="function-output-parts",
        ),
        pytest.param({"type": "custom_tool_call_output", "output": "t"}, "tool_result", ["t"], id="custom-output"),
        pytest.param({"type": "local_shell_call_output", "output": "t"}, "tool_result", ["t"], id="local-shell"),
        pytest.param(
            {"type": "shell_call_output", "output": [{"stdout": "t", "stderr": "u"}]},
            "tool_result",
            ["t", "u"],
            id="shell",
        ),
        pytest.param({"type": "apply_patch_call_output", "output": "t"}, "tool_result", ["t"], id="patch"),
        pytest.param(
            {"type": "computer_call_output", "acknowledged_safety_checks": [{"id": "s", "message": "t"}]},
            "tool_result",
            ["t"],
            id="computer",
        ),
        pytest.param({"type": "program_output", "result": "t"}, "tool_result", ["t"], id="program"),
        pytest.param({"type": "unheard_of_output", "text": "t"}, "tool_result", ["t"], id="unknown-output"),
        pytest.param({"type": "mcp_call", "arguments": "a", "output": "t"}, "tool_result", ["a", "t"], id="mcp"),
        pytest.param({"type": "mcp_approval_response", "reason": "t"}, "tool_result", ["t"], id="mcp-approval"),
        pytest.param(
            {"type": "tool_search_output", "tools": [{"type": "function", "name": "n", "description": "t"}]},
            "tool_result",
            ["n", "t"],
            id="tool-search",
        ),
        pytest.param({"type": "function_call", "name": "n", "arguments": "t"}, "input", ["n", "t"], id="arguments"),
        pytest.param(
            {"type": "reasoning", "summary": [{"text": "s"}], "content": [{"text": "t"}], "encrypted_content": "x y"},
            "input",
            ["s", "t"],
            id="reasoning",
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "t"}]}, "input", ["t"], id="refusal"
        ),
        pytest.param(
            {"role": "assistant", "content": [{"type": "output_text", "text": "t", "annotations": [{"title": "u"}]}]},
            "input",
            ["t", "u"],
            id="annotation",
        ),
        pytest.param({"type": "file_search_call", "results": [{"text": "t"}]}, "tool_result", ["t"], id="results"),
        pytest.param(
            {"type": "code_interpreter_call", "code": "c", "outputs": [{"type": "logs", "logs": "t"}]},
            "tool_result",
            ["t"],
            id="logs",
        ),
        pytest.param(
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "custom", "description": "t"}]},
            "instruction",
            ["t"],
            id="additional-tools",
        ),
        pytest.param({"type": "unheard_of", "deep": {"er": [["t"]]}}, "input", ["t"], id="unknown"),
        pytest.param({"type": "tool_search_call", "arguments": {"id": "t"}}, "input", ["t"], id="free-names"),
        pytest.param({"type": "message", "role": "user", "id": "no id at all"}, "input", ["no id at all"], id="odd-id"),
    ],
)
def test_parse_item_text_has_its_point(item: dict[str, Any], point: str, found: list[str]) -> None:
    """Each string of an item is moderated, at the point where it comes in."""
    call = parse(input=[item])
    assert texts(call, point) == found


def test_parse_parts_of_one_item_share_a_group() -> None:
    """What stands in one message is also read as one text; another message is another group."""
    parts = [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]
    call = parse(input=[{"role": "user", "content": parts}, {"role": "user", "content": "c"}])
    groups = [text.group for text in call.texts]
    assert groups[0] == groups[1] != groups[2]


def test_parse_paths_lead_to_their_texts() -> None:
    """Every path, followed from the body, ends at the string that was found there."""
    call = parse(
        input=[{"role": "user", "content": [{"type": "input_text", "text": "a"}]}],
        tools=[{"type": "function", "name": "n", "parameters": {"properties": {"type": {"description": "d"}}}}],
        metadata={"k": "v"},
        unheard={"of": ["x"]},
    )
    assert {"a", "n", "d", "v", "x"} == {text.text for text in call.texts}
    for text in call.texts:
        value: Any = call.body
        for step in text.path:
            value = value[step]
        assert value == text.text


def test_parse_instructions_are_told_from_input() -> None:
    """Instructions, tools and schemas are one point, metadata, variables and unknown fields the other."""
    call = parse(
        instructions="i",
        tools=[{"type": "function", "name": "n", "description": "d"}],
        tool_choice={"type": "function", "name": "c"},
        text={"format": {"type": "json_schema", "name": "f", "schema": {"description": "s"}}},
        metadata={"type": "m"},
        prompt={"id": "p", "variables": {"v": "w"}},
        unheard_of="u",
    )
    assert set(texts(call, "instruction")) == {"i", "n", "d", "c", "f", "s"}
    assert set(texts(call, "input")) == {"hi", "m", "w", "u"}


def test_parse_credentials_of_a_tool_server_are_no_text() -> None:
    """A key for an MCP server is not for the model, and a rule against keys must not refuse it."""
    tool = {"type": "mcp", "server_label": "s", "authorization": "key one", "headers": {"X": "key two"}}
    assert texts(parse(tools=[tool]), "instruction") == ["s"]


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        pytest.param({"type": "input_image", "image_url": IMAGE}, "image", id="image"),
        pytest.param({"type": "input_image", "image_url": "https://a/b.png"}, "image", id="image-address"),
        pytest.param({"type": "input_image", "file_id": "file_1"}, "image", id="image-file"),
        pytest.param({"type": "input_file", "file_data": "AAAA", "filename": "a"}, "file", id="file"),
        pytest.param({"type": "input_file", "file_id": "file_1"}, "file", id="file-id"),
        pytest.param({"type": "input_file", "file_url": "https://a/b"}, "file", id="file-address"),
        pytest.param({"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}, "audio", id="audio"),
    ],
)
@pytest.mark.parametrize("place", ["message", "tool-result"])
def test_parse_media_is_noted(part: dict[str, Any], kind: str, place: str) -> None:
    """What no text moderator can read is named, and its data is no text."""
    item = (
        {"role": "user", "content": [part]}
        if place == "message"
        else {"type": "function_call_output", "output": [part]}
    )
    call = parse(input=[item])
    assert [media.kind for media in call.media] == [kind]
    assert not [text for text in call.texts if "base64" in text.text or text.text.startswith("AA")]


def test_parse_screenshot_is_an_image() -> None:
    """What a computer tool brings back is a picture, however it is named."""
    for output in ({"image_url": IMAGE}, {"file_id": "file_1"}):
        call = parse(input=[{"type": "computer_call_output", "output": {"type": "computer_screenshot", **output}}])
        assert [media.kind for media in call.media] == ["image"]


def test_parse_objects_are_named() -> None:
    """Every upstream object that a request names by id is found, so that another tenant's can be refused."""
    call = parse(
        previous_response_id="resp_1",
        conversation={"id": "conv_1"},
        prompt={"id": "pmpt_1"},
        input=[
            {"type": "item_reference", "id": "msg_1"},
            {"id": "msg_2"},
            {"role": "user", "content": [{"type": "input_file", "file_id": "file_1"}]},
            {"role": "assistant", "content": [{"type": "output_text", "annotations": [{"file_id": "file_cited"}]}]},
        ],
        tools=[
            {"type": "file_search", "vector_store_ids": ["vs_1", "vs_2"]},
            {"type": "code_interpreter", "container": "cntr_1"},
            {"type": "code_interpreter", "container": {"type": "auto", "file_ids": ["file_2"]}},
            {"type": "shell", "environment": {"type": "container_reference", "container_id": "cntr_2"}},
        ],
    )
    assert {(one.kind, one.id) for one in call.objects} == {
        ("response", "resp_1"),
        ("conversation", "conv_1"),
        ("prompt", "pmpt_1"),
        ("item", "msg_1"),
        ("item", "msg_2"),
        ("file", "file_1"),
        ("file", "file_2"),
        ("vector_store", "vs_1"),
        ("vector_store", "vs_2"),
        ("container", "cntr_1"),
        ("container", "cntr_2"),
    }
    assert parse(conversation="conv_2").objects[0].id == "conv_2"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        pytest.param("hi", [{"role": "system", "content": "P"}, {"role": "user", "content": ">hi"}], id="text"),
        pytest.param(None, [{"role": "system", "content": "P"}], id="no-input"),
        pytest.param(
            [{"role": "developer", "content": "d"}, {"role": "user", "content": "hi"}],
            [
                {"role": "developer", "content": "d"},
                {"role": "developer", "content": "P"},
                {"role": "user", "content": ">hi"},
            ],
            id="after-the-callers-own",
        ),
        pytest.param(
            [
                {"role": "user", "content": "first"},
                {"role": "user", "content": [{"type": "input_image"}, {"type": "input_text", "text": "hi"}]},
                {"type": "function_call_output", "output": "r"},
            ],
            [
                {"role": "system", "content": "P"},
                {"role": "user", "content": "first"},
                {"role": "user", "content": [{"type": "input_image"}, {"type": "input_text", "text": ">hi"}]},
                {"type": "function_call_output", "output": "r"},
            ],
            id="last-user-text-part",
        ),
        pytest.param(
            [{"type": "function_call_output", "output": "r"}],
            [{"role": "system", "content": "P"}, {"type": "function_call_output", "output": "r"}],
            id="no-user-text",
        ),
    ],
)
def test_add_style_goes_in_without_changing_the_body(given: Any, wanted: Any) -> None:
    """The preamble follows the caller's own instructions, the prefix stands before the last text of the user."""
    body = {"model": "m", "input": given, "instructions": "mine"}
    before = copy.deepcopy(body)
    assert ResponseDialect().add_style(body, preamble="P", prefix=">", stop=["x"]) == {"input": wanted}
    assert body == before


def test_add_style_of_nothing_changes_nothing() -> None:
    """An empty style, or one with stop sequences alone, which this dialect does not know, leaves the request alone."""
    dialect = ResponseDialect()
    assert dialect.add_style({"input": "hi"}, preamble="", prefix="", stop=["x"]) == {}
    assert dialect.add_style({"input": "hi"}, preamble="", prefix=">", stop=[]) == {"input": ">hi"}
    assert dialect.add_style({"input": [{"type": "item_reference"}]}, preamble="", prefix=">", stop=[]) == {}


@pytest.mark.parametrize("parameter", RESPONSE_FIELDS)
def test_write_field_is_read_back_and_changes_no_other(parameter: str) -> None:
    """Each parameter's field can be set and read, beside whatever else stands in its object."""
    body = {"reasoning": {"summary": "auto"}, "text": {"format": {"type": "text"}}, "temperature": 1}
    before = copy.deepcopy(body)
    (name,) = RESPONSE_FIELDS[parameter]
    changed = {**body, **write_field(body, name, "value")}
    assert read_field(changed, name) == "value"
    assert body == before
    assert read_field({**changed, **write_field(changed, name, read_field(body, name))}, name) == read_field(body, name)
    if "." in name:
        top = name.partition(".")[0]
        assert {**changed[top], **before[top]} == {**before[top], name.partition(".")[2]: "value"}


@pytest.mark.parametrize("change", [read_field, lambda body, name: write_field(body, name, 1)], ids=["read", "write"])
def test_field_below_no_object_is_refused(change: Callable[[dict[str, Any], str], Any]) -> None:
    """A caller's `reasoning` that is no object cannot be limited, so it is refused."""
    with pytest.raises(InvalidRequest) as refused:
        change({"reasoning": "high"}, "reasoning.effort")
    assert refused.value.param == "reasoning"


def test_read_field_missing_is_none() -> None:
    """What is not there is not sent."""
    assert read_field({}, "reasoning.effort") is None
    assert read_field({"reasoning": None}, "reasoning.effort") is None
