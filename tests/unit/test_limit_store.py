"""Limits and daily usage in the database: set, followed, refused, and there after a crash."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from lukhas.access.keys import KeyStore
from lukhas.access.limit import (
    LARGEST_LIMIT,
    LIMIT_NAMES,
    NO_LIMITS,
    Holder,
    Limits,
    LimitStore,
    make_holder,
    parse_limits,
)
from lukhas.access.meter import Meter
from lukhas.access.usage import DAY_MS, DayUsage, UsageChange, UsageStore, day_of
from lukhas.clock import SystemClock
from lukhas.errors import IntegrityError, InvalidId, InvalidRequest, LimitReached, NotFound, PreconditionFailed
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import FrozenClock

NOW_MS = 1_767_323_045_678
TODAY = day_of(NOW_MS)
ACME = Holder("tenant", "acme")


class Opened:
    """A database with its writer and stores."""

    def __init__(self, folder: Path) -> None:
        self.clock = FrozenClock(NOW_MS)
        self.database: Database = open_database(f"sqlite:///{folder}/lukhas.db")
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=100)
        self.writer.start()
        self.keys = KeyStore(self.database, self.writer, self.clock)
        self.limits = self.open_limits()
        self.usage = UsageStore(self.database, self.writer)

    def open_limits(self) -> LimitStore:
        return LimitStore(self.database, self.writer, self.clock)

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


def test_limits_set_for_key_and_tenant_hold_elsewhere_too(opened: Opened) -> None:
    """The snapshot has a change at once here, and after a refresh in another process; taking away works too."""
    elsewhere = opened.open_limits()
    key, _ = opened.keys.create("web", "acme", [])
    holder = Holder("key", key.key_id)
    opened.limits.change(holder, Limits(requests_per_minute=5), expected=NO_LIMITS)
    opened.limits.change(ACME, Limits(tokens_per_day=9), expected=NO_LIMITS)
    assert elsewhere.rules.holders() == []
    assert elsewhere.refresh_if_changed() and not elsewhere.refresh_if_changed()
    for store in (opened.limits, elsewhere):
        assert store.rules.find(holder) == Limits(requests_per_minute=5)
        assert store.rules.find(ACME) == Limits(tokens_per_day=9)
        assert store.rules.holders() == [ACME, holder]
    opened.limits.change(holder, NO_LIMITS, expected=Limits(requests_per_minute=5))
    assert opened.limits.rules.holders() == [ACME]


def test_limits_changed_meanwhile_are_not_overwritten(opened: Opened) -> None:
    """Of two who have read the same, the second to write is refused, with nothing of it stored or recorded."""
    elsewhere = opened.open_limits()
    elsewhere.change(ACME, Limits(concurrent_calls=1), expected=NO_LIMITS)
    recorded: list[Any] = []
    also = (lambda _, payloads: recorded.extend(payloads) or [None] * len(payloads), "record")
    with pytest.raises(PreconditionFailed):
        opened.limits.change(ACME, Limits(concurrent_calls=2), expected=NO_LIMITS, also=also)
    assert recorded == []
    opened.limits.change(ACME, Limits(concurrent_calls=2), expected=Limits(concurrent_calls=1), also=also)
    assert recorded == ["record"]
    assert opened.limits.rules.find(ACME) == Limits(concurrent_calls=2)


def test_limits_of_an_unknown_key_are_refused(opened: Opened) -> None:
    """A limit that holds for nobody would only seem to protect."""
    with pytest.raises(NotFound):
        opened.limits.change(Holder("key", "key_" + "0" * 26), Limits(concurrent_calls=1), expected=NO_LIMITS)


@pytest.mark.parametrize(
    ("holder", "document"),
    [
        pytest.param("tenant:acme", "{", id="not-json"),
        pytest.param("tenant:acme", '{"tokens_per_day": 0}', id="out-of-range"),
        pytest.param("tenant:acme", '{"tokens_per_year": 5}', id="unknown-limit"),
        pytest.param("planet:mars", "{}", id="unknown-holder"),
    ],
)
def test_limits_that_cannot_be_read_stop_the_start(opened: Opened, holder: str, document: str) -> None:
    """What is configured and cannot be read must not become 'no limit'."""
    with opened.database.writer.connect() as connection, connection.begin():
        connection.execute(
            text("INSERT INTO limit_rule VALUES (:holder, :document, 0)"), {"holder": holder, "document": document}
        )
        connection.execute(text("INSERT INTO revision VALUES ('limits', 9)"))
    with pytest.raises(IntegrityError):
        opened.open_limits()
    with pytest.raises(IntegrityError):
        opened.limits.refresh_if_changed()
    with pytest.raises(IntegrityError):
        opened.limits.refresh_if_changed()
    assert opened.limits.rules.holders() == []


@pytest.mark.parametrize("name", LIMIT_NAMES)
@pytest.mark.parametrize("value", [0, -1, 1.0, 1.5, float("nan"), True, "5", [], LARGEST_LIMIT + 1, 10**40])
def test_parse_limits_wrong_number_is_named(name: str, value: object) -> None:
    """Each wrong value is refused with the name it stands under."""
    with pytest.raises(InvalidRequest) as caught:
        parse_limits({name: value})
    assert caught.value.param == name


@pytest.mark.parametrize("value", [None, [], "x", 5, {"tokens": 5}, {"": 1}, {5: 5}], ids=str)
def test_parse_limits_wrong_shape_is_refused(value: object) -> None:
    """Anything but an object of known names is no limits."""
    with pytest.raises(InvalidRequest) as caught:
        parse_limits(value)
    assert caught.value.param == "limits"


def test_parse_limits_reads_what_to_dict_gives() -> None:
    """The JSON form goes both ways, and equal limits have equal tags."""
    limits = Limits(tokens_per_day=5, concurrent_calls=LARGEST_LIMIT)
    assert parse_limits(limits.to_dict()) == limits
    assert limits.tag == parse_limits({"concurrent_calls": LARGEST_LIMIT, "tokens_per_day": 5}).tag
    assert limits.tag != NO_LIMITS.tag != Limits(tokens_per_day=6).tag


def test_make_holder_checks_the_name() -> None:
    """A key is named by its id, a tenant by its name."""
    assert make_holder("tenant", "acme") == ACME
    with pytest.raises(InvalidId):
        make_holder("key", "acme")
    with pytest.raises(InvalidRequest):
        make_holder("tenant", "key:acme")


async def test_usage_differences_add_up(opened: Opened) -> None:
    """Reservations and corrections of many calls leave the sum of what was used."""
    for number in range(300):
        opened.usage.add(UsageChange("tenant:acme", TODAY, 100, 1))
        opened.usage.add(UsageChange("tenant:acme", TODAY, number - 100, 0))
    opened.usage.add(UsageChange("tenant:acme", TODAY + 1, 7, 1))
    await asyncio.to_thread(opened.writer.close, 5)
    assert opened.usage.load(TODAY) == {"tenant:acme": DayUsage(sum(range(300)), 300)}
    assert opened.usage.unwritten == {}


async def test_usage_that_could_not_be_written_goes_with_the_next(opened: Opened) -> None:
    """A database that fails for a while makes nobody's usage smaller."""
    with opened.database.writer.connect() as connection, connection.begin():
        connection.execute(text("ALTER TABLE usage_day RENAME TO away"))
    opened.usage.add(UsageChange("tenant:acme", TODAY, 40, 1))
    opened.usage.add(UsageChange("tenant:acme", TODAY, -10, 0))
    async with asyncio.timeout(10):
        while opened.usage.unwritten != {("tenant:acme", TODAY): DayUsage(30, 1)}:
            await asyncio.sleep(0.005)
    with opened.database.writer.connect() as connection, connection.begin():
        connection.execute(text("ALTER TABLE away RENAME TO usage_day"))
    opened.usage.add(UsageChange("tenant:acme", TODAY, 5, 1))
    async with asyncio.timeout(10):
        while opened.usage.load(TODAY) != {"tenant:acme": DayUsage(35, 2)}:
            await asyncio.sleep(0.005)
    assert opened.usage.unwritten == {}


