"""Redaction: secrets and personal data leave a marker such as `[redacted:email]`, by key name and by value pattern.

What stands under a telling key is replaced whole; in any other text only the part that matches is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from lukhas.audit.pattern import redact_patterns
from lukhas.audit.plain import Plain, to_plain

_LONGEST_CACHED: Final = 200
_MOST_CACHED: Final = 4_096
_SEPARATORS: Final = re.compile(r"[\W_]+")

# Compared without case and separators, so `X-Api-Key`, `x_api_key` and `xApiKey` are one name.
_NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("password", "passwd", "pwd", "passphrase", "passcode", "pin", "otp", "mfacode", "recoverycode"), "password"
    ),
    **dict.fromkeys(
        (
            "secret",
            "secrets",
            "credential",
            "credentials",
            "token",
            "authorization",
            "authtoken",
            "idtoken",
            "sessiontoken",
            "bearer",
            "jwt",
            "accesskey",
            "accesskeyid",
            "signingkey",
            "encryptionkey",
            "masterkey",
            "connectionstring",
        ),
        "secret",
    ),
    **dict.fromkeys(("email", "emails", "mail", "emailaddress", "emailaddresses"), "email"),
    **dict.fromkeys(
        ("phone", "phones", "phonenumber", "phonenumbers", "mobile", "mobilenumber", "telephone", "tel", "fax"), "phone"
    ),
    **dict.fromkeys(
        (
            "ssn",
            "socialsecurity",
            "taxid",
            "nationalid",
            "passport",
            "passportnumber",
            "driverslicense",
            "driverlicense",
            "dateofbirth",
            "birthdate",
            "dob",
        ),
        "personal",
    ),
    **dict.fromkeys(("creditcard", "cardnumber", "ccnumber", "cvv", "cvc", "cvv2", "iban"), "card"),
}
# A telling name may follow others (`db_password`, `openai_api_key`) ...
_ENDINGS: Final = re.compile(
    r"(?P<password>password|passwd|passphrase)\Z"
    r"|(?P<secret>secret|apikey|apikeys|secretkey|privatekey|accesstoken|refreshtoken|authtoken|sessiontoken|bearertoken"
    r"|idtoken|csrftoken|authorization|cookie|cookies|credentials|accesskey)\Z"
    r"|(?P<email>email|emailaddress)\Z"
    r"|(?P<phone>phonenumber|mobilenumber)\Z"
    r"|(?P<personal>ssn|socialsecuritynumber)\Z"
    r"|(?P<card>creditcard|creditcardnumber|cardnumber)\Z"
)
# ... or stand before them (`password_hash`, `client_secret_value`).
_BEGINNINGS: Final = re.compile(
    r"(?P<password>password|passwd)|(?P<secret>clientsecret|apikey|privatekey|accesstoken|refreshtoken|setcookie)"
)


def redact(value: object) -> Plain:
    """Return the value as plain JSON without secrets and personal data, at any depth, in keys and values.

    Numbers and booleans survive, except under a telling key. What JSON cannot hold becomes a marked text
    (`lukhas.audit.plain`).
    """
    return to_plain(value, text=redact_text, member=_judge_member)


def redact_text(text: str) -> str:
    """Return the text with every secret and piece of personal data in it replaced by a marker.

    Takes time linear in the text's length, whatever it holds. Short texts that are clean are remembered.
    """
    if text in _clean_texts:
        return text
    redacted = redact_patterns(text)
    if len(text) <= _LONGEST_CACHED and redacted == text:
        if len(_clean_texts) >= _MOST_CACHED:
            _clean_texts.clear()
        _clean_texts.add(text)
    return redacted


# Only clean texts are kept, so that no secret lives longer for having been seen.
_clean_texts: set[str] = set()
_clean_keys: dict[str, str | None] = {}


def classify_key(name: str) -> str | None:
    """Return what a key's name says its value is ('password', 'email', ...), or None for an ordinary name."""
    if len(name) > _LONGEST_CACHED:
        return None
    bare = _SEPARATORS.sub("", name).lower()
    found = _NAMES.get(bare)
    if found is not None:
        return found
    match = _ENDINGS.search(bare) or _BEGINNINGS.match(bare)
    return match.lastgroup if match else None


def _judge_member(name: str, value: object) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if name in _clean_keys:
        kind = _clean_keys[name]
    else:
        kind = classify_key(name)
        if name in _clean_texts:
            if len(_clean_keys) >= _MOST_CACHED:
                _clean_keys.clear()
            _clean_keys[name] = kind
    return f"[redacted:{kind}]" if kind else None
