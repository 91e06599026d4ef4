"""Values that stand in a text under a telling name: `password=...`, `"api_key": "..."`, `Cookie: ...`, `--token ...`.

For JSON that is cut off or stands among prose, query strings, forms, settings, headers, XML and command lines. Names
are judged as keys are. Each character is read a bounded number of times, whatever the text holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import unquote

from lukhas.audit.key_name import bare_name

Classify = Callable[[str], str | None]

# `name"` and `name\"` with their sign of assignment; the name is entered at its start only.
_NAME: Final = r"[\w.%\[\]\u00ad\u00b7\u200b-\u200d\u2010-\u2015\u2060\ufeff-]"
_ASSIGNMENT: Final = re.compile(
    rf"(?<!{_NAME})({_NAME}++)"
    r"(?:(\\{0,8}+[\"'])\s{0,4}+(?::|=>?)\s{0,4}+|(\s{0,3}+[=:]\s{0,3}+))"
)
_OPENING: Final = re.compile(r"(\\{0,8}+)([\"'])")
_BARE: Final = re.compile(r"[^\s&;,\"'<>()\[\]{}\\]++")
_NUMBER: Final = re.compile(r"[\d+][\d .()+/-]{2,40}+")
_WORD_BEFORE: Final = re.compile(r"(\w{2,24}) \Z")
# Nothing by themselves: `API key`, `card number`.
_SECOND_WORDS: Final = frozenset({"key", "number", "address", "code", "token", "phrase"})
_LOOK_BACK: Final = 64
_ESCAPE: Final = re.compile(r"\\+u([0-9a-fA-F]{4})")
_LINE: Final = re.compile(r"[^\r\n\"'\\]++")
_XML: Final = re.compile(r"<([^\W\d][\w:.-]{0,63}+)(?:\s[^<>]{0,200}+)?>([^<]{1,4096}+)</")
_FORM: Final = re.compile(r"name=\"([^\"\r\n]{1,64}+)\"(?:\r?\n[^\r\n]{1,200}+){0,4}+\r?\n\r?\n([^\r\n]++)")
_ARGUMENT: Final = re.compile(r"(?<!\S)--([A-Za-z][\w-]*+) {1,2}+([^\s-]\S{3,}+)")
_SIGNATURE: Final = re.compile(r"(?<=[?&])sig=[^\s&\"'<>]{16,}+")
_LONG_HEADERS: Final = frozenset({"cookie", "setcookie", "authorization", "proxyauthorization"})
# Behind these, a word that is no secret is rare enough.
_PLAIN_SPOKEN: Final = frozenset(
    (
        *("password", "passwd", "pwd", "passphrase", "secret", "apikey", "accesstoken", "refreshtoken", "clientsecret"),
        *("privatekey", "secretkey", "authtoken", "sessiontoken"),
    )
)
_PROSE: Final = frozenset(
    (
        *(
            "required",
            "optional",
            "none",
            "null",
            "missing",
            "invalid",
            "wrong",
            "incorrect",
            "empty",
            "must",
            "should",
        ),
        *(
            "string",
            "text",
            "true",
            "false",
            "please",
            "enter",
            "your",
            "this",
            "that",
            "what",
            "where",
            "when",
            "which",
        ),
        *(
            "with",
            "from",
            "should",
            "never",
            "always",
            "use",
            "the",
            "not",
            "and",
            "how",
            "undefined",
            "hidden",
            "unset",
        ),
    )
)


def redact_assigned(text: str, classify: Classify) -> str:
    """Return the text with every value under a telling name replaced by a marker of its kind."""
    if "=" in text or ":" in text:
        text = _redact_assignments(text, classify)
    if "</" in text:
        text = _XML.sub(lambda match: _replace_inner(match, classify), text)
    if 'name="' in text and "\n" in text:
        text = _FORM.sub(lambda match: _replace_inner(match, classify), text)
    if "--" in text:
        text = _ARGUMENT.sub(lambda match: _replace_argument(match, classify), text)
    if "sig=" in text:
        text = _SIGNATURE.sub("sig=[redacted:secret]", text)
    return text


def _redact_assignments(text: str, classify: Classify) -> str:
    parts: list[str] = []
    done = 0
    plain_until = 0
    for match in _ASSIGNMENT.finditer(text):
        if match.start() < done:
            continue
        name = _read_name(text, match)
        kind = classify(name)
        if kind is None:
            continue
        start = match.end()
        marker = f"[redacted:{kind}]"
        if text.startswith("[redacted:", start):
            continue
        opening = _OPENING.match(text, start)
        if opening is not None:
            start, end = opening.end(), _find_closing(text, opening)
            if start == end or text.startswith("[redacted:", start):
                continue
        elif match[2] is not None:
            end = _end_of_json(text, start)
        elif (bare := bare_name(name)) in _LONG_HEADERS:
            if start < plain_until:
                continue  # a line in which nothing was found is not read again for each of its words
            line = _LINE.match(text, start)
            end = line.end() if line is not None and _looks_like_header(bare, line[0]) else start
            plain_until = line.end() if line is not None else start
        else:
            end = _end_of_plain(text, start, bare, kind, match[3])
        if end <= start:
            continue
        parts += (text[done:start], marker)
        done = end
    return "".join((*parts, text[done:])) if parts else text


def _read_name(text: str, match: re.Match[str]) -> str:
    """Return the name with the words before it that belong to it: `"api key": ...`, `API key: ...`."""
    name, start = match[1], match.start()
    if text[start - 1 : start] in (" ", "\\"):
        if match[2] is not None:
            quote = text.rfind(match[2][-1], max(0, start - _LOOK_BACK), start)
            name = text[quote + 1 : match.end(1)] if quote != -1 else name
            name = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), name)
        elif name.lower() in _SECOND_WORDS and (before := _WORD_BEFORE.search(text, max(0, start - 25), start)):
            name = f"{before[1]} {name}"
    return unquote(name) if "%" in name else name


def _find_closing(text: str, opening: re.Match[str]) -> int:
    """Return where the quoted text ends that this opens; one that is not closed goes to the end."""
    slashes, quote = len(opening[1]), opening[2]
    place = text.find(quote, opening.end())
    while place != -1:
        before = place
        while before > opening.end() and text[before - 1] == "\\":
            before -= 1
        # A quote inside has more backslashes than those that open and close, and escaped backslashes come in pairs.
        if (place - before - slashes) % (2 * (slashes + 1)) == 0:
            return place - slashes
        place = text.find(quote, place + 1)
    return len(text)


def _end_of_json(text: str, start: int) -> int:
    if text.startswith(("null", "true", "false", "None", "True", "False"), start):
        return start
    # A list or an object in JSON that is not whole: where it ends cannot be told, so all goes.
    if text.startswith(("[", "{"), start):
        return len(text)
    found = _BARE.match(text, start)
    return found.end() if found else start


def _end_of_plain(text: str, start: int, bare: str, kind: str, sign: str) -> int:
    if sign != "=" and kind not in ("password", "secret"):
        number = _NUMBER.match(text, start)
        digits = sum(c.isdigit() for c in number[0]) if number is not None else 0
        return start + len(number[0].rstrip(" .-/(")) if number is not None and digits >= 4 else start
    found = _BARE.match(text, start)
    if found is None:
        return start
    value = found[0].rstrip(".")
    if sign == "=" or _looks_secret(value, bare, kind):
        return start + len(value)
    return start


def _looks_like_header(bare: str, line: str) -> bool:
    if bare.endswith("cookie"):
        return "=" in line
    words = [word for word in line.split() if not word.startswith("[redacted:")]
    return any(len(word) >= 4 and (any(c.isdigit() for c in word) or len(word) >= 20) for word in words)


def _looks_secret(value: str, bare: str, kind: str) -> bool:
    """Say whether what follows a colon is a value, and not prose: `token: practice` is a sentence."""
    if len(value) < 4:
        return False
    digits = sum(c.isdigit() for c in value)
    if bare.endswith(tuple(_PLAIN_SPOKEN)):
        return value.lower() not in _PROSE
    if kind == "password":
        return digits > 0 or not value.isalpha()
    return len(value) >= 20 or (len(value) >= 8 and 0 < digits < len(value))


def _replace_inner(match: re.Match[str], classify: Classify) -> str:
    kind = classify(match[1])
    if kind is None or not match[2].strip() or match[2].startswith("[redacted:"):
        return match[0]
    start, end = match.start(2) - match.start(), match.end(2) - match.start()
    return f"{match[0][:start]}[redacted:{kind}]{match[0][end:]}"


def _replace_argument(match: re.Match[str], classify: Classify) -> str:
    kind = classify(match[1])
    if kind is None or match[2].startswith("[redacted:") or match[2].lower() in _PROSE:
        return match[0]
    return f"--{match[1]} [redacted:{kind}]"
