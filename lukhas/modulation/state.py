"""Which signals are alive, for whom, and at what level now.

The state of one process. Every emission belongs to a subject: a session, an end user, an API key, a tenant, or
everyone. A guard counts with its maximum over subjects and sources; a style signal with the nearest subject's that
has one. Time comes from the clock that is passed in, in whole ms.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec

from lukhas.clock import Clock
from lukhas.modulation.policy import SignalSpec
from lukhas.modulation.signals import require_known

ScopeName = Literal["session", "user", "key", "tenant", "everyone"]
SCOPES: Final[tuple[ScopeName, ...]] = ("session", "user", "key", "tenant", "everyone")

# One source rarely has more than two emissions that do not dominate each other; past this they are folded.
MAX_FRONT: Final = 16


class Subject(NamedTuple):
    """Whom an emission concerns: a scope and the id inside it (`sub_...`, `key_...`, a tenant; empty for everyone)."""

    scope: ScopeName
    id: str


class Emission(msgspec.Struct, frozen=True):
    """One accepted emission.

    Attributes:
        level: as emitted, a ratio in [0, 1].
        at_ms: when, in ms since the epoch.
        ttl_ms: it is gone once it is this old.
        accepted_ms: when it was accepted, on the monotonic clock; for the cooldown.
        owner: the API key that pays for its place.
    """

    level: float
    at_ms: int
    ttl_ms: int
    accepted_ms: int
    owner: str

    def is_alive(self, now_ms: int) -> bool:
        """Return whether its ttl has not passed; a clock that steps back does not age it."""
        return now_ms - self.at_ms < self.ttl_ms

    def level_at(self, now_ms: int, half_life_ms: int | None) -> float:
        """Return the decayed level, never above the emitted one."""
        return decayed_level(self.level, max(0, now_ms - self.at_ms), half_life_ms)


class Effective(msgspec.Struct, frozen=True):
    """The level that counts for one signal, and whose it is."""

    level: float
    scope: str
    source: str


class Receipt(msgspec.Struct, frozen=True):
    """What became of one emission.

    Attributes:
        accepted: False inside a cooldown; the last emission then holds.
        level: the level that this source now has for this subject.
        expires_ms: when that ends, in ms since the epoch.
        retry_after_ms: time until the cooldown is over.
    """

    signal: str
    accepted: bool
    level: float
    expires_ms: int
    retry_after_ms: int = 0


class Held(msgspec.Struct, frozen=True):
    """One living emission as the API lists it."""

    signal: str
    scope: str
    source: str
    level: float
    emitted_level: float
    expires_in_ms: int


_Slot = tuple[Subject, str, str]  # subject, signal, source


def decayed_level(level: float, age_ms: int, half_life_ms: int | None) -> float:
    """Return `level * 2^(-age / half_life)`; without a half-life the level holds."""
    if half_life_ms is None or age_ms == 0:
        return level
    return level * 2.0 ** (-age_ms / half_life_ms)


class SignalState:
    """The living emissions of one process.

    Args:
        specs: the policy's signals by name.
        clock: injected time.
        entries_per_key: most emissions that one owner may hold alive. Past it, the owner's oldest style emissions
            are evicted; once it holds guards only, they fold into the owner key's own subject, so that they never
            get lower.
    """

    def __init__(self, specs: Mapping[str, SignalSpec], clock: Clock, *, entries_per_key: int = 10_000) -> None:
        self._specs = specs
        self._clock = clock
        self._limit = entries_per_key
        # subject -> signal -> source -> emissions, none of which dominates another; a style has one.
        self._held: dict[Subject, dict[str, dict[str, list[Emission]]]] = {}
        self._styles_of: dict[str, OrderedDict[_Slot, None]] = {}
        self._guards_of: dict[str, OrderedDict[_Slot, None]] = {}

    def configure(self, specs: Mapping[str, SignalSpec]) -> None:
        """Adopt another policy's signals; emissions of names that it does not declare are dropped."""
        self._specs = specs
        for subject in list(self._held):
            for name in list(self._held[subject]):
                if name not in specs:
                    for source in list(self._held[subject][name]):
                        self._drop((subject, name, source))

    def emit(
        self,
        subject: Subject,
        signal: str,
        level: float,
        *,
        ttl_ms: int | None,
        source: str,
        owner: str,
        now_ms: int | None = None,
    ) -> Receipt:
        """Take one emission in, at the clock's time, or at `now_ms` where several steps share one reading of it.

        A style emission replaces its source's last one, unless inside the cooldown. A guard emission never lowers:
        it is kept beside earlier ones unless one of them dominates it in level and remaining life.

        Raises:
            UnknownSignal: a name that the policy does not declare.
        """
        require_known((signal,), self._specs)
        spec = self._specs[signal]
        now = self._clock.now_ms() if now_ms is None else now_ms
        tick = self._clock.monotonic_ms()
        life = min(spec.ttl_ms if ttl_ms is None else ttl_ms, spec.max_ttl_ms)
        new = Emission(level, now, life, tick, owner)
        held = [e for e in self._sources(subject, signal).get(source, []) if e.is_alive(now)]
        if spec.role == "style":
            if held:
                waited = tick - held[0].accepted_ms
                if 0 <= waited < spec.cooldown_ms:
                    last = held[0]
                    return Receipt(
                        signal,
                        False,
                        last.level_at(now, spec.half_life_ms),
                        last.at_ms + last.ttl_ms,
                        spec.cooldown_ms - waited,
                    )
            front = [new]
        elif any(_dominates(e, new, now, spec) for e in held):
            front = held
        else:
            front = [e for e in held if not _dominates(new, e, now, spec)] + [new]
            if len(front) > MAX_FRONT:
                front = _fold_lowest(front, now, spec)
        self._store((subject, signal, source), front)
        self._make_room(owner, now)
        top = max(e.level_at(now, spec.half_life_ms) for e in front)
        return Receipt(signal, True, top, max(e.at_ms + e.ttl_ms for e in front))

    def levels(self, subjects: Sequence[Subject], now_ms: int | None = None) -> dict[str, Effective]:
        """Return the effective level of each signal that is present for a call.

        Args:
            subjects: the call's subjects, nearest first.
            now_ms: the moment, in ms since the epoch; the clock's when None.
        """
        found: dict[str, Effective] = {}
        now = now_ms or 0
        for subject in subjects:
            by_signal = self._held.get(subject)
            if by_signal is None:
                continue
            now = now or self._clock.now_ms()
            for name in list(by_signal):
                spec = self._specs[name]
                known = found.get(name)
                if known is not None and spec.role == "style":
                    continue
                best = self._best(subject, name, spec, now)
                if best is not None and (known is None or best.level > known.level):
                    found[name] = best
        return found

    def holdings(self, subjects: Sequence[Subject]) -> list[Held]:
        """List every living emission of the subjects, nearest first."""
        now = self._clock.now_ms()
        return [
            Held(
                name,
                subject.scope,
                source,
                e.level_at(now, self._specs[name].half_life_ms),
                e.level,
                e.at_ms + e.ttl_ms - max(now, e.at_ms),
            )
            for subject in subjects
            for name, sources in sorted(self._held.get(subject, {}).items())
            for source, emissions in sorted(sources.items())
            for e in emissions
            if e.is_alive(now)
        ]

    def sweep(self) -> int:
        """Drop what has expired; return how many emissions are left."""
        now = self._clock.now_ms()
        left = 0
        for subject in list(self._held):
            for name, sources in list(self._held[subject].items()):
                for source, emissions in list(sources.items()):
                    alive = [e for e in emissions if e.is_alive(now)]
                    left += len(alive)
                    if len(alive) != len(emissions):
                        self._store((subject, name, source), alive)
        return left

    def _best(self, subject: Subject, name: str, spec: SignalSpec, now: int) -> Effective | None:
        best: tuple[float, int, str] | None = None
        for source, emissions in self._held[subject][name].items():
            for e in emissions:
                if not e.is_alive(now):
                    continue
                level = e.level_at(now, spec.half_life_ms)
                if level < spec.min_level:
                    continue
                if best is None:
                    is_better = True
                elif spec.role == "guard":
                    is_better = (level, source) > (best[0], best[2])
                else:  # of several sources, the one that spoke last
                    is_better = (e.at_ms, level, source) > (best[1], best[0], best[2])
                if is_better:
                    best = (level, e.at_ms, source)
        return None if best is None else Effective(best[0], subject.scope, best[2])

    def _sources(self, subject: Subject, signal: str) -> dict[str, list[Emission]]:
        return self._held.get(subject, {}).get(signal, {})

    def _store(self, slot: _Slot, emissions: list[Emission]) -> None:
        subject, signal, source = slot
        old = self._sources(subject, signal).get(source, [])
        book = self._styles_of if self._specs[signal].role == "style" else self._guards_of
        for owner in {e.owner for e in old} - {e.owner for e in emissions}:
            self._forget(book, owner, slot)
        if not emissions:
            self._drop(slot)
            return
        for e in emissions:
            entries = book.setdefault(e.owner, OrderedDict())
            entries[slot] = None
            entries.move_to_end(slot)
        self._held.setdefault(subject, {}).setdefault(signal, {})[source] = emissions

    def _drop(self, slot: _Slot) -> None:
        subject, signal, source = slot
        sources = self._sources(subject, signal)
        for owner in {e.owner for e in sources.pop(source, [])}:
            self._forget(self._styles_of, owner, slot)
            self._forget(self._guards_of, owner, slot)
        if not sources and subject in self._held:
            self._held[subject].pop(signal, None)
            if not self._held[subject]:
                del self._held[subject]

    def _forget(self, book: dict[str, OrderedDict[_Slot, None]], owner: str, slot: _Slot) -> None:
        entries = book.get(owner)
        if entries is not None:
            entries.pop(slot, None)
            if not entries:
                del book[owner]

    def _make_room(self, owner: str, now: int) -> None:
        while True:
            styles, guards = self._styles_of.get(owner), self._guards_of.get(owner)
            if len(styles or ()) + len(guards or ()) <= self._limit:
                return
            if styles:
                self._drop(next(iter(styles)))
                continue
            own = Subject("key", owner)
            slot = next((s for s in guards or () if s[0] != own), None)
            if slot is None:
                return
            self._fold_into(own, slot, now)

    def _fold_into(self, own: Subject, slot: _Slot, now: int) -> None:
        subject, signal, source = slot
        spec = self._specs[signal]
        moved = [e for e in self._held[subject][signal][source] if e.is_alive(now)]
        self._drop(slot)
        held = list(self._sources(own, signal).get("overflow", []))
        for e in moved:
            if not any(_dominates(h, e, now, spec) for h in held):
                held = [h for h in held if not _dominates(e, h, now, spec)] + [e]
        if len(held) > MAX_FRONT:
            held = _fold_lowest(held, now, spec)
        if held:
            self._store((own, signal, "overflow"), held)


def _dominates(a: Emission, b: Emission, now: int, spec: SignalSpec) -> bool:
    # Equal half-lives keep the ratio of two levels once both are ageing, so two moments decide for all time.
    later = max(now, a.at_ms, b.at_ms)
    half = spec.half_life_ms
    return (
        a.at_ms + a.ttl_ms >= b.at_ms + b.ttl_ms
        and a.level_at(now, half) >= b.level_at(now, half)
        and a.level_at(later, half) >= b.level_at(later, half)
    )


def _fold_lowest(front: Iterable[Emission], now: int, spec: SignalSpec) -> list[Emission]:
    # Two become one that dominates both: a bounded front may only ever be raised.
    ordered = sorted(front, key=lambda e: e.level_at(now, spec.half_life_ms))
    a, b, rest = ordered[0], ordered[1], ordered[2:]
    level = max(a.level_at(now, spec.half_life_ms), b.level_at(now, spec.half_life_ms))
    expires = max(a.at_ms + a.ttl_ms, b.at_ms + b.ttl_ms)
    return [Emission(level, now, expires - now, b.accepted_ms, b.owner), *rest]
