"""Value patterns of secrets and personal data.

Every pattern is linear: a run of characters is entered at its start only, by a look behind, and never given back,
by possessive quantifiers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Final

_BOUNDARY: Final = r"(?<![A-Za-z0-9])"

_KEY: Final = re.compile(
    _BOUNDARY
    + r"(?:"
    + r"sk-[A-Za-z0-9_-]{16,}+"  # OpenAI, Anthropic and those who copied the form
    + r"|(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{8,}+|whsec_[A-Za-z0-9+/=]{16,}+"  # Stripe
    + r"|lk_[A-Za-z0-9_-]{16,}+"  # our own
    + r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    + r"|gh[pousr]_[A-Za-z0-9]{20,}+|github_pat_[A-Za-z0-9_]{20,}+|glpat-[A-Za-z0-9_-]{16,}+"  # GitHub, GitLab
    + r"|xox[a-z]-[A-Za-z0-9-]{10,}+|xapp-[A-Za-z0-9-]{10,}+"  # Slack
    + r"|AIza[A-Za-z0-9_-]{30,}+|ya29\.[A-Za-z0-9_-]{20,}+|GOCSPX-[A-Za-z0-9_-]{16,}+"  # Google
    + r"|hf_[A-Za-z0-9]{20,}+|npm_[A-Za-z0-9]{30,}+|pypi-[A-Za-z0-9_-]{30,}+"  # Hugging Face, npm, PyPI
    + r")"
)
# What one of these forms must hold; those in the second row have neither a hyphen nor an underscore.
_KEY_HINTS: Final = (
    *("sk-", "k_live_", "k_test_", "whsec_", "lk_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-"),
    *("xox", "xapp-", "GOCSPX-", "hf_", "npm_", "pypi-"),
)
_PLAIN_KEY_HINTS: Final = ("AKIA", "ASIA", "ABIA", "ACCA", "AIza", "ya29.")
_JWT: Final = re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+)?")
_BEARER: Final = re.compile(r"\b(bearer|basic)(\s{1,4}|%20)([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^\s/:@?#\"'<>]{0,128}+):([^\s/@?#\"'<>]{1,256}+)@")
_ASSIGNED: Final = re.compile(
    r"(?<![A-Za-z])(password|passwd|pwd|secret|api[_-]?key|access[_-]?token|refresh[_-]?token|client[_-]?secret)"
    r"([\"']?\s{0,3}[=:]\s{0,3}[\"']?)([^\s\"'&,;<>\[\]{}]{4,}+)",
    re.IGNORECASE,
)
_EMAIL: Final = re.compile(r"(?<![\w.+%'-])[\w.+%'-]++@[\w-]+(?:\.[\w-]+)*\.[^\W\d_]{2,63}(?![\w])")
_CARD: Final = re.compile(
    r"(?<![\w.-])(?:\d{13,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,7}|\d{4}([ -])\d{6}\2\d{4,5})(?![\w-]|\.\d)"
)
_CARD_ISSUER: Final = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})\Z|5[1-5]\d{14}\Z|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}\Z|3[47]\d{13}\Z"
    r"|3(?:0[0-5]|[689]\d)\d{11}\Z|6(?:011|4[4-9]\d|5\d\d)\d{12,15}\Z|35(?:2[89]|[3-8]\d)\d{12,15}\Z|62\d{14,17}\Z"
    r"|(?:50|5[6-9]|6[0-9])\d{10,17}\Z"
)
_IBAN: Final = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")
_SSN: Final = re.compile(r"(?<![\w-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w-])")
_PHONE: Final = re.compile(
    r"(?<![\w+])\+\d(?:[ .()/-]{0,2}\d){7,14}(?![\d])"
    r"|(?<![\w(.-])\(\d{3}\) ?\d{3}[-. ]\d{4}(?![\w-])"
    r"|(?<![\w.:/-])\d{3}([-.])\d{3}\1\d{4}(?![\w-]|\.\d)"
)
_SEVEN_DIGITS: Final = re.compile(r"\d(?:[ ().A-Z/-]{0,2}\d){6}")
_PEM_START: Final = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END: Final = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")


def redact_patterns(text: str) -> str:
    """Return the text with every match replaced by a marker that names its kind."""
    # Substring searches are an order of magnitude cheaper than any of the expressions behind them.
    if "PRIVATE KEY" in text:
        text = _redact_pem(text)
    if _hints_at_key(text):
        text = _KEY.sub("[redacted:key]", text)
    if "eyJ" in text:
        text = _JWT.sub("[redacted:jwt]", text)
    if "://" in text:
        text = _URL_PASSWORD.sub(r"\1:[redacted:password]@", text)
    lower = text.lower()
    if "bearer" in lower or "basic" in lower:
        text = _BEARER.sub(_redact_credentials, text)
    if "=" in text or ":" in text:
        text = _ASSIGNED.sub(_redact_assigned, text)
    if "@" in text:
        text = _EMAIL.sub("[redacted:email]", text)
    if _SEVEN_DIGITS.search(text):
        text = _redact_numbers(text)
    return text


def _hints_at_key(text: str) -> bool:
    for hint in _PLAIN_KEY_HINTS:
        if hint in text:
            return True
    if "-" in text or "_" in text:
        for hint in _KEY_HINTS:
            if hint in text:
                return True
    return False


def _redact_numbers(text: str) -> str:
    text = _IBAN.sub(_keep_unless(is_iban, "iban"), text)
    text = _CARD.sub(_keep_unless(is_card, "card"), text)
    text = _SSN.sub("[redacted:ssn]", text)
    return _PHONE.sub("[redacted:phone]", text)


def is_card(text: str) -> bool:
    """Say whether digits, with or without separators, are a payment card number: a known issuer and Luhn's check."""
    digits = text.replace(" ", "").replace("-", "")
    if not _CARD_ISSUER.match(digits):
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def is_iban(text: str) -> bool:
    """Say whether a text is an IBAN, by its check digits (ISO 13616, mod 97)."""
    bare = text.replace(" ", "")
    if not 15 <= len(bare) <= 34:
        return False
    return int("".join(str(int(c, 36)) for c in bare[4:] + bare[:4])) % 97 == 1


def _keep_unless(judge: Callable[[str], bool], kind: str) -> Callable[[re.Match[str]], str]:
    def replace(match: re.Match[str]) -> str:
        return f"[redacted:{kind}]" if judge(match[0]) else match[0]

    return replace


def _redact_pem(text: str) -> str:
    parts: list[str] = []
    place = 0
    while begin := _PEM_START.search(text, place):
        end = _PEM_END.search(text, begin.end())
        parts.append(text[place : begin.start()])
        parts.append("[redacted:private_key]")
        if end is None:
            return "".join(parts)  # a key that was cut off is still a key
        place = end.end()
    parts.append(text[place:])
    return "".join(parts)


def _redact_credentials(match: re.Match[str]) -> str:
    scheme, space, token = match.groups()
    secret = _looks_like_basic(token) if scheme.lower() == "basic" else _looks_like_token(token)
    return f"{scheme}{space}[redacted:credentials]" if secret else match[0]


def _looks_like_token(token: str) -> bool:
    # 'bearer instruments' and 'Bearer authentication' are prose.
    word = token.rstrip(".,")
    return not word.isalpha() or len(word) >= 24 or not (word.islower() or word.istitle() or word.isupper())


def _looks_like_basic(token: str) -> bool:
    try:
        return b":" in base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False


def _redact_assigned(match: re.Match[str]) -> str:
    if match[3].startswith("[redacted:"):
        return match[0]
    return f"{match[1]}{match[2]}[redacted:secret]"
