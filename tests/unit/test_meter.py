"""The meter: what is reserved, settled and given back, over a key's and its tenant's limits together."""

from __future__ import annotations

from typing import Any

import pytest

from lukhas.access.limit import Holder, LimitRules, Limits
from lukhas.access.limit_header import format_duration
from lukhas.access.meter import Meter, Reservation, bound_tokens, estimate_tokens
from lukhas.access.ring import ApiKey
from lukhas.access.usage import DAY_MS, DayUsage, UsageChange
from lukhas.errors import BudgetExhausted, LimitReached, RateLimited
from lukhas.telemetry import Metrics
from lukhas.testing import FrozenClock

KEY = ApiKey(key_id="key_1", name="one", tenant="acme", scopes=frozenset(), created_ms=0)
OTHER = ApiKey(key_id="key_2", name="two", tenant="acme", scopes=frozenset(), created_ms=0)
MIDNIGHT_MS = 20_000 * DAY_MS
NOON_MS = MIDNIGHT_MS + DAY_MS // 2


class Log:
    """Takes in the changes that would become durable."""

    def __init__(self) -> None:
        self.changes: list[UsageChange] = []

    def add(self, change: UsageChange) -> None:
        self.changes.append(change)

    def sum(self, holder: str, day: int = 20_000) -> tuple[int, int]:
        mine = [one for one in self.changes if (one.holder, one.day) == (holder, day)]
        return sum(one.tokens for one in mine), sum(one.requests for one in mine)


class Bench:
    """A meter with a clock that stands still, and short words for what tests do with it."""

    def __init__(self, key: dict[str, int] | None = None, tenant: dict[str, int] | None = None, **usage: Any) -> None:
        self.clock = FrozenClock(NOON_MS)
        self.log = Log()
        self.metrics = Metrics()
        self.configure(key, tenant, **usage)
        self.meter = Meter(self, self.clock, output_tokens=100, usage=self.log, metrics=self.metrics)

    def configure(
        self,
        key: dict[str, int] | None = None,
        tenant: dict[str, int] | None = None,
        usage: dict[tuple[str, int], DayUsage] | None = None,
    ) -> None:
        keys = {} if key is None else {"key_1": Limits(**key)}
        tenants = {} if tenant is None else {"acme": Limits(**tenant)}
        self.rules = LimitRules(keys, tenants, usage or {})

    def reserve(self, estimate: int = 10, wants: int | None = 0, key: ApiKey = KEY, **more: Any) -> Reservation:
        made = self.meter.reserve(key, estimate, wants_output=wants, **more)
        assert made is not None
        return made

    def refuse(self, *arguments: Any, **more: Any) -> LimitReached:
        with pytest.raises(LimitReached) as caught:
            self.reserve(*arguments, **more)
        return caught.value

    def used(self, kind: Any = "key", name: str = "key_1") -> dict[str, int]:
        return {one.name: one.used for one in self.meter.standings(Holder(kind, name))}


def test_meter_without_limits_counts_nothing() -> None:
    """Whoever has no limit has no reservation either."""
    bench = Bench(tenant={"requests_per_minute": 1})
    stranger = ApiKey(key_id="key_9", name="", tenant="other", scopes=frozenset(), created_ms=0)
    assert bench.meter.reserve(stranger, 10, wants_output=None) is None
    assert bench.log.changes == []


