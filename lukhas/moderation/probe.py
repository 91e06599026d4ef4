"""Ask of a text that is not over yet: is this a match for sure, surely none, or can what comes still decide it?

The `regex` package's partial matching answers a weaker question: it takes any whole match first, though text to come
could still lead an earlier branch, or a longer count, to another one. So each pattern gets a tail that cannot match
within any text, and an empty group in front of it. The engine then goes through the pattern's branches in its own
order, and stops at the first that either runs into the end of the text (undecided) or completes (the group is set; the
end of the text was never looked at, so nothing that comes changes this match). What only looks at the end without
running into it is rewritten: boundaries and ends become look-arounds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, TypeAlias

import regex

from lukhas.errors import ConfigurationError
from lukhas.moderation.shape import analyse

Pattern: TypeAlias = "regex.Pattern[str]"

# Nothing can follow what has taken all. The engine looks for the long text that a match must hold before it tries any
# branch, so it gives up on whole matches at once (1 s became 0.04 ms on a pattern of many branches); which characters
# these are does not matter.
_TAIL: Final = "()(?s:.*+\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4\ufdd5\ufdd6\ufdd7\ufdd8\ufdd9)"
_END: Final = "(?!(?s:.))"
_REWRITTEN: Final = {
    r"\b": r"(?:(?<=\w)(?!\w)|(?<!\w)(?=\w))",
    r"\B": r"(?:(?<=\w)(?=\w)|(?<!\w)(?!\w))",
    r"\m": r"(?:(?<!\w)(?=\w))",
    r"\M": r"(?:(?<=\w)(?!\w))",
    r"\Z": _END,
    r"\z": _END,
}
# Always true. After a lazy count it keeps the engine from searching for what follows: that search
# takes a partial find for an answer, though what lies between may not match. In front of a group's body it keeps the
# engine from looking whether a repeated body can begin once more: at the end of the text it says no to that.
_BARRIER: Final = "(?!(?!))"
_TOKEN: Final = re.compile(
    r"""(?P<refused>\\[XKGL] | \\g< | \(\*
        | \(\?(?:[R0-9&|+] | -\d | P> | \( | [a-zA-Z]*[xm][a-zA-Z]*(?:-[a-zA-Z]+)?: | [a-zA-Z]*-[a-zA-Z]*[xm][a-zA-Z]*:)
        | \{(?!\d+(?:,\d*)?\}|,\d+\}))
    | (?P<escape>\\.)
    | (?P<set>\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\])
    | (?P<lazy>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d+)\})\?)
    | (?P<count>(?:[*+?]|\{(?:\d+(?:,\d*)?|,\d+)\})\+?)
    | (?P<comment>\(\?\#[^)]*\))
    | (?P<whole>\(\?(?:[a-zA-Z0-9]+|P=\w+)\))
    | (?P<behind>\(\?<[=!])
    | (?P<open>\((?:\?(?:P?<\w+>|[a-zA-Z]*(?:-[a-zA-Z]+)?:|[>=!]))?)
    | (?P<close>\))
    | (?P<other>[^\\])""",
    re.VERBOSE | re.DOTALL,
)
_NAMED: Final = re.compile(r"\\[pP]\{[^}]*\}|\\N\{[^}]*\}")
_VERBOSE_COMMENT: Final = re.compile(r"#[^\n]*")
_REFUSED_FLAGS: Final = regex.REVERSE | regex.WORD | regex.POSIX | regex.FULLCASE | regex.LOCALE | regex.VERSION1


class Probe:
    """One pattern, made to be asked about unfinished text.

    Attributes:
        behind_chars: how many characters before a match decide whether it is one; at least 1.
    """

    __slots__ = ("_begin", "_begin_source", "_flags", "_pattern", "_source", "behind_chars")

    def __init__(self, source: str, flags: int) -> None:
        """Rewrite a pattern; it is compiled when it is first needed.

        Args:
            source: the pattern.
            flags: all that it is compiled with.

        Raises:
            ConfigurationError: it uses what cannot be followed in unfinished text, or looks back without bound.
        """
        if flags & _REFUSED_FLAGS:
            raise ConfigurationError("A flag of this pattern cannot be followed in unfinished text.")
        tokens = list(_tokens(source, flags))
        self.behind_chars = _measure_behind(source, flags, tokens)
        self._flags = flags
        self._source = self._finish(_rewrite(tokens, flags))
        self._pattern: Pattern | None = None
        near = tokens if self.behind_chars == 1 else _drop_behind(tokens)
        self._begin_source = None if near is None else self._finish(_rewrite(near, flags))
        self._begin: Pattern | None = None

    @property
    def pattern(self) -> Pattern:
        """`pattern.search(text, place, partial=True)` finds the earliest place that is or can become a match.

        Its last group's place is a sure match's end; it is unset where the text's end was met first.
        """
        found = self._pattern
        if found is None:
            found = self._pattern = regex.compile(self._source, self._flags, cache_pattern=False)
        return found

    @property
    def begin(self) -> Pattern | None:
        """`begin.match(text, place, partial=True)` is None where no match begins, whatever stood before.

        It sees no more than one character before the place. None where that cannot be told.
        """
        if self._begin_source == self._source:
            return self.pattern
        if self._begin is None and self._begin_source is not None:
            self._begin = regex.compile(self._begin_source, self._flags, cache_pattern=False)
        return self._begin

    def _finish(self, source: str) -> str:
        line_end = "\n" if self._flags & regex.VERBOSE else ""
        return f"(?:{source}{line_end}){_TAIL}"


def _tokens(source: str, flags: int) -> Iterator[tuple[str, str, int]]:
    """Yield the kind, the text and the place of each part of a pattern."""
    place = 0
    while place < len(source):
        comment = _VERBOSE_COMMENT.match(source, place) if flags & regex.VERBOSE else None
        if comment is not None:
            place = comment.end()
            continue
        token = _NAMED.match(source, place) or _TOKEN.match(source, place)
        if token is None or token.lastgroup == "refused":
            raise ConfigurationError(f"'{source[place : place + 8]}' cannot be followed in unfinished text.")
        yield token.lastgroup or "escape", token[0], place
        place = token.end()


def _rewrite(tokens: list[tuple[str, str, int]], flags: int) -> str:
    """Return the pattern with all that looks at the end of the text, or stops short of it, made to run into it."""
    line_end = f"(?:(?=\\n)|{_END})" if flags & regex.MULTILINE else f"(?:{_END}|(?=\\n{_END}))"
    parts: list[str] = []
    # Where the last character, set or group stands that a count may follow.
    atom = 0
    for kind, text, _ in tokens:
        match kind:
            case "lazy":
                # A lazy count of single characters may give up at the end of the text; one of groups does not.
                if not parts[atom].endswith("))"):
                    parts[atom] = f"(?:{_BARRIER}{parts[atom]})"
                parts.append(text + _BARRIER)
                continue
            case "count" | "comment":
                parts.append(text if kind == "count" else "")
                continue
            case "other" if text.isspace() and flags & regex.VERBOSE:
                parts.append(text)
                continue
            case "escape":
                parts.append(_REWRITTEN.get(text, text))
            case "other" if text == "$":
                parts.append(line_end)
            case "open" | "behind":
                parts.append(f"{text}{_BARRIER}(?:")
            case "close":
                parts.append("))")
            case _:
                parts.append(text)
        atom = len(parts) - 1
    return "".join(parts)


def _drop_behind(tokens: list[tuple[str, str, int]]) -> list[tuple[str, str, int]] | None:
    """Return the pattern without its look-behinds, which matches wherever it does; None where that may not hold."""
    kept: list[tuple[str, str, int]] = []
    opened: list[str] = []
    for token in tokens:
        kind, text, _ = token
        if text == "(?>" or text.startswith("(?P=") or (kind == "count" and text[1:].endswith("+")):
            # What takes all it can may take more where a look-behind is gone, and then match nowhere.
            return None
        if kind == "escape" and text[1:].isdigit():
            return None
        if kind in ("open", "behind"):
            if kind == "behind" and "(?!" in opened:
                return None
            opened.append(text)
        if not any(text.startswith("(?<") and text[-1] in "=!" for text in opened):
            kept.append(token)
        if kind == "close" and opened:
            opened.pop()
    return kept


def _measure_behind(source: str, flags: int, tokens: list[tuple[str, str, int]]) -> int:
    """Return how many characters before a match the pattern looks at."""
    farthest = 1
    starts: list[int | None] = []
    for kind, text, place in tokens:
        if kind == "behind":
            starts.append(place + len(text))
        elif kind == "open":
            starts.append(None)
        elif kind == "close" and starts and (start := starts.pop()) is not None:
            body = analyse(source[start:place], ignore_case=bool(flags & regex.IGNORECASE))
            if body is None or body.longest_chars is None or body.behind_chars is None:
                raise ConfigurationError("This pattern looks back without a known bound.")
            farthest = max(farthest, body.longest_chars + body.behind_chars)
    return farthest
