"""An operator's own tools in YAML, read strictly: every mistake is listed with its line and column.

tools:
  send_invoice:
    class: billing
    risk: high
    description: Send an invoice to a customer.
    parameters: {type: object, properties: {customer: {type: string}}, required: [customer]}
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import yaml

from lukhas.errors import ConfigurationError, InvalidRequest
from lukhas.openai.argument import check_schema

MAX_BYTES: Final = 1_000_000
MAX_DEPTH: Final = 40
MAX_TOOLS: Final = 1_000
MAX_MISTAKES: Final = 100
UNKNOWN_CLASS: Final = "unknown"
RISKS: Final = ("low", "medium", "high")

_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What OpenAI takes as a function's name.
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_CLASS: Final = re.compile(r"[a-z][a-z0-9_]{0,63}\Z")
_FIELDS: Final = ("class", "risk", "description", "parameters")
# Source: https://yaml.org/spec/1.2.2/#103-core-schema, where `on` and `no` are words.
_INTEGER: Final = re.compile(r"[-+]?[0-9]{1,300}\Z", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z", re.ASCII)
_CONSTANTS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("null", "Null", "NULL", "~", ""), None),
}


class Entry(NamedTuple):
    """One tool as the file has it; `is_binding` where it says what the tool's arguments must be."""

    name: str
    tool_class: str
    risk: str
    description: str
    parameters: dict[str, Any]
    is_binding: bool


