"""The meter under any order of calls: no limit is ever passed, and nothing is ever lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lukhas.access.limit import Holder, LimitRules, Limits
from lukhas.access.meter import Meter, Reservation
from lukhas.access.ring import ApiKey
from lukhas.access.usage import DAY_MS, UsageChange
from lukhas.access.window import SPAN_MS, Window
from lukhas.errors import LimitReached
from lukhas.testing import FrozenClock

KEYS = tuple(
    ApiKey(key_id=f"key_{number}", name="", tenant="acme", scopes=frozenset(), created_ms=0) for number in range(3)
)
START_MS = 20_000 * DAY_MS + 23 * 3_600_000
LIMIT = st.one_of(st.none(), st.integers(1, 400))
SOME_LIMITS = st.builds(
    Limits,
    requests_per_minute=st.one_of(st.none(), st.integers(1, 6)),
    tokens_per_minute=LIMIT,
    concurrent_calls=st.one_of(st.none(), st.integers(1, 4)),
    requests_per_day=st.one_of(st.none(), st.integers(1, 20)),
    tokens_per_day=LIMIT,
)


class Source:
    """Limits that stay as they are."""

    def __init__(self, rules: LimitRules) -> None:
        self.rules = rules


class Flight:
    """A call in flight: when it was reserved, for whom, and how much it may use at most."""

    def __init__(self, key: ApiKey, reservation: Reservation, at_ms: int, day: int, most: int) -> None:
        self.key, self.reservation, self.at_ms, self.day, self.most = key, reservation, at_ms, day, most
        self.actual: int | None = None


class MeterMachine(RuleBasedStateMachine):
    """Reserves, settles and releases in any order, and keeps its own plain account of what was let through."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FrozenClock(START_MS)
        self.flying: list[Flight] = []
        self.settled: list[Flight] = []
        self.stored: dict[tuple[str, int], tuple[int, int]] = {}

    def add(self, change: UsageChange) -> None:
        tokens, requests = self.stored.get((change.holder, change.day), (0, 0))
        self.stored[change.holder, change.day] = (tokens + change.tokens, requests + change.requests)

    @initialize(first=SOME_LIMITS, second=SOME_LIMITS, tenant=SOME_LIMITS)
    def start(self, first: Limits, second: Limits, tenant: Limits) -> None:
        self.source = Source(LimitRules({"key_0": first, "key_1": second}, {"acme": tenant}, {}))
        self.meter = Meter(self.source, self.clock, output_tokens=50, usage=self)

    def holders(self, key: ApiKey) -> list[tuple[Holder, Limits]]:
        both = (Holder("key", key.key_id), Holder("tenant", key.tenant))
        return [(holder, self.source.rules.find(holder)) for holder in both]

    @rule(
        which=st.integers(0, 2),
        prompt=st.integers(0, 60),
        wants=st.one_of(st.none(), st.integers(0, 120)),
        choices=st.integers(1, 3),
    )
    def reserve(self, which: int, prompt: int, wants: int | None, choices: int) -> None:
        key = KEYS[which]
        before, minute = self.snapshot(), self.minute(key)
        try:
            made = self.meter.reserve(key, prompt, wants_output=wants, most_tokens=prompt, choices=choices)
        except LimitReached as refusal:
            assert self.snapshot() == before, "a refusal reserves nothing"
            assert refusal.retry_after_s > 0
            return
        if made is None:
            assert all(limits == Limits() for _, limits in self.holders(key))
            return
        cap = made.output_cap
        assert cap is None or (cap >= choices and cap % choices == 0 and (wants is None or cap < wants))
        output = cap if cap is not None else 50 * choices if wants is None else wants
        if wants is None:
            # The minute caps nobody, and holds no more than it has left for who names no number.
            grown = [after - had for had, after in zip(minute, self.minute(key), strict=True)]
            output = min([output, *(one - prompt for one in grown)])
        day = self.clock.now_ms() // DAY_MS
        self.flying.append(Flight(key, made, self.clock.monotonic_ms(), day, prompt + output))

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 99), part=st.floats(0, 1), again=st.booleans())
    def settle(self, which: int, part: float, again: bool) -> None:
        flight = self.flying.pop(which % len(self.flying))
        flight.actual = int(flight.most * part)
        flight.reservation.settle(flight.actual)
        if again:
            flight.reservation.settle(10_000)
            flight.reservation.release()
        self.settled.append(flight)

    @precondition(lambda self: self.flying)
    @rule(which=st.integers(0, 99), again=st.booleans())
    def release(self, which: int, again: bool) -> None:
        flight = self.flying.pop(which % len(self.flying))
        flight.reservation.release()
        if again:
            flight.reservation.release()
            flight.reservation.settle(10_000)

    @rule(ms=st.sampled_from([1, 249, 250, 1_000, 20_000, 59_999, 60_000, 3_600_000]))
    def wait(self, ms: int) -> None:
        self.clock.advance(ms)

    def minute(self, key: ApiKey) -> list[int]:
        held = [one for holder, _ in self.holders(key) for one in self.meter.standings(holder)]
        return [one.used for one in held if one.name == "tokens_per_minute"]

    def snapshot(self) -> list[int]:
        names = [Holder("key", key.key_id) for key in KEYS] + [Holder("tenant", "acme")]
        return [one.used for holder in names for one in self.meter.standings(holder)]

    @invariant()
    def no_limit_is_passed(self) -> None:
        if not hasattr(self, "meter"):
            return
        everyone = self.settled + self.flying
        for holder in (Holder("key", "key_0"), Holder("key", "key_1"), Holder("tenant", "acme")):
            limits = self.source.rules.find(holder)
            mine = [one for one in everyone if holder in (Holder("key", one.key.key_id), Holder("tenant", "acme"))]
            in_flight = sum(one.actual is None for one in mine)
            assert limits.concurrent_calls is None or in_flight <= limits.concurrent_calls
            for end in mine:
                span = [one for one in mine if end.at_ms - SPAN_MS < one.at_ms <= end.at_ms]
                assert limits.requests_per_minute is None or len(span) <= limits.requests_per_minute
                spent = sum(one.actual or 0 for one in span)
                assert limits.tokens_per_minute is None or spent <= limits.tokens_per_minute
            for day in {one.day for one in mine}:
                today = [one for one in mine if one.day == day]
                assert limits.requests_per_day is None or len(today) <= limits.requests_per_day
                spent = sum(one.actual or 0 for one in today)
                assert limits.tokens_per_day is None or spent <= limits.tokens_per_day
                stored = self.stored.get((holder.text, day), (0, 0))
                assert not limits.has_daily or stored[0] >= spent, "a crash now would forget what was used"
            if holder.kind == "tenant" or mine:
                for one in self.meter.standings(holder):
                    assert 0 <= one.used <= one.limit, "with actual <= reserved nothing is ever over"

    def teardown(self) -> None:
        if not hasattr(self, "meter"):
            return
        for flight in self.flying:
            flight.reservation.release()
        self.flying.clear()
        self.clock.advance(SPAN_MS)
        for holder in (Holder("key", "key_0"), Holder("key", "key_1"), Holder("tenant", "acme")):
            for one in self.meter.standings(holder):
                if not one.name.endswith("_day"):
                    assert one.used == 0 and one.reset_ms == 0, "nothing leaks"
            mine = [one for one in self.settled if holder in (Holder("key", one.key.key_id), Holder("tenant", "acme"))]
            if self.source.rules.find(holder).has_daily:
                for day in {one.day for one in mine}:
                    spent = sum(one.actual or 0 for one in mine if one.day == day)
                    count = sum(one.day == day for one in mine)
                    assert self.stored[holder.text, day] == (spent, count)


TestMeterMachine = MeterMachine.TestCase
TestMeterMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 50)), min_size=1, max_size=60), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_window_wait_is_exact(steps: list[tuple[int, int]], limit: int) -> None:
    """At the moment that the wait names an amount fits, and one millisecond before it does not."""
    window, now_ms = Window(), 0
    for pause_ms, amount in steps:
        now_ms += pause_ms
        window.expire(now_ms)
        need = min(amount, limit)
        wait_ms = window.wait_ms(now_ms, limit - need)
        assert 0 <= wait_ms <= SPAN_MS
        if wait_ms:
            window.expire(now_ms + wait_ms - 1)
            assert window.used > limit - need
            now_ms += wait_ms
            window.expire(now_ms)
        assert window.used <= limit - need
        window.settle(window.hold(now_ms, need), need, need, now_ms)
    assert window.held == 0
