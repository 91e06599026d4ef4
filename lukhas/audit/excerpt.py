"""What is kept of a text: redacted first, then cut to a limit, so that no half of a secret stands at the cut."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from lukhas.audit.plain import to_plain
from lukhas.audit.redaction import redact, redact_text

# What a pattern must see to be found. A text that was shortened before it was redacted loses as much at its end.
MARGIN_CHARS: Final = 16_384
_TRUNCATED: Final = "[cut: the rest was not kept]"


class Excerpt(NamedTuple):
    """A redacted text, and whether only its beginning is here."""

    text: str
    is_cut: bool


def make_excerpt(value: Any, most_bytes: int) -> Excerpt:
    """Return a value as redacted JSON of at most so many bytes, and a mark where it was cut.

    Takes time linear in the value's size; texts that are longer than could be kept are not read to their end.

    Args:
        value: any value; a text stands as it is, without quotes.
        most_bytes: most bytes of UTF-8 before the mark.
    """
    is_shortened = False
    longest = most_bytes + MARGIN_CHARS

    def shorten(text: str) -> str:
        nonlocal is_shortened
        if len(text) <= longest:
            return text
        is_shortened = True
        seen = redact_text(text[:longest])
        return f"{seen[: max(0, min(most_bytes, len(seen) - MARGIN_CHARS))]}{_TRUNCATED}"

    redacted = redact(to_plain(value, text=shorten))
    encoded = redacted.encode() if isinstance(redacted, str) else msgspec.json.encode(redacted)
    if len(encoded) <= most_bytes:
        return Excerpt(encoded.decode(), is_shortened)
    return Excerpt(f"{encoded[:most_bytes].decode(errors='ignore')}{_TRUNCATED}", True)
