"""Text as the literal prefilter sees it: without case, digits as 0, one fold for all rules.

Whatever the `regex` package matches without case folds alike, so that the prefilter never misses what a pattern would
find. Places are kept: one byte for an ASCII character, and for other text they are counted where something was found.
"""

from __future__ import annotations

from typing import Final

_TABLE: Final = bytes(
    48 if 48 <= byte < 58 else byte + 32 if 65 <= byte <= 90 else 32 if byte in b"\t\r\n" else byte
    for byte in range(256)
)

# Characters that match another letter without case, and that str.lower() leaves apart.
# Source: Unicode CaseFolding.txt, status C.
_APART: Final = (
    ("ſ", "s"),
    ("ı", "i"),
    ("ς", "σ"),
    ("\u00a0", " "),
    *zip("ᲀᲁᲂᲃᲄᲅᲆ", "вдосттъ", strict=True),
)
_APART_BYTES: Final = tuple((a.encode(), b.encode()) for a, b in _APART)
_VARIANTS: Final = {
    letter: "".join(a for a, b in (*_APART, ("İ", "i"), ("\u212a", "k"), ("\u212b", "å")) if b == letter)
    for letter in "iskåσвдостъ"
}

# Letters in these blocks have no variant but the ones above; whole alphabets elsewhere gain new ones with each Unicode.
_KNOWN_BLOCKS: Final = (
    (0x00, 0x7F),
    (0xA0, 0x24F),
    (0x400, 0x52F),
    (0x590, 0x109F),
    (0x2010, 0x206F),
    (0x3000, 0x9FFF),
    (0xAC00, 0xD7A3),
)
_EXCEPTIONS: Final = frozenset("µßıŉƛǰſѢѣ")


def fold(text: str) -> bytes:
    """Return any text as UTF-8 without case, with digits as 0 and white space as blanks; lone surrogates pass."""
    if text.isascii():
        return text.encode("ascii").translate(_TABLE)
    # The one character whose lower case is longer than itself.
    folded = text.replace("İ", "i").lower().encode("utf-8", "surrogatepass")
    for apart, letter in _APART_BYTES:
        if apart in folded:
            folded = folded.replace(apart, letter)
    return folded.translate(_TABLE)


def count_characters(folded: bytes, start: int, end: int) -> int:
    """Return how many characters stand in a stretch of folded text that starts and ends between characters."""
    return len(folded[start:end].decode("utf-8", "surrogatepass"))


def list_cases(character: str) -> str | None:
    """Return every character that matches this one without case, itself included; None where that is not known."""
    code = ord(character)
    if character in _EXCEPTIONS or not any(low <= code <= high for low, high in _KNOWN_BLOCKS):
        return None
    lower = character.lower()
    return "".join(
        dict.fromkeys((character, lower[0], character.upper()[0], character.title()[0], *_VARIANTS.get(lower, "")))
    )
