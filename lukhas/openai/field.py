"""Which fields of a request are known, which of them bear tools, and which unknown ones look as if they did.

A field that nobody has listed may carry tools past the allowlist. Providers add fields of their own all the time, most
of them for sampling, so an unknown field is refused only where its name or its shape is that of a tool.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, cast

from lukhas.openai.call import DialectName


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# What other OpenAI-compatible servers take beside OpenAI's own fields; none of them can carry a tool.
_FOREIGN: Final = _names(
    "add_generation_prompt add_special_tokens allowed_token_ids bad_words beam_width cache_salt chat_template"
    " continue_final_message custom_params documents dry_allowed_length dry_base dry_multiplier dry_penalty_last_n"
    " dynatemp_exponent dynatemp_range early_stopping echo enable_thinking epsilon_cutoff eta_cutoff format"
    " frequency_penalty_range grammar guided_backend guided_choice guided_decoding_backend guided_grammar"
    " guided_json guided_regex guided_whitespace_pattern ignore_eos include_reasoning include_stop_str_in_output"
    " json_schema keep_alive length_penalty logits_bias logits_processors"
    " lora_adapter max_new_tokens max_thinking_tokens"
    " min_keep min_length min_p min_tokens mirostat mirostat_eta mirostat_mode mirostat_tau mm_processor_kwargs"
    " models n_keep n_predict n_probs no_repeat_ngram_size num_beams num_ctx num_predict options penalty_alpha"
    " preset priority prompt_logprobs prompt_mode provider random_seed raw reasoning reasoning_format"
    " reasoning_split regex repeat_last_n repeat_penalty repetition_penalty repetition_penalty_range"
    " return_token_ids return_tokens_as_token_ids route safe_prompt safety_settings samplers seed"
    " skip_special_tokens smoothing_factor spaces_between_special_tokens stop_token_ids structured_outputs"
    " temperature_last tfs thinking thinking_budget timings_per_token top_a top_k top_n_sigma transforms"
    " truncate_prompt_tokens typical_p usage use_beam_search xtc_probability xtc_threshold"
)

KNOWN_FIELDS: Final[Mapping[DialectName, frozenset[str]]] = {
    "chat": _FOREIGN
    | _names(
        "audio frequency_penalty logit_bias logprobs max_completion_tokens max_tokens messages metadata modalities"
        " model moderation n prediction presence_penalty prompt_cache_key prompt_cache_options"
        " prompt_cache_retention reasoning_effort response_format safety_identifier seed service_tier stop store"
        " stream stream_options temperature top_logprobs top_p user verbosity"
    ),
    "responses": _FOREIGN
    | _names(
        "access_programs background background_options context_management conversation image include input"
        " instructions max_output_tokens metadata model moderation previous_response_id prompt_cache_key"
        " prompt_cache_options prompt_cache_retention reasoning safety_identifier service_tier store stream"
        " stream_options temperature text top_logprobs top_p truncation user"
    ),
    "embeddings": _names(
        "dimensions encoding_format input input_type model normalize output_dimension output_dtype priority task"
        " truncate truncation truncate_prompt_tokens user"
    ),
    "moderations": frozenset(("input", "model", "user")),
}
"""Fields that carry no tool."""

TOOL_FIELDS: Final[Mapping[DialectName, frozenset[str]]] = {
    "chat": frozenset(
        ("tools", "functions", "tool_choice", "function_call", "parallel_tool_calls", "web_search_options")
    ),
    "responses": frozenset(("tools", "tool_choice", "parallel_tool_calls", "max_tool_calls", "prompt")),
    "embeddings": frozenset(),
    "moderations": frozenset(),
}
"""Fields by which the dialect itself offers tools or steers them. A stored `prompt` may bring tools of its own."""

_HOSTED: Final = _names(
    "agents browse connectors connector_ids data_sources deep_search enable_citations"
    " enable_search enable_web_search"
    " extensions file_search googleSearch google_search grounding knowledge_base knowledge_bases mcp mcp_servers"
    " online plugins retrieval search search_after_date_filter search_before_date_filter search_context_size"
    " search_domain_filter search_mode search_options search_parameters search_recency_filter search_settings"
    " compound_custom code_execution server_tools skills"
    " tool_config tool_resources use_search venice_parameters web web_search"
)
HOSTED_FIELDS: Final[Mapping[DialectName, frozenset[str]]] = {
    "chat": _HOSTED,
    "responses": _HOSTED | {"prompt", "web_search_options", "functions"},
    "embeddings": frozenset(),
    "moderations": frozenset(),
}
"""Fields by which some provider runs tools of its own; each counts as one hosted tool, named after the field."""

HOSTED_TYPES: Final = re.compile(
    r"(?:web_?search|file_?search|tool_?search|browser|code_?(?:interpreter|execution)|computer|mcp|image_generation"
    r"|(?:local_?|function_?)?shell|bash|text_editor|apply_patch|google_?search|bing_|openapi|azure_|sharepoint"
    r"|fabric_|connected_agent|memory|namespace|url_context|custom_tool|retrieval)\w*"
)
"""What the type of a tool that a provider runs looks like."""

# What names a tool wherever it stands in a field's name, and what does so only at the start of a word.
_NAME: Final = re.compile(
    r"tool|function|plugin|connector|mcp|search|brows|retriev|interpreter|computer|data_?source|knowledge|sandbox"
    r"|webhook|(?<![a-z])(?:agent|action|skill|exec|shell|command|crawl|fetch|scrap|extension|ground|workflow|rag(?![a-z])"
    r"|web(?![a-z])|capabilit|integration|app(?:s)?(?![a-z]))"
)
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_BEARING_MEMBERS: Final = frozenset(("tools", "functions", "mcp_servers", "plugins", "connectors"))
# Items of the Responses API that bear tools, which are judged one by one.
_TOOL_ITEMS: Final = ("additional_tools", "tool_search_output", "mcp_list_tools")
# What some gateways behind us unpack into the request itself.
_EXTRA: Final = "extra_body"
_ENTRY_MEMBERS: Final = _names(
    "allowed_callers cache_control custom defer_loading description format function input_examples input_schema name"
    " namespace output_schema parameters strict title type"
)
_SCHEMA_MEMBERS: Final = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema")
_MESSAGE_MEMBERS: Final = _names(
    "annotations audio cache_control content function_call id name partial prefix reasoning reasoning_content"
    " reasoning_details reasoning_text refusal role thinking tool_call_id tool_calls weight"
)


def find_unlisted_tool_field(dialect: DialectName, body: Mapping[str, Any]) -> str | None:
    """Return the first field of a request that looks tool-bearing and is listed nowhere; None where there is none.

    A field is looked at by its name, then by its shape: somewhere inside stands a member called `tools`, an object
    whose type is that of a tool, or one with a name and a schema. Fields without a value pass, and so does everything
    else that is unknown. In chat, messages are looked through for members that bear tools too.

    Returns:
        The field's name, for a message's member with its place, such as `messages[0].tools`.
    """
    known, steering, hosted = KNOWN_FIELDS[dialect], TOOL_FIELDS[dialect], HOSTED_FIELDS[dialect]
    for name, value in body.items():
        if name in known or name in steering or name in hosted or value is None:
            continue
        if looks_tool_bearing(name) or bears_tool(value):
            return name
        if name == _EXTRA and _names_tool(value):
            return name
    if dialect not in ("chat", "responses"):
        return None
    given: Any = body.get("messages" if dialect == "chat" else "input")
    if not isinstance(given, list):
        return None
    entries = cast("list[Any]", given)
    return _find_in_messages(entries) if dialect == "chat" else _find_in_items(entries)


def _names_tool(value: Any) -> bool:
    """Say whether a member somewhere in a value has a name that brings tools where it stands at the top."""
    waiting: list[Any] = [value]
    while waiting:
        one: Any = waiting.pop()
        if isinstance(one, list):
            waiting += cast("list[Any]", one)
        elif isinstance(one, dict):
            members = cast("dict[str, Any]", one)
            if any(name in _HOSTED or looks_tool_bearing(name) for name in members):
                return True
            waiting += members.values()
    return False


def find_odd_member(entry: Mapping[str, Any]) -> str | None:
    """Return a member of a function's definition that may be another tool, or another spelling of a known member.

    Servers that match names without regard to case read the later of `type` and `Type`.
    """
    for name, value in entry.items():
        if name in _ENTRY_MEMBERS or value is None:
            continue
        if name.casefold() in _ENTRY_MEMBERS or looks_tool_bearing(name) or bears_tool(value):
            return name
    return None


def looks_tool_bearing(name: str) -> bool:
    """Say whether a field's name is that of something that brings tools.

    Servers that match names without regard to case read `TOOLS` and even a long s as `tools`, so all are folded.
    """
    return _NAME.search(_CAMEL.sub("_", name).casefold()) is not None


def bears_tool(value: Any) -> bool:
    """Say whether a tool's definition stands somewhere in a JSON value."""
    if not isinstance(value, (dict, list)):
        return False
    waiting: list[Any] = [value]
    while waiting:
        one: Any = waiting.pop()
        if isinstance(one, list):
            waiting += cast("list[Any]", one)
        elif isinstance(one, dict):
            members = cast("dict[str, Any]", one)
            if _is_tool(members):
                return True
            waiting += members.values()
    return False


def _is_tool(members: dict[str, Any]) -> bool:
    if any(name.casefold() in _BEARING_MEMBERS for name in members):
        return True
    kind = members.get("type")
    if isinstance(kind, str) and (kind in ("function", "custom") or HOSTED_TYPES.fullmatch(kind)):
        return True
    return isinstance(members.get("name"), str) and any(isinstance(members.get(name), dict) for name in _SCHEMA_MEMBERS)


def _find_in_items(items: list[Any]) -> str | None:
    for position, item in enumerate(items):
        if not isinstance(item, dict):
            continue
        members = cast("dict[str, Any]", item)
        for name, value in members.items():
            if name.casefold() not in _BEARING_MEMBERS or value is None:
                continue
            if name != "tools" or members.get("type") not in _TOOL_ITEMS:
                return f"input[{position}].{name}"
    return None


def _find_in_messages(messages: list[Any]) -> str | None:
    for position, message in enumerate(messages):
        if not isinstance(message, dict):
            continue
        for name, value in cast("dict[str, Any]", message).items():
            if name not in _MESSAGE_MEMBERS and value is not None and (looks_tool_bearing(name) or bears_tool(value)):
                return f"messages[{position}].{name}"
    return None
