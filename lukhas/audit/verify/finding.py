"""What a verification says: findings, warnings, and how far the records are vouched for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

FindingKind: TypeAlias = Literal[
    "edited",
    "missing",
    "inserted",
    "reordered",
    "truncated",
    "forked",
    "sequence",
    "form",
    "torn",
    "converted",
    "hash",
    "column",
    "tile",
    "head",
    "signature",
    "key",
    "receipt",
    "shipped",
]
"""What is wrong; docs/how-to/verify-the-log.md says what each means."""


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong.

    Attributes:
        kind: what is wrong.
        message: what is wrong, for a person.
        index: the first wrong record, where one can be named; of a span, the first that can be wrong.
        last: where only a span is known, the last record of it.
        audit_id: of the record at `index`, where it can be read.
    """

    kind: FindingKind
    message: str
    index: int | None = None
    last: int | None = None
    audit_id: str | None = None


class CheckedCheckpoint(msgspec.Struct, frozen=True):
    """A signed checkpoint and what came of it.

    Attributes:
        size: records that it covers.
        state: 'fits', 'wrong', or 'beside': nothing here could be compared with it.
        source: where it was found.
    """

    size: int
    root: str
    state: Literal["fits", "wrong", "beside"]
    source: str


class Report(msgspec.Struct, frozen=True):
    """What was verified and what was found.

    Attributes:
        ok: nothing is wrong.
        records: records that were read.
        first: index of the first of them.
        size: records up to and with the last of them, in the log.
        root: RFC 6962 root of the first `size` records as hex; None where it cannot be computed.
        anchored: records up to this index are vouched for by a signed checkpoint; 0: none.
        checkpoints: those that were compared.
        findings: the first wrong record first.
        warnings: what could not be checked.
    """

    ok: bool
    records: int
    first: int
    size: int
    root: str | None
    anchored: int
    checkpoints: list[CheckedCheckpoint]
    findings: list[Finding]
    warnings: list[str]


def sort_findings(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the first wrong record first; those that name no record come last."""
    return sorted(findings, key=lambda one: (one.index is None, one.index or 0))
