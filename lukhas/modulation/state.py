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
from lukhas.modulation.signals import check_level, check_ttl, require_known

ScopeName = Literal["session", "user", "key", "tenant", "everyone"]
SCOPES: Final[tuple[ScopeName, ...]] = ("session", "user", "key", "tenant", "everyone")

# One source rarely has more than two emissions that do not dominate each other; past this they are folded.
MAX_FRONT: Final = 16
# The source that folded emissions are listed under.
OVERFLOW: Final = "overflow"


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

    def is_cooling(self, tick_ms: int, spec: SignalSpec) -> bool:
        """Return whether its cooldown still runs, on the monotonic clock."""
        return 0 <= tick_ms - self.accepted_ms < spec.cooldown_ms

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
        accepted: False inside a cooldown, where the last emission holds, and for a style of a key that is full
            of guards.
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


_Voice = tuple[str, str]  # source and, for a guard, the owner: two keys do not share what may never get lower
_Slot = tuple[Subject, str, _Voice]


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
        # Emissions of one voice, none of which dominates another; a style has one.
        self._held: dict[Subject, dict[str, dict[_Voice, list[Emission]]]] = {}
        self._styles_of: dict[str, OrderedDict[_Slot, None]] = {}
        self._guards_of: dict[str, OrderedDict[_Slot, None]] = {}

    def configure(self, specs: Mapping[str, SignalSpec]) -> None:
        """Adopt another policy's signals; emissions of names that it does not declare are dropped."""
        former, self._specs = self._specs, specs
        for subject in list(self._held):
            for name in list(self._held[subject]):
                if name in specs and name in former and specs[name].role == former[name].role:
                    continue
                voices = self._held[subject][name]
                moved = [(source, emissions) for (source, _), emissions in voices.items()]
                for voice in list(voices):
                    self._drop((subject, name, voice))
                if name in specs:
                    self._refile(subject, name, moved)

    def _refile(self, subject: Subject, name: str, moved: list[tuple[str, list[Emission]]]) -> None:
        """Store emissions anew after their signal's role has changed."""
        for source, emissions in moved:
            if self._specs[name].role == "style":
                self._store((subject, name, (source, "")), [max(emissions, key=lambda e: e.at_ms)])
                continue
            for e in emissions:
                self._store((subject, name, (source, e.owner)), [e])

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
            SignalError: a level or a ttl that is none.
        """
        require_known((signal,), self._specs)
        spec = self._specs[signal]
        now = self._clock.now_ms() if now_ms is None else now_ms
        tick = self._clock.monotonic_ms()
        life = min(spec.ttl_ms if ttl_ms is None else ttl_ms, spec.max_ttl_ms)
        is_style = spec.role == "style"
        slot: _Slot = (subject, signal, (source, "" if is_style else owner))
        new = Emission(check_level(signal, level), now, check_ttl(signal, life), tick, owner)
        held = self._at(slot)
        if is_style:
            # One that is over still counts here, or a short ttl would be a way around the cooldown.
            if held and held[0].is_cooling(tick, spec):
                return self._refuse(held[0], now, tick, spec)
            front = [new]
        else:
            held = [e for e in held if e.is_alive(now)]
            if any(_dominates(e, new, now, spec) for e in held):
                front = held
            else:
                front = [e for e in held if not _dominates(new, e, now, spec)] + [new]
            if len(front) > MAX_FRONT:
                front = _fold_lowest(front, now, spec)
        self._store(slot, front)
        self._make_room(owner, now)
        if is_style and not self._at(slot):
            return Receipt(signal, False, 0.0, now)
        top = max(e.level_at(now, spec.half_life_ms) for e in front)
        return Receipt(signal, True, top, max(e.at_ms + e.ttl_ms for e in front))

    def _refuse(self, last: Emission, now: int, tick: int, spec: SignalSpec) -> Receipt:
        level = last.level_at(now, spec.half_life_ms) if last.is_alive(now) else 0.0
        wait_ms = spec.cooldown_ms - (tick - last.accepted_ms)
        return Receipt(spec.name, False, level, last.at_ms + last.ttl_ms, wait_ms)

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
            for (source, _), emissions in sorted(sources.items())
            for e in emissions
            if e.is_alive(now)
        ]

    def held_level(self, subject: Subject, signal: str, source: str, now_ms: int) -> float:
        """Return the highest level that a source, on behalf of any key, holds at a subject; 0 where it holds none."""
        voices = self._held.get(subject, {}).get(signal)
        if voices is None:
            return 0.0
        half_life_ms = self._specs[signal].half_life_ms
        levels = [
            e.level_at(now_ms, half_life_ms)
            for voice, emissions in voices.items()
            if voice[0] == source
            for e in emissions
            if e.is_alive(now_ms)
        ]
        return max(levels, default=0.0)

    def newest_ms(self, subject: Subject, signal: str) -> int:
        """Return when the newest emission of a signal at a subject was made, by any clock; 0 without one."""
        voices = self._held.get(subject, {}).get(signal, {})
        return max((e.at_ms for emissions in voices.values() for e in emissions), default=0)

    def release(self, subject: Subject, signal: str, before_ms: int) -> int:
        """Drop every emission of a signal at a subject that was made until a moment, folded ones too.

        This is the one way in which a guard gets lower before its time; whoever calls it has recorded it.

        Args:
            before_ms: what was emitted later stays.

        Returns:
            How many were dropped.
        """
        dropped = 0
        for voice, emissions in list(self._held.get(subject, {}).get(signal, {}).items()):
            left = [e for e in emissions if e.at_ms > before_ms]
            if len(left) != len(emissions):
                dropped += len(emissions) - len(left)
                self._store((subject, signal, voice), left)
        return dropped

    def sweep(self) -> int:
        """Drop what has expired and is past its cooldown; return how many emissions are left."""
        now, tick = self._clock.now_ms(), self._clock.monotonic_ms()
        left = 0
        for subject in list(self._held):
            for name, sources in list(self._held[subject].items()):
                spec = self._specs[name]
                for voice, emissions in list(sources.items()):
                    alive = [e for e in emissions if e.is_alive(now) or e.is_cooling(tick, spec)]
                    left += len(alive)
                    if len(alive) != len(emissions):
                        self._store((subject, name, voice), alive)
        return left

    def _best(self, subject: Subject, name: str, spec: SignalSpec, now: int) -> Effective | None:
        best: tuple[float, int, str] | None = None
        for (source, _), emissions in self._held[subject][name].items():
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

    def _at(self, slot: _Slot) -> list[Emission]:
        subject, signal, voice = slot
        return self._held.get(subject, {}).get(signal, {}).get(voice, [])

    def _store(self, slot: _Slot, emissions: list[Emission]) -> None:
        subject, signal, voice = slot
        self._drop(slot)
        if not emissions:
            return
        self._held.setdefault(subject, {}).setdefault(signal, {})[voice] = emissions
        if voice[0] != OVERFLOW:  # what is folded already has no place to give
            book = self._styles_of if self._specs[signal].role == "style" else self._guards_of
            book.setdefault(emissions[0].owner, OrderedDict())[slot] = None

    def _drop(self, slot: _Slot) -> None:
        subject, signal, voice = slot
        voices = self._held.get(subject, {}).get(signal, {})
        for owner in {e.owner for e in voices.pop(voice, [])}:
            for book in (self._styles_of, self._guards_of):
                entries = book.get(owner)
                if entries is not None:
                    entries.pop(slot, None)
                    if not entries:
                        del book[owner]
        if not voices and subject in self._held:
            self._held[subject].pop(signal, None)
            if not self._held[subject]:
                del self._held[subject]

    def _make_room(self, owner: str, now: int) -> None:
        while True:
            styles, guards = self._styles_of.get(owner), self._guards_of.get(owner)
            if len(styles or ()) + len(guards or ()) <= self._limit:
                return
            if styles:
                self._drop(next(iter(styles)))
            elif guards:
                self._fold(next(iter(guards)), owner, now)

    def _fold(self, slot: _Slot, owner: str, now: int) -> None:
        subject, signal, _ = slot
        spec = self._specs[signal]
        moved = [e for e in self._at(slot) if e.is_alive(now)]
        self._drop(slot)
        # What a wider subject holds is also for the calls of others, so it stays there.
        target = Subject("key", owner) if subject.scope in ("session", "user") else subject
        into: _Slot = (target, signal, (OVERFLOW, owner))
        held = [e for e in self._at(into) if e.is_alive(now)]
        for e in moved:
            if not any(_dominates(h, e, now, spec) for h in held):
                held = [h for h in held if not _dominates(e, h, now, spec)] + [e]
        while len(held) > MAX_FRONT:
            held = _fold_lowest(held, now, spec)
        self._store(into, held)


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
    # Two become one that dominates both, also where the clock was set back: a bounded front may only ever be raised.
    ordered = sorted(front, key=lambda e: e.level_at(now, spec.half_life_ms))
    a, b, rest = ordered[0], ordered[1], ordered[2:]
    level = max(a.level_at(now, spec.half_life_ms), b.level_at(now, spec.half_life_ms))
    expires = max(a.at_ms + a.ttl_ms, b.at_ms + b.ttl_ms)
    at = max(now, a.at_ms, b.at_ms)
    return [Emission(level, at, expires - at, b.accepted_ms, b.owner), *rest]
