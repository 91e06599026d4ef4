"""What can be said of a pattern without running it: how long a match can be, how it begins, what it must hold.

Read from the standard library's parse of it. The `regex` package's own syntax beyond that is told apart and not
analysed (`analyse` answers None), never guessed at.
"""

from __future__ import annotations

import importlib
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from lukhas.moderation.fold import list_cases
from lukhas.moderation.need import Clause, Exact, find_clauses, flags_inside

# A brace that is neither escaped nor a count is the `regex` package's fuzzy matching, and a plain brace to `re`.
_BRACE: Final = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)\}|(?P<fuzzy>[{}])", re.DOTALL
)
_MAX_START_RANGE: Final = 512
_CATEGORY_TEXT: Final = {
    "CATEGORY_DIGIT": r"\d",
    "CATEGORY_NOT_DIGIT": r"\D",
    "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S",
    "CATEGORY_WORD": r"\w",
    "CATEGORY_NOT_WORD": r"\W",
}


class Shape(msgspec.Struct, frozen=True):
    """What every match of a pattern has in common.

    Attributes:
        shortest_chars: fewest characters of a match.
        longest_chars: most characters of a match; None where it can grow without bound.
        behind_chars: how many characters before a match its pattern looks at; None without bound.
        ahead_chars: how many characters after a match its pattern looks at; None without bound.
        clauses: what the prefilter looks for: every match satisfies one of them; empty where nothing is known.
        starts: a `re` pattern of one character with which every match begins; None where that is not known.
        follows: the same for the character right before every match.
        heads: folded texts of which one begins every match; None where not known.
    """

    shortest_chars: int
    longest_chars: int | None
    behind_chars: int | None
    ahead_chars: int | None
    clauses: tuple[Clause, ...]
    starts: str | None
    follows: str | None
    heads: Exact | None


def analyse(pattern: str, *, ignore_case: bool = False) -> Shape | None:
    """Read a pattern's shape; None where it uses what only the `regex` package knows, or is wrong."""
    if any(match["fuzzy"] for match in _BRACE.finditer(pattern)):
        return None
    parser = importlib.import_module("re._parser")
    with warnings.catch_warnings():
        # What `re` warns of (nested sets) the `regex` package may read in another way.
        warnings.simplefilter("error")
        try:
            tree = parser.parse(pattern, re.IGNORECASE if ignore_case else 0)
        except (re.error, RecursionError, OverflowError, Warning):
            return None
    walker = _Walker()
    flags = int(tree.state.flags)
    low, high = walker.measure(tree)
    start = walker.find_start(tree, flags)
    before = walker.find_before(tree, flags)
    clauses, heads = find_clauses(tree, flags)
    return Shape(
        low,
        high,
        walker.behind,
        walker.ahead,
        clauses,
        f"[{''.join(sorted(start))}]" if start else None,
        f"[{''.join(sorted(before))}]" if before else None,
        heads,
    )


