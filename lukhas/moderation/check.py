"""Arithmetic that a match must pass beside its pattern: check digits tell a card number from any other number."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

_NOT_DIGIT: Final = re.compile(r"[^0-9]+")
_ASSIGNED: Final = re.compile(r"[\s\"'`]|:=|=>|==|(?<![A-Za-z0-9+/=])=|[:=](?=[^=])")
# A variable, a gap to fill, or what manuals write where a secret goes.
_STAND_IN: Final = re.compile(
    r"^[$<{%\[(]|\$\{|\{\{|[.\[(]$|\(\)|example|changeme|change[-_]me|your[-_]|[-_]here|placeholder|redacted|dummy"
    r"|x{4}|\*{3}|\.{3}|^(?:pass(?:word|wd)?|pwd|secret|token)[0-9]?$|^(?:https?://|\./|/)|os\.environ|process\.env",
    re.IGNORECASE,
)
_NOT_ALPHANUMERIC: Final = re.compile(r"[^0-9A-Za-z]+")

# Length of an IBAN by country. Source: SWIFT IBAN registry, release 99.
_IBAN_LENGTHS: Final[Mapping[str, int]] = MappingProxyType(
    {
        country: length
        for length, countries in {
            15: "NO",
            16: "BE",
            18: "DK FI FO GL NL SD FK",
            19: "MK SI",
            20: "AT BA EE KZ LT LU MN XK",
            21: "CH HR LI LV",
            22: "BG BH CR DE GB GE IE ME RS VA",
            23: "AE GI IL IQ OM SO TL",
            24: "AD CZ ES MD PK RO SA SE SK TN VG",
            25: "LY PT ST",
            26: "IS TR",
            27: "BI DJ FR GR IT MC MR SM",
            28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
            29: "BR EG PS QA UA",
            30: "JO KW MU YE",
            31: "MT SC",
            32: "LC",
            33: "RU",
        }.items()
        for country in countries.split()
    }
)


def passes_luhn(text: str) -> bool:
    """Whether the digits of a text are 12 to 19, not all alike, and end in their Luhn check digit.

    Source: ISO/IEC 7812-1, annex B.
    """
    digits = _NOT_DIGIT.sub("", text)
    if not 12 <= len(digits) <= 19 or len(set(digits)) == 1:
        return False
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (doubled + sum(map(int, digits[-1::-2]))) % 10 == 0


def passes_iban(text: str) -> bool:
    """Whether a text is an IBAN: a known country, its length, and the right remainder modulo 97.

    Source: ISO 13616-1.
    """
    plain = _NOT_ALPHANUMERIC.sub("", text).upper()
    if not plain.isascii() or len(plain) != _IBAN_LENGTHS.get(plain[:2], -1) or not plain[2:4].isdigit():
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def passes_ssn(text: str) -> bool:
    """Whether nine digits can be a US social security number.

    Source: Social Security Administration, POMS RM 10201.035: no area 000, 666 or 9xx, no group 00, no serial 0000.
    """
    digits = _NOT_DIGIT.sub("", text)
    if len(digits) != 9 or digits in ("123456789", "078051120", "219099999"):
        return False
    return digits[:3] not in ("000", "666") and digits[0] != "9" and digits[3:5] != "00" and digits[5:] != "0000"


def passes_public_ip(text: str) -> bool:
    """Whether a text is an IPv4 address that is routed on the internet, and so may tell of a person."""
    try:
        address = ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast and not text.endswith(".0")


def passes_phone(text: str) -> bool:
    """Whether a text has as many digits as a telephone number, 8 to 15, and not all alike.

    Source: ITU-T E.164, section 6.
    """
    digits = _NOT_DIGIT.sub("", text)
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


def passes_variety(text: str) -> bool:
    """Whether a text looks drawn at random, as keys are: letters and digits both, and at least eight different ones.

    Tells a key from `xxxxxxxx`, `your-key-here` and other words that stand in for one.
    """
    plain = _NOT_ALPHANUMERIC.sub("", text)
    return len(set(plain)) >= 8 and any(c.isdigit() for c in plain) and any(c.isalpha() for c in plain)


def passes_assigned(text: str) -> bool:
    """Whether what follows the last separator of `name = value` can be a secret value and no stand-in for one.

    At least six different characters, a digit or a sign among them, and none of the words that manuals use.
    """
    value = _ASSIGNED.split(text.rstrip("\"'`.,;)"))[-1]
    if len(set(value)) < 6 or value.isalpha() or _STAND_IN.search(value):
        return False
    return any(c.isdigit() for c in value) or any(c in "!@#$%^&*+/~" for c in value)


def passes_url_password(text: str) -> bool:
    """Whether the password in `//user:password@host` can be one, and is neither a variable nor a stand-in.

    What stands before the slashes and after the last `@` does not matter, and both may be missing.
    """
    plain, is_followed, _ = text.rpartition("@")
    named = plain if is_followed else text
    _, has_scheme, after = named.partition("//")
    password = (after if has_scheme else named).partition(":")[2]
    return not (password.isdigit() and len(password) <= 5) and _STAND_IN.search(password) is None


CHECKS: Final[Mapping[str, Callable[[str], bool]]] = MappingProxyType(
    {
        "luhn": passes_luhn,
        "iban": passes_iban,
        "ssn": passes_ssn,
        "public-ip": passes_public_ip,
        "phone": passes_phone,
        "variety": passes_variety,
        "assigned": passes_assigned,
        "url-password": passes_url_password,
    }
)
