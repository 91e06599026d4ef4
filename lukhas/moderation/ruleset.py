"""Compiled rules: what applies at a point under a preset, found in a text and redacted from it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import regex

from lukhas.errors import ModerationUnavailable
from lukhas.moderation.check import CHECKS
from lukhas.moderation.need import Clause
from lukhas.moderation.pattern import CompiledPattern
from lukhas.moderation.rule import ACTIONS, Action, Finding, Point, Preset, Rule
from lukhas.moderation.scan import Prefilter, Stretch, make_windows

__all__ = ["CompiledPattern", "CompiledRule", "Profile", "RuleSet"]

MAX_FINDINGS: Final = 1_000
# One search over a whole text may take this long, and so much more per character; then moderation counts as failed.
_SEARCH_S: Final = 0.25
_SEARCH_S_PER_CHARACTER: Final = 2e-6
# Windows are worth their trouble where they are much shorter than the text.
_MIN_WINDOWED_CHARS: Final = 256


# Up to here a search keeps the interpreter's lock; getting it back would take longer than the search itself.
_LONG_CHARS: Final = 20_000


class CompiledRule:
    """A rule as it applies at one point under one preset.

    Attributes:
        rule: its text form.
        action: what a match leads to here.
        compiled: the rule's pattern.
        longest_chars: most characters of a match; 0 where it can grow without bound (never where it withholds).
        is_cut: whether `longest_chars` cuts longer matches of the pattern.
        behind_chars: how many characters before a match the pattern looks at; None where that is not known.
        ahead_chars: how many characters after a match the pattern looks at; None where that is not known.
        clauses: literals that every match holds, as the prefilter looks for them; empty where none are known.
        starts: a `re` pattern of exactly one character, with which every match begins; None where not known.
        follows: the same for the character right before every match.
        heads: folded texts of which one begins every match; None where not known.
        span_chars: most characters of a match with all that it looks at around it; 0 where that is not bounded.
    """

    __slots__ = (
        *(
            "action",
            "ahead_chars",
            "behind_chars",
            "clauses",
            "compiled",
            "follows",
            "heads",
            "is_cut",
            "longest_chars",
        ),
        *("_check", "rule", "span_chars", "starts"),
    )

    def __init__(self, compiled: CompiledPattern, action: Action) -> None:
        shape = compiled.shape
        self.rule = compiled.rule
        self.action: Action = action
        self.compiled = compiled
        self.longest_chars = compiled.rule.longest_chars
        self.is_cut = compiled.is_cut
        self.behind_chars = shape.behind_chars if shape is not None else None
        self.ahead_chars = shape.ahead_chars if shape is not None else None
        self.starts = shape.starts if shape is not None else None
        self.follows = shape.follows if shape is not None else None
        self.heads = shape.heads if shape is not None else None
        self.clauses: tuple[Clause, ...] = shape.clauses if shape is not None else ()
        self._check = CHECKS[compiled.rule.check] if compiled.rule.check else None
        self.span_chars = (
            0
            if self.is_cut or not self.longest_chars or self.ahead_chars is None or self.behind_chars is None
            else self.longest_chars + self.ahead_chars + self.behind_chars
        )

    @property
    def pattern(self) -> regex.Pattern[str]:
        """What finds matches; `passes` must hold too."""
        return self.compiled.pattern

    def passes(self, match: regex.Match[str] | str) -> bool:
        """Whether a match (or its text) passes the rule's arithmetic check; true where it has none."""
        if self._check is None:
            return True
        return self._check(match if isinstance(match, str) else match.group())

    def find(self, text: str, stretches: Sequence[Stretch] = ()) -> Iterator[tuple[int, int]]:
        """Yield where matches stand, in order, not overlapping.

        Args:
            text: the whole text.
            stretches: where needles stand, if known; else everything is searched.

        Raises:
            ModerationUnavailable: the pattern took too long.
        """
        length = len(text)
        windows: Iterable[Stretch] = ((0, length),)
        ahead = 0
        if stretches and self.span_chars and length > _MIN_WINDOWED_CHARS:
            ahead = self.span_chars
            windows = make_windows(stretches, self.span_chars, length)
        limit_s = _SEARCH_S + _SEARCH_S_PER_CHARACTER * length
        done = 0
        try:
            for low, high in windows:
                # All that the pattern may look at from any start inside must be seen, or it would decide otherwise.
                seen = min(length, high + ahead)
                for match in self.pattern.finditer(
                    text, max(low, done), seen, timeout=limit_s, concurrent=length > _LONG_CHARS
                ):
                    start, end = match.span()
                    if start > high:
                        break
                    done = end
                    if self._check is not None and not self._check(match.group()):
                        continue
                    yield start, (min(end, start + self.longest_chars) if self.is_cut else end)
        except TimeoutError:
            raise ModerationUnavailable(
                f"The moderation rule '{self.rule.id}' took too long on a text of {length:,} characters.",
                hint="Rewrite its pattern without nested repeats.",
            ) from None


