"""Value patterns of secrets and personal data.

Every pattern is linear: a run of characters is entered at its start only, by a look behind, and never given back,
by possessive quantifiers.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable
from typing import Final

from lukhas.audit.assigned import redact_assigned
from lukhas.audit.number_pattern import redact_numbers

Step = Callable[[str], str]

_BOUNDARY: Final = r"(?<![A-Za-z0-9])"

# Whose key it is, the text that each of them holds, and its form.
KEY_FORMS: Final[tuple[tuple[str, tuple[str, ...], str], ...]] = (
    ("OpenAI, Anthropic, OpenRouter, DeepSeek and others", ("sk-",), r"sk-[A-Za-z0-9_-]{16,}+"),
    ("Stripe", ("k_live_", "k_test_"), r"(?:sk|pk|rk)_(?:live|test)_[A-Za-z0-9]{8,}+"),
    ("Stripe webhooks", ("whsec_",), r"whsec_[A-Za-z0-9+/=]{16,}+"),
    ("LUKHAS", ("lk_",), r"lk_[A-Za-z0-9_-]{16,}+"),
    ("AWS", ("AKIA", "ASIA", "ABIA", "ACCA"), r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?![A-Za-z0-9])"),
    ("GitHub", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9_.-]{20,}+"),
    ("GitHub fine-grained", ("github_pat_",), r"github_pat_[A-Za-z0-9_]{20,}+"),
    ("GitLab", ("gl",), r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[A-Za-z0-9_.-]{16,}+"),
    ("Slack", ("xox", "xapp-"), r"(?:xox[a-z](?:\.xox[a-z])?|xapp)-[A-Za-z0-9-]{10,}+"),
    ("Slack webhooks", ("hooks.slack.com/",), r"hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{16,}+"),
    ("Google API", ("AIza",), r"AIza[A-Za-z0-9_-]{30,}+"),
    ("Google OAuth", ("ya29.", "GOCSPX-", "1//0"), r"(?:ya29\.|GOCSPX-|1//0)[A-Za-z0-9_-]{16,}+"),
    ("Hugging Face", ("hf_",), r"hf_[A-Za-z0-9]{20,}+"),
    ("npm", ("npm_",), r"npm_[A-Za-z0-9]{30,}+"),
    ("PyPI", ("pypi-",), r"pypi-[A-Za-z0-9_-]{30,}+"),
    ("Azure client secrets", ("Q~",), r"[A-Za-z0-9_~.]{3}\dQ~[A-Za-z0-9_~.-]{31,34}"),
    ("Azure services", ("JQQJ99",), r"[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{16,}+"),
    ("Azure storage", ("==",), r"[A-Za-z0-9+/]{86}==(?![A-Za-z0-9+/=])"),
    ("SendGrid", ("SG.",), r"SG\.[A-Za-z0-9_-]{16,}+\.[A-Za-z0-9_-]{16,}+"),
    ("Telegram", (":AA",), r"\d{8,10}:AA[A-Za-z0-9_-]{32,}+"),
    ("DigitalOcean", ("_v1_",), r"do[opr]_v1_[a-f0-9]{32,}+"),
    ("Databricks", ("dapi",), r"dapi[a-f0-9]{32}(?:-\d)?"),
    ("Groq, xAI, Perplexity, Replicate", ("gsk_", "xai-", "pplx-", "r8_"), r"(?:gsk_|xai-|pplx-|r8_)[A-Za-z0-9]{30,}+"),
    ("HashiCorp Vault", ("hvs.", "hvb."), r"hv[sb]\.[A-Za-z0-9_-]{20,}+"),
    ("Shopify", ("shp",), r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    ("Atlassian", ("ATATT3",), r"ATATT3[A-Za-z0-9_=-]{30,}+"),
    ("Linear, Notion, Figma", ("lin_api_", "ntn_", "figd_"), r"(?:lin_api_|ntn_|figd_)[A-Za-z0-9_-]{20,}+"),
    ("Grafana", ("glsa_", "glc_"), r"(?:glsa_|glc_)[A-Za-z0-9_+/=]{20,}+"),
    ("LangSmith, Tavily", ("lsv2_", "tvly-"), r"(?:lsv2_(?:pt|sk)_|tvly-)[A-Za-z0-9_-]{20,}+"),
    ("age", ("AGE-SECRET-KEY-1",), r"AGE-SECRET-KEY-1[A-Z0-9]{30,}+"),
)
_KEY: Final = re.compile(_BOUNDARY + "(?:" + "|".join(form for _, _, form in KEY_FORMS) + ")")
# One that holds none of these characters is in the first row; so most words need five searches.
_PLAIN_HINTS: Final = ("AKIA", "ASIA", "ABIA", "ACCA", "AIza", "JQQJ99", "dapi", "Q~", "==", ":AA", "1//0")
_HINTS: Final = tuple(hint for _, hints, _ in KEY_FORMS for hint in hints if hint not in _PLAIN_HINTS)
_JWT: Final = re.compile(_BOUNDARY + r"eyJ[A-Za-z0-9_-]{8,}+((?:\.[A-Za-z0-9_-]*+){0,4}+)")
_BEARER: Final = re.compile(r"\b(bearer|basic)(\s{1,4}|%20)([A-Za-z0-9._~+/=-]{8,}+)", re.IGNORECASE)
_URL_PASSWORD: Final = re.compile(
    r"(?<=://)([^\s/:@?#\"'<>]{0,128}+):([^\s/?#\"'<>]{1,256})@|(?<=://)()([A-Za-z0-9_-]{20,256}+)@"
)
_DOMAIN: Final = r"(?:[\w-]+(?:\.[\w-]+)*\.(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,63})(?![\w])|\[[0-9A-Fa-f:.]{3,45}\])"
_EMAIL: Final = re.compile(rf"(?<![\w.+%'!#$*^~-])[\w.+%'!#$*^~-]++[@\uff20\ufe6b]{_DOMAIN}")
_QUOTED_EMAIL: Final = re.compile(rf'"(?:[^"\\\r\n@]|\\.|@){{1,64}}"@{_DOMAIN}')
_ESCAPED_EMAIL: Final = re.compile(rf"(?<![\w.+'-])(?:(?!%40)[\w.+%'-])++%40{_DOMAIN}", re.IGNORECASE)
_PEM_START: Final = re.compile(r"-{4,5} ?BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_PEM_END: Final = re.compile(r"-{4,5} ?END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_LONGEST_TAIL: Final = 16_384

VALUE_KINDS: Final = (
    *("private_key", "key", "jwt", "password", "credentials", "secret", "email", "iban", "card", "ssn", "phone"),
)
"""Kinds that are found by their own form, or by what stands before them in a text."""


def list_steps(keep: Iterable[str], classify: Callable[[str], str | None]) -> list[Step]:
    """Return what is done to a text, in order; each step is quick where there is nothing for it.

    Args:
        keep: kinds that are left as they are.
        classify: tells the kind of value by a key's name, for names inside texts.
    """
    kept = frozenset(keep)
    steps: list[tuple[str, Step]] = [
        ("private_key", _redact_pem),
        ("key", _redact_keys),
        ("jwt", _redact_jwt),
        ("password", _redact_url_passwords),
        ("credentials", _redact_bearer),
        ("", lambda text: redact_assigned(text, classify)),
        ("email", _redact_emails),
        ("", redact_numbers(kept)),
    ]
    return [step for kind, step in steps if kind not in kept]


def _redact_keys(text: str) -> str:
    return _KEY.sub(_judge_key, text) if _hints_at_key(text) else text


def _hints_at_key(text: str) -> bool:
    for hint in _PLAIN_HINTS:
        if hint in text:
            return True
    if "-" in text or "_" in text or "." in text:
        for hint in _HINTS:
            if hint in text:
                return True
    return False


def _judge_key(match: re.Match[str]) -> str:
    # `sk-learn-based-classification` has no digit, which no random key of this length lacks.
    found = match[0]
    if found.startswith(("sk-", "gl", "xox", "xapp")) and not any(c.isdigit() for c in found):
        return found
    return "[redacted:key]"


def _redact_jwt(text: str) -> str:
    return _JWT.sub(_judge_jwt, text) if "eyJ" in text else text


def _judge_jwt(match: re.Match[str]) -> str:
    return "[redacted:jwt]" if len(match[1]) > 8 else match[0]


def _redact_url_passwords(text: str) -> str:
    if "://" not in text:
        return text
    return _URL_PASSWORD.sub(lambda m: f"{m[1]}:[redacted:password]@" if m[2] else "[redacted:password]@", text)


def _redact_emails(text: str) -> str:
    if "@" in text or "\uff20" in text or "\ufe6b" in text:
        if '"@' in text:
            text = _QUOTED_EMAIL.sub("[redacted:email]", text)
        text = _EMAIL.sub("[redacted:email]", text)
    return _ESCAPED_EMAIL.sub("[redacted:email]", text) if "%40" in text else text


def _redact_pem(text: str) -> str:
    if "PRIVATE KEY" not in text:
        return text
    parts: list[str] = []
    place = 0
    while begin := _PEM_START.search(text, place):
        end = _PEM_END.search(text, begin.end())
        parts += (_cut_pem_tail(text[place : begin.start()]), "[redacted:private_key]")
        if end is None:
            return "".join(parts)  # a key that was cut off is still a key
        place = end.end()
    parts.append(_cut_pem_tail(text[place:]))
    return "".join(parts)


def _cut_pem_tail(text: str) -> str:
    """Return a text without the rest of a key whose beginning was cut off."""
    end = _PEM_END.search(text) if "PRIVATE KEY" in text else None
    if end is None:
        return text
    # Looked at from its end, so that no run is entered twice.
    before = text[max(0, end.start() - _LONGEST_TAIL) : end.start()][::-1]
    tail = re.match(r"[A-Za-z0-9+/=\s\\]++", before)
    start = end.start() - (len(tail[0]) if tail else 0)
    return text[:start] + "[redacted:private_key]" + text[end.end() :]


def _redact_bearer(text: str) -> str:
    lower = text.lower()
    return _BEARER.sub(_judge_credentials, text) if "bearer" in lower or "basic" in lower else text


def _judge_credentials(match: re.Match[str]) -> str:
    scheme, space, token = match.groups()
    secret = _looks_like_basic(token) if scheme.lower() == "basic" else _looks_like_token(token)
    return f"{scheme}{space}[redacted:credentials]" if secret else match[0]


def _looks_like_token(token: str) -> bool:
    # 'bearer instruments' and 'Bearer authentication' are prose.
    word = token.rstrip(".,")
    return not word.isalpha() or len(word) >= 24 or not (word.islower() or word.istitle() or word.isupper())


def _looks_like_basic(token: str) -> bool:
    try:
        return b":" in base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        try:
            return b":" in base64.b64decode(token + "=" * (-len(token) % 4), validate=True)
        except (binascii.Error, ValueError):
            return False
