"""Which parameters a model takes, under which field, in which units.

The policy speaks of numbers; a model may want a word, another field, or nothing at all. Words stand for numbers so
that a tighter decision never becomes a looser word: an effort is rounded up to the next word that the model has.
"""

from __future__ import annotations

import fnmatch
import re
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import yaml

from lukhas.errors import ConfigurationError, InvalidRequest

MAX_BYTES: Final = 1_000_000

# What every float holds exactly and every JSON writer writes; no parameter comes near it.
_LARGEST_NUMBER: Final = 2**53
# Words and the numbers that they stand for.
EFFORT: Final = {"none": 0.0, "minimal": 0.1, "low": 0.33, "medium": 0.67, "high": 0.9, "xhigh": 1.0}
VERBOSITY: Final = {"low": 0.0, "medium": 0.5, "high": 1.0}
_WORDS: Final = {"reasoning_effort": EFFORT, "verbosity": VERBOSITY}

# Every field of a chat request by which a caller may set a parameter.
CHAT_FIELDS: Final = {
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "max_output_tokens": ("max_tokens", "max_completion_tokens"),
    "reasoning_effort": ("reasoning_effort",),
    "verbosity": ("verbosity",),
    "frequency_penalty": ("frequency_penalty",),
    "presence_penalty": ("presence_penalty",),
}


# The Responses API has one field for each; a dot leads into an object.
RESPONSE_FIELD: Final = {
    "temperature": "temperature",
    "top_p": "top_p",
    "max_output_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
}


class Capability(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one family of models takes. See capabilities.yaml."""

    match: str
    refuses: tuple[str, ...] = ()
    max_output_tokens: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    reasoning_effort: tuple[str, ...] | Literal["number"] = ()
    verbosity: tuple[str, ...] | Literal["number"] = ()

    def chat_field(self, parameter: str) -> str | None:
        """Return the chat field to write a parameter into; None where the model does not take it."""
        if parameter in self.refuses or parameter not in CHAT_FIELDS:
            return None
        if parameter == "max_output_tokens":
            return self.max_output_tokens
        if parameter in _WORDS and not self._words(parameter):
            return None
        return parameter

    def field(self, dialect: str, parameter: str) -> str | None:
        """Return the field of a dialect to write a parameter into; None where the model does not take it."""
        field = self.chat_field(parameter)
        if dialect != "responses" or field is None:
            return field
        return RESPONSE_FIELD.get(parameter)

    def encode(self, parameter: str, value: float) -> float | int | str:
        """Turn a decided number into what the model takes."""
        words = self._words(parameter)
        if parameter not in _WORDS or words == "number":
            return value
        numbers = _WORDS[parameter]
        known = [word for word in (words or numbers) if word in numbers]
        if parameter == "reasoning_effort":
            return next((word for word in known if numbers[word] >= value - 1e-9), known[-1])
        return min(known, key=lambda word: abs(numbers[word] - value))

    def _words(self, parameter: str) -> tuple[str, ...] | Literal["number"]:
        return self.reasoning_effort if parameter == "reasoning_effort" else self.verbosity


def is_foreign_word(parameter: str, value: str) -> bool:
    """Return whether a parameter takes words, and this is none that we know."""
    return parameter in _WORDS and value not in _WORDS[parameter]


def decode(parameter: str, field: str, value: Any) -> float | int:
    """Turn a caller's own value into the policy's number.

    Raises:
        InvalidRequest: a value of the wrong type, or a word that is not known.
    """
    words = _WORDS.get(parameter)
    if words is not None and isinstance(value, str):
        if value in words:
            return words[value]
        raise InvalidRequest(f"'{field}' must be one of {', '.join(words)}.", param=field)
    is_whole = parameter == "max_output_tokens"
    if isinstance(value, bool) or not isinstance(value, int if is_whole else (int, float)):
        raise InvalidRequest(f"'{field}' must be {'a whole number' if is_whole else 'a number'}.", param=field)
    if not abs(value) <= _LARGEST_NUMBER:
        raise InvalidRequest(f"'{field}' is out of range.", param=field)
    return value


class CapabilityTable:
    """Rows in order; the first whose pattern matches a model's name holds."""

    def __init__(self, rows: tuple[Capability, ...]) -> None:
        self.rows = rows
        patterns = [(re.compile(fnmatch.translate(row.match.lower())), row) for row in rows]

        @lru_cache(maxsize=1024)
        def find(model: str) -> Capability:
            # A provider's prefix (`openai/gpt-5`) does not change what the model takes.
            name = model.rsplit("/", 1)[-1].lower()
            return next((row for pattern, row in patterns if pattern.match(name)), Capability("*"))

        self.find = find


class _File(msgspec.Struct, forbid_unknown_fields=True):
    models: tuple[Capability, ...]


def load_capabilities(path: Path | None = None) -> CapabilityTable:
    """Return the packaged table, with the rows of an operator's file before it.

    Raises:
        ConfigurationError: the file cannot be read, or is not of this form.
    """
    packaged = resources.files("lukhas.openai").joinpath("capabilities.yaml").read_text("utf-8")
    rows = _parse(packaged, "the packaged table")
    if path is None:
        return CapabilityTable(rows)
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_BYTES + 1).decode("utf-8")
    except (OSError, UnicodeDecodeError) as failure:
        raise ConfigurationError(
            f"The capability file {path} cannot be read.", param="LUKHAS_CAPABILITIES"
        ) from failure
    return CapabilityTable(_parse(text, str(path)) + rows)


def _parse(text: str, source: str) -> tuple[Capability, ...]:
    try:
        rows = msgspec.convert(yaml.safe_load(text), type=_File, strict=True).models
    except (yaml.YAMLError, msgspec.ValidationError, RecursionError) as wrong:
        raise ConfigurationError(f"The capability table in {source} is wrong: {wrong}.") from wrong
    for row in rows:
        for parameter, known in _WORDS.items():
            words = getattr(row, parameter)
            unknown = [word for word in words if word not in known] if words != "number" else []
            if unknown:
                raise ConfigurationError(f"The capability table in {source} has an unknown {parameter} '{unknown[0]}'.")
            if words != "number" and list(words) != sorted(words, key=lambda word: known[word]):
                raise ConfigurationError(f"In {source}, the words of {parameter} must stand weakest first.")
        for parameter in row.refuses:
            if parameter not in CHAT_FIELDS:
                raise ConfigurationError(f"The capability table in {source} refuses an unknown '{parameter}'.")
    return rows