async def test_usage_without_a_writer_is_kept(opened: Opened) -> None:
    """A writer that has stopped fails no call."""
    await asyncio.to_thread(opened.writer.close, 5)
    opened.usage.add(UsageChange("tenant:acme", TODAY, 40, 1))
    assert opened.usage.unwritten == {("tenant:acme", TODAY): DayUsage(40, 1)}


async def test_meter_after_a_restart_knows_what_was_used(opened: Opened) -> None:
    """A new process goes on where the last one stopped, calls in flight counted with their reservation."""
    key, _ = opened.keys.create("web", "acme", [])
    opened.limits.change(ACME, Limits(tokens_per_day=1000, requests_per_day=50), expected=NO_LIMITS)
    meter = Meter(opened.limits, opened.clock, usage=opened.usage)
    done, flying = (meter.reserve(key, 10, wants_output=200, most_tokens=100) for _ in range(2))
    assert done is not None and flying is not None
    done.settle(50)
    await asyncio.to_thread(opened.writer.close, 5)
    again = Meter(opened.open_limits(), opened.clock)
    assert {one.name: one.used for one in again.standings(ACME)} == {"tokens_per_day": 350, "requests_per_day": 2}
    opened.clock.advance(DAY_MS)
    tomorrow = Meter(opened.open_limits(), opened.clock)
    assert {one.used for one in tomorrow.standings(ACME)} == {0}


