"""Numbers that name a person or an account: payment cards, IBANs, social security and telephone numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

_GAP: Final = "[ \u00a0\u2007\u2009\u202f\u2010-\u2015-]"
_CARD: Final = re.compile(
    rf"(?<![\w.-])(?:\d{{13,19}}|\d{{4}}({_GAP})\d{{4}}\1\d{{4}}\1\d{{1,7}}(?:\1\d{{1,3}})?"
    rf"|\d{{4}}({_GAP})\d{{6}}\2\d{{4,5}})(?![\w-]|\.\d)"
)
_CARD_ISSUER: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})\Z|5[1-5]\d{14}\Z|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}\Z|3[47]\d{13}\Z"
    r"|3(?:0[0-5]|[689]\d)\d{11}\Z|6(?:011|4[4-9]\d|5\d\d)\d{12,15}\Z|35(?:2[89]|[3-8]\d)\d{12,15}\Z|62\d{14,17}\Z"
    r"|(?:50|5[6-9]|6[0-9])\d{10,17}\Z"
)
_IBAN_START: Final = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?=[ \u00a0-]?[A-Za-z0-9])")
# Characters of an IBAN by country. Source: SWIFT, IBAN Registry (ISO 13616).
_IBAN_COUNTRIES: Final = {
    15: "NO", 16: "BE", 18: "DK FI FK FO GL NL SD", 19: "MK SI", 20: "AT BA EE KZ LT LU MN XK", 21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA", 23: "AE GI IL IQ OM SO TL", 24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST", 26: "IS TR", 27: "BI DJ FR GR IT MC MR SM", 28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA", 30: "JO KW MU YE", 31: "MT SC", 32: "LC", 33: "RU",
}  # fmt: skip
_IBAN_LENGTHS: Final = {country: size for size, names in _IBAN_COUNTRIES.items() for country in names.split()}
_SSN: Final = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_PHONE: Final = re.compile(
    r"(?<![\w+])\+\d(?:[ .()/-]{0,2}\d){7,14}(?![\d])"
    r"|(?<![\w(.-])\(\d{3}\) ?\d{3}[-. ]\d{4}(?![\w-])"
    r"|(?<![\w.:/-])\d{3}([-.])\d{3}\1\d{4}(?![\w-]|\.\d)"
)
_SEVEN_DIGITS: Final = re.compile("\\d(?:[ ().A-Z/\u00a0\u2007\u2009\u202f\u2010-\u2015-]{0,2}\\d){6}")


def redact_numbers(keep: Iterable[str] = ()) -> Callable[[str], str]:
    """Return what replaces such numbers in a text.

    Args:
        keep: kinds that stay: 'iban', 'card', 'ssn', 'phone'.
    """
    kept = frozenset(keep)

    def run(text: str) -> str:
        if not _SEVEN_DIGITS.search(text):
            return text
        if "iban" not in kept:
            text = _redact_ibans(text)
        if "card" not in kept:
            text = _CARD.sub(_judge_card, text)
        if "ssn" not in kept:
            text = _SSN.sub("[redacted:ssn]", text)
        return text if "phone" in kept else _PHONE.sub("[redacted:phone]", text)

    return run


def is_card(text: str) -> bool:
    """Say whether digits, with or without separators, are a payment card number: a known issuer and Luhn's check."""
    digits = "".join(c for c in text if c.isdigit())
    if not _CARD_ISSUER.match(digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Say whether a text is an IBAN: its country's length and its check digits (ISO 13616, mod 97)."""
    bare = "".join(c for c in text if c not in " \u00a0-").upper()
    if len(bare) != _IBAN_LENGTHS.get(bare[:2]) or not (bare.isascii() and bare.isalnum()):
        return False
    return int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1


def _judge_card(match: re.Match[str]) -> str:
    return "[redacted:card]" if is_card(match[0]) else match[0]


def _redact_ibans(text: str) -> str:
    parts: list[str] = []
    done = 0
    for start in _IBAN_START.finditer(text):
        if start.start() < done:
            continue
        end = _end_of_iban(text, start.start())
        if end is not None:
            parts += (text[done : start.start()], "[redacted:iban]")
            done = end
    return "".join((*parts, text[done:])) if parts else text


def _end_of_iban(text: str, start: int) -> int | None:
    """Return where the IBAN that starts here ends; its country says how many characters it has."""
    wanted = _IBAN_LENGTHS.get(text[start : start + 2].upper())
    if wanted is None:
        return None
    place, found = start, 0
    while found < wanted:
        if place >= len(text):
            return None
        c = text[place]
        if c.isascii() and c.isalnum():
            found += 1
        elif c not in " \u00a0-":
            return None
        place += 1
    if place < len(text) and text[place].isascii() and text[place].isalnum():
        return None
    return place if is_iban(text[start:place]) else None
