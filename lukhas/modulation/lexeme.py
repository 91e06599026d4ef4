"""What an expression may be spelt with, before Python's parser sees it.

Python's own spelling is richer than the language: comments, line continuations, prefixes of texts, `0x10`, `1_000`,
`1if x`. None of it adds meaning, and each is one more thing that a reader of a policy would have to know.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_LEXEME: Final = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|(?P<number>(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<text>'[^'\n]*'|\"[^\"\n]*\")"
    r"|(?P<other>.)",
    re.ASCII | re.DOTALL,
)
_CLOSES: Final = {")": "(", "]": "[", "}": "{"}


class Flaw(NamedTuple):
    """What is wrong in a text, and at which offset."""

    problem: str
    offset: int


def find_flaw(text: str) -> Flaw | None:
    """Return the first thing in a text that the language does not spell, or None."""
    for offset, character in enumerate(text):
        if not (" " <= character <= "~" or character in "\n\t") or character == "\\":
            return Flaw(f"The character U+{ord(character):04X} is not allowed", offset)
    opened: list[tuple[str, int]] = []
    before, before_at, gap = "", 0, False
    for match in _LEXEME.finditer(text):
        kind, lexeme, at = match.lastgroup or "", match[0], match.start()
        if kind == "space":
            gap = True
            continue
        if before == "number" and kind in ("word", "number", "text") and not gap:
            return Flaw("Only plain decimal numbers are allowed", before_at)
        if before == "word" and kind == "text" and not gap:
            return Flaw("A text cannot follow a word without a space", before_at)
        if before == "text" and kind == "text":
            return Flaw("A text cannot follow another text", at)
        if lexeme == "#":
            return Flaw("A comment ('#') is not allowed", at)
        if lexeme in "([{" and kind == "other":
            opened.append((lexeme, at))
        elif lexeme in _CLOSES and (not opened or opened.pop()[0] != _CLOSES[lexeme]):
            return Flaw(f"The bracket '{lexeme}' closes none that is open", at)
        before, before_at, gap = kind, at, False
    return Flaw(f"The bracket '{opened[-1][0]}' is not closed", opened[-1][1]) if opened else None
