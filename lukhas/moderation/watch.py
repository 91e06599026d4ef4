"""Rules that are followed through a text that comes in pieces, each by itself from match to match."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from lukhas.errors import ConfigurationError
from lukhas.moderation.fold import fold
from lukhas.moderation.probe import Probe
from lukhas.moderation.rule import WITHHOLDING
from lukhas.moderation.ruleset import CompiledRule
from lukhas.moderation.start import MAX_CHARS, StartTable

# A rule that withholds nothing may wait for its match's end through so much text; then it is judged on what is there.
MAX_WATCHED_CHARS: Final = 16_384
# Longer pieces are taken in parts, so that what is looked at at once stays small.
_MAX_PIECE_CHARS: Final = 8192
# From this many characters on, looking for what a match needs costs less than looking for where it could begin.
FAR_CHARS: Final = 2048
# Rules that only report are looked for afterwards where a match with all around it is no longer than this.
_MAX_LATE_CHARS: Final = 4096
# Below this many characters no pattern takes long, and reading the clock costs more than the search.
_UNTIMED_CHARS: Final = 24


class SearchTimeout(Exception):
    """A pattern took too long on a text."""

    def __init__(self, watch: Watch) -> None:
        super().__init__(watch.compiled.rule.id)
        self.watch = watch


class Match(NamedTuple):
    """A sure match; ordered as a scan's findings are.

    Attributes:
        is_told: whether it only goes on with a match of the same rule that was told before.
    """

    start: int
    end: int
    number: int
    is_told: bool = False

    def shift(self, by: int) -> Match:
        """Return the match with its places counted from `by` characters earlier."""
        return Match(self.start + by, self.end + by, self.number, self.is_told)


# By rule: the place that it cannot decide yet, and up to where it has counted as matching without an end in sight.
Alive: TypeAlias = dict[int, tuple[int, int]]


class Watch:
    """One rule, followed.

    Attributes:
        number: its place in the order of rules' ids, which is the order of findings at one place.
        blocks: whether its match ends the run.
        longest_chars: most characters of a match.
        limit_chars: so many characters from its start on, an undecided match is decided as far as it goes.
        is_open: whether text can be undecided for longer than that.
        reach_chars: how much text from its start on decides a match that is not open.
        is_late: whether its matches are short enough to be looked for afterwards; it withholds nothing.
        behind_chars: how much text before a place must be kept.
        clauses: what every match holds one of, folded; empty where nothing is known, or matches have no bound.
        probe: None for a rule that can be found in whole texts only; such a rule withholds nothing.
    """

    __slots__ = (
        *(
            "behind_chars",
            "blocks",
            "compiled",
            "is_late",
            "is_open",
            "clauses",
            "limit_chars",
            "longest_chars",
            "number",
        ),
        *("probe", "reach_chars", "timeout_s", "withholds"),
    )

    def __init__(self, number: int, compiled: CompiledRule, timeout_s: float) -> None:
        """Take a rule.

        Raises:
            ConfigurationError: it withholds, and grows or looks ahead without bound, or cannot be followed in pieces.
        """
        self.number = number
        self.compiled = compiled
        self.withholds = compiled.action in WITHHOLDING
        self.blocks = compiled.action == "block"
        self.longest_chars = compiled.longest_chars
        self.timeout_s = timeout_s
        self.probe: Probe | None = None
        self.behind_chars = 1
        self.is_late = not self.withholds and 0 < compiled.span_chars <= _MAX_LATE_CHARS
        if not self.is_late:
            try:
                self.probe = Probe(compiled.compiled.source, compiled.compiled.flags)
                self.behind_chars = self.probe.behind_chars
            except ConfigurationError as refused:
                if self.withholds:
                    raise ConfigurationError(f"Moderation rule '{compiled.rule.id}': {refused}") from refused
        ahead = compiled.ahead_chars
        if self.withholds and (not compiled.longest_chars or (ahead is None and not compiled.is_cut)):
            raise ConfigurationError(
                f"Moderation rule '{compiled.rule.id}' could hold back a stream without end.",
                hint="Bound its repeats, such as {1,200} for +, also where it looks ahead.",
            )
        self.is_open = not compiled.longest_chars or compiled.is_cut or ahead is None
        self.reach_chars = compiled.longest_chars + (ahead or 0)
        self.clauses = () if self.is_open else compiled.clauses
        if not self.withholds:
            self.limit_chars = MAX_WATCHED_CHARS
        elif compiled.is_cut or ahead is None:
            self.limit_chars = compiled.longest_chars
        else:
            self.limit_chars = compiled.longest_chars + ahead

    def find_all(self, text: str, place: int) -> Iterator[Match]:
        """Yield the matches in finished text, from a place on.

        Raises:
            SearchTimeout: it took too long.
        """
        try:
            for match in self.compiled.pattern.finditer(text, place, concurrent=False, timeout=self.timeout_s):
                start, end = match.span()
                if end > start and self.compiled.passes(match):
                    yield Match(start, self.cut(start, end), self.number)
        except TimeoutError:
            raise SearchTimeout(self) from None

    def can_end_in(self, folded: bytes) -> bool:
        """Whether a whole match can stand in a text, by what every match holds."""
        return not self.clauses or any(
            all(any(needle in folded for needle in needles) for needles in clause) for clause in self.clauses
        )

    def cut(self, start: int, end: int) -> int:
        """Return where a match ends for this rule."""
        return min(end, start + self.longest_chars) if self.compiled.is_cut else end

    def follow(self, text: str, place: int, told: int, alive: Alive, found: list[Match]) -> None:
        """Go on in unfinished text from a place on, to where it must be waited or to the end.

        Args:
            told: up to where the rule has counted as matching.
            alive: takes the place where it must be waited, if there is one.
            found: takes the sure matches.

        Raises:
            SearchTimeout: it took too long.
        """
        number, size, probe = self.number, len(text), self.probe
        if probe is None:
            alive[number] = (place, 0)
            if size - place >= self.limit_chars:
                found += self.find_all(text, place)
                alive[number] = (size, 0)
            return
        pattern = probe.pattern
        search, end_group = pattern.search, pattern.groups
        while True:
            try:
                if size - place <= _UNTIMED_CHARS:
                    match = search(text, place, partial=True, concurrent=False)
                else:
                    match = search(text, place, partial=True, concurrent=False, timeout=self.timeout_s)
            except TimeoutError:
                raise SearchTimeout(self) from None
            if match is None or (start := match.start()) >= size:
                return
            end = match.start(end_group)
            if end > start:
                if self.compiled.passes(text[start:end]):
                    found.append(Match(start, self.cut(start, end), number))
                place = end
            elif end == start:
                place = start + 1
            elif size - start < self.limit_chars:
                alive[number] = (start, told)
                return
            elif not self.withholds:
                # It has waited long enough, and is judged on what there is.
                found += self.find_all(text, start)
                return
            else:
                # Whether this is a match cannot be waited for, so it counts as one. Later places are still looked at.
                found.append(Match(start, start + self.longest_chars, number, start < told))
                told = start + self.longest_chars
                place = start + 1


class Watches:
    """Some rules of a profile, followed side by side.

    Attributes:
        items: the rules by number.
        starts: which of them could begin at a place.
        context_chars: how much text before a place must be kept.
        far_chars: how much text before what is kept the far rules look at; 0 where there are none.
        far: the rules that look back further than what is kept.
        piece_chars: how much may come at once, so that no open rule's limit is passed unseen.
        is_open: whether any rule is open.
        alive: where they stand at the start of a run.
    """

    __slots__ = ("alive", "context_chars", "far", "far_chars", "is_open", "items", "piece_chars", "starts")

    def __init__(self, watches: Sequence[Watch], *, context_chars: int | None = None) -> None:
        """Take rules.

        Args:
            watches: the rules.
            context_chars: how much text before a place is kept; None for all that any rule looks at.
        """
        self.items = {watch.number: watch for watch in watches}
        self.alive: Alive = {watch.number: (0, 0) for watch in watches if watch.probe is None}
        behind_chars = max((watch.behind_chars for watch in watches), default=1)
        self.context_chars = behind_chars if context_chars is None else context_chars
        self.far_chars = behind_chars if behind_chars > self.context_chars else 0
        self.far = frozenset(watch.number for watch in watches if watch.behind_chars > self.context_chars)
        limits = [watch.limit_chars for watch in watches if watch.is_open]
        self.is_open = bool(limits)
        self.piece_chars = min((*limits, _MAX_PIECE_CHARS))
        self.starts = StartTable(
            [(watch.number, watch.probe, watch.compiled) for watch in watches if watch.probe is not None]
        )

    def find_due(self, text: str, place: int, alive: Alive) -> tuple[dict[int, int], dict[int, tuple[int, int]]]:
        """Return the rules that must be looked for, each from a place on, and those that go on waiting, as in `alive`.

        A rule that began to wait a few characters ago is mostly over by now, and no more than those are needed to see.
        """
        due: dict[int, int] = {}
        known, find = self.starts.known.get, self.starts.find
        old = alive
        if alive:
            young = {
                number: start
                for number, (start, told) in alive.items()
                if place - start < MAX_CHARS - 1 and not told and self.items[number].probe is not None
            }
            if young:
                old = {number: state for number, state in alive.items() if number not in young}
                for at in range(min(young.values()), place):
                    for number in find(text, at):
                        if number in young and at >= young[number] and number not in due:
                            due[number] = at
        for at in range(place, len(text)):
            rules = known(text[at - 1 : at + 1])
            if (rules is None or rules) or not at:
                for number in find(text, at):
                    if number not in due and number not in old:
                        due[number] = at
        return due, old

    def advance(self, text: str, place: int, alive: Alive, past: Sequence[str] = ()) -> tuple[Alive, list[Match], bool]:
        """Take what has come, and return what must be waited for, what is sure, and whether more than `text` counted.

        A pure function of its arguments; all places are in the text given.

        Args:
            text: what is kept of the run, and what has come.
            place: where what has come begins.
            alive: what had to be waited for.
            past: pieces whose end is `text`, reaching back far enough for the far rules, or to the start of the run.

        Raises:
            SearchTimeout: a rule took too long.
        """
        due, old = self.find_due(text, place, alive)
        left: Alive = {}
        found: list[Match] = []
        if not due and not old:
            return left, found, False
        items, far = self.items, self.far
        seen = far and not far.isdisjoint((*due, *old))
        if not seen:
            for number, (start, told) in old.items():
                items[number].follow(text, start, told, left, found)
            for number, at in due.items():
                items[number].follow(text, at, 0, left, found)
            return left, found, False
        whole, by = self.look_back(text, past)
        for number, (start, told) in (*old.items(), *((number, (at, 0)) for number, at in due.items())):
            if number in far:
                far_left: Alive = {}
                far_found: list[Match] = []
                items[number].follow(whole, start + by, told + by if told else 0, far_left, far_found)
                left |= {number: (start - by, max(0, told - by)) for number, (start, told) in far_left.items()}
                found += [match.shift(-by) for match in far_found]
            else:
                items[number].follow(text, start, told, left, found)
        return left, found, True

    def advance_far(
        self, text: str, place: int, alive: Alive, past: Sequence[str] = ()
    ) -> tuple[Alive, list[Match], bool]:
        """Do the same where much has come at once: what a match needs is looked for before its beginnings are.

        Raises:
            SearchTimeout: a rule took too long.
        """
        left: Alive = {}
        found: list[Match] = []
        whole, by = self.look_back(text, past)
        folded = fold(whole)
        for number, watch in self.items.items():
            start, told = alive.get(number, (place, 0))
            if not watch.can_end_in(folded):
                # No match is there, so what is further back than a match and its look-ahead reach is no beginning.
                start = max(start, len(text) - watch.reach_chars)
            watch.follow(whole, start + by, told + by if told else 0, left, found)
        if by:
            left = {number: (start - by, max(0, told - by)) for number, (start, told) in left.items()}
            found = [match.shift(-by) for match in found]
        return left, found, True

    def look_back(self, text: str, past: Sequence[str]) -> tuple[str, int]:
        """Return a text with what came before it, as far as the far rules look, and how much that is."""
        if not self.far:
            return text, 0
        whole = "".join(past)[-(len(text) + self.far_chars) :]
        return whole, len(whole) - len(text)

    def finish(self, text: str, alive: Alive, past: Sequence[str] = ()) -> list[Match]:
        """Return the matches that were waited for, now that nothing more comes.

        Raises:
            SearchTimeout: a rule took too long.
        """
        found: list[Match] = []
        if alive:
            whole, by = self.look_back(text, past)
            for number, (start, _) in alive.items():
                found += [match.shift(-by) for match in self.items[number].find_all(whole, start + by)]
        return found

    def room(self, size: int, alive: Alive) -> int:
        """Return how much may be taken until an open rule reaches its limit, in a text of some size."""
        room = self.piece_chars
        for number, (start, _) in alive.items():
            if self.items[number].is_open:
                room = min(room, start + self.items[number].limit_chars - size)
        return max(1, room)
