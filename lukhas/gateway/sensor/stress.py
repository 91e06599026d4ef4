"""Stress: the upstream is full, slower than usual, or failing."""

from __future__ import annotations

from typing import Final

from lukhas.gateway.sensor.load import Load, LoadMeter
from lukhas.gateway.sensor.observation import Observation, Reading

__all__ = ["LoadMeter", "StressSensor", "stress_level"]

# (no part below, full part from, weight) of each feature.
UTILISATION: Final = (0.5, 1.0, 0.7)
LATENCY_RATIO: Final = (1.5, 4.0, 0.6)
ERROR_RATIO: Final = (0.05, 0.5, 0.8)


class StressSensor:
    """Reads stress from the load of the upstream."""

    name = "stress"
    signal = "stress"

    def sense(self, observation: Observation) -> Reading | None:
        """Return the stress; see `stress_level`."""
        load = observation.load.read()
        return Reading(
            stress_level(load),
            {
                "in_flight": load.in_flight,
                "utilisation": round(load.utilisation, 3),
                "latency_ratio": round(load.latency_ratio, 3),
                "error_ratio": round(load.error_ratio * load.freshness, 3),
            },
        )


def stress_level(load: Load) -> float:
    """Return 1 - (1 - w1 f1)(1 - w2 f2)(1 - w3 f3), each f rising in a straight line from 0 to 1.

    Never falls when more is in flight, when latency rises, or when more fails; 0 at rest.
    """
    fresh = load.freshness
    calm = 1.0
    for value, (low, high, weight), share in (
        (load.utilisation, UTILISATION, 1.0),
        (load.latency_ratio, LATENCY_RATIO, fresh),
        (load.error_ratio, ERROR_RATIO, fresh),
    ):
        part = min(1.0, max(0.0, (value - low) / (high - low)))
        calm *= 1.0 - weight * part * share
    return 1.0 - calm