class Profile:
    """The rules that apply at one point under one preset, ready to run. Safe to share between threads."""

    def __init__(self, rules: Iterable[CompiledRule]) -> None:
        self.rules = tuple(rules)
        self._always = tuple(number for number, rule in enumerate(self.rules) if not rule.clauses)
        self._prefilter = Prefilter(
            {number: (rule.clauses, rule.span_chars) for number, rule in enumerate(self.rules) if rule.clauses}
        )

    def scan(self, text: str) -> list[Finding]:
        """Find every rule's matches in a text.

        Matches of one rule do not overlap; those of different rules may.

        Returns:
            At most 1,000 findings, sorted by start, end and rule. Where there are more, the strongest actions stay,
            and if one of those left out was to be redacted, the last finding redacts everything from there on.

        Raises:
            ModerationUnavailable: a rule took too long; nothing may pass.
        """
        near = self._prefilter.find(text)
        if near is None and not self._always:
            return []
        found: list[Finding] = []
        for number in self._always:
            self._collect(number, text, (), found)
        for number, stretches in (near or {}).items():
            self._collect(number, text, stretches, found)
        if len(found) > 1:
            found.sort(key=_place)
        return found if len(found) <= MAX_FINDINGS else _cut(found, len(text))

    def _collect(self, number: int, text: str, stretches: Sequence[Stretch], found: list[Finding]) -> None:
        compiled = self.rules[number]
        rule = compiled.rule
        for count, (start, end) in enumerate(compiled.find(text, stretches)):
            if count > MAX_FINDINGS:
                break
            found.append(Finding(rule.id, rule.category, rule.severity, compiled.action, start, end))

    def redact(self, text: str, findings: Iterable[Finding]) -> str:
        """Return a text with each match that is to be redacted replaced by `[redacted:<category>]`.

        Findings that overlap become one, under the category of the one that begins first; other actions are left.
        """
        parts: list[str] = []
        done = 0
        for start, end, category in _merge(findings):
            parts += (text[done:start], f"[redacted:{category}]")
            done = end
        return "".join((*parts, text[done:])) if parts else text


class RuleSet:
    """All rules in force.

    Attributes:
        rules: by id.
        id: 16 hexadecimal digits that change with any character of the rules' texts.
    """

    def __init__(
        self, rules: Mapping[str, Rule], patterns: Mapping[str, CompiledPattern], texts: Sequence[str]
    ) -> None:
        self.rules: Mapping[str, Rule] = MappingProxyType(dict(rules))
        self._patterns = dict(patterns)
        digest = hashlib.sha256()
        for text in texts:
            digest.update(hashlib.sha256(text.encode()).digest())
        self.id = digest.hexdigest()[:16]
        self._profiles: dict[tuple[Preset, Point], Profile] = {}

    def profile(self, preset: Preset, point: Point) -> Profile:
        """Return the rules that apply at a point under a preset; made once, then kept."""
        found = self._profiles.get((preset, point))
        if found is None:
            found = Profile(
                CompiledRule(self._patterns[rule_id], rule.actions[preset][point])
                for rule_id, rule in sorted(self.rules.items())
                if point in rule.actions.get(preset, {})
            )
            self._profiles[preset, point] = found
        return found


def _place(finding: Finding) -> tuple[int, int, str]:
    return finding.start, finding.end, finding.rule


def _merge(findings: Iterable[Finding]) -> list[tuple[int, int, str]]:
    merged: list[tuple[int, int, str]] = []
    wanted = (finding for finding in findings if finding.action == "redact" and finding.end > finding.start)
    for finding in sorted(wanted, key=_place):
        if merged and finding.start < merged[-1][1]:
            start, end, category = merged[-1]
            merged[-1] = (start, max(end, finding.end), category)
        else:
            merged.append((finding.start, finding.end, finding.category))
    return merged


def _cut(found: list[Finding], length: int) -> list[Finding]:
    ranked = sorted(found, key=lambda finding: (ACTIONS.index(finding.action), *_place(finding)))
    kept, left = ranked[:MAX_FINDINGS], ranked[MAX_FINDINGS:]
    hidden = [finding for finding in left if finding.action == "redact"]
    if hidden:
        first = min((*hidden, kept[-1]), key=_place) if kept[-1].action == "redact" else hidden[0]
        kept[-1] = Finding(first.rule, first.category, first.severity, "redact", first.start, length)
    return sorted(kept, key=_place)