Width = tuple[int, int | None]


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _most(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if any(value is None for value in known) else max((v for v in known if v is not None), default=0)


class _Walker:
    """One walk over one parse."""

    def __init__(self, *, is_backwards: bool = False) -> None:
        self._is_backwards = is_backwards
        self.behind: int | None = 0
        self.ahead: int | None = 0
        self._groups: dict[int, Width] = {}

    def measure(self, nodes: Iterable[Any]) -> Width:
        """Return the fewest and most characters of a sequence, and note how far its look-arounds see."""
        low, high = 0, 0
        for operation, argument in nodes:
            shortest, longest = self._measure_one(str(operation), argument)
            low += shortest
            high = _add(high, longest)
        return low, high

    def _measure_one(self, operation: str, argument: Any) -> Width:
        match operation:
            case "LITERAL" | "NOT_LITERAL" | "ANY" | "IN":
                return 1, 1
            case "BRANCH":
                widths = [self.measure(part) for part in argument[1]]
                return min(low for low, _ in widths), _most(high for _, high in widths)
            case "SUBPATTERN":
                width = self.measure(argument[3])
                if argument[0] is not None:
                    self._groups[argument[0]] = width
                return width
            case "ATOMIC_GROUP":
                return self.measure(argument)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, part = argument
                low, high = self.measure(part)
                if high == 0:
                    return 0, 0
                if high is None or str(most) == "MAXREPEAT":
                    return low * int(least), None
                return low * int(least), high * int(most)
            case "GROUPREF":
                return 0, self._groups.get(argument, (0, None))[1]
            case "GROUPREF_EXISTS":
                _, yes, no = argument
                widths = [self.measure(yes), self.measure(no or ())]
                return min(low for low, _ in widths), _most(high for _, high in widths)
            case "ASSERT" | "ASSERT_NOT":
                direction, part = argument
                # A look-around inside one looks on from its end.
                self._look(direction, self.measure(part)[1])
                return 0, 0
            case "AT":
                # Boundaries look at one character to either side; the end of a text also at a last line feed.
                self._look(-1, 1)
                self._look(1, 2)
                return 0, 0
            case _:
                return 0, 0 if operation == "FAILURE" else None

    def _look(self, direction: int, width: int | None) -> None:
        if direction < 0:
            self.behind = _add(self.behind, width)
        else:
            self.ahead = _add(self.ahead, width)

    def find_before(self, nodes: Sequence[Any], flags: int) -> set[str] | None:
        """Return the same for the character right before every match, as far as a leading look-behind says it."""
        for operation, argument in nodes:
            name = str(operation)
            if name == "ASSERT" and argument[0] < 0:
                return _Walker(is_backwards=True).find_start(argument[1], flags)
            if name == "SUBPATTERN":
                return self.find_before(argument[3], flags_inside(flags, argument))
            if name not in ("AT", "ASSERT", "ASSERT_NOT"):
                return None
        return None

    def find_start(self, nodes: Sequence[Any], flags: int) -> set[str] | None:
        """Return the members of a character class with one of which every match begins; None where unknown."""
        found: set[str] = set()
        for operation, argument in reversed(nodes) if self._is_backwards else nodes:
            name = str(operation)
            if name in ("AT", "ASSERT", "ASSERT_NOT"):
                continue
            low, _ = _Walker()._measure_one(name, argument)
            part = self._start_one(name, argument, flags)
            if part is None:
                return None
            found |= part
            if low > 0:
                return found
        return None

    def _start_one(self, name: str, argument: Any, flags: int) -> set[str] | None:
        match name:
            case "LITERAL":
                return _class_members([(name, argument)], flags)
            case "IN":
                return _class_members(argument, flags)
            case "SUBPATTERN":
                return self._start_part(argument[3], flags_inside(flags, argument))
            case "ATOMIC_GROUP":
                return self._start_part(argument, flags)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                return self._start_part(argument[2], flags)
            case "BRANCH":
                found: set[str] = set()
                for branch in argument[1]:
                    part = self._start_part(branch, flags)
                    if part is None:
                        return None
                    found |= part
                return found
            case _:
                return None

    def _start_part(self, nodes: Sequence[Any], flags: int) -> set[str] | None:
        return self.find_start(nodes, flags) if nodes else set()


def _class_members(items: Sequence[Any], flags: int) -> set[str] | None:
    found: set[str] = set()
    for operation, argument in items:
        match str(operation):
            case "LITERAL":
                codes: Iterable[int] = (argument,)
            case "RANGE":
                low, high = argument
                if not flags & re.IGNORECASE:
                    found.add(f"{re.escape(chr(low))}-{re.escape(chr(high))}")
                    continue
                if high - low > _MAX_START_RANGE:
                    return None
                codes = range(low, high + 1)
            case "CATEGORY" if str(argument) in _CATEGORY_TEXT and not flags & re.ASCII:
                found.add(_CATEGORY_TEXT[str(argument)])
                continue
            case _:
                return None
        for code in codes:
            cases = list_cases(chr(code)) if flags & re.IGNORECASE else chr(code)
            if cases is None:
                return None
            found.update(map(re.escape, cases))
    return found