@pytest.mark.parametrize("kind", ["key", "tenant"])
@pytest.mark.parametrize(
    ("name", "error", "wait_s"),
    [
        pytest.param("requests_per_minute", RateLimited, 60, id="requests-per-minute"),
        pytest.param("tokens_per_minute", RateLimited, 60, id="tokens-per-minute"),
        pytest.param("concurrent_calls", RateLimited, 1, id="calls-at-once"),
        pytest.param("requests_per_day", BudgetExhausted, 43_200, id="requests-per-day"),
        pytest.param("tokens_per_day", BudgetExhausted, 43_200, id="tokens-per-day"),
    ],
)
def test_meter_limit_reached_refuses_and_says_which(kind: str, name: str, error: type, wait_s: int) -> None:
    """The limit lets through what it says; the refusal names it, its value, whose it is, and when to come back."""
    limit = 3 if name in ("requests_per_minute", "requests_per_day", "concurrent_calls") else 30
    bench = Bench(**{kind: {name: limit}})
    for _ in range(3):
        made = bench.reserve(most_tokens=10)
        if name != "concurrent_calls":
            made.settle(10)
    refusal = bench.refuse(most_tokens=10)
    assert type(refusal) is error
    assert refusal.retry_after_s == wait_s
    assert f"The {kind}'s limit of {limit} {name.split('_')[0] if 'con' not in name else 'calls'}" in refusal.message
    assert refusal.param is None
    assert bench.metrics.limited.values == {(name, kind): 1}


def test_meter_refusal_reserves_nothing() -> None:
    """Where the tenant has no room, the key's limits are untouched: all or nothing."""
    bench = Bench(
        {"requests_per_minute": 9, "tokens_per_minute": 900, "concurrent_calls": 9, "tokens_per_day": 900},
        {"requests_per_minute": 1, "tokens_per_day": 900},
    )
    bench.reserve().settle(10)
    before = bench.used(), bench.used("tenant", "acme"), list(bench.log.changes)
    bench.refuse()
    assert (bench.used(), bench.used("tenant", "acme"), bench.log.changes) == before


def test_meter_tenant_limit_counts_all_its_keys() -> None:
    """Two keys of a tenant share its limit, and have their own beside it."""
    bench = Bench({"requests_per_minute": 5}, {"requests_per_minute": 2})
    bench.reserve(key=KEY)
    bench.reserve(key=OTHER)
    refusal = bench.refuse(key=OTHER)
    assert "tenant" in refusal.message
    assert bench.used()["requests_per_minute"] == 1


def test_meter_minute_slides_and_says_exactly_when() -> None:
    """No 60 seconds hold more than the limit, and at the moment that Retry-After names, a call fits."""
    bench = Bench({"requests_per_minute": 2})
    bench.reserve().settle(1)
    bench.clock.advance(59_000)
    bench.reserve().settle(1)
    assert bench.refuse().retry_after_s == 1
    bench.clock.advance(999)
    assert bench.refuse().retry_after_s == pytest.approx(0.001)
    bench.clock.advance(1)
    bench.reserve().settle(1)
    assert bench.refuse().retry_after_s == 59


def test_meter_wait_of_a_minute_is_never_longer_than_a_minute() -> None:
    """Official clients ignore a Retry-After over 60 s, so none is given for what a minute mends."""
    bench = Bench({"requests_per_minute": 3})
    for _ in range(3):
        bench.reserve().settle(1)
        bench.clock.advance(100)
    assert bench.refuse().retry_after_s <= 60


def test_settle_gives_back_what_was_not_used() -> None:
    """After the call only what it used counts, for the minute and for the day."""
    bench = Bench({"tokens_per_minute": 1000, "tokens_per_day": 1000})
    reservation = bench.reserve(10, 100, most_tokens=30)
    assert bench.used() == {"tokens_per_minute": 110, "tokens_per_day": 130}
    reservation.settle(7)
    assert bench.used() == {"tokens_per_minute": 7, "tokens_per_day": 7}
    assert bench.log.sum("key:key_1") == (7, 1)


def test_settle_unknown_keeps_the_reservation() -> None:
    """Where the upstream did not say, what was reserved stays counted, and the slot is free."""
    bench = Bench({"tokens_per_minute": 1000, "tokens_per_day": 1000, "concurrent_calls": 1})
    bench.reserve(10, 100, most_tokens=30).settle(None)
    assert bench.used() == {"tokens_per_minute": 110, "tokens_per_day": 130, "concurrent_calls": 0}


def test_settle_more_than_reserved_counts_in_full() -> None:
    """What was used counts, even past the limit, and nobody passes until it has recovered."""
    bench = Bench({"tokens_per_minute": 100, "tokens_per_day": 1000})
    bench.reserve(10, 10).settle(500)
    assert bench.used() == {"tokens_per_minute": 500, "tokens_per_day": 500}
    assert bench.refuse(1, 0).retry_after_s == 60
    bench.clock.advance(60_000)
    bench.reserve(1, 0)


