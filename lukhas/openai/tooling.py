"""The registry of tools: what each is for, what it takes, which class it is of and how much harm it may do.

The four canonical tools are always there; an operator's file (`LUKHAS_TOOLS`) adds more. A class is what a policy's
allowlist speaks of, so a registered tool is allowed exactly where its class, or its name, is on the list.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from lukhas.openai.argument import join_schemas
from lukhas.openai.registry_file import read_entries

Risk = Literal["low", "medium", "high"]


class Tool(msgspec.Struct, frozen=True):
    """One registered tool.

    Attributes:
        name: the function's name, exactly as a model calls it.
        description: what it does, for the model.
        parameters: JSON Schema of its arguments.
        tool_class: the class that an allowlist admits it by.
        risk: how much harm a wrong call may do.
        is_binding: whether a caller's own schema for this name counts only within `parameters`.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    tool_class: str
    risk: Risk = "medium"
    is_binding: bool = False

    def to_schema(self) -> dict[str, Any]:
        """Return the tool as a chat request lists it; a copy, every time."""
        function = {"name": self.name, "description": self.description, "parameters": copy.deepcopy(self.parameters)}
        return {"type": "function", "function": function}


class Registry:
    """The tools that are known by name.

    Args:
        tools: in order; names are distinct.
    """

    def __init__(self, tools: Sequence[Tool]) -> None:
        self._tools: Mapping[str, Tool] = {tool.name: tool for tool in tools}
        self._schemas = {tool.name: copy.deepcopy(tool.parameters) for tool in tools}
        self._binding = {tool.name for tool in tools if tool.is_binding}

    @property
    def names(self) -> tuple[str, ...]:
        """Every tool's name, in order."""
        return tuple(self._tools)

    @property
    def classes(self) -> tuple[str, ...]:
        """Every class that some tool is of, in order."""
        return tuple(dict.fromkeys(tool.tool_class for tool in self._tools.values()))

    @property
    def schemas(self) -> Mapping[str, dict[str, Any]]:
        """JSON Schema of each tool's arguments by its name; for reading, since every call is checked by them."""
        return self._schemas

    def bind(self, offered: Mapping[str, dict[str, Any] | None]) -> Mapping[str, dict[str, Any] | None]:
        """Return the schema that each function's arguments are checked by.

        Args:
            offered: the schemas that a request gives for its functions; None for a custom tool.

        Returns:
            Those, and the registry's for what the request does not offer. Where an operator's file says what a tool
            takes, a caller's schema may narrow that and never widen it.
        """
        bound: dict[str, dict[str, Any] | None] = {**self._schemas, **offered}
        for name in self._binding & offered.keys():
            schema = offered[name]
            if schema is not None and schema != self._schemas[name]:
                bound[name] = join_schemas([self._schemas[name], schema], "allOf")
        return bound

    def find(self, name: str) -> Tool | None:
        """Return a tool by its exact name; its parameters are a copy."""
        tool = self._tools.get(name)
        return None if tool is None else msgspec.structs.replace(tool, parameters=copy.deepcopy(tool.parameters))

    def classify(self, name: str) -> str | None:
        """Return the class of a tool's exact name; None where it is not registered."""
        tool = self._tools.get(name)
        return None if tool is None else tool.tool_class

    def build(self, allowlist: Iterable[str]) -> list[dict[str, Any]]:
        """Return the chat schema of each tool that an allowlist of classes and names admits.

        In the allowlist's order, then in the registry's inside a class; each tool once; a name that is not registered
        adds nothing. All are copies.

        Raises:
            TypeError: the allowlist is one text instead of a list of them.
        """
        if isinstance(allowlist, str):
            raise TypeError("an allowlist is a list of classes and names, not a text")
        admitted: dict[str, Tool] = {}
        for entry in allowlist:
            # A name that is also a class's means the class, as in a policy.
            of_class = [tool for tool in self._tools.values() if tool.tool_class == entry]
            single = self._tools.get(entry)
            for tool in of_class or ([] if single is None else [single]):
                admitted[tool.name] = tool
        return [tool.to_schema() for tool in admitted.values()]


def _object(required: Sequence[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


CANONICAL: Final = (
    Tool(
        "retrieve_knowledge",
        "Search the knowledge base for passages that fit.",
        _object(
            ["query"],
            {
                "query": {"type": "string", "description": "What to look for."},
                "k": {"type": "integer", "minimum": 1, "maximum": 20, "description": "How many passages."},
            },
        ),
        "retrieval",
        "low",
    ),
    Tool(
        "open_url",
        "Open a web page and return its text.",
        _object(["url"], {"url": {"type": "string", "description": "The page's address."}}),
        "browser",
        "medium",
    ),
    Tool(
        "schedule_task",
        "Set a task for later.",
        _object(
            ["when", "note"],
            {
                "when": {"type": "string", "description": "When, as an ISO 8601 date and time."},
                "note": {"type": "string", "description": "What is to be done."},
            },
        ),
        "scheduler",
        "medium",
    ),
    Tool(
        "exec_code",
        "Run a program and return what it prints.",
        _object(
            ["language", "source"],
            {
                "language": {"type": "string", "enum": ["python", "javascript", "bash"]},
                "source": {"type": "string", "description": "The program's text."},
            },
        ),
        "code_exec",
        "high",
    ),
)


def load_registry(path: Path | None) -> Registry:
    """Return the canonical tools and those of an operator's file.

    Raises:
        ConfigurationError: the file cannot be read or has mistakes; every one is listed with its place.
    """
    if path is None:
        return Registry(CANONICAL)
    entries = read_entries(path, {tool.name for tool in CANONICAL})
    own = [
        Tool(entry.name, entry.description, entry.parameters, entry.tool_class, _RISKS[entry.risk], entry.is_binding)
        for entry in entries
    ]
    return Registry([*CANONICAL, *own])


_RISKS: Final[Mapping[str, Risk]] = {"low": "low", "medium": "medium", "high": "high"}


@cache
def _canonical() -> Registry:
    return Registry(CANONICAL)


def build_tools_from_allowlist(allowlist: Iterable[str]) -> list[dict[str, Any]]:
    """Return the chat schema of each canonical tool that an allowlist admits; see `Registry.build`."""
    return _canonical().build(allowlist)


def get_all_tools() -> list[dict[str, Any]]:
    """Return the chat schema of every canonical tool, in order; copies."""
    return [tool.to_schema() for tool in CANONICAL]


def get_tool_names() -> list[str]:
    """Return the name of every canonical tool, in order; a new list."""
    return [tool.name for tool in CANONICAL]