def test_meter_follows_a_change_of_limits(opened: Opened) -> None:
    """A limit that is set while calls are made holds for the next one."""
    key, _ = opened.keys.create("web", "acme", [])
    meter = Meter(opened.limits, opened.clock)
    assert meter.reserve(key, 1, wants_output=0) is None
    opened.limits.change(ACME, Limits(concurrent_calls=1), expected=NO_LIMITS)
    assert meter.reserve(key, 1, wants_output=0) is not None
    with pytest.raises(LimitReached):
        meter.reserve(key, 1, wants_output=0)
    opened.limits.change(ACME, NO_LIMITS, expected=Limits(concurrent_calls=1))
    assert meter.reserve(key, 1, wants_output=0) is None


CALLER = """
    import asyncio, sys
    from lukhas.access.limit import LimitStore
    from lukhas.access.meter import Meter
    from lukhas.access.ring import ApiKey
    from lukhas.access.usage import UsageChange, UsageStore
    from lukhas.clock import SystemClock
    from lukhas.errors import LimitReached
    from lukhas.storage.engine import open_database
    from lukhas.storage.writer import GroupCommitWriter

    async def main():
        database = open_database(sys.argv[1])
        writer = GroupCommitWriter(database, max_rows=1000)
        writer.start()
        meter = Meter(LimitStore(database, writer, SystemClock()), SystemClock(), usage=UsageStore(database, writer))
        key = ApiKey(key_id="key_1", name="", tenant="acme", scopes=frozenset(), created_ms=0)
        mark = lambda connection, payloads: [None] * len(payloads)
        while True:
            reservation = meter.reserve(key, 5, wants_output=40, most_tokens=10)
            await writer.submit(mark, None)  # as the decision's record: what was reserved is durable with it
            print(50, flush=True)            # the model has worked, and its answer is out
            reservation.settle(50)

    asyncio.run(main())
"""


def test_usage_survives_a_kill(opened: Opened, tmp_path: Path) -> None:
    """After kill -9 at any moment, nothing whose answer went out is forgotten."""
    opened.limits.change(ACME, Limits(tokens_per_day=10**9), expected=NO_LIMITS)
    url, sent = f"sqlite:///{tmp_path}/lukhas.db", 0
    for lines in (1, 7, 40):
        script = [sys.executable, "-c", textwrap.dedent(CALLER), url]
        with subprocess.Popen(script, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as caller:
            assert caller.stdout is not None
            for _ in range(lines):
                sent += int(caller.stdout.readline())
            caller.send_signal(signal.SIGKILL)
            sent += sum(int(line) for line in caller.stdout.read().split("\n") if line == "50")
        used = UsageStore(opened.database, opened.writer).load(day_of(SystemClock().now_ms()))
        assert sent <= used["tenant:acme"].tokens <= sent + 50 * 3
