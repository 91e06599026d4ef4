"""What a limit costs a call: Meter.reserve and settle with no limit, one, and all of key and tenant.

python perf/limit.py [--rounds 15] [--json]

Medians over rounds, in one run. Calls are a second apart, so that the minute's window holds what it usually holds; the
headers that an answer carries are measured beside them, and as the thing to compare with, one lookup in a dict.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import timeit
from collections.abc import Callable, Sequence

from lukhas import __version__
from lukhas.access.limit import LimitRules, Limits
from lukhas.access.meter import Meter
from lukhas.access.ring import ApiKey
from lukhas.access.usage import UsageChange
from lukhas.testing import FrozenClock

TARGETS = {"reserve without limits, us": 1.0, "reserve and settle, all limits twice, us": 25.0}
KEY = ApiKey(key_id="key_1", name="one", tenant="acme", scopes=frozenset(), created_ms=0)
OTHER = ApiKey(key_id="key_2", name="two", tenant="else", scopes=frozenset(), created_ms=0)
MANY = 10**9
ALL = Limits(
    requests_per_minute=MANY,
    tokens_per_minute=MANY,
    concurrent_calls=MANY,
    requests_per_day=MANY,
    tokens_per_day=MANY,
)


class Source:
    """Limits that stay as they are."""

    def __init__(self, keys: dict[str, Limits], tenants: dict[str, Limits]) -> None:
        self.rules = LimitRules(keys, tenants, {})


class Nowhere:
    """Takes usage in and forgets it."""

    def add(self, change: UsageChange) -> None:
        """Forget it."""


def make_call(keys: dict[str, Limits], tenants: dict[str, Limits]) -> Callable[[], None]:
    """Return one call's accounting under these limits."""
    clock = FrozenClock()
    meter = Meter(Source(keys, tenants), clock, usage=Nowhere())

    def call() -> None:
        clock.advance(1000)
        reservation = meter.reserve(KEY, 500, wants_output=1000)
        if reservation is not None:
            reservation.settle(700)

    return call


def time_call(call: Callable[[], object], rounds: int, number: int) -> float:
    """Return the median over rounds of one call's time, in us."""
    return statistics.median(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def measure(rounds: int) -> dict[str, float]:
    """Return every figure by its label."""
    bare = Meter(Source({}, {}), FrozenClock())
    others = Meter(Source({"key_1": ALL}, {"acme": ALL}), FrozenClock())
    held = Meter(Source({"key_1": ALL}, {"acme": ALL}), FrozenClock()).reserve(KEY, 500, wants_output=1000)
    assert held is not None
    table = {"key_1": 1}
    figures = {
        "one lookup in a dict, us": time_call(lambda: table.get(KEY.key_id), rounds, 20_000),
        "reserve without limits, us": time_call(lambda: bare.reserve(KEY, 500, wants_output=1000), rounds, 20_000),
        "reserve where others have limits, us": time_call(
            lambda: others.reserve(OTHER, 500, wants_output=1000), rounds, 20_000
        ),
        "reserve and settle, one limit, us": time_call(
            make_call({"key_1": Limits(requests_per_minute=MANY)}, {}), rounds, 2_000
        ),
        "reserve and settle, a daily budget, us": time_call(
            make_call({"key_1": Limits(tokens_per_day=MANY)}, {}), rounds, 2_000
        ),
        "reserve and settle, all limits, us": time_call(make_call({"key_1": ALL}, {}), rounds, 2_000),
        "reserve and settle, all limits twice, us": time_call(make_call({"key_1": ALL}, {"acme": ALL}), rounds, 2_000),
        "headers, all limits twice, us": time_call(held.headers, rounds, 2_000),
    }
    figures["no limits : one lookup"] = figures["reserve without limits, us"] / figures["one lookup in a dict, us"]
    return figures


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the figures beside their targets; 1 where one is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds per figure (default 15)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    figures = measure(options.rounds)
    missed = [label for label, target in TARGETS.items() if figures[label] > target]
    if options.json:
        print(json.dumps({"figures": figures, "targets": TARGETS, "missed": missed}))
        return 1 if missed else 0
    print(f"lukhas {__version__}, Python {platform.python_version()}, {platform.machine()}")
    for label, figure in figures.items():
        target = f"  under {TARGETS[label]:g}" if label in TARGETS else ""
        print(f"{label:<44}{figure:>9.2f}{target}{'  MISSED' * (label in missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
