"""Every metric's name, in one place. Labels never carry text that a caller chose.

The governed call touches a dozen metrics, so the numbers are plain attributes here, and Prometheus' client turns them
into families only when they are read. They are changed on one event loop alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_SHORT: Final = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5)


class Counter:
    """A number that only grows, one for each combination of its labels' values."""

    __slots__ = ("_doc", "_labels", "_name", "values")

    def __init__(self, name: str, doc: str, *labels: str) -> None:
        self._name, self._doc, self._labels = name, doc, labels
        self.values: dict[tuple[str, ...], float] = {} if labels else {(): 0}

    def add(self, *values: str, by: float = 1) -> None:
        """Add to the count with these label values."""
        self.values[values] = self.values.get(values, 0) + by

    def collect(self) -> Family:
        """Return the present numbers."""
        family = CounterMetricFamily(self._name, self._doc, labels=self._labels)
        for values, number in self.values.copy().items():
            family.add_metric(values, number)
        return family


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("_doc", "_name", "value")

    def __init__(self, name: str, doc: str) -> None:
        self._name, self._doc = name, doc
        self.value: float = 0

    def collect(self) -> Family:
        """Return the present number."""
        return GaugeMetricFamily(self._name, self._doc, value=self.value)


class Histogram:
    """How measured times, in seconds, spread over buckets."""

    __slots__ = ("_counts", "_doc", "_name", "_sum", "_tops")

    def __init__(self, name: str, doc: str, tops: tuple[float, ...] = _SECONDS) -> None:
        self._name, self._doc, self._tops = name, doc, tops
        self._counts = [0] * (len(tops) + 1)
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Take one measurement in."""
        self._counts[bisect_left(self._tops, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Family:
        """Return the present spread."""
        edges = [*(repr(float(top)) for top in self._tops), "+Inf"]
        buckets = list(zip(edges, map(float, accumulate(self._counts)), strict=True))
        return HistogramMetricFamily(self._name, self._doc, buckets=buckets, sum_value=self._sum)


class Metrics(Collector):
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.calls = Counter("lukhas_calls", "Governed calls by how they ended.", "result")
        self.call_seconds = Histogram("lukhas_call_seconds", "Time from a call's arrival to its last byte.")
        self.decide_seconds = Histogram(
            "lukhas_decide_seconds", "Time spent on reading, deciding and rewriting one call.", _SHORT
        )
        self.record_seconds = Histogram(
            "lukhas_record_seconds", "Time that a call waited for its durable outcome record.", _SHORT
        )
        self.in_flight = Gauge("lukhas_calls_in_flight", "Governed calls that have not ended.")
        self.upstream_attempts = Counter("lukhas_upstream_attempts", "Attempts made upstream, retries included.")
        self.upstream_seconds = Histogram(
            "lukhas_upstream_seconds", "Time until the upstream's status and headers were here."
        )
        self.tools_stripped = Counter("lukhas_tools_stripped", "Tools taken out of requests.")
        self.incidents = Counter("lukhas_incidents", "Violations by where and what.", "point", "category", "action")
        self.findings = Counter("lukhas_moderation_findings", "Moderation findings.", "point", "category", "action")
        self.moderation_failures = Counter(
            "lukhas_moderation_failures", "Questions to the moderation API that failed.", "point"
        )
        self.screen_seconds = Histogram(
            "lukhas_screen_seconds", "Time spent on moderating one request by the rules.", _SHORT
        )
        self.limited = Counter("lukhas_limited", "Calls refused by a limit.", "limit", "subject")
        self.sensor_failures = Counter("lukhas_sensor_failures", "Sensors that failed or took too long.", "sensor")
        self.decisions = Counter("lukhas_decisions", "Decisions by safety mode.", "safety_mode")
        self.signals = Counter("lukhas_signals", "Emissions taken in.", "signal", "accepted")
        self.unauthenticated = Counter("lukhas_unauthenticated", "Requests without a valid key.")
        self.policy_loads = Counter("lukhas_policy_loads", "Attempts to load a policy.", "result")
        self.shadow_decisions = Counter(
            "lukhas_shadow_decisions", "Decisions of the shadow policy against the one in force.", "result"
        )
        self.writer_depth = Gauge("lukhas_writer_queue_rows", "Rows that wait for the database.")
        self.log_size = Gauge("lukhas_audit_records", "Records in the audit log.")
        self.checkpoint_time = Gauge(
            "lukhas_audit_checkpoint_timestamp_seconds", "When the newest checkpoint was signed, in seconds since 1970."
        )
        self.checkpoint_size = Gauge("lukhas_audit_checkpoint_records", "Records that the newest checkpoint covers.")
        self.shipped_size = Gauge(
            "lukhas_audit_shipped_records", "Records that the newest shipped checkpoint covers; 0 where none is."
        )
        self.jsonl_lag = Gauge("lukhas_audit_jsonl_lag_records", "Records that are not in the JSONL file yet.")
        self.search_lag = Gauge("lukhas_audit_search_lag_records", "Records that are not indexed for search yet.")
        self.audit_failures = Counter("lukhas_audit_failures", "Failures of what runs beside the log.", "part")
        self.unrecorded = Counter("lukhas_unrecorded_calls", "Calls that passed unrecorded, as the setting allows.")
        self.signal_entries = Gauge("lukhas_signal_entries", "Living signal emissions.")
        self.registry = CollectorRegistry(auto_describe=True)
        self.registry.register(self)

    def collect(self) -> Iterator[Family]:
        """Yield every family; called by the registry."""
        for metric in vars(self).values():
            if isinstance(metric, (Counter, Gauge, Histogram)):
                yield metric.collect()

    def render(self) -> bytes:
        """Return the registry in Prometheus' text format."""
        return generate_latest(self.registry)
