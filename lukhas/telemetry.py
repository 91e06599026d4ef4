"""Every metric's name, in one place. Labels never carry text that a caller chose."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        r = self.registry
        self.calls = Counter("lukhas_calls", "Governed calls by how they ended.", ["result"], registry=r)
        self.call_seconds = Histogram(
            "lukhas_call_seconds", "Time from a call's arrival to its last byte.", registry=r, buckets=_SECONDS
        )
        self.decide_seconds = Histogram(
            "lukhas_decide_seconds",
            "Time spent on reading, deciding and rewriting one call.",
            registry=r,
            buckets=(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05),
        )
        self.record_seconds = Histogram(
            "lukhas_record_seconds",
            "Time that a call waited for its durable outcome record.",
            registry=r,
            buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1, 5),
        )
        self.in_flight = Gauge("lukhas_calls_in_flight", "Governed calls that have not ended.", registry=r)
        self.upstream_attempts = Counter(
            "lukhas_upstream_attempts", "Attempts made upstream, retries included.", registry=r
        )
        self.upstream_seconds = Histogram(
            "lukhas_upstream_seconds",
            "Time until the upstream's status and headers were here.",
            registry=r,
            buckets=_SECONDS,
        )
        self.tools_stripped = Counter("lukhas_tools_stripped", "Tools taken out of requests.", registry=r)
        self.safety_modes = Counter("lukhas_decisions", "Decisions by safety mode.", ["safety_mode"], registry=r)
        self.signals = Counter("lukhas_signals", "Emissions taken in.", ["signal", "accepted"], registry=r)
        self.unauthenticated = Counter("lukhas_unauthenticated", "Requests without a valid key.", registry=r)
        self.policy_loads = Counter("lukhas_policy_loads", "Attempts to load a policy.", ["result"], registry=r)
        self.writer_depth = Gauge("lukhas_writer_queue_rows", "Rows that wait for the database.", registry=r)
        self.log_size = Gauge("lukhas_audit_records", "Records in the audit log.", registry=r)
        self.signal_entries = Gauge("lukhas_signal_entries", "Living signal emissions.", registry=r)

    def render(self) -> bytes:
        """Return the registry in Prometheus' text format."""
        return generate_latest(self.registry)
