"""What was proved about one policy: the document that goes with its decisions.

A certificate names the policy by its hash, lists every statement with its result, and is itself named by the hash of
its bytes, which stands in each decision record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

import msgspec
import orjson

from lukhas.errors import IntegrityError

SCHEMA: Final = 1
PACKAGED: Final = "modulation_policy.certificate.json"

Result = Literal["proved", "not proved", "refuted"]


class Statement(msgspec.Struct, frozen=True):
    """One statement about a policy.

    Attributes:
        id: what it is about, such as `tighten:alignment_risk:temperature`; stable for one policy.
        text: the statement in words.
        result: 'not proved' is what the solver could not decide in time.
        counterexample: where it fails, for a refuted one: inputs and values before and after.
        seconds: time that the solver took.
    """

    id: str
    text: str
    result: Result
    counterexample: dict[str, Any] | None = None
    seconds: float = 0.0


class Certificate(msgspec.Struct, frozen=True):
    """The results of one proof.

    Attributes:
        schema: version of this document's form.
        policy: the policy's id, `pol_...`.
        sha256: SHA-256 of the policy's bytes, in hex.
        result: 'refuted' if any statement is, else 'not proved' if any is or the proof did not end, else 'proved'.
        warnings: what is not wrong but useless, such as a style that no levels reach, and why a proof did not end.
        solver: its name and version; empty where there was none.
        version: of LUKHAS.
        time: when the proof ended, in UTC, RFC 3339.
    """

    schema: int
    policy: str
    sha256: str
    result: Result
    statements: tuple[Statement, ...]
    warnings: tuple[str, ...]
    solver: str
    version: str
    time: str

    @property
    def hash(self) -> str:
        """SHA-256 of the canonical bytes, in hex."""
        return hashlib.sha256(self.encode()).hexdigest()

    def encode(self) -> bytes:
        """Return the canonical bytes: JSON with sorted keys and no white space."""
        return orjson.dumps(msgspec.to_builtins(self), option=orjson.OPT_SORT_KEYS)

    def encode_indented(self) -> bytes:
        """Return the document as a file that people can read and compare; it decodes to the same certificate."""
        indented = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        return orjson.dumps(msgspec.to_builtins(self), option=indented)

    @classmethod
    def decode(cls, data: bytes) -> Certificate:
        """Read a certificate.

        Raises:
            IntegrityError: not a certificate, or one of another schema.
        """
        try:
            found = msgspec.json.decode(data, type=cls)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as wrong:
            raise IntegrityError(f"This is not a policy's certificate: {wrong}.") from wrong
        if found.schema != SCHEMA:
            raise IntegrityError(f"The certificate has schema {found.schema}; this release reads {SCHEMA}.")
        return found


def summarize(results: Iterable[Result], *, is_complete: bool) -> Result:
    """Return the result of a whole proof from those of its statements; of nothing, nothing is proved."""
    found = set(results)
    if "refuted" in found:
        return "refuted"
    return "proved" if found == {"proved"} and is_complete else "not proved"


@cache
def packaged_certificate() -> Certificate:
    """Return the certificate of the packaged policy, which ships with it."""
    return Certificate.decode(resources.files("lukhas.modulation").joinpath(PACKAGED).read_bytes())
