"""How busy the upstream is: calls in flight, how long answers take, how many fail. O(1) per call, no history kept."""

from __future__ import annotations

import math
from typing import Final

import msgspec

from lukhas.clock import Clock

# Weight of one call in the short and in the long view: about the last 20 and the last 1,000 calls.
FAST: Final = 0.1
SLOW: Final = 0.002
# Share of the upper side in the asymmetric mean (an expectile): near the 95th percentile for usual spreads.
UPPER: Final = 0.95
# Below this many answers there is no baseline to compare with.
MIN_ANSWERS: Final = 20
# What was seen loses half its weight in this time without an answer, so that stress ends with the load.
REST_HALF_LIFE_MS: Final = 10_000


class Load(msgspec.Struct, frozen=True):
    """The upstream's load at one moment.

    Attributes:
        in_flight: calls that have not ended.
        utilisation: calls in flight by capacity, 0 or more.
        latency_ratio: high latencies of the last calls by those of the long run; 1 where they are alike, or too few.
        error_ratio: share of failures in the last calls.
        freshness: 1 right after an answer, halved by every 10 s without one.
    """

    in_flight: int
    utilisation: float
    latency_ratio: float
    error_ratio: float
    freshness: float


class LoadMeter:
    """Measures the load of one upstream, for one process.

    Latency is followed by an asymmetric exponential mean, in which a value above it weighs 19 times one below: the
    expectile of Newey and Powell (Econometrica, 1987), which needs no samples. The short view is compared with the long
    one, as in the gradient limits of Netflix' concurrency-limits.

    Args:
        capacity: calls in flight that count as full.
    """

    def __init__(self, clock: Clock, *, capacity: int = 100) -> None:
        self._clock = clock
        self._capacity = max(1, capacity)
        self._in_flight = 0
        self._answers = 0
        self._fast_s = 0.0
        self._slow_s = 0.0
        self._error_ratio = 0.0
        self._ended_ms = clock.monotonic_ms()

    def begin(self) -> None:
        """Take in that a call goes upstream."""
        self._in_flight += 1

    def end(self, latency_s: float | None, ok: bool) -> None:
        """Take in that a call is over.

        Args:
            latency_s: how long it took, in s; None, or anything but a finite number from 0, where that says nothing,
                as with a caller that left.
            ok: whether the upstream answered as it should.
        """
        self._in_flight = max(0, self._in_flight - 1)
        # What has faded while nothing came must not come back with the next answer.
        fresh = self._freshness()
        self._error_ratio *= fresh
        self._fast_s = self._slow_s + (self._fast_s - self._slow_s) * fresh
        self._ended_ms = self._clock.monotonic_ms()
        self._error_ratio += FAST * ((0.0 if ok else 1.0) - self._error_ratio)
        if latency_s is None or not math.isfinite(latency_s) or latency_s < 0:
            return
        self._answers += 1
        if self._answers == 1:
            self._fast_s = self._slow_s = latency_s
            return
        self._fast_s = _follow(self._fast_s, latency_s, max(FAST, 1 / self._answers))
        # The first answers are averaged plainly: the very first one alone is no baseline.
        self._slow_s = _follow(self._slow_s, latency_s, max(SLOW, 1 / self._answers))

    def read(self) -> Load:
        """Return the load now."""
        ratio = self._fast_s / self._slow_s if self._answers >= MIN_ANSWERS and self._slow_s > 0 else 1.0
        return Load(self._in_flight, self._in_flight / self._capacity, ratio, self._error_ratio, self._freshness())

    def _freshness(self) -> float:
        idle_ms = max(0, self._clock.monotonic_ms() - self._ended_ms)
        return 2.0 ** (-idle_ms / REST_HALF_LIFE_MS)


def _follow(mean: float, value: float, weight: float) -> float:
    side = UPPER if value > mean else 1 - UPPER
    # Twice, so that a value on the usual side moves a symmetric mean (UPPER = 0.5) by exactly the weight.
    return mean + min(1.0, 2 * side * weight) * (value - mean)
