"""The literals that every match of a pattern must hold, read from its parse, for the prefilter.

A clause is a few sets of folded texts: a match that satisfies it holds one text of each set, in itself or in what
its look-arounds see. Texts that a pattern
spells out are put together as far as they stay few; of what is found, the rarest in ordinary text is kept.
Source: the method of RE2's prefilter, https://swtch.com/~rsc/regexp/regexp4.html
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from lukhas.moderation.fold import fold, list_cases

Exact = frozenset[str]
Needles = frozenset[bytes]
Clause = tuple[Needles, ...]

_MAX_NEEDLES: Final = 128
_MAX_NEEDLE_CHARS: Final = 48
_KEPT_CHARS: Final = 9
_MAX_CLASS: Final = 16
_MAX_CLAUSES: Final = 64
_MAX_SETS: Final = 4
# Past this share, a set of needles stands everywhere and tells nothing beside another.
_COMMON: Final = 0.01
# Rough share of a character in ordinary text.
_SHARES: Final = {**dict.fromkeys(b"0", 0.3), **dict.fromkeys(b" ", 0.3), **dict.fromkeys(b".,-/:='\"", 0.12)}
_SHARE_LETTER: Final = 0.1
_SHARE_SIGN: Final = 0.02
_SHARE_WORD: Final = 0.006
# Of so many letters, those that begin or end a word.
_SHARE_EDGE: Final = 0.25
_RARE: Final = frozenset(b"jkqvxz")
# By length, where a needle is nothing but so many letters.
_SHORT: Final = {1: 0.06, 2: 0.02, 3: 0.006}
_WORDS: Final = frozenset(
    b"a i an as at be by do he if in is it me my no of on or so to up us we all and any are but can for get had "
    b"has have her him his how its new not now one our out say see set she the too use was way who you that this "
    b"with from been were will would should could what which when where about your you're they their them there "
    b"then than these those some such only other over into also just like make made give take tell show help know "
    b"need want first each must more most here very code text data file name list type call user using used before "
    b"after above string value state return write print system right good great message please import class self "
    b"answer command test th wh".split()
)

_ZERO_WIDTH: Final = ("AT", "ASSERT", "ASSERT_NOT")
_REPEATS: Final = ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT")


class _Part(msgspec.Struct, frozen=True):
    """What is known of a piece of a pattern.

    Attributes:
        exact: every text it can be, where these are few.
        head: texts of which one begins it, where it is not exact.
        tail: texts of which one ends it, where it is not exact.
        sets: sets of which every match of the piece holds one each.
    """

    exact: Exact | None = None
    head: Exact | None = None
    tail: Exact | None = None
    sets: tuple[Needles, ...] = ()


_NO_TEXT: Final[Exact] = frozenset(("",))
_NOTHING: Final = _Part()
_EMPTY: Final = _Part(frozenset(("",)))


def flags_inside(flags: int, argument: Any) -> int:
    """Return the flags inside a group, from those around it and the parse of the group."""
    _, added, removed, _ = argument
    return (int(flags) | int(added)) & ~int(removed)


def find_clauses(nodes: Sequence[Any], flags: int) -> tuple[tuple[Clause, ...], Exact | None]:
    """Return clauses of which every match of a parsed pattern satisfies one, and folded texts of which one begins it.

    No clauses, and None for the texts, where there are none to be had.
    """
    parts = [_read(branch, inside) for branch, inside in _list_branches(nodes, flags)]
    heads = _unite([part.exact or part.head for part in parts])
    found = [_choose((*part.sets, *_as_sets(part.exact))) for part in parts]
    clauses = tuple(found) if len(found) <= _MAX_CLAUSES and all(found) else ()
    return clauses, None if heads is None or "" in heads else heads


def estimate(needles: Needles) -> float:
    """Return roughly how often one of these stands at a place of ordinary text, as a ratio."""
    total = 0.0
    for needle in needles:
        share = 1.0
        word = needle.strip()
        if word in _WORDS or (word.isalpha() and len(word) in _SHORT):
            letters = _SHORT.get(len(word), 0.0) * (1.0 if word == needle else _SHARE_EDGE)
            rare = 0.1 if _RARE.intersection(word) else 1.0
            total += max(letters, _SHARE_WORD) if word in _WORDS else letters * rare
            continue
        for byte in needle:
            share *= _SHARES.get(byte, _SHARE_LETTER if 97 <= byte <= 122 else _SHARE_SIGN)
        total += share
    return total


def _list_branches(nodes: Sequence[Any], flags: int) -> list[tuple[Sequence[Any], int]]:
    """Return the alternatives of a pattern that is, but for look-arounds, one alternation; else the pattern."""
    wide = [(str(operation), argument) for operation, argument in nodes if str(operation) not in _ZERO_WIDTH]
    if len(wide) == 1:
        operation, argument = wide[0]
        if operation == "SUBPATTERN":
            return _list_branches(argument[3], flags_inside(flags, argument))
        if operation == "BRANCH":
            return [found for branch in argument[1] for found in _list_branches(branch, flags)]
    return [(nodes, flags)]


def _choose(sets: Iterable[Needles]) -> Clause:
    ranked = sorted(set(sets), key=lambda needles: (estimate(needles), sorted(needles)))
    return tuple(ranked[:1] + [needles for needles in ranked[1:_MAX_SETS] if estimate(needles) <= _COMMON])


def _read(nodes: Iterable[Any], flags: int) -> _Part:
    sets: list[Needles] = []
    run: Exact = frozenset(("",))
    head: Exact | None = None
    for operation, argument in nodes:
        if str(operation) == "ASSERT":
            # What must stand beside a match stands near it, and joins nothing in it.
            beside = _read(argument[1], flags)
            sets += (*beside.sets, *_as_sets(beside.exact))
            continue
        part = _read_one(str(operation), argument, flags)
        sets += part.sets
        joined = None if part.exact is None else _join(run, part.exact)
        if joined is not None:
            run = joined
            continue
        begins, ends = (part.exact, part.exact) if part.exact is not None else (part.head, part.tail)
        ended = (None if begins is None else _join(run, begins)) or run
        head = ended if head is None else head
        sets += _as_sets(ended)
        run = frozenset(("",)) if ends is None else ends
    if head is None:
        return _Part(exact=run, sets=tuple(sets))
    return _Part(head=head, tail=run, sets=(*sets, *_as_sets(run)))


def _read_one(name: str, argument: Any, flags: int) -> _Part:
    if name == "LITERAL":
        return _Part(_fold_characters([argument], flags))
    if name == "IN":
        return _Part(_fold_class(argument, flags))
    if name == "SUBPATTERN":
        return _read(argument[3], flags_inside(flags, argument))
    if name == "ATOMIC_GROUP":
        return _read(argument, flags)
    if name in _ZERO_WIDTH:
        return _EMPTY
    if name == "BRANCH":
        return _read_branches([_read(branch, flags) for branch in argument[1]])
    if name in _REPEATS:
        least, most, part = argument
        return _repeat(_read(part, flags), int(least), None if str(most) == "MAXREPEAT" else int(most))
    return _NOTHING


def _read_branches(parts: Sequence[_Part]) -> _Part:
    exacts = [part.exact for part in parts if part.exact is not None]
    if len(exacts) == len(parts):
        whole = frozenset(itertools.chain.from_iterable(exacts))
        if len(whole) <= _MAX_NEEDLES:
            return _Part(whole)
    head, tail = (
        _unite([part.exact or part.head for part in parts]),
        _unite([part.exact or part.tail for part in parts]),
    )
    needles: set[bytes] = set()
    for part in parts:
        best = _choose((*part.sets, *_as_sets(part.exact)))
        if not best:
            return _Part(head=head, tail=tail)
        needles |= best[0]
    sets = (frozenset(needles),) if len(needles) <= _MAX_NEEDLES else ()
    return _Part(head=head, tail=tail, sets=sets)


def _unite(parts: Sequence[Exact | None]) -> Exact | None:
    known = [part for part in parts if part is not None]
    united = frozenset(itertools.chain.from_iterable(known))
    return united if len(known) == len(parts) and len(united) <= _MAX_NEEDLES else None


def _repeat(part: _Part, least: int, most: int | None) -> _Part:
    if part.exact is None:
        return _Part(head=part.head, tail=part.tail, sets=part.sets) if least else _NOTHING
    if most is not None and most - least <= 1 and most <= _MAX_NEEDLE_CHARS:
        counts = [_power(part.exact, count) for count in range(least, most + 1)]
        known = [found for found in counts if found is not None]
        if len(known) == len(counts):
            whole = frozenset(itertools.chain.from_iterable(known))
            if len(whole) <= _MAX_NEEDLES:
                return _Part(whole)
    for count in range(min(least, _MAX_NEEDLE_CHARS), 0, -1):
        edge = _power(part.exact, count)
        if edge is not None:
            return _Part(head=edge, tail=edge, sets=tuple(_as_sets(edge)))
    return _NOTHING


def _power(exact: Exact, count: int) -> Exact | None:
    found: Exact | None = frozenset(("",))
    for _ in range(count):
        found = None if found is None else _join(found, exact)
    return found


def _join(run: Exact, following: Exact) -> Exact | None:
    if len(run) * len(following) > _MAX_NEEDLES:
        return None
    if following == _NO_TEXT:
        return run
    joined = frozenset(a + b for a in run for b in following)
    return joined if all(len(text) <= _MAX_NEEDLE_CHARS for text in joined) else None


def _as_sets(exact: Exact | None) -> list[Needles]:
    if not exact or "" in exact:
        return []
    # A beginning tells nearly as much as the whole, and keeps the automaton small.
    encoded = sorted({text[:_KEPT_CHARS].encode() for text in exact}, key=len)
    # A needle that holds another one is found whenever that is.
    kept: list[bytes] = []
    for needle in encoded:
        if not any(shorter in needle for shorter in kept):
            kept.append(needle)
    return [frozenset(kept)]


def _fold_characters(codes: Iterable[int], flags: int) -> Exact | None:
    ignores_case = bool(flags & re.IGNORECASE)
    found: set[str] = set()
    for code in codes:
        folded = _fold_character(code, ignores_case)
        if folded is None:
            return None
        found.add(folded)
    return frozenset(found)


@functools.lru_cache(512)
def _fold_character(code: int, ignores_case: bool) -> str | None:
    character = chr(code)
    if 0xD800 <= code < 0xE000 or (ignores_case and list_cases(character) is None):
        return None
    return fold(character).decode()


def _fold_class(items: Sequence[Any], flags: int) -> Exact | None:
    codes: list[int] = []
    for operation, argument in items:
        name = str(operation)
        if name == "LITERAL":
            codes.append(argument)
        elif name == "RANGE" and argument[1] - argument[0] <= 64:
            codes += range(argument[0], argument[1] + 1)
        else:
            return None
    found = _fold_characters(codes, flags)
    return found if found and len(found) <= _MAX_CLASS else None
