"""What the built-in upstream `echo` answers at `/embeddings` and `/moderations`."""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from typing import Any, Final, cast

import orjson

Body = dict[str, Any]

DEFAULT_DIMENSIONS: Final = 8
MAX_DIMENSIONS: Final = 4096
MAX_INPUTS: Final = 2048
_CATEGORIES: Final = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm"),
    *("self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic"),
)


class UnfitInput(ValueError):
    """A request that an embedding or moderation API would refuse.

    Attributes:
        param: the field at fault.
    """

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def embed(body: Body, model: str) -> Body:
    """Return one unit vector for each input: made from its hash, equal for equal inputs, and without any meaning.

    Raises:
        UnfitInput: an input, a number of dimensions or an encoding that no such API takes.
    """
    dimensions: object = body.get("dimensions")
    if dimensions is None:
        dimensions = DEFAULT_DIMENSIONS
    if not isinstance(dimensions, int) or isinstance(dimensions, bool) or not 1 <= dimensions <= MAX_DIMENSIONS:
        raise UnfitInput(f"'dimensions' must be a whole number from 1 to {MAX_DIMENSIONS}.", "dimensions")
    encoding: object = body.get("encoding_format")
    if encoding not in (None, "float", "base64"):
        raise UnfitInput("'encoding_format' must be float or base64.", "encoding_format")
    inputs = _read_inputs(body.get("input"))
    data = [
        {"object": "embedding", "index": index, "embedding": _encode(_make_vector(raw, dimensions), encoding)}
        for index, raw in enumerate(inputs)
    ]
    tokens = sum(max(1, len(raw) // 4) for raw in inputs)
    return {
        "object": "list",
        "data": data,
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "lukhas_echo": body,
    }


def moderate(body: Body, model: str, number: str) -> Body:
    """Return a clean bill for each input: nothing was looked at.

    Raises:
        UnfitInput: an input that no such API takes.
    """
    given: object = body.get("input")
    parts = cast("list[object]", given) if isinstance(given, list) else [given]
    if not parts or not all(isinstance(part, (str, dict)) for part in parts):
        raise UnfitInput("'input' must be a text, or a list of texts or parts.", "input")
    # Several parts are one input, several texts are many.
    count = 1 if isinstance(parts[0], dict) else len(parts)
    result = {
        "flagged": False,
        "categories": dict.fromkeys(_CATEGORIES, False),
        "category_scores": dict.fromkeys(_CATEGORIES, 0.0),
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
    return {"id": f"modr-echo-{number}", "model": model, "results": [result] * count, "lukhas_echo": body}


def _read_inputs(given: object) -> list[bytes]:
    """Return the inputs as bytes: texts, or lists of token numbers."""
    if isinstance(given, str):
        entries: list[object] = [given]
    elif isinstance(given, list) and given and _is_tokens(cast("list[object]", given)):
        entries = [given]
    else:
        entries = cast("list[object]", given) if isinstance(given, list) else []
    if not entries or len(entries) > MAX_INPUTS:
        raise UnfitInput(f"'input' must hold 1 to {MAX_INPUTS} texts.", "input")
    inputs: list[bytes] = []
    for entry in entries:
        tokens = cast("list[object]", entry) if isinstance(entry, list) else []
        if not (tokens and _is_tokens(tokens)) and not (isinstance(entry, str) and entry):
            raise UnfitInput("Each input must be a text that is not empty, or a list of token numbers.", "input")
        inputs.append(orjson.dumps(entry))
    return inputs


def _is_tokens(entries: list[object]) -> bool:
    return all(isinstance(entry, int) and not isinstance(entry, bool) for entry in entries)


def _make_vector(raw: bytes, dimensions: int) -> list[float]:
    stream = hashlib.shake_256(raw).digest(2 * dimensions)
    numbers = [value / 32768 for value in struct.unpack(f"<{dimensions}h", stream)]
    norm = math.sqrt(sum(number * number for number in numbers)) or 1.0
    return [number / norm for number in numbers]


def _encode(vector: list[float], encoding: object) -> list[float] | str:
    if encoding != "base64":
        return vector
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
