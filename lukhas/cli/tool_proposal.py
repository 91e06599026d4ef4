"""Proposing registry entries for functions that no class knows, by what their names say; a person decides."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
# Not a class's name, so that an entry that nobody has thought about is refused with its place.
CHOOSE: Final = "CHOOSE"

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_VERBS: Final[Mapping[str, frozenset[str]]] = {
    "code_exec": frozenset(("run", "exec", "execute", "eval", "compile", "shell", "bash", "sql")),
    "scheduler": frozenset(("schedule", "remind", "reminder", "calendar", "postpone")),
    "browser": frozenset(("browse", "open", "fetch", "visit", "crawl", "scrape", "url", "download")),
    "retrieval": frozenset(
        ("search", "get", "lookup", "look", "find", "list", "read", "query", "retrieve", "show", "describe", "count")
    ),
}
_CHANGES: Final = frozenset(
    ("write", "send", "pay", "delete", "remove", "update", "create", "add", "insert", "drop", "set", "put", "post")
) | frozenset(
    ("transfer", "refund", "buy", "order", "charge", "cancel", "publish", "email", "upload", "edit", "modify", "move")
)
_RISKS: Final = {"code_exec": "high", "scheduler": "medium", "browser": "medium", "retrieval": "low"}


class Seen(msgspec.Struct):
    """How often a function was seen.

    Attributes:
        offered: requests that offered it.
        stripped: requests that it was taken out of.
        called: calls of it that were blocked.
    """

    offered: int = 0
    stripped: int = 0
    called: int = 0


class Proposal(msgspec.Struct, frozen=True):
    """What a function might be registered as; `tool_class` is None where a person must choose."""

    name: str
    tool_class: str | None
    risk: str
    seen: Seen


def propose(name: str, seen: Seen) -> Proposal:
    """Guess a function's class by the words of its name; what changes something is of high risk, its class open."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not _CHANGES.isdisjoint(words):
        return Proposal(name, None, "high", seen)
    for word in words:
        for tool_class, verbs in _VERBS.items():
            if word in verbs:
                return Proposal(name, tool_class, _RISKS[tool_class], seen)
    return Proposal(name, None, "medium", seen)


def write_yaml(proposals: Sequence[Proposal]) -> str:
    """Return the proposals as a registry file in which every entry is a comment, so that it allows nothing as it is."""
    lines = [
        "# Functions that requests have offered and that no class knows, as proposals. Nothing here counts yet:",
        "# for each that you want to govern by a class, look at what it does, take away the '#' before its lines,",
        f"# correct the class ({CHOOSE} must become one of your policy's) and the risk (low, medium, high).",
        "# A class that the policy's allowlist has is then allowed. Serve with LUKHAS_TOOLS naming this file.",
        "tools:",
    ]
    for one in proposals:
        seen = one.seen
        lines += [
            f"  # offered {seen.offered} times, taken out {seen.stripped} times, called in vain {seen.called} times",
            f'  # "{one.name}":',
            f"  #   class: {one.tool_class or CHOOSE}",
            f"  #   risk: {one.risk}",
        ]
    return "\n".join(lines) + "\n"
