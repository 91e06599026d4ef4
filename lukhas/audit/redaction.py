"""Redaction: secrets and personal data leave a marker such as `[redacted:email]`, by key name and by value pattern.

What stands under a telling key is replaced whole; in any other text only the part that matches is. One redactor serves
the whole process, the default one until `install_redactor` puts a configured one in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from lukhas.audit.json_text import redact_json
from lukhas.audit.key_name import bare_name, classify_name
from lukhas.audit.pattern import list_steps
from lukhas.audit.plain import Plain, to_plain

_LONGEST_CACHED: Final = 200
_MOST_CACHED: Final = 4_096
# JSON in JSON in JSON: deeper, its text is searched as any other.
_MOST_NESTED: Final = 6


class TextPattern(Protocol):
    """A pattern of the operator's own."""

    def redact(self, text: str) -> str:
        """Return the text without its matches; without anything, where that cannot be told in time."""
        ...


class Redactor:
    """Replaces secrets and personal data in any value.

    Args:
        keys: further telling names with the kind that they tell of, such as `{"employee_no": "personal"}`.
        patterns: searched in every text, after the built-in ones.
        keep: names and kinds that are not redacted.
    """

    def __init__(
        self, keys: Mapping[str, str] | None = None, patterns: Iterable[TextPattern] = (), keep: Iterable[str] = ()
    ) -> None:
        kept = tuple(keep)
        self._extra = {bare_name(name): kind for name, kind in (keys or {}).items()}
        self._kept_kinds = frozenset(kept)
        self._kept_names = frozenset(bare_name(name) for name in kept)
        self._steps = list_steps(self._kept_kinds, self.classify_key)
        self._patterns = tuple(patterns)
        # Only clean texts are kept, so that no secret lives longer for having been seen.
        self.clean_texts: set[str] = set()
        self._clean_keys: dict[str, str | None] = {}

    def redact(self, value: object) -> Plain:
        """Return the value as plain JSON without secrets and personal data, at any depth, in keys and values.

        Numbers and booleans survive, except under a telling key. What JSON cannot hold becomes a marked text
        (`lukhas.audit.plain`). Pairs of a name and a value are judged as a key is: `{"name": "Cookie", "value": ...}`,
        `[["cookie", ...]]`.
        """
        return self._redact(value, 0)

    def redact_text(self, text: str) -> str:
        """Return the text with every secret and piece of personal data in it replaced by a marker.

        Takes time linear in the text's length, whatever it holds. Short texts that are clean are remembered.
        """
        return self._redact_text(text, 0)

    def classify_key(self, name: str) -> str | None:
        """Return what a key's name says its value is ('password', 'email', ...), or None for an ordinary name."""
        kind = classify_name(name, self._extra)
        if kind is None or kind in self._kept_kinds or (self._kept_names and bare_name(name) in self._kept_names):
            return None
        return kind

    def _redact(self, value: object, nested: int) -> Plain:
        known = self.clean_texts

        def map_text(text: str) -> str:
            return text if text in known else self._redact_text(text, nested)

        return to_plain(value, text=map_text, member=self._judge_member, pair=self._judge_key)

    def _redact_text(self, text: str, nested: int) -> str:
        if text in self.clean_texts:
            return text
        redacted = text
        if nested < _MOST_NESTED and text[:1] in ("{", "[", '"', " ", "\n", "\t", "\r"):
            redacted = redact_json(text, lambda value: self._redact(value, nested + 1))
        for step in self._steps:
            redacted = step(redacted)
        for pattern in self._patterns:
            redacted = pattern.redact(redacted)
        if len(text) <= _LONGEST_CACHED and redacted == text:
            if len(self.clean_texts) >= _MOST_CACHED:
                self.clean_texts.clear()
            self.clean_texts.add(text)
        return redacted

    def _judge_member(self, name: str, value: object) -> str | None:
        if value is None or isinstance(value, bool):
            return None
        kind = self._judge_key(name)
        return f"[redacted:{kind}]" if kind else None

    def _judge_key(self, name: str) -> str | None:
        if name in self._clean_keys:
            return self._clean_keys[name]
        kind = self.classify_key(name)
        if name in self.clean_texts:
            if len(self._clean_keys) >= _MOST_CACHED:
                self._clean_keys.clear()
            self._clean_keys[name] = kind
        return kind


def redact(value: object) -> Plain:
    """Redact a value by the process's redactor; see `Redactor.redact`."""
    return _redactor.redact(value)


def redact_text(text: str) -> str:
    """Redact a text by the process's redactor; see `Redactor.redact_text`."""
    return text if text in _clean_texts else _redact_text(text)


def classify_key(name: str) -> str | None:
    """Judge a key's name by the process's redactor; see `Redactor.classify_key`."""
    return _redactor.classify_key(name)


def install_redactor(redactor: Redactor | None = None) -> None:
    """Put a redactor in the place of the process's one; None puts the default one there."""
    global _redactor, _clean_texts, _redact_text
    _redactor = redactor or _DEFAULT
    # Bound here, so that a text that is known to be clean costs one look.
    _clean_texts, _redact_text = _redactor.clean_texts, _redactor.redact_text


_DEFAULT: Final = Redactor()
_redactor = _DEFAULT
_clean_texts = _DEFAULT.clean_texts
_redact_text: Callable[[str], str] = _DEFAULT.redact_text