def test_settle_after_the_minute_gives_nothing_back_twice() -> None:
    """A stream that lasts longer than the window has left it already; what it used beyond counts at its end."""
    bench = Bench({"tokens_per_minute": 100, "requests_per_minute": 5})
    less, more = bench.reserve(10, 20), bench.reserve(10, 20)
    bench.clock.advance(61_000)
    less.settle(5)
    assert bench.used() == {"tokens_per_minute": 0, "requests_per_minute": 0}
    more.settle(45)
    assert bench.used() == {"tokens_per_minute": 15, "requests_per_minute": 0}


def test_release_gives_everything_back() -> None:
    """A call that was never sent leaves no trace, whatever is done with its reservation afterwards."""
    bench = Bench(
        {
            "requests_per_minute": 1,
            "tokens_per_minute": 100,
            "concurrent_calls": 1,
            "requests_per_day": 1,
            "tokens_per_day": 100,
        }
    )
    for _ in range(5):
        reservation = bench.reserve(10, 20)
        reservation.release()
        reservation.release()
        reservation.settle(99)
    assert set(bench.used().values()) == {0}
    assert bench.log.sum("key:key_1") == (0, 0)


def test_release_after_settle_is_ignored() -> None:
    """The first word counts: what was used cannot be given back."""
    bench = Bench({"requests_per_minute": 3, "tokens_per_day": 100, "concurrent_calls": 2})
    reservation = bench.reserve(10, 20)
    reservation.settle(12)
    reservation.release()
    reservation.settle(1)
    assert bench.used() == {"requests_per_minute": 1, "tokens_per_day": 12, "concurrent_calls": 0}


@pytest.mark.parametrize(
    ("wants", "more", "cap"),
    [
        pytest.param(None, {}, 100, id="unnamed-gets-the-setting"),
        pytest.param(None, {"choices": 2}, 200, id="unnamed-for-each-choice"),
        pytest.param(50, {}, None, id="named-and-fits"),
        pytest.param(5000, {}, 990, id="named-and-too-many"),
        pytest.param(5000, {"choices": 4}, 988, id="divisible-by-choices"),
        pytest.param(0, {}, None, id="produces-nothing"),
    ],
)
def test_output_cap_under_a_budget(wants: int | None, more: dict[str, int], cap: int | None) -> None:
    """Under a daily budget a call may produce what it asks for, or what the setting and the budget leave."""
    bench = Bench({"tokens_per_day": 1000})
    assert bench.reserve(5, wants, most_tokens=10, **more).output_cap == cap


def test_output_cap_without_a_budget_is_none() -> None:
    """A limit of the minute never shortens an answer."""
    bench = Bench({"tokens_per_minute": 50, "requests_per_day": 5})
    assert bench.reserve(5, None).output_cap is None


def test_output_cap_is_the_tighter_of_key_and_tenant() -> None:
    """Both budgets hold."""
    bench = Bench({"tokens_per_day": 1000}, {"tokens_per_day": 60})
    assert bench.reserve(5, None, most_tokens=20).output_cap == 40


def test_budget_that_holds_no_output_is_exhausted() -> None:
    """One token of output must be left, for each choice; the refusal says what is needed and what is left."""
    bench = Bench({"tokens_per_day": 22})
    assert bench.reserve(5, None, most_tokens=20).output_cap == 2
    bench = Bench({"tokens_per_day": 22})
    refusal = bench.refuse(5, None, most_tokens=20, choices=3)
    assert isinstance(refusal, BudgetExhausted)
    assert "need 23" in refusal.message and "22 are left" in refusal.message


