"""What one check of `lukhas doctor` found."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """What one check found.

    Attributes:
        advice: what to do where it is not 'ok'.
        out_of_reach: something that this installation depends on cannot be reached.
    """

    check: str
    state: Literal["ok", "warn", "fail"]
    found: str
    advice: str = ""
    out_of_reach: bool = False
