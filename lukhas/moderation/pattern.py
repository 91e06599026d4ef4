"""Makes a rule's pattern ready to run, and refuses one that could hold back an answer for ever."""

from __future__ import annotations

from typing import Final

import msgspec
import regex

from lukhas.moderation.rule import WITHHOLDING, Rule
from lukhas.moderation.shape import Shape, analyse

# The most text that a stream may have to hold back for one rule.
MAX_HELD_CHARS: Final = 20_000


class WrongPattern(Exception):
    """A pattern that cannot be used, and what to do about it."""


class CompiledPattern(msgspec.Struct, frozen=True):
    """A rule with its pattern compiled; the same at every point and under every preset.

    Attributes:
        rule: with `needs` and `longest_chars` filled in.
        pattern: what finds it; for literals, their alternation, longest first.
        shape: None where the pattern cannot be analysed.
        is_cut: whether `longest` cuts matches that could be longer.
    """

    rule: Rule
    pattern: regex.Pattern[str]
    shape: Shape | None
    is_cut: bool


def compile_rule(rule: Rule) -> CompiledPattern:
    """Compile one rule; a declared `longest_chars` stands for a pattern that cannot be bounded.

    Raises:
        WrongPattern: not a pattern of the `regex` package, one that matches the empty text, or one that can grow
            without bound although a match is to be blocked or redacted.
    """
    source = rule.pattern or "|".join(
        regex.escape(text, special_only=True, literal_spaces=True)
        for text in sorted(rule.literals, key=lambda text: (-len(text), text))
    )
    flags = regex.VERSION0 | (regex.IGNORECASE if rule.ignore_case else 0)
    try:
        pattern = regex.compile(source, flags, cache_pattern=False)
    except (regex.error, RecursionError, OverflowError, ValueError) as wrong:
        raise WrongPattern(f"not a pattern of the regex package: {wrong}") from None
    shape = analyse(source, ignore_case=rule.ignore_case)
    if (shape is not None and shape.shortest_chars == 0) or pattern.search("") is not None:
        raise WrongPattern("matches the empty text, and so every text")
    longest, is_cut = _bound(rule, shape)
    first = {needle for clause in shape.clauses for needle in clause[0]} if shape is not None else set[bytes]()
    needs = tuple(sorted(needle.decode() for needle in first))
    return CompiledPattern(msgspec.structs.replace(rule, needs=needs, longest_chars=longest), pattern, shape, is_cut)


def _bound(rule: Rule, shape: Shape | None) -> tuple[int, bool]:
    known = shape.longest_chars if shape is not None else None
    declared = rule.longest_chars
    if known is not None and (not declared or known <= declared):
        if known > MAX_HELD_CHARS and _withholds(rule):
            raise WrongPattern(
                f"a match can be {known:,} characters long; what is blocked or redacted may have {MAX_HELD_CHARS:,}"
            )
        return known, False
    if declared:
        return declared, True
    if _withholds(rule):
        why = "cannot be analysed" if shape is None else "can grow without bound"
        raise WrongPattern(
            f"{why}, and a stream would have to be held back for ever: bound its repeats, such as {{1,200}} for +, "
            "or set `longest`, where a match is then cut"
        )
    return 0, False


def _withholds(rule: Rule) -> bool:
    return any(action in WITHHOLDING for actions in rule.actions.values() for action in actions.values())
