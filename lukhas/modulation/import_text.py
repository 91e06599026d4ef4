"""The text of an imported policy, with comments that say where each thing came from."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from lukhas.modulation.old_policy import Format
from lukhas.modulation.policy import ParameterSpec, Style, ToolClass

_LONGEST_COMMENT: Final = 160
_UNPRINTED: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff]")
_PLAIN: Final = re.compile(r"[a-z][a-z0-9_]*\Z")


@dataclass
class NewSignal:
    """A signal to be written; `line` is where it stood, 0 where it was added."""

    name: str
    role: str
    precedence: int
    line: int
    fields: dict[str, float | int | None] = field(default_factory=dict[str, "float | int | None"])
    description: str = ""


@dataclass(frozen=True)
class Map:
    """An expression to be written; `line` is where it stood, 0 where it was added."""

    text: str
    line: int


@dataclass(frozen=True)
class NewParameter:
    """A parameter to be written, and what its comment says of where its parts came from."""

    spec: ParameterSpec
    origin: str


@dataclass
class NewPolicy:
    """A policy to be written.

    Attributes:
        dropped: maps that the current schema refuses, with the reason; they stay in the text as comments.
        rules: style and its condition, in order; the last has none.
        feedback: lowest, highest, rating by parameter.
    """

    name: str
    source: str
    format: Format
    signals: dict[str, NewSignal] = field(default_factory=dict[str, NewSignal])
    parameters: dict[str, NewParameter] = field(default_factory=dict[str, NewParameter])
    maps: dict[tuple[str, str], Map] = field(default_factory=dict[tuple[str, str], Map])
    dropped: dict[tuple[str, str], tuple[Map, str]] = field(default_factory=dict[tuple[str, str], "tuple[Map, str]"])
    styles: dict[str, Style] = field(default_factory=dict[str, Style])
    rules: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    tool_classes: dict[str, ToolClass] = field(default_factory=dict[str, ToolClass])
    default_tools: list[str] = field(default_factory=list[str])
    feedback: dict[str, tuple[float, float, float]] = field(default_factory=dict[str, "tuple[float, float, float]"])


def write_policy(policy: NewPolicy) -> str:
    """Return the policy as YAML."""
    lines = [
        f"# Imported by `lukhas policy import` from {comment(policy.source)}, format with '{policy.format}'.",
        "# 'line N' is the line of that file. A level below a signal's min_level counts as absent (guards 0.05, others",
        "# 0.2 unless it is set), which the older format did not have.",
        "version: 1",
        f"name: {quote(policy.name)}",
        "apply: touched",
        "combine: precedence",
        "",
        "signals:",
    ]
    for signal in policy.signals.values():
        parts = [f"role: {signal.role}", f"precedence: {signal.precedence}"]
        parts += [f"{key}: {_scalar(value)}" for key, value in signal.fields.items()]
        said = f"; {comment(signal.description)}" if signal.description else ""
        lines.append(f"  {signal.name}: {{{', '.join(parts)}}}  # {_from(signal.line)}{said}")
    lines += ["", "parameters:"]
    for parameter in policy.parameters.values():
        lines.append(f"  {parameter.spec.name}: {_write_spec(parameter.spec)}  # {comment(parameter.origin)}")
    lines += ["", "# x is the signal's own level. A guard's map is a cap: it can only tighten.", "maps:"]
    lines += _write_maps(policy)
    lines += ["", "styles:"]
    for style in policy.styles.values():
        lines.append(f"  {quote_key(style.name)}: {_write_style(style)}")
    lines += ["", "# The first rule that holds chooses the style.", "style_rules:"]
    for style, when in policy.rules:
        lines.append(f"  - {{style: {quote(style)}{f', when: {quote(when)}' if when else ''}}}")
    if policy.tool_classes:
        lines += ["", "# A function whose name matches nothing here is of class 'unknown'.", "tools:"]
        lines += [f"  {tool.name}: {_write_tool(tool)}" for tool in policy.tool_classes.values()]
    if policy.feedback:
        lines += ["", "feedback:"]
        for name, (low, high, rating) in policy.feedback.items():
            lines.append(f"  {name}: {{min: {_scalar(low)}, max: {_scalar(high)}, rating: {_scalar(rating)}}}")
    return "\n".join(lines) + "\n"


def quote(text: str) -> str:
    """Return a text as a YAML scalar in double quotes."""
    quoted = json.dumps(text, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029\ufeff]", lambda found: f"\\u{ord(found[0]):04x}", quoted)


def quote_key(text: str) -> str:
    """Return a text as a key, quoted where it is no plain word."""
    return text if _PLAIN.match(text) else quote(text)


def comment(text: str) -> str:
    """Return a text as it can stand in a comment: on one line, and not too long."""
    plain = " ".join(_UNPRINTED.sub(" ", text).split())
    return plain if len(plain) <= _LONGEST_COMMENT else plain[: _LONGEST_COMMENT - 3] + "..."


def _write_maps(policy: NewPolicy) -> list[str]:
    lines: list[str] = []
    for name in policy.signals:
        kept = [(parameter, rule) for (signal, parameter), rule in policy.maps.items() if signal == name]
        gone = [(parameter, *held) for (signal, parameter), held in policy.dropped.items() if signal == name]
        if kept:
            lines.append(f"  {name}:")
        lines += [f"    {parameter}: {quote(rule.text)}  # {_from(rule.line)}" for parameter, rule in kept]
        for parameter, rule, reason in gone:
            lines.append(f"    # left out ({_from(rule.line)}): {comment(reason)}")
            lines.append(f"    # {name}.{parameter}: {comment(rule.text)}")
    if not policy.maps:
        lines.insert(0, "  {}")
    return lines


def _from(line: int) -> str:
    return f"line {line}" if line else "added"


def _write_spec(spec: ParameterSpec) -> str:
    parts: list[str]
    if spec.kind in ("number", "integer"):
        parts = [f"type: {spec.kind}", f"default: {_scalar(spec.default)}"]
        parts += [f"min: {_scalar(spec.low)}", f"max: {_scalar(spec.high)}"]
    elif spec.kind == "enum":
        parts = ["type: enum", f"values: {_list(spec.values)}", f"default: {quote(str(spec.default))}"]
    else:
        parts = ["type: tools", f"default: {_list(spec.default if isinstance(spec.default, tuple) else ())}"]
    if spec.tighter is not None:
        parts.append(f"tighter: {spec.tighter}")
    return "{" + ", ".join(parts) + "}"


def _write_style(style: Style) -> str:
    parts = [
        f"{key}: {quote(value)}" for key, value in (("preamble", style.preamble), ("prefix", style.prefix)) if value
    ]
    if style.stop:
        parts.append(f"stop: {_list(style.stop)}")
    if style.moderation != "standard":
        parts.append(f"moderation: {style.moderation}")
    return "{" + ", ".join(parts) + "}"


def _write_tool(tool: ToolClass) -> str:
    named = (("functions", tool.functions), ("patterns", tool.patterns), ("hosted", tool.hosted))
    parts = [f"{key}: {_list(value)}" for key, value in named if value]
    return "{" + ", ".join([*parts, f"risk: {tool.risk}"]) + "}"


def _list(values: tuple[str, ...]) -> str:
    return "[" + ", ".join(quote(value) for value in values) + "]"


def _scalar(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return repr(value)
