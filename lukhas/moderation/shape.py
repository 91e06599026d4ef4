"""What can be said of a pattern without running it: how long a match can be, how it begins, what it must hold.

Read from the standard library's parse of it. The `regex` package's own syntax beyond that is told apart and not
analysed (`analyse` answers None), never guessed at.
"""

from __future__ import annotations

import importlib
import itertools
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from lukhas.moderation.fold import fold, list_cases

# A brace that is neither escaped nor a count is the `regex` package's fuzzy matching, and a plain brace to `re`.
_BRACE: Final = re.compile(r"\\.|\{(?:[0-9]+(?:,[0-9]*)?|,[0-9]+)\}|(?P<fuzzy>[{}])", re.DOTALL)
_MAX_NEEDLES: Final = 128
_MAX_NEEDLE_CHARS: Final = 48
_MAX_START_RANGE: Final = 512
# Rough share of such characters in ordinary text, to tell which needle is the rarest.
_SHARE_DIGIT: Final = 0.3
_SHARE_SPACE: Final = 0.4
_SHARE_OTHER: Final = 0.12

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
        needs: folded texts of which one stands in every match; empty where none is known.
        starts: a `re` pattern of one character with which every match begins; None where that is not known.
    """

    shortest_chars: int
    longest_chars: int | None
    behind_chars: int | None
    ahead_chars: int | None
    needs: frozenset[bytes]
    starts: str | None


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
    needs = walker.find_needs(tree, flags)
    start = walker.find_start(tree, flags)
    return Shape(
        low, high, walker.behind, walker.ahead, needs or frozenset(), f"[{''.join(sorted(start))}]" if start else None
    )


Width = tuple[int, int | None]
Exact = frozenset[str]


def _add(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other


def _most(values: Iterable[int | None]) -> int | None:
    known = list(values)
    return None if any(value is None for value in known) else max((v for v in known if v is not None), default=0)


def _flags_inside(flags: int, argument: Any) -> int:
    _, added, removed, _ = argument
    return (flags | int(added)) & ~int(removed)


class _Walker:
    """One walk over one parse."""

    def __init__(self) -> None:
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

    def find_start(self, nodes: Sequence[Any], flags: int) -> set[str] | None:
        """Return the members of a character class with one of which every match begins; None where unknown."""
        found: set[str] = set()
        for operation, argument in nodes:
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
                return self._start_part(argument[3], _flags_inside(flags, argument))
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

    def find_needs(self, nodes: Iterable[Any], flags: int) -> frozenset[bytes] | None:
        """Return the rarest set of folded texts of which one stands in every match of a sequence."""
        exact, best = self._needs(nodes, flags)
        return _rarer(best, _as_needles(exact)) if exact is not None else best

    def _needs(self, nodes: Iterable[Any], flags: int) -> tuple[Exact | None, frozenset[bytes] | None]:
        """Return all texts of a sequence where these are few, and the best set of needles met on the way."""
        best: frozenset[bytes] | None = None
        run: Exact = frozenset(("",))
        whole = True
        for operation, argument in nodes:
            exact, inner = self._needs_one(str(operation), argument, flags)
            best = _rarer(best, inner)
            joined = None if exact is None else _join(run, exact)
            if joined is not None:
                run = joined
                continue
            best = _rarer(best, _as_needles(run))
            whole = False
            run = exact if exact is not None else frozenset(("",))
        best = _rarer(best, _as_needles(run))
        return (run if whole else None), best

    def _needs_one(self, name: str, argument: Any, flags: int) -> tuple[Exact | None, frozenset[bytes] | None]:
        match name:
            case "LITERAL":
                return _fold_characters([argument], flags), None
            case "IN":
                return _fold_class(argument, flags), None
            case "SUBPATTERN":
                return self._needs(argument[3], _flags_inside(flags, argument))
            case "ATOMIC_GROUP":
                return self._needs(argument, flags)
            case "AT" | "ASSERT" | "ASSERT_NOT":
                return frozenset(("",)), None
            case "BRANCH":
                return self._needs_branch(argument[1], flags)
            case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
                least, most, part = argument
                return self._needs_repeat(int(least), most, part, flags)
            case _:
                return None, None

    def _needs_branch(self, branches: Sequence[Any], flags: int) -> tuple[Exact | None, frozenset[bytes] | None]:
        parts = [self._needs(branch, flags) for branch in branches]
        exacts = [exact for exact, _ in parts if exact is not None]
        whole: Exact | None = frozenset(itertools.chain.from_iterable(exacts)) if len(exacts) == len(parts) else None
        if whole is not None and len(whole) > _MAX_NEEDLES:
            whole = None
        needles: set[bytes] = set()
        for exact, best in parts:
            chosen = _rarer(best, _as_needles(exact)) if exact is not None else best
            if not chosen:
                return whole, None
            needles |= chosen
        return whole, frozenset(needles) if len(needles) <= _MAX_NEEDLES else None

    def _needs_repeat(
        self, least: int, most: Any, part: Iterable[Any], flags: int
    ) -> tuple[Exact | None, frozenset[bytes] | None]:
        exact, best = self._needs(part, flags)
        if exact is None:
            return None, best if least else None
        if str(most) != "MAXREPEAT" and int(most) - least <= 2 and int(most) <= _MAX_NEEDLE_CHARS:
            repeated: Exact | None = frozenset()
            for count in range(least, int(most) + 1):
                one = _repeat(exact, count)
                repeated = None if repeated is None or one is None else repeated | one
            if repeated is not None and len(repeated) <= _MAX_NEEDLES:
                return repeated, None
        if not least:
            return None, None
        for count in range(min(least, _MAX_NEEDLE_CHARS), 0, -1):
            one = _repeat(exact, count)
            if one is not None:
                return None, _rarer(best, _as_needles(one))
        return None, best


def _repeat(exact: Exact, count: int) -> Exact | None:
    found: Exact | None = frozenset(("",))
    for _ in range(count):
        found = None if found is None else _join(found, exact)
    return found


def _join(run: Exact, following: Exact) -> Exact | None:
    if len(run) * len(following) > _MAX_NEEDLES:
        return None
    joined = frozenset(a + b for a in run for b in following)
    return joined if all(len(text) <= _MAX_NEEDLE_CHARS for text in joined) else None


def _as_needles(exact: Exact | None) -> frozenset[bytes] | None:
    if not exact or "" in exact:
        return None
    return frozenset(text.encode() for text in exact)


def _rarer(one: frozenset[bytes] | None, other: frozenset[bytes] | None) -> frozenset[bytes] | None:
    if not one or not other:
        return one or other
    return one if _estimate(one) <= _estimate(other) else other


def _estimate(needles: frozenset[bytes]) -> float:
    """Return roughly how often one of these stands at a place of ordinary text."""
    total = 0.0
    for needle in needles:
        share = 1.0
        for byte in needle:
            share *= _SHARE_DIGIT if byte == 0x30 else _SHARE_SPACE if byte == 0x20 else _SHARE_OTHER
        total += share
    return total


def _fold_characters(codes: Iterable[int], flags: int) -> Exact | None:
    found: set[str] = set()
    for code in codes:
        character = chr(code)
        if 0xD800 <= code < 0xE000 or (flags & re.IGNORECASE and list_cases(character) is None):
            return None
        found.add(fold(character).decode())
    return frozenset(found)


def _fold_class(items: Sequence[Any], flags: int) -> Exact | None:
    codes: list[int] = []
    for operation, argument in items:
        match str(operation):
            case "LITERAL":
                codes.append(argument)
            case "RANGE":
                low, high = argument
                if high - low > 64:
                    return None
                codes += range(low, high + 1)
            case _:
                return None
    found = _fold_characters(codes, flags)
    return found if found and len(found) <= 16 else None


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
