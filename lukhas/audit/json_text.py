"""JSON that stands in a text: read, redacted as values are, and written again where that changed it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def redact_json(text: str, redact: Callable[[object], Any]) -> str:
    """Return a text that is one JSON value with that value redacted; any other text as it is.

    A text in which nothing is found keeps its bytes; else its white space goes.
    """
    bare = text.strip()
    if len(bare) < 2 or (bare[0] + bare[-1]) not in ("{}", "[]", '""'):
        return text
    try:
        value: Any = _decode(bare)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError):
        return text
    redacted = redact(value)
    if redacted == value:
        return text
    return _encode(redacted).decode()
