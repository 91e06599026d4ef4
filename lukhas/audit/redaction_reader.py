"""Reads the operator's redaction file, which extends what is redacted.

    keys: {employee_no: personal}
    patterns: [{name: ticket, pattern: 'TCK-[0-9]{6}', needle: TCK-}]
    keep: [phone, mailing_email]

Every mistake is found in one reading, with its line and column.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final, cast

from lukhas.audit.key_name import bare_name
from lukhas.audit.operator_pattern import OperatorPattern, WrongPattern
from lukhas.audit.redaction import Redactor
from lukhas.errors import ConfigurationError

_MAX_BYTES: Final = 1_000_000
_MAX_ENTRIES: Final = 1_000
_MAX_CHARS: Final = 20_000
_TOP: Final = ("keys", "patterns", "keep")
_PATTERN_KEYS: Final = ("name", "pattern", "needle")
_KIND: Final = re.compile(r"[a-z][a-z0-9_-]{0,31}\Z")


def load_redactor(path: Path | None) -> Redactor:
    """Return the redactor that a file makes; without a file, the built-in rules alone.

    Raises:
        ConfigurationError: the file cannot be read, or has mistakes; all are listed with line and column.
    """
    if path is None:
        return Redactor()
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as failure:
        raise ConfigurationError(
            f"The redaction file cannot be read: {path}: {failure.strerror or type(failure).__name__}.",
            hint="Correct LUKHAS_REDACTION, or make the file readable.",
            param="redaction",
        ) from failure
    if len(content) > _MAX_BYTES:
        raise ConfigurationError(f"The redaction file ({path}) is larger than {_MAX_BYTES:,} bytes.", param="redaction")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as wrong:
        raise ConfigurationError(
            f"The redaction file ({path}) is not UTF-8 at byte {wrong.start}.", param="redaction"
        ) from wrong
    return parse_redactor(text, str(path))


def parse_redactor(text: str, name: str) -> Redactor:
    """Make a redactor of a file's text.

    Raises:
        ConfigurationError: it has mistakes; all are listed.
    """
    reader = _Reader()
    reader.read(text)
    if reader.mistakes:
        listed = "\n".join(f"  line {line}, column {column}: {what}" for line, column, what in sorted(reader.mistakes))
        count = f"{len(reader.mistakes)} mistake{'s' if len(reader.mistakes) > 1 else ''}"
        raise ConfigurationError(
            f"The redaction file ({name}) has {count}:\n{listed}",
            hint="docs/reference/redaction.md has the form.",
            param="redaction",
        )
    return Redactor(reader.keys, reader.patterns, reader.keep)


class _Reader:
    """Reads one text; what is wrong is in `mistakes` as line, column and message."""

    def __init__(self) -> None:
        self.mistakes: list[tuple[int, int, str]] = []
        self.keys: dict[str, str] = {}
        self.patterns: list[OperatorPattern] = []
        self.keep: list[str] = []
        self._seen: set[int] = set()

    def read(self, text: str) -> None:
        import yaml

        try:
            # Scalars stay texts, so that no name is read as a number or a switch.
            root: Any = yaml.compose(text.removeprefix("\ufeff"), Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        except yaml.MarkedYAMLError as wrong:
            mark: Any = wrong.problem_mark or wrong.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            self.mistakes.append((line, column, f"not valid YAML: {wrong.problem or wrong.context}"))
            return
        except (yaml.YAMLError, RecursionError, ValueError):
            self.mistakes.append((1, 1, "not valid YAML: a character that may not stand in it"))
            return
        if root is None:
            return
        entries = self._mapping(root, "", _TOP)
        if "keys" in entries:
            self._read_keys(entries["keys"])
        for place, node in enumerate(self._list(entries["patterns"], "patterns") if "patterns" in entries else ()):
            self._read_pattern(node, f"patterns[{place}]")
        for place, node in enumerate(self._list(entries["keep"], "keep") if "keep" in entries else ()):
            kept = self._text(node, f"keep[{place}]")
            if kept and not bare_name(kept):
                self._wrong(node, f"keep[{place}]", "must have a letter or a digit")
            elif kept:
                self.keep.append(kept)

    def _read_keys(self, node: Any) -> None:
        first: dict[str, str] = {}
        for name, value in self._mapping(node, "keys").items():
            path = f"keys.{name[:64]}"
            kind = self._text(value, path)
            bare = bare_name(name)
            if not bare:
                self._wrong(value, path, "the name must have a letter or a digit")
            elif bare in first:
                self._wrong(value, path, f"is the same name as '{first[bare][:64]}': case and separators do not count")
            elif kind and not _KIND.match(kind):
                self._wrong(value, path, "a kind is a lower-case word of at most 32 characters, such as personal")
            elif kind:
                first[bare] = name
                self.keys[name] = kind

    def _read_pattern(self, node: Any, path: str) -> None:
        entries = self._mapping(node, path, _PATTERN_KEYS)
        found: dict[str, str] = {}
        for key in _PATTERN_KEYS:
            if key in entries:
                found[key] = self._text(entries[key], f"{path}.{key}")
            elif key != "needle":
                self._wrong(node, path, f"`{key}` is missing")
        name, source = found.get("name"), found.get("pattern")
        if name and not _KIND.match(name):
            self._wrong(entries["name"], f"{path}.name", "must be a lower-case word of at most 32 characters")
        elif name and any(one.name == name for one in self.patterns):
            self._wrong(entries["name"], f"{path}.name", "stands twice in this file")
        elif name and source:
            try:
                self.patterns.append(OperatorPattern(name, source, found.get("needle", "")))
            except WrongPattern as wrong:
                self._wrong(entries["pattern"], f"{path}.pattern", str(wrong))

    def _wrong(self, node: Any, path: str, message: str) -> None:
        mark = node.start_mark
        self.mistakes.append((mark.line + 1, mark.column + 1, f"{path}: {message}" if path else message))

    def _fresh(self, node: Any, path: str) -> bool:
        # The composer gives an alias the very node that it stands for.
        if id(node) in self._seen:
            self._wrong(node, path, "aliases (& and *) are not allowed")
            return False
        self._seen.add(id(node))
        return True

    def _mapping(self, node: Any, path: str, allowed: tuple[str, ...] | None = None) -> dict[str, Any]:
        if node.id != "mapping":
            self._wrong(node, path, "must be a mapping of keys to values")
            return {}
        if not self._fresh(node, path):
            return {}
        found: dict[str, Any] = {}
        for key, value in cast("list[tuple[Any, Any]]", node.value)[:_MAX_ENTRIES]:
            if key.id != "scalar":
                self._wrong(key, path, "a key must be a plain word")
            elif key.value in found:
                self._wrong(key, path, f"the key '{key.value[:64]}' stands twice")
            elif allowed is not None and key.value not in allowed:
                self._wrong(key, path, f"unknown key '{key.value[:64]}'; known: {', '.join(allowed)}")
            else:
                found[key.value] = value
        if len(node.value) > _MAX_ENTRIES:
            self._wrong(node, path, f"has more than {_MAX_ENTRIES:,} entries")
        return found

    def _list(self, node: Any, path: str) -> list[Any]:
        if node.id != "sequence" or len(node.value) > _MAX_ENTRIES:
            self._wrong(node, path, f"must be a list of at most {_MAX_ENTRIES:,} entries")
            return []
        return cast("list[Any]", node.value) if self._fresh(node, path) else []

    def _text(self, node: Any, path: str) -> str:
        if node.id != "scalar" or not 1 <= len(node.value) <= _MAX_CHARS:
            self._wrong(node, path, f"must be a text of 1 to {_MAX_CHARS:,} characters")
            return ""
        return str(node.value) if self._fresh(node, path) else ""
