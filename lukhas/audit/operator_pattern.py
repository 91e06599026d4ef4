"""Patterns of the operator's own: compiled by the `regex` package, tried before use, and never waited for.

A pattern that a short text can keep busy is refused at load; where one takes too long after all, the whole text is
redacted, since nothing is known of what it holds.
"""

from __future__ import annotations

import re
from typing import Any, Final

# Processor time for one text. What is longer than this many characters is searched in one go all the same.
_TIMEOUT_S: Final = 0.05
_TRIAL_TIMEOUT_S: Final = 0.1
_TRIAL_CHARS: Final = 1_000
_MOST_UNITS: Final = 48
_WORD: Final = re.compile(r"[A-Za-z0-9]+")
_UNITS: Final = (
    "a",
    "A",
    "0",
    " ",
    "-",
    "@",
    ".",
    "_",
    "=",
    "/",
    "\n",
    "a ",
    "a.",
    "0-",
    "ab",
    "a1",
    "\u00e9",
    "\\",
    '"',
)


class WrongPattern(Exception):
    """A pattern that cannot be used, and why."""


class OperatorPattern:
    """One pattern under a name; its matches leave `[redacted:<name>]`.

    Args:
        name: what its marker says.
        source: a pattern of the `regex` package.
        needle: a text, in any case, without which there can be no match; spares the search.

    Raises:
        WrongPattern: not a pattern, one that matches the empty text, or one that takes too long.
    """

    def __init__(self, name: str, source: str, needle: str = "") -> None:
        self.name = name
        self.needle = needle.casefold()
        self._marker = f"[redacted:{name}]"
        self._pattern = _compile(source)
        _try_out(self._pattern, source)

    def redact(self, text: str) -> str:
        """Return the text without its matches; only the marker, where that cannot be told in time."""
        if self.needle and self.needle not in text.casefold():
            return text
        try:
            return self._pattern.sub(self._mark, text, timeout=_TIMEOUT_S)
        except TimeoutError:
            return self._marker

    def _mark(self, match: Any) -> str:
        return self._marker if match[0] else ""


def _compile(source: str) -> Any:
    import regex

    try:
        pattern = regex.compile(source, regex.VERSION0, cache_pattern=False)
        empty = pattern.search("", timeout=_TRIAL_TIMEOUT_S)
    except (regex.error, RecursionError, OverflowError, ValueError) as wrong:
        raise WrongPattern(f"not a pattern of the regex package: {wrong}") from None
    except TimeoutError:
        raise WrongPattern("takes too long on an empty text") from None
    if empty is not None:
        raise WrongPattern("matches the empty text, and so every text")
    return pattern


def _try_out(pattern: Any, source: str) -> None:
    letters = list(dict.fromkeys(c for c in source if c.isprintable()))
    words = list(dict.fromkeys(_WORD.findall(source)))
    for unit in list(dict.fromkeys((*words, *_UNITS, *letters)))[:_MOST_UNITS]:
        text = (unit * (_TRIAL_CHARS // len(unit) + 1))[:_TRIAL_CHARS]
        try:
            for ended in (text, text + "!", text + "\n"):
                pattern.search(ended, timeout=_TRIAL_TIMEOUT_S)
        except TimeoutError:
            raise WrongPattern(
                f"takes too long on '{unit[:12]}' repeated: avoid a repeat inside a repeat, such as (a+)+"
            ) from None
