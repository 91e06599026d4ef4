"""Resident memory of the gateway over 100,000 calls: is it small, and does it stay flat?

    python perf/memory.py [--calls 100000] [--json]

Each second of load has another session out of fifty, and six signals, so that state is made and let go as in real use.
"""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from typing import Any

from load import run_load
from process import SERVE, Server, start_gateway, start_mock

TARGET_MB = 150.0
WARM_UP_CALLS = 5_000
SIGNALS = "alignment_risk=0.4, stress=0.5, ambiguity=0.6, urgency=0.3, novelty=0.7, trust=0.5"


def watch_memory(gateway: Server, *, calls: int, sessions: int = 50) -> dict[str, Any]:
    """Make `calls` calls at 32 clients and read resident memory along the way, in MB.

    `growth_mb` is from after the warm-up to the end; `late_growth_mb` is over the second half alone, where a leak
    still grows and caches no longer do.
    """
    before_mb = gateway.rss_mb()
    readings: list[tuple[int, float]] = []
    done = failed = number = 0
    while done < calls + WARM_UP_CALLS:
        headers = {
            "Authorization": f"Bearer {gateway.key}",
            "X-Lukhas-Session": f"memory-{number % sessions}",
            "X-Lukhas-Signals": SIGNALS,
        }
        part = run_load(gateway.port, headers, clients=32, seconds=1)
        number += 1
        done += part.calls
        failed += part.failed
        if done >= WARM_UP_CALLS:
            readings.append((done, gateway.rss_mb()))
    middle = readings[len(readings) // 2][1]
    first, last = readings[0][1], readings[-1][1]
    return {
        "calls": done,
        "failed": failed,
        "before_mb": round(before_mb, 1),
        "after_warm_up_mb": round(first, 1),
        "end_mb": round(last, 1),
        "growth_mb": round(last - first, 1),
        "late_growth_mb": round(last - middle, 1),
        "readings": [(calls_so_far, round(mb, 1)) for calls_so_far, mb in readings],
    }


def print_memory(found: dict[str, Any]) -> None:
    """Print what `watch_memory` found, as a table."""
    print(f"resident memory, MB: {found['before_mb']} before, {found['after_warm_up_mb']} after warm-up,")
    print(f"  {found['end_mb']} after {found['calls']:,} calls (target: under {TARGET_MB:g})")
    print(f"  growth {found['growth_mb']:+} since warm-up, {found['late_growth_mb']:+} in the second half")
    step = max(1, len(found["readings"]) // 10)
    for calls, megabytes in found["readings"][::step]:
        print(f"  {calls:>9,} calls  {megabytes:>7.1f} MB")
    if found["failed"]:
        print(f"  {found['failed']:,} calls failed")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when the target is met and no call failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="calls after the warm-up")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--gateway-command", default=shlex.join(SERVE), help="what starts the gateway")
    options = parser.parse_args(arguments)
    with (
        start_mock() as mock,
        start_gateway(f"http://127.0.0.1:{mock.port}/v1", shlex.split(options.gateway_command)) as gateway,
    ):
        found = watch_memory(gateway, calls=options.calls)
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print_memory(found)
    return 0 if found["end_mb"] < TARGET_MB and not found["failed"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