def test_budget_held_by_calls_in_flight_is_no_exhaustion() -> None:
    """A client that is told of an exhausted quota gives up; one that is told to wait comes back, and gets its turn."""
    bench = Bench({"tokens_per_day": 100})
    first = bench.reserve(5, 80, most_tokens=10)
    refusal = bench.refuse(5, 80, most_tokens=15)
    assert isinstance(refusal, RateLimited) and refusal.retry_after_s == 1
    first.settle(12)
    bench.reserve(5, 80, most_tokens=8)


def test_budget_is_the_days_and_begins_anew_at_midnight() -> None:
    """At midnight UTC there is a new budget; what began before counts for the day on which it began."""
    bench = Bench({"tokens_per_day": 100})
    late = bench.reserve(5, 80, most_tokens=15)
    bench.clock.advance(DAY_MS // 2 - 1)
    assert bench.refuse(5, 1, most_tokens=10).retry_after_s == 1
    bench.clock.advance(1)
    assert bench.used() == {"tokens_per_day": 0}
    late.settle(95)
    assert bench.used() == {"tokens_per_day": 0}
    assert bench.log.sum("key:key_1", 20_000) == (95, 1)
    assert bench.log.sum("key:key_1", 20_001) == (0, 0)


@pytest.mark.parametrize("step_ms", [DAY_MS // 2 + 1, DAY_MS, 400 * DAY_MS], ids=["hours", "a-day", "a-year"])
def test_clock_set_back_gives_no_new_budget(step_ms: int) -> None:
    """Setting the clock back does not make a day begin again, and Retry-After stays true."""
    bench = Bench({"tokens_per_day": 100})
    bench.reserve(5, 80, most_tokens=20).settle(100)
    bench.clock.step_back(step_ms)
    refusal = bench.refuse(5, 1)
    assert isinstance(refusal, BudgetExhausted)
    assert 0 < refusal.retry_after_s <= 1.5 * 86_400
    bench.clock.advance(round(refusal.retry_after_s * 1000) - 1)
    bench.refuse(5, 1)
    bench.clock.advance(1)
    bench.reserve(5, 1).settle(3)
    assert bench.used() == {"tokens_per_day": 3}


def test_clock_set_back_and_forth_changes_nothing() -> None:
    """A clock that catches up finds its day as it was."""
    bench = Bench({"tokens_per_day": 100})
    bench.reserve(5, 10).settle(40)
    bench.clock.step_back(DAY_MS)
    bench.reserve(5, 10).settle(20)
    bench.clock.advance(DAY_MS - 1)
    assert bench.used() == {"tokens_per_day": 60}


def test_usage_of_an_earlier_process_counts() -> None:
    """What was stored for today is used already; another day's is not."""
    usage = {("key:key_1", 20_000): DayUsage(90, 4), ("key:key_1", 19_999): DayUsage(7, 7)}
    bench = Bench({"tokens_per_day": 100, "requests_per_day": 5}, usage=usage)
    assert bench.used() == {"tokens_per_day": 90, "requests_per_day": 4}
    bench.refuse(5, 1)


def test_usage_of_tomorrow_after_a_restart_keeps_tomorrow() -> None:
    """A clock set back over midnight before a restart does not bring the earlier day back."""
    bench = Bench({"tokens_per_day": 100}, usage={("key:key_1", 20_001): DayUsage(90, 4)})
    assert bench.used() == {"tokens_per_day": 90}


def test_configure_keeps_what_was_counted() -> None:
    """A limit that is raised, lowered or taken away for a while forgets nothing of the day."""
    bench = Bench({"tokens_per_day": 100, "requests_per_minute": 5})
    flying = bench.reserve(5, 10)
    bench.reserve(5, 10).settle(30)
    bench.configure({"tokens_per_day": 40, "requests_per_minute": 2})
    flying.settle(5)
    assert bench.used() == {"tokens_per_day": 35, "requests_per_minute": 2}
    bench.configure()
    assert bench.meter.reserve(KEY, 10, wants_output=None) is None
    bench.configure({"tokens_per_day": 40})
    assert bench.used() == {"tokens_per_day": 35}


def test_tokens_per_minute_unnamed_output_takes_what_is_left() -> None:
    """Parallel calls that do not say how much they produce take turns, where the minute is too small for all."""
    bench = Bench({"tokens_per_minute": 50})
    first = bench.reserve(10, None)
    assert bench.used() == {"tokens_per_minute": 50}
    assert bench.refuse(10, None).retry_after_s == 1
    first.settle(12)
    bench.reserve(10, None)


def test_wait_of_a_full_minute_ignores_calls_in_flight_that_left_it() -> None:
    """A stream older than a minute holds nothing of this one, so its end is nothing to wait for."""
    bench = Bench({"tokens_per_minute": 50})
    bench.reserve(10, 40)
    bench.clock.advance(60_000)
    bench.reserve(10, 40).settle(50)
    assert bench.refuse(10, 40).retry_after_s == 60


def test_tokens_per_minute_named_output_must_fit() -> None:
    """Who asks for more than a minute has is told that no wait helps."""
    bench = Bench({"tokens_per_minute": 50})
    assert "no wait helps" in bench.refuse(10, 41).message
    bench.reserve(10, 40)


def test_headers_are_those_of_the_tightest_limit() -> None:
    """Limit, rest and reset of whatever stops the caller first, in OpenAI's form and the IETF draft's."""
    bench = Bench(
        {"requests_per_minute": 60, "tokens_per_minute": 1000}, {"requests_per_day": 5, "tokens_per_minute": 900}
    )
    reservation = bench.reserve(100, 50)
    headers = {name.decode(): value.decode() for name, value in reservation.headers()}
    assert headers == {
        "x-ratelimit-limit-requests": "5",
        "x-ratelimit-remaining-requests": "4",
        "x-ratelimit-reset-requests": "12h0m0s",
        "x-ratelimit-limit-tokens": "900",
        "x-ratelimit-remaining-tokens": "750",
        "x-ratelimit-reset-tokens": "1m0s",
        "ratelimit-policy": (
            '"key-requests-per-minute";q=60;w=60, "key-tokens-per-minute";q=1000;w=60, '
            '"tenant-tokens-per-minute";q=900;w=60, "tenant-requests-per-day";q=5;w=86400'
        ),
        "ratelimit": '"tenant-requests-per-day";r=4;t=43200, "tenant-tokens-per-minute";r=750;t=60',
    }


def test_headers_of_a_refusal_say_nothing_is_left() -> None:
    """A refused caller gets the same headers."""
    bench = Bench({"requests_per_minute": 1})
    bench.reserve().settle(1)
    headers = dict(bench.refuse().headers)
    assert headers[b"x-ratelimit-remaining-requests"] == b"0"
    assert headers[b"x-ratelimit-reset-requests"] == b"1m0s"


def test_headers_of_calls_at_once_alone_are_none() -> None:
    """There is no header for calls at once."""
    bench = Bench({"concurrent_calls": 2})
    assert bench.reserve().headers() == []


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (120, "120ms"),
        (1000, "1s"),
        (1500, "1.5s"),
        (59_999, "59.999s"),
        (60_000, "1m0s"),
        (360_000, "6m0s"),
        (25_920_000, "7h12m0s"),
        (DAY_MS, "24h0m0s"),
    ],
)
def test_duration_has_the_form_of_openai(ms: int, text: str) -> None:
    """The forms that OpenAI's own headers have."""
    assert format_duration(ms) == text


@pytest.mark.parametrize("actual", [-5, 10**30], ids=["negative", "enormous"])
def test_settle_with_nonsense_stays_in_bounds(actual: int) -> None:
    """What an upstream claims cannot add budget, nor overflow what is stored."""
    bench = Bench({"tokens_per_day": 100})
    bench.reserve(5, 10).settle(actual)
    assert 0 <= bench.used()["tokens_per_day"] <= 10**12


def test_estimate_and_bound_of_a_prompt() -> None:
    """The guess grows with the bytes, and the bound is never below it for a text."""
    assert (estimate_tokens(0), estimate_tokens(1), estimate_tokens(300)) == (16, 17, 116)
    assert all(bound_tokens(size) >= size for size in (0, 1, 5, 10_000))