def read_entries(path: Path, taken: Collection[str]) -> list[Entry]:
    """Read a registry file.

    Args:
        path: the file.
        taken: names that are built in.

    Raises:
        ConfigurationError: it cannot be read, or has mistakes.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except OSError as wrong:
        raise ConfigurationError(
            f"The tool registry {path} cannot be read: {wrong.strerror or type(wrong).__name__}.", param="LUKHAS_TOOLS"
        ) from wrong
    except UnicodeDecodeError:
        raise ConfigurationError(f"The tool registry {path} is not UTF-8 text.", param="LUKHAS_TOOLS") from None
    reader = _Reader(taken)
    entries = reader.read(text, len(raw))
    if reader.mistakes:
        listed = "\n  ".join(reader.mistakes[:MAX_MISTAKES])
        count = len(reader.mistakes)
        raise ConfigurationError(
            f"The tool registry {path} has {count} mistake{'s' if count > 1 else ''}:\n  {listed}", param="LUKHAS_TOOLS"
        )
    return entries


class _Reader:
    def __init__(self, taken: Collection[str]) -> None:
        self.mistakes: list[str] = []
        self._taken = taken

    def read(self, text: str, size_bytes: int) -> list[Entry]:
        """Return the file's tools; what is wrong is in `mistakes`."""
        if size_bytes > MAX_BYTES:
            self.mistakes.append(f"line 1, column 1: the file is larger than {MAX_BYTES:,} bytes")
            return []
        try:
            if not self._is_plain(text):
                return []
            root: Any = yaml.compose(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as wrong:
            self._add(wrong.problem_mark or wrong.context_mark, f"not valid YAML: {wrong.problem or wrong.context}")
            return []
        except (yaml.YAMLError, ValueError):
            self.mistakes.append("line 1, column 1: the file is malformed")
            return []
        found = self._table(root, "the file", ("tools",))
        if "tools" not in found:
            if not self.mistakes:
                self._add(getattr(root, "start_mark", None), "'tools' is missing")
            return []
        # Nothing but comments below it, as a proposal begins.
        is_empty = isinstance(found["tools"], yaml.ScalarNode) and self._value(found["tools"], "tools") is None
        tools = {} if is_empty else self._table(found["tools"], "tools", None)
        if len(tools) > MAX_TOOLS:
            self._add(found["tools"].start_mark, f"more than {MAX_TOOLS} tools")
            return []
        return [entry for name, node in tools.items() if (entry := self._read_tool(name, node)) is not None]

    def _is_plain(self, text: str) -> bool:
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
                self._add(event.start_mark, "anchors and aliases (& and *) are not allowed")
                return False
            if getattr(event, "tag", None):
                self._add(event.start_mark, "tags (!) are not allowed")
                return False
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            if depth > MAX_DEPTH:
                self._add(event.start_mark, f"nested deeper than {MAX_DEPTH} levels")
                return False
        return True

    def _read_tool(self, name: str, node: Any) -> Entry | None:
        place = f"tools.{name[:64]}"
        before = len(self.mistakes)
        if not _NAME.match(name):
            self._add(node.start_mark, f"{place}: a name is 1 to 64 letters, digits, '_' and '-'")
        if name in self._taken:
            self._add(node.start_mark, f"{place}: this tool is built in")
        fields = self._table(node, place, _FIELDS)
        if len(self.mistakes) > before:
            return None
        tool_class = self._word(fields, "class", place, node, "")
        if tool_class and (not _CLASS.match(tool_class) or tool_class == UNKNOWN_CLASS):
            self._add(
                fields["class"].start_mark,
                f"{place}.class: a class is a word of small letters, digits and '_', other than '{UNKNOWN_CLASS}'",
            )
        risk = self._word(fields, "risk", place, node, "medium")
        if risk not in RISKS:
            self._add(fields["risk"].start_mark, f"{place}.risk: one of {', '.join(RISKS)}")
        description = self._word(fields, "description", place, node, " ").strip()
        parameters: Any = self._value(fields["parameters"], place) if "parameters" in fields else {"type": "object"}
        if "parameters" in fields:
            try:
                check_schema(parameters)
            except InvalidRequest as wrong:
                self._add(fields["parameters"].start_mark, f"{place}.parameters: {wrong.message}")
        return (
            None
            if len(self.mistakes) > before
            else Entry(name, tool_class, risk, description, parameters, "parameters" in fields)
        )

    def _word(self, fields: dict[str, Any], name: str, place: str, node: Any, default: str) -> str:
        if name not in fields:
            if not default:
                self._add(node.start_mark, f"{place}: '{name}' is missing")
            return default
        value = self._value(fields[name], place)
        if not isinstance(value, str) or not value.strip():
            self._add(fields[name].start_mark, f"{place}.{name}: must be a text")
            return default
        return value

    def _table(self, node: Any, place: str, known: Collection[str] | None) -> dict[str, Any]:
        """Return a mapping's nodes by key."""
        if not isinstance(node, yaml.MappingNode):
            self._add(getattr(node, "start_mark", None), f"{place}: must be a table (key: value)")
            return {}
        found: dict[str, Any] = {}
        for key, value in cast("list[tuple[Any, Any]]", node.value):
            name: Any = key.value
            if not isinstance(key, yaml.ScalarNode):
                self._add(key.start_mark, f"{place}: a key must be a plain word")
            elif name in found:
                self._add(key.start_mark, f"{place}: the key '{name[:64]}' stands twice")
            elif known is not None and name not in known:
                self._add(key.start_mark, f"{place}: unknown key '{name[:64]}'; it takes {', '.join(known)}")
            else:
                found[name] = value
        return found

    def _value(self, node: Any, place: str) -> Any:
        """Return a node's value as JSON would have it."""
        if isinstance(node, yaml.MappingNode):
            return {name: self._value(part, place) for name, part in self._table(node, place, None).items()}
        if isinstance(node, yaml.SequenceNode):
            return [self._value(part, place) for part in cast("list[Any]", node.value)]
        text: str = node.value
        if node.style:
            return text
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if _INTEGER.match(text):
            return int(text)
        return float(text) if _FLOAT.match(text) else text

    def _add(self, mark: Any, message: str) -> None:
        place = "line 1, column 1" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}"
        self.mistakes.append(f"{place}: {message}")
