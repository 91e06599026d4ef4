"""The load of an upstream, and stress from it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_call import observe

from lukhas.gateway.sensor.load import MIN_ANSWERS, REST_HALF_LIFE_MS, Load, LoadMeter
from lukhas.gateway.sensor.stress import StressSensor, stress_level
from lukhas.gateway.sensors import is_reading
from lukhas.testing import FrozenClock


@pytest.fixture
def clock() -> FrozenClock:
    """Give a clock that stands still."""
    return FrozenClock()


@pytest.fixture
def meter(clock: FrozenClock) -> LoadMeter:
    """Give a meter that is full at ten calls."""
    return LoadMeter(clock, capacity=10)


def answer(meter: LoadMeter, latency_s: float | None = 1.0, *, ok: bool = True, times: int = 1) -> None:
    for _ in range(times):
        meter.begin()
        meter.end(latency_s, ok)


def stress(meter: LoadMeter) -> float:
    found = StressSensor().sense(observe("x", load=meter))
    assert found is not None
    assert is_reading(found)
    return found.level


def test_stress_at_rest_is_zero(meter: LoadMeter) -> None:
    """Nothing was asked yet, or everything goes as usual: no stress."""
    assert stress(meter) == 0
    answer(meter, times=1_000)
    assert stress(meter) == 0


def test_stress_of_the_first_slow_calls_is_not_known(meter: LoadMeter) -> None:
    """Without a baseline, nothing is slow."""
    answer(meter, 1.0)
    answer(meter, 60.0, times=MIN_ANSWERS - 2)
    assert stress(meter) == 0


def test_stress_rises_with_calls_in_flight_and_ends_with_them(meter: LoadMeter) -> None:
    """Below half of the capacity there is none; full is a weight of 0.7, and more adds nothing."""
    levels: list[float] = []
    for _ in range(14):
        levels.append(stress(meter))
        meter.begin()
    assert levels == sorted(levels)
    assert levels[5] == 0
    assert levels[6] > 0
    assert levels[10:] == [pytest.approx(0.7)] * 4
    for _ in range(14):
        meter.end(1.0, True)
    assert stress(meter) == 0


def test_stress_rises_when_answers_become_slow_and_fades(meter: LoadMeter, clock: FrozenClock) -> None:
    """Five times slower than usual is felt within some calls, and forgotten when nothing is asked any more."""
    answer(meter, 1.0, times=500)
    answer(meter, 5.0, times=20)
    high = stress(meter)
    assert high > 0.5
    clock.advance(REST_HALF_LIFE_MS)
    assert stress(meter) == pytest.approx(high / 2)
    clock.advance(20 * REST_HALF_LIFE_MS)
    assert stress(meter) < 1e-5
    answer(meter, 1.0)
    assert stress(meter) < 1e-5


def test_stress_from_slowness_ends_when_answers_are_quick_again(meter: LoadMeter) -> None:
    """The short view forgets in some hundred calls."""
    answer(meter, 1.0, times=500)
    answer(meter, 5.0, times=20)
    answer(meter, 1.0, times=500)
    assert stress(meter) == 0


def test_stress_rises_when_calls_fail_and_fades(meter: LoadMeter, clock: FrozenClock) -> None:
    """One failure is nothing much, a run of them is stress; old ones do not come back with the next answer."""
    answer(meter, ok=False)
    assert stress(meter) < 0.1
    answer(meter, ok=False, times=30)
    assert stress(meter) > 0.75
    clock.advance(20 * REST_HALF_LIFE_MS)
    assert stress(meter) < 1e-5
    answer(meter)
    assert stress(meter) < 1e-5


@pytest.mark.parametrize("latency_s", [None, math.nan, math.inf, -math.inf, -1.0])
def test_end_latency_that_says_nothing_is_left_out(meter: LoadMeter, latency_s: float | None) -> None:
    """A caller that left tells nothing of the upstream's speed, and a broken clock no more."""
    answer(meter, 1.0, times=100)
    before = meter.read()
    answer(meter, latency_s, times=100)
    assert meter.read() == before


def test_end_without_begin_leaves_nothing_in_flight(meter: LoadMeter) -> None:
    """A mistake in counting must not make room for more."""
    meter.end(1.0, True)
    meter.begin()
    assert meter.read().in_flight == 1


def test_latency_of_zero_divides_nothing(meter: LoadMeter) -> None:
    """An upstream in the same process may take no measurable time."""
    answer(meter, 0.0, times=100)
    assert (meter.read().latency_ratio, stress(meter)) == (1.0, 0.0)


def test_capacity_of_zero_is_one(clock: FrozenClock) -> None:
    """A limit of nothing would be full with nothing in flight."""
    assert LoadMeter(clock, capacity=0).read().utilisation == 0


ratio = st.floats(0, 50)
unit = st.floats(0, 1)


@given(ratio, ratio, unit, unit, st.tuples(st.floats(0, 5), st.floats(0, 5), st.floats(0, 1)))
def test_stress_level_more_load_is_never_less_stress(
    used: float, slow: float, failed: float, fresh: float, more: tuple[float, float, float]
) -> None:
    """Each part alone and all together: the level is in [0, 1] and does not fall."""
    low = stress_level(Load(1, used, slow, failed, fresh))
    high = stress_level(Load(1, used + more[0], slow + more[1], failed + more[2], fresh))
    assert 0 <= low <= high <= 1


calls = st.lists(st.tuples(st.sampled_from(("begin", "end")), st.floats(), st.booleans(), st.integers(0, 10_000)))


@given(calls)
def test_meter_any_history_has_a_sound_load(history: list[tuple[str, float, bool, int]]) -> None:
    """Whatever comes in, in whatever order: a finite load, and a failure instead of a success never reads lower."""
    clock = FrozenClock()
    meter, worse = LoadMeter(clock, capacity=3), LoadMeter(clock, capacity=3)
    for what, latency_s, ok, pause_ms in history:
        clock.advance(pause_ms)
        if what == "begin":
            before = stress(meter)
            meter.begin()
            worse.begin()
            assert stress(meter) >= before
        else:
            meter.end(latency_s, ok)
            worse.end(latency_s, False)
        assert 0 <= stress(meter) <= stress(worse) + 1e-12
        assert stress(worse) <= 1
