"""What a key's name says about its value: `x-api-key` and `a.b.userEMail` are telling, `max_tokens` is not.

Names are compared without case and separators; accents, widths, zero-width characters and letters of other scripts
that look like Latin ones do not hide a name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Final

_LONGEST: Final = 200

NAMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        (
            *("password", "passwords", "passwd", "passwort", "pwd", "pass", "passphrase", "passcode", "pin", "pincode"),
            *("pinnumber", "cardpin", "userpin", "otp", "totp", "otpcode", "mfacode", "recoverycode", "recoverycodes"),
            *("backupcode", "backupcodes", "pw", "userpw", "dbpass", "userpass", "securityanswer"),
        ),
        "password",
    ),
    **dict.fromkeys(
        (
            *("secret", "secrets", "credential", "credentials", "creds", "token", "authorization", "bearer", "jwt"),
            *("auth", "basicauth", "httpauth", "authheader", "cookie", "cookies", "accesskeyid", "connectionstring"),
            *("keymaterial", "seedphrase", "mnemonic", "sharedaccesssignature", "xamzsignature", "xamzcredential"),
            *("xgoogsignature", "xgoogcredential", "xfunctionskey", "dsn", "sessioncookie", "phpsessid", "jsessionid"),
            *("connectsid",),
        ),
        "secret",
    ),
    **dict.fromkeys(("email", "emails", "mail", "mails", "emailaddress", "emailaddresses", "mailto"), "email"),
    **dict.fromkeys(
        (
            *("phone", "phones", "phonenumber", "phonenumbers", "mobile", "mobilenumber", "mobilephone", "homephone"),
            *("workphone", "cellphone", "cellnumber", "telephone", "telephonenumber", "tel", "fax", "faxnumber"),
            *("msisdn", "whatsapp"),
        ),
        "phone",
    ),
    **dict.fromkeys(
        (
            *("ssn", "socialsecurity", "socialsecuritynumber", "taxid", "nationalid", "passport", "passportnumber"),
            *("driverslicense", "driverlicense", "dateofbirth", "birthdate", "birthday", "dob"),
        ),
        "personal",
    ),
    **dict.fromkeys(
        (
            *("creditcard", "creditcardnumber", "cardnumber", "ccnumber", "ccnum", "debitcard", "cvv", "cvc", "cvv2"),
            *("cardcvv", "cardcvc", "iban", "ibannumber", "accountnumber", "bankaccount", "bankaccountnumber"),
        ),
        "card",
    ),
}
"""Names that are telling by themselves, by kind; also as the last words of a longer name (`billing_email`)."""

# Too short or too common to be telling behind other words: `led_pin`, `session_auth`, `send_mail`.
_ALONE: Final = frozenset({"pin", "pass", "pw", "auth", "mail", "mails", "mobile", "tel", "dsn", "birthday", "mailto"})

ANYWHERE: Final[Mapping[str, str]] = {
    **dict.fromkeys(("password", "passwords", "passwd", "passphrase", "passcode"), "password"),
    **dict.fromkeys(
        (
            *("apikey", "apikeys", "apisecret", "apitoken", "apitokens", "clientsecret", "secretkey", "secretkeys"),
            *("secretaccess", "privatekey", "privatekeys", "accesskey", "accesskeys", "accesstoken", "accesstokens"),
            *("refreshtoken", "refreshtokens", "authtoken", "authtokens", "sessiontoken", "sessiontokens"),
            *("bearertoken", "idtoken", "csrftoken", "xsrftoken", "oauthtoken", "securitytoken", "sastoken"),
            *("authorization", "setcookie", "signingkey", "encryptionkey", "masterkey", "accountkey", "sharedkey"),
            *("subscriptionkey", "servicekey", "licensekey", "hmackey", "authkey", "sshkey", "secretvalue"),
            *("webhooksecret", "signingsecret", "sharedsecret"),
        ),
        "secret",
    ),
    **dict.fromkeys(("emailaddress", "emailaddresses"), "email"),
    **dict.fromkeys(("phonenumber", "phonenumbers", "mobilenumber", "telephonenumber"), "phone"),
    **dict.fromkeys(("ssn", "socialsecuritynumber"), "personal"),
    **dict.fromkeys(("creditcard", "creditcardnumber", "cardnumber"), "card"),
}
"""Names that are telling wherever they stand in a longer name (`old_password_2`, `openai_api_key_file`)."""

HARMLESS_ENDINGS: Final = frozenset(
    (
        *("count", "counts", "length", "len", "limit", "limits", "enabled", "disabled", "required", "verified", "type"),
        *(
            "types",
            "policy",
            "strength",
            "expires",
            "expiry",
            "expired",
            "expiration",
            "ttl",
            "seconds",
            "ms",
            "status",
        ),
        *("attempts", "retries", "allowed", "min", "max", "size", "usage", "used", "budget", "rotated", "supported"),
    )
)
"""Last words after which a name says something about the value, and not the value: `password_length`."""

# A `token` behind one of these is a place in a list, or a piece of text, and no key.
_TOKENS_OF_TEXT: Final = (
    *("page", "next", "previous", "prev", "continuation", "cursor", "sync", "eos", "bos", "pad", "unk"),
    *("mask", "sep", "cls", "stop", "end", "start", "begin", "first", "last", "max", "min", "per"),
    *("special", "new", "top", "output", "input", "prompt", "completion", "image", "audio", "text", "each"),
    *("every", "nth", "draft"),
)

_SEPARATORS: Final = re.compile(r"[\W_]+")
_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")
# Every telling name holds one of these, so that a name without any needs no second look.
_STEM: Final = re.compile(
    r"pass|pwd|pw|pin|otp|code|secret|cred|token|auth|bearer|jwt|cookie|key|connect|sess|mnemonic|seed|sig|mail|phone"
    r"|mobile|cell|tel|fax|msisdn|whatsapp|ssn|social|taxid|nationalid|license|birth|dob|card|ccn|cvv|cvc|iban|account"
    r"|answer|dsn"
)
_ENDING: Final = re.compile(
    "(?P<password>password|passwords|passwd|passphrase|passwort)\\Z"
    "|(?P<secret>secret|secrets|credentials|authorization|cookie|cookies"
    f"|{'|'.join(sorted((n for n, kind in ANYWHERE.items() if kind == 'secret'), key=len, reverse=True))})\\Z"
    "|(?P<email>email|emails|emailaddress)\\Z|(?P<phone>phonenumber|mobilenumber)\\Z"
    "|(?P<card>creditcard|creditcardnumber|cardnumber)\\Z"
)
_BEGINNING: Final = re.compile(
    r"(?P<password>password|passwd)|(?P<secret>clientsecret|apikey|privatekey|accesstoken|refreshtoken|setcookie)"
)
_MOST_JOINED: Final = 3
# Letters of other scripts that look like these; what is not listed stays as it is.
_ALIKE: Final = str.maketrans(
    "\u0430\u0432\u0435\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0456\u0458\u0455\u0501\u051b\u051d"
    "\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u0406\u0408\u0405"
    "\u03b1\u03b5\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4\u03c5\u03c7\u0391\u0395\u0399\u039a\u039d\u039f\u03a1\u03a4\u03a7"
    "\u0131\u0261\u017f",
    "abekmhopctyxijsdqwABEKMHOPCTYXIJSaeikvoptuxAEIKNOPTXigs",
)


def fold_name(name: str) -> str:
    """Return a name in plain letters: without accents, widths, invisible characters and look-alikes."""
    if name.isascii():
        return name
    parts = unicodedata.normalize("NFKD", name)
    seen = "".join(c for c in parts if unicodedata.category(c) not in ("Mn", "Cf", "Me"))
    return seen.translate(_ALIKE)


def bare_name(name: str) -> str:
    """Return a name as it is compared: folded, in lower case, without separators."""
    return _SEPARATORS.sub("", fold_name(name)).lower()


def classify_name(name: str, extra: Mapping[str, str] | None = None) -> str | None:
    """Return the kind of value that a key's name tells of ('password', 'email', ...), or None.

    Args:
        name: as it stands. Of a very long one, its two ends are judged.
        extra: further bare names with their kinds; they count alone and as the last words of a name.
    """
    if len(name) > _LONGEST:
        return classify_name(name[-_LONGEST:], extra) or classify_name(name[:_LONGEST], extra)
    folded = fold_name(name)
    bare = _SEPARATORS.sub("", folded).lower()
    if extra:
        found = _find_extra(folded, bare, extra)
        if found is not None:
            return found
    if not _STEM.search(bare):
        return None
    return _judge(folded, bare)


def _judge(folded: str, bare: str) -> str | None:
    bare = bare.rstrip("0123456789") or bare
    found = NAMES.get(bare)
    if found is not None:
        return found
    words = [word.lower() for word in _WORD.findall(folded)]
    while words and words[-1].isdigit():
        words.pop()
    if not words or words[-1] in HARMLESS_ENDINGS:
        return None
    if bare.endswith("token"):
        return None if bare[:-5].endswith(_TOKENS_OF_TEXT) else "secret"
    # `token_expires_at`, `password_expires_in`
    if words[-1] in ("at", "in") and len(words) > 1 and words[-2] in HARMLESS_ENDINGS | {"created", "updated"}:
        return None
    for first in range(len(words)):
        joined = ""
        for last in range(first, min(first + _MOST_JOINED, len(words))):
            joined += words[last]
            kind = ANYWHERE.get(joined)
            if kind is None and last == len(words) - 1 and joined not in _ALONE:
                kind = NAMES.get(joined)
            if kind is not None:
                return kind
    match = _ENDING.search(bare) or _BEGINNING.match(bare)
    return match.lastgroup if match else None


def _find_extra(folded: str, bare: str, extra: Mapping[str, str]) -> str | None:
    found = extra.get(bare)
    if found is not None:
        return found
    joined = ""
    for word in reversed(_WORD.findall(folded)):
        joined = word.lower() + joined
        if joined in extra:
            return extra[joined]
    return None
