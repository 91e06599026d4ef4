"""What a moderation rule is, and what finding one means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

Point = Literal["instruction", "input", "tool_result", "output"]
Action = Literal["block", "redact", "tighten", "record"]
Severity = Literal["low", "medium", "high"]
Preset = Literal["standard", "high"]

POINTS: Final[tuple[Point, ...]] = ("instruction", "input", "tool_result", "output")
# Strongest first. A violation is what blocks or tightens; what is redacted or recorded is no violation.
ACTIONS: Final[tuple[Action, ...]] = ("block", "redact", "tighten", "record")
SEVERITIES: Final[tuple[Severity, ...]] = ("low", "medium", "high")
PRESETS: Final[tuple[Preset, ...]] = ("standard", "high")
# What keeps text from being released while it is being matched.
WITHHOLDING: Final[frozenset[Action]] = frozenset(("block", "redact"))


class Rule(msgspec.Struct, frozen=True):
    """One rule: what it looks for, and what happens at which point under which preset.

    Attributes:
        id: unique, such as `secret.aws-access-key`.
        category: such as `secret`, `personal`, `injection`, `violence`.
        literals: texts of which any counts as a match; compared without case where `ignore_case`.
        pattern: a pattern of the `regex` package; exactly one of literals and pattern is set.
        needs: lower-case literals of which one must stand in every match of the pattern; empty where none is known.
        ignore_case: whether letters match in either case.
        check: a named arithmetic check that a match must also pass, such as `luhn`; empty for none.
        longest_chars: most characters of one match; 0 where the pattern can grow without bound.
        actions: by preset and point; a point that is missing is not looked at.
    """

    id: str
    category: str
    severity: Severity
    literals: tuple[str, ...] = ()
    pattern: str = ""
    needs: tuple[str, ...] = ()
    ignore_case: bool = False
    check: str = ""
    longest_chars: int = 0
    actions: Mapping[Preset, Mapping[Point, Action]] = {}


class Finding(msgspec.Struct, frozen=True, gc=False):
    """One match of a rule in a text.

    Attributes:
        rule: the rule's id.
        start, end: where it stands, in characters from the start of the text (of the whole run, in a stream).
    """

    rule: str
    category: str
    severity: Severity
    action: Action
    start: int
    end: int
