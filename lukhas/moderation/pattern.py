"""Makes a rule's pattern ready to run, and refuses one that could hold back an answer for ever."""

from __future__ import annotations

import re
from typing import Final

import msgspec
import regex

from lukhas.moderation.rule import WITHHOLDING, Rule
from lukhas.moderation.shape import Shape, analyse

# The most text that a stream may have to hold back for one rule.
MAX_HELD_CHARS: Final = 20_000
# Flags that a pattern sets for itself as a whole.
_FLAGS: Final = re.compile(r"\(\?[a-zA-Z0-9]+\)")


class WrongPattern(Exception):
    """A pattern that cannot be used, and what to do about it."""


class CompiledPattern:
    """A rule with its pattern; the same at every point and under every preset.

    Attributes:
        rule: with `needs` and `longest_chars` filled in.
        source: the pattern's text; for literals, their alternation, longest first.
        flags: what it is compiled with, those that it sets itself included.
        shape: None where the pattern cannot be analysed.
        is_cut: whether `longest` cuts matches that could be longer.
    """

    __slots__ = ("_pattern", "flags", "is_cut", "rule", "shape", "source")

    def __init__(
        self,
        rule: Rule,
        source: str,
        flags: int,
        pattern: regex.Pattern[str] | None,
        shape: Shape | None,
        *,
        is_cut: bool,
    ) -> None:
        """Take the parts; without a pattern, the source is compiled when it is first needed."""
        self.rule = rule
        self.source = source
        self.flags = flags
        self.shape = shape
        self.is_cut = is_cut
        self._pattern = pattern

    @property
    def pattern(self) -> regex.Pattern[str]:
        """What finds the rule."""
        found = self._pattern
        if found is None:
            found = self._pattern = regex.compile(self.source, self.flags, cache_pattern=False)
        return found


def compile_rule(rule: Rule, *, is_proven: bool = False) -> CompiledPattern:
    """Compile one rule; a declared `longest_chars` stands for a pattern that cannot be bounded.

    Args:
        rule: the rule.
        is_proven: whether its pattern is known to compile, as the packaged ones are; then that waits for its first use.

    Raises:
        WrongPattern: not a pattern of the `regex` package, one that matches the empty text, or one that can grow
            without bound although a match is to be blocked or redacted.
    """
    source = rule.pattern or "|".join(
        regex.escape(text, special_only=True, literal_spaces=True)
        for text in sorted(rule.literals, key=lambda text: (-len(text), text))
    )
    flags = regex.VERSION0 | (regex.IGNORECASE if rule.ignore_case else 0)
    shape = analyse(source, ignore_case=rule.ignore_case)
    pattern: regex.Pattern[str] | None = None
    if not is_proven or shape is None or _FLAGS.search(source):
        try:
            pattern = regex.compile(source, flags, cache_pattern=False)
        except (regex.error, RecursionError, OverflowError, ValueError) as wrong:
            raise WrongPattern(f"not a pattern of the regex package: {wrong}") from None
        flags = pattern.flags
    if (shape is not None and shape.shortest_chars == 0) or (pattern is not None and pattern.search("") is not None):
        raise WrongPattern("matches the empty text, and so every text")
    longest, is_cut = _bound(rule, shape)
    first = {needle for clause in shape.clauses for needle in clause[0]} if shape is not None else set[bytes]()
    needs = tuple(sorted(needle.decode() for needle in first))
    ready = msgspec.structs.replace(rule, needs=needs, longest_chars=longest)
    return CompiledPattern(ready, source, flags, pattern, shape, is_cut=is_cut)


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
