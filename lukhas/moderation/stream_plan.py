"""The rules of one profile, made ready to be found in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import regex

from lukhas.errors import ConfigurationError
from lukhas.moderation.probe import Pattern, Probe
from lukhas.moderation.rule import WITHHOLDING
from lukhas.moderation.ruleset import CompiledRule
from lukhas.moderation.start import StartTable

# A rule that withholds nothing may wait for its match's end through so much text; then it is judged on what is there.
MAX_WATCHED_CHARS: Final = 16_384
# Below this many characters no pattern takes long, and reading the clock costs more than the search.
_UNTIMED_CHARS: Final = 24
# How many times longer an undecided text must have become until a rule that withholds nothing is asked again.
_PATIENCE: Final = 2
# Longer pieces are taken in parts, so that what is looked at at once stays small.
_MAX_PIECE_CHARS: Final = 4096


class SearchTimeout(Exception):
    """A pattern took too long on a text."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch.compiled.rule.id)
        self.watch = watch


class Watch:
    """One rule of a plan.

    Attributes:
        number: its place in the order of rules' ids, which is the order of findings at one place.
        withholds: whether its matches are kept from release.
        blocks: whether its match ends the run.
        longest_chars: most characters of a match.
        limit_chars: so many characters from its start on, an undecided match is decided as far as it goes.
        is_open: whether text can be undecided for longer than that.
        behind_chars: how much text before a place must be kept.
        probe: None for a rule that can be found in whole texts only; such a rule withholds nothing.
    """

    __slots__ = (
        *("behind_chars", "blocks", "compiled", "is_open", "limit_chars", "longest_chars", "number", "probe"),
        "withholds",
        "_timeout_s",
    )

    def __init__(self, number: int, compiled: CompiledRule, timeout_s: float) -> None:
        """Take a rule.

        Raises:
            ConfigurationError: it withholds, and grows or looks ahead without bound, or cannot be followed in pieces.
        """
        self.number = number
        self.compiled = compiled
        self.withholds = compiled.action in WITHHOLDING
        self.blocks = compiled.action == "block"
        self.longest_chars = compiled.longest_chars
        self._timeout_s = timeout_s
        self.probe: Probe | None = None
        self.behind_chars = 1
        try:
            self.probe = Probe(compiled.pattern)
            self.behind_chars = self.probe.behind_chars
        except ConfigurationError as refused:
            if self.withholds:
                raise ConfigurationError(f"Moderation rule '{compiled.rule.id}': {refused}") from refused
        ahead = compiled.ahead_chars
        if self.withholds and (not compiled.longest_chars or (ahead is None and not compiled.is_cut)):
            raise ConfigurationError(
                f"Moderation rule '{compiled.rule.id}' could hold back a stream without end.",
                hint="Bound its repeats, such as {1,200} for +, also where it looks ahead.",
            )
        self.is_open = not compiled.longest_chars or compiled.is_cut or ahead is None
        if not self.withholds:
            self.limit_chars = MAX_WATCHED_CHARS
        elif compiled.is_cut or ahead is None:
            self.limit_chars = compiled.longest_chars
        else:
            self.limit_chars = compiled.longest_chars + ahead

    def search(self, pattern: Pattern, text: str, place: int) -> regex.Match[str] | None:
        """Search unfinished text from a place on.

        Raises:
            SearchTimeout: it took too long.
        """
        if len(text) - place <= _UNTIMED_CHARS:
            return pattern.search(text, place, partial=True, concurrent=False)
        try:
            return pattern.search(text, place, partial=True, concurrent=False, timeout=self._timeout_s)
        except TimeoutError:
            raise SearchTimeout(self) from None

    def find_all(self, text: str, place: int) -> Iterator[tuple[int, int]]:
        """Yield the matches in finished text, from a place on.

        Raises:
            SearchTimeout: it took too long.
        """
        try:
            for match in self.compiled.pattern.finditer(text, place, concurrent=False, timeout=self._timeout_s):
                if match.end() > match.start() and self.compiled.passes(match):
                    yield match.start(), self.cut(match.start(), match.end())
        except TimeoutError:
            raise SearchTimeout(self) from None

    def cut(self, start: int, end: int) -> int:
        """Return where a match ends for this rule."""
        return min(end, start + self.longest_chars) if self.compiled.is_cut else end

    def next_look(self, start: int, length: int) -> int:
        """Return the length that the text must have until an undecided match is looked at again."""
        if self.withholds:
            return 0
        if self.probe is None:
            return start + self.limit_chars
        return min(start + self.limit_chars, start + _PATIENCE * (length - start))


class StreamPlan:
    """The rules of one profile, made ready once and shared by all streams.

    Attributes:
        withholds: whether any rule keeps text from being released.
        watches: the rules, in the order of their ids.
        starts: which rules could begin at a place.
        notes: whether any rule is only reported.
        unprobed: numbers of the rules that can be found in whole texts only.
        context_chars: how much text before a place must be kept.
        piece_chars: how much text may be looked at, at most, between two looks at the limits of open rules.
    """

    __slots__ = ("context_chars", "notes", "piece_chars", "starts", "unprobed", "watches", "withholds")

    def __init__(self, rules: Sequence[CompiledRule], *, timeout_s: float = 0.25) -> None:
        """Make rules ready.

        Args:
            rules: of one profile.
            timeout_s: how long one search of one rule may take; then the stream is blocked.

        Raises:
            ConfigurationError: a rule that blocks or redacts could hold back a stream without end.
        """
        ordered = sorted(rules, key=lambda compiled: compiled.rule.id)
        self.watches = tuple(Watch(number, compiled, timeout_s) for number, compiled in enumerate(ordered))
        self.withholds = any(watch.withholds for watch in self.watches)
        self.notes = any(not watch.withholds for watch in self.watches)
        self.unprobed = tuple(watch.number for watch in self.watches if watch.probe is None)
        self.context_chars = max((watch.behind_chars for watch in self.watches), default=1)
        self.piece_chars = min((w.limit_chars for w in self.watches if w.is_open), default=_MAX_PIECE_CHARS)
        self.piece_chars = min(self.piece_chars, _MAX_PIECE_CHARS)
        self.starts = StartTable(
            [
                (watch.number, watch.probe.pattern if watch.behind_chars == 1 else None, watch.compiled.starts)
                for watch in self.watches
                if watch.probe is not None
            ]
        )
