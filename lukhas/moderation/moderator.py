"""The port to a moderator beside the built-in rules: something that needs time, and may fail."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from lukhas.moderation.rule import Point, Severity


class Verdict(msgspec.Struct, frozen=True):
    """What a moderator says of one text.

    Attributes:
        categories: what it was flagged for, with the moderator's score; empty where it may pass.
        severity: of the gravest category.
    """

    categories: tuple[tuple[str, float], ...] = ()
    severity: Severity = "medium"

    @property
    def is_flagged(self) -> bool:
        """Whether the text may not pass."""
        return bool(self.categories)


class Moderator(Protocol):
    """Judges whole texts."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    async def check(self, texts: Sequence[str], point: Point) -> Sequence[Verdict]:
        """Judge texts, one verdict each, in order, within the moderator's own deadline.

        Raises:
            ModerationUnavailable: it could not be asked, answered nonsense, or not in time.
        """
        ...

    async def close(self) -> None:
        """Close its connections. May be called twice."""
        ...
