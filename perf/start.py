"""How soon things are there: `import lukhas`, one decision, the first answered request after `lukhas serve`.

python perf/start.py [--runs 7] [--json]
"""

from __future__ import annotations

import argparse
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from typing import Any

from load import BODY, PATH
from process import SERVE, call, free_port, gateway_environment, run_process

TARGETS = {"import_ms": 60.0, "combine_us": 15.0, "first_start_ms": 1500.0, "next_start_ms": 1500.0}
LABELS = {
    "import_ms": "import lukhas, ms",
    "combine_us": "Modulator.combine, six signals, trace included, us",
    "first_start_ms": "first answer after lukhas serve, new data directory, ms",
    "next_start_ms": "first answer after lukhas serve, existing one, ms",
}
LEVELS = {"alignment_risk": 0.4, "stress": 0.5, "ambiguity": 0.6, "urgency": 0.3, "novelty": 0.7, "trust": 0.5}
_IMPORT = "import time; begun = time.perf_counter(); import lukhas; print((time.perf_counter() - begun) * 1000)"


def time_import() -> float:
    """Return how long a fresh interpreter takes to import lukhas, in ms."""
    return float(subprocess.run([sys.executable, "-c", _IMPORT], check=True, capture_output=True, text=True).stdout)


def time_combine() -> float:
    """Return how long one decision of the packaged policy over six signals takes, in us."""
    from lukhas import Modulator, Signal

    modulator = Modulator()
    signals = [Signal(name, level) for name, level in LEVELS.items()]
    count = 2_000
    return timeit.timeit(lambda: modulator.combine(signals), number=count) / count * 1e6


def time_starts() -> tuple[float, float]:
    """Return how long it takes from starting the gateway to its first answered call, in ms: first run, next run."""
    with tempfile.TemporaryDirectory(prefix="bench-data-") as folder:
        key = secrets.token_hex(24)
        return _time_start(folder, key), _time_start(folder, key)


def _time_start(folder: str, key: str) -> float:
    port = free_port()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    begun = time.perf_counter()
    with run_process(SERVE, gateway_environment("echo", port, key, folder)) as (_, log):
        while time.perf_counter() - begun < 30:
            try:
                status, body = call(port, "POST", PATH, BODY.encode(), headers)
            except OSError:
                time.sleep(0.005)
                continue
            if status == 200:
                return (time.perf_counter() - begun) * 1000
            if status != 503:
                raise SystemExit(f"The gateway answered {status} {body[:500].decode(errors='replace')}")
        raise SystemExit(f"The gateway gave no answer in 30 s.\n{log.read_text()[-3000:]}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when every target is met."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7, help="measurements of each, of which the median is shown")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args(arguments)

    def measure(one: Callable[[], Any]) -> list[Any]:
        return [one() for _ in range(options.runs)]

    measure(time_import)  # the first run writes the compiled files
    starts = measure(time_starts)
    medians = {
        "import_ms": statistics.median(measure(time_import)),
        "combine_us": statistics.median(measure(time_combine)),
        "first_start_ms": statistics.median(first for first, _ in starts),
        "next_start_ms": statistics.median(following for _, following in starts),
    }
    if options.json:
        print(json.dumps({"medians": medians, "targets": TARGETS, "runs": options.runs}, indent=2))
    else:
        for name, median in medians.items():
            verdict = "met" if median < TARGETS[name] else "MISSED"
            print(f"{LABELS[name]:58}{median:>9.1f}   under {TARGETS[name]:g}: {verdict}")
    return 0 if all(median < TARGETS[name] for name, median in medians.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
