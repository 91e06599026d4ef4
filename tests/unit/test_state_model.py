"""A model of the guard state: however emissions, time and overflow interleave, no guard is ever too low."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas.modulation.policy import SignalSpec
from lukhas.modulation.state import SignalState, Subject
from lukhas.testing import FrozenClock

HALF_LIFE_MS = 5000
SPECS = {
    "risk": SignalSpec("risk", "guard", 2, 1.0, 0, 60_000, 600_000, HALF_LIFE_MS, 0.0),
    "hold": SignalSpec("hold", "guard", 3, 1.0, 0, 60_000, 600_000, None, 0.0),
    "mood": SignalSpec("mood", "style", 1, 1.0, 0, 60_000, 600_000, None, 0.0),
}
SESSIONS = [f"s{i}" for i in range(6)]
OWNERS = ["key_1", "key_2"]

emissions = st.tuples(
    st.just("emit"),
    st.sampled_from(
        [*(("session", s) for s in SESSIONS), ("user", "u"), ("key", "key_1"), ("tenant", "t"), ("everyone", "")]
    ),
    st.sampled_from(list(SPECS)),
    st.integers(0, 20).map(lambda n: n / 20),
    st.sampled_from([1, 50, 400, 3000, 20_000, 100_000]),
    st.sampled_from(["a", "b"]),
    st.sampled_from(OWNERS),
)
steps = st.one_of(
    emissions,
    emissions,
    emissions,
    st.tuples(st.just("advance"), st.sampled_from([1, 49, 300, 2500, 9000])),
    st.tuples(st.just("sweep")),
)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(st.lists(steps, max_size=60), st.integers(1, 6))
def test_guard_level_is_never_below_the_true_maximum(script: list[tuple], limit: int) -> None:
    """For each call of the emitting key, the effective level is at least that of every living emission."""
    clock = FrozenClock()
    state = SignalState(SPECS, clock, entries_per_key=limit)
    emitted: list[tuple[Subject, str, float, int, int, str]] = []
    for step in script:
        if step[0] == "advance":
            clock.advance(step[1])
        elif step[0] == "sweep":
            state.sweep()
        else:
            _, (scope, name), signal, level, ttl_ms, source, owner = step
            subject = Subject(scope, name)
            state.emit(subject, signal, level, ttl_ms=ttl_ms, source=source, owner=owner)
            if signal != "mood":
                emitted.append((subject, signal, level, clock.now_ms(), ttl_ms, owner))
        now = clock.now_ms()
        for subject, signal, level, at_ms, ttl_ms, owner in emitted:
            if now - at_ms >= ttl_ms:
                continue
            expected = level * 2 ** (-(now - at_ms) / HALF_LIFE_MS) if signal == "risk" else level
            found = state.levels([subject, Subject("key", owner)]).get(signal)
            assert found is not None
            assert found.level >= expected - 1e-12
    highest = max((entry[2] for entry in emitted), default=0.0)
    subjects = [Subject("session", s) for s in SESSIONS] + [Subject("key", owner) for owner in OWNERS]
    assert all(found.level <= max(highest, 1.0) for found in state.levels(subjects).values())


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(emissions, max_size=40), st.randoms(use_true_random=False))
def test_guard_levels_do_not_depend_on_the_order_of_arrival(script: list[tuple], random) -> None:
    """Within one millisecond, and without overflow, any order of the same guard emissions gives the same levels."""

    def play(order: list[tuple]) -> dict[str, float]:
        state = SignalState(SPECS, clock := FrozenClock())
        for _, (scope, name), signal, level, ttl_ms, source, owner in order:
            if signal != "mood":
                state.emit(Subject(scope, name), signal, level, ttl_ms=ttl_ms, source=source, owner=owner)
        clock.advance(200)
        subjects = [Subject("session", s) for s in SESSIONS]
        return {name: found.level for name, found in state.levels(subjects).items()}

    shuffled = list(script)
    random.shuffle(shuffled)
    assert play(script) == play(shuffled)
