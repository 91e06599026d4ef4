"""Reads moderation rules: the packaged ones, extended and overridden by the operator's file.

The form of a file is in docs/reference/moderation.md. Every mistake is found in one reading, with its place.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

from lukhas.errors import ConfigurationError
from lukhas.moderation.check import CHECKS
from lukhas.moderation.pattern import MAX_HELD_CHARS, WrongPattern, compile_rule
from lukhas.moderation.rule import ACTIONS, POINTS, PRESETS, SEVERITIES, Action, Point, Preset, Rule, Severity
from lukhas.moderation.rule_source import (
    MAX_BYTES,
    Node,
    RuleMistake,
    SourceMistake,
    is_list,
    is_mapping,
    parse_source,
)
from lukhas.moderation.ruleset import CompiledPattern, RuleSet

_ID: Final = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")
_CATEGORY: Final = re.compile(r"[a-z0-9]+(?:[/_-][a-z0-9]+)*\Z")
_MAX_NAME: Final = 64
_MAX_RULES: Final = 2_000
_MAX_LITERALS: Final = 20_000
_MAX_LITERAL_CHARS: Final = 1_000
_MAX_PATTERN_CHARS: Final = 20_000
_DEFAULT: Final = "default"
_PACKAGED: Final = "packaged"
_LOOKED_FOR: Final = ("literals", "pattern", "phrase")
# In a phrase, a space is any short white space, and an apostrophe is straight, curly or left out.
_SPOKEN: Final = {" ": r"(?:[ \t\r\n\u00a0]{1,3})", "'": "['\u2019]?"}
_PHRASE_PART: Final = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[ ']", re.DOTALL)
_TOP: Final = ("version", "categories", "rules")
_RULE_KEYS: Final = (
    *("id", "category", "severity", "literals", "pattern", "phrase", "ignore_case", "check", "longest", "actions"),
    "disabled",
)

Actions = Mapping[Preset, Mapping[Point, Action]]
Defaults = dict[tuple[str, Severity], Actions]
_Name = TypeVar("_Name")
_ACTIONS: Final[Mapping[str, Action]] = {name: name for name in ACTIONS}
_SEVERITIES: Final[Mapping[str, Severity]] = {name: name for name in SEVERITIES}


def read_packaged_rules() -> str:
    """Return the text of the rules that ship with LUKHAS."""
    return resources.files("lukhas.moderation").joinpath("rules.yaml").read_text("utf-8")


def load_rules(path: Path | None = None) -> RuleSet:
    """Load the packaged rules, extended and overridden by an operator's file.

    A rule of the same id replaces the packaged one; `{id: x, disabled: true}` removes it.

    Raises:
        ConfigurationError: the file cannot be read, or has mistakes; all are listed with line and column.
    """
    texts = [(_PACKAGED, read_packaged_rules())]
    if path is not None:
        texts.append((str(path), _read(path)))
    return parse_rules(texts)


def parse_rules(texts: list[tuple[str, str]]) -> RuleSet:
    """Make a rule set of named texts, of which a later one extends and overrides the earlier ones.

    Raises:
        ConfigurationError: with every mistake of the first text that has any.
    """
    defaults: Defaults = {}
    rules: dict[str, Rule] = {}
    patterns: dict[str, CompiledPattern] = {}
    for name, text in texts:
        reader = _Reader(defaults, rules, patterns, is_packaged=name == _PACKAGED and text == read_packaged_rules())
        reader.read(text)
        if reader.mistakes:
            listed = "\n".join(f"  {mistake}" for mistake in sorted(reader.mistakes))
            count = f"{len(reader.mistakes)} mistake{'s' if len(reader.mistakes) > 1 else ''}"
            raise ConfigurationError(
                f"The moderation rules ({name}) have {count}:\n{listed}",
                hint="docs/reference/moderation.md has the form; `lukhas moderation rules --rules FILE` checks a file.",
                param="moderation_rules",
            )
    return RuleSet(rules, patterns, tuple(text for _, text in texts))


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as failure:
        reason = failure.strerror or type(failure).__name__
        raise ConfigurationError(
            f"The moderation rules cannot be read: {path}: {reason}.",
            hint="Correct LUKHAS_MODERATION_RULES, or make the file readable.",
            param="moderation_rules",
        ) from failure
    if len(content) > MAX_BYTES:
        raise ConfigurationError(
            f"The moderation rules ({path}) are larger than {MAX_BYTES:,} bytes.", param="moderation_rules"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as failure:
        raise ConfigurationError(
            f"The moderation rules ({path}) are not UTF-8 at byte {failure.start}.", param="moderation_rules"
        ) from failure


class _Reader:
    """Reads one text over what earlier texts left."""

    def __init__(
        self,
        defaults: Defaults,
        rules: dict[str, Rule],
        patterns: dict[str, CompiledPattern],
        *,
        is_packaged: bool,
    ) -> None:
        self.mistakes: list[RuleMistake] = []
        self._is_packaged = is_packaged
        self._defaults = defaults
        self._rules = rules
        self._patterns = patterns
        self._lines: dict[str, int] = {}

    def read(self, text: str) -> None:
        """Read a whole text; what is wrong is in `mistakes`."""
        try:
            root = parse_source(text)
        except SourceMistake as wrong:
            self.mistakes.append(wrong.mistake)
            return
        entries = self._mapping(root, _TOP)
        if entries is None:
            return
        version = entries.get("version")
        if version is None:
            self._wrong(root, "`version: 1` is missing")
        elif isinstance(version.value, bool) or version.value != 1:
            self._wrong(version, "must be 1")
        if "categories" in entries:
            self._read_categories(entries["categories"])
        if "rules" in entries:
            self._read_rules(entries["rules"])

    def _wrong(self, node: Node, message: str) -> None:
        self.mistakes.append(node.mistake(message))

    def _mapping(self, node: Node, allowed: tuple[str, ...] | None = None) -> dict[str, Node] | None:
        entries: object = node.value
        if not is_mapping(entries):
            self._wrong(node, "must be a mapping of keys to values")
            return None
        for key, entry in entries.items():
            if allowed is not None and key not in allowed:
                self._wrong(entry, f"unknown key; known: {', '.join(allowed)}")
        return entries

    def _one_of(self, node: Node, names: Mapping[str, _Name]) -> _Name | None:
        value: object = node.value
        if isinstance(value, str) and value in names:
            return names[value]
        self._wrong(node, f"must be one of {', '.join(names)}")
        return None

    def _read_categories(self, node: Node) -> None:
        for category, entry in (self._mapping(node) or {}).items():
            if not _CATEGORY.match(category) or len(category) > _MAX_NAME:
                self._wrong(entry, "a category is lower-case words joined by '/', '-' or '_', at most 64 characters")
            for severity, actions in (self._mapping(entry, SEVERITIES) or {}).items():
                if severity in _SEVERITIES:
                    self._defaults[category, _SEVERITIES[severity]] = self._read_actions(actions)

    def _read_actions(self, node: Node) -> Actions:
        found: dict[Preset, Mapping[Point, Action]] = {}
        entries = self._mapping(node, PRESETS) or {}
        for preset in PRESETS:
            if preset not in entries:
                continue
            points = self._mapping(entries[preset], POINTS) or {}
            actions: dict[Point, Action] = {}
            for point in POINTS:
                if point in points:
                    action = self._one_of(points[point], _ACTIONS)
                    if action is not None:
                        actions[point] = action
            found[preset] = actions
        return found

    def _read_rules(self, node: Node) -> None:
        items: object = node.value
        if not is_list(items):
            self._wrong(node, "must be a list of rules")
            return
        for item in items:
            self._read_rule(item)
        if len(self._rules) > _MAX_RULES:
            self._wrong(node, f"more than {_MAX_RULES:,} rules in all")

    def _read_rule(self, node: Node) -> None:
        entries = self._mapping(node, _RULE_KEYS)
        if entries is None:
            return
        before = len(self.mistakes)
        rule_id = self._read_id(node, entries)
        if self._flag(entries, "disabled"):
            if rule_id:
                if len(entries) > 2:
                    self._wrong(node, "a disabled rule has no other keys than `id` and `disabled`")
                elif rule_id not in self._rules:
                    self._wrong(entries["id"], "there is no rule of this id to disable")
                self._rules.pop(rule_id, None)
                self._patterns.pop(rule_id, None)
            return
        category = self._text(node, entries, "category", _MAX_NAME)
        if category and not _CATEGORY.match(category):
            self._wrong(entries["category"], "must be lower-case words joined by '/', '-' or '_'")
        severity = self._one_of(entries["severity"], _SEVERITIES) if "severity" in entries else None
        if "severity" not in entries:
            self._wrong(node, "`severity` is missing")
        actions: Actions = self._merge_actions(node, entries, category, severity) if category and severity else {}
        check = str(entries["check"].value) if "check" in entries else ""
        if "check" in entries and check not in CHECKS:
            self._wrong(entries["check"], f"must be one of {', '.join(CHECKS)}")
        longest = self._read_longest(entries)
        literals = self._read_literals(entries["literals"]) if "literals" in entries else ()
        pattern = self._text(node, entries, "pattern", _MAX_PATTERN_CHARS) if "pattern" in entries else ""
        ignore_case = self._flag(entries, "ignore_case")
        if "phrase" in entries:
            pattern, ignore_case = self._read_phrase(node, entries), True
        given = [key for key in _LOOKED_FOR if key in entries]
        if len(given) != 1:
            self._wrong(node, "exactly one of `literals`, `pattern` and `phrase` must be given")
        if len(self.mistakes) > before or severity is None:
            return
        rule = Rule(
            id=rule_id,
            category=category,
            severity=severity,
            literals=literals,
            pattern=pattern,
            ignore_case=ignore_case,
            check=check,
            longest_chars=longest,
            actions=actions,
        )
        try:
            compiled = compile_rule(rule, is_proven=self._is_packaged)
        except WrongPattern as wrong:
            self._wrong(entries[given[0]], str(wrong))
            return
        self._rules[rule_id] = compiled.rule
        self._patterns[rule_id] = compiled

    def _read_id(self, node: Node, entries: dict[str, Node]) -> str:
        rule_id = self._text(node, entries, "id", _MAX_NAME)
        if not rule_id:
            return ""
        if not _ID.match(rule_id):
            self._wrong(entries["id"], "must be lower-case words joined by '.', '-' or '_'")
            return ""
        if rule_id in self._lines:
            self._wrong(entries["id"], f"stands twice in this file (first at line {self._lines[rule_id]})")
        self._lines.setdefault(rule_id, entries["id"].line)
        return rule_id

    def _merge_actions(self, node: Node, entries: dict[str, Node], category: str, severity: Severity) -> Actions:
        merged: dict[Preset, Mapping[Point, Action]] = {}
        for name in (category, category.partition("/")[0], _DEFAULT):
            if (name, severity) in self._defaults:
                merged.update(self._defaults[name, severity])
                break
        if "actions" in entries:
            for preset, actions in self._read_actions(entries["actions"]).items():
                merged[preset] = {**merged.get(preset, {}), **actions}
        if not any(merged.values()):
            self._wrong(node, f"has no actions: give `actions`, or `categories.{category}.{severity}` before the rules")
        return merged

    def _read_longest(self, entries: dict[str, Node]) -> int:
        node = entries.get("longest")
        if node is None:
            return 0
        value = node.value
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_HELD_CHARS:
            self._wrong(node, f"must be a whole number of characters from 1 to {MAX_HELD_CHARS:,}")
            return 0
        return value

    def _read_literals(self, node: Node) -> tuple[str, ...]:
        items: object = node.value
        if not is_list(items) or not 1 <= len(items) <= _MAX_LITERALS:
            self._wrong(node, f"must be a list of 1 to {_MAX_LITERALS:,} texts")
            return ()
        found: list[str] = []
        for item in items:
            if isinstance(item.value, str) and 1 <= len(item.value) <= _MAX_LITERAL_CHARS:
                found.append(item.value)
            else:
                self._wrong(item, f"must be a text of 1 to {_MAX_LITERAL_CHARS:,} characters; quote what is not one")
        return tuple(dict.fromkeys(found))

    def _text(self, node: Node, entries: dict[str, Node], key: str, most: int) -> str:
        if key not in entries:
            self._wrong(node, f"`{key}` is missing")
            return ""
        value: Any = entries[key].value
        if not isinstance(value, str) or not 1 <= len(value) <= most:
            self._wrong(entries[key], f"must be a text of 1 to {most:,} characters; quote what is not one")
            return ""
        return value

    def _read_phrase(self, node: Node, entries: dict[str, Node]) -> str:
        phrase = self._text(node, entries, "phrase", _MAX_PATTERN_CHARS)
        spoken = _PHRASE_PART.sub(lambda part: _SPOKEN.get(part[0], part[0]), phrase)
        return rf"(?<!\w)(?:{spoken})(?!\w)" if phrase else ""

    def _flag(self, entries: dict[str, Node], key: str) -> bool:
        if key not in entries:
            return False
        if not isinstance(entries[key].value, bool):
            self._wrong(entries[key], "must be true or false")
            return False
        return bool(entries[key].value)
