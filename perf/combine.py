"""What a decision costs: Modulator.combine with six signals under the packaged policy, and loading that policy.

python perf/combine.py [--rounds 15] [--json]

Medians over rounds, in one run: the decision with its trace, the same with `to_dict` and as JSON, one signal, none, and
as the thing to compare with, a generated function called for each of the policy's maps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import timeit
from collections.abc import Callable, Sequence

import orjson

from lukhas import Modulator, Signal, __version__
from lukhas.modulation.policy_reader import load_policy

TARGETS = {"combine six signals, us": 15.0, "load_policy, ms": 30.0}
LEVELS = {"alignment_risk": 0.8, "stress": 0.8, "ambiguity": 0.8, "urgency": 0.8, "novelty": 0.8, "trust": 0.8}


def time_call(call: Callable[[], object], rounds: int, number: int) -> float:
    """Return the median over rounds of one call's time, in us."""
    return statistics.median(timeit.repeat(call, number=number, repeat=rounds)) / number * 1e6


def measure(rounds: int) -> dict[str, float]:
    """Return every figure by its label."""
    modulator = Modulator()
    signals = [Signal(name, level) for name, level in LEVELS.items()]
    rules = list(modulator.policy.rules.values())
    full = dict(LEVELS)

    def call_maps() -> None:
        for rule in rules:
            rule.function(0.8, 0.5, full)

    caller = {"temperature": 0.9, "top_p": 1.0, "max_output_tokens": 1000}
    figures = {
        "combine six signals, us": time_call(lambda: modulator.combine(signals), rounds, 2000),
        "combine and to_dict, us": time_call(lambda: modulator.combine(signals).to_dict(), rounds, 2000),
        "combine, to_dict and JSON, us": time_call(
            lambda: orjson.dumps(modulator.combine(signals).to_dict()), rounds, 2000
        ),
        "combine with a caller's values, us": time_call(
            lambda: modulator.combine(signals, caller=caller), rounds, 2000
        ),
        "combine one signal, us": time_call(lambda: modulator.combine(signals[1:2]), rounds, 2000),
        "combine no signal, us": time_call(lambda: modulator.combine([]), rounds, 2000),
        f"the {len(rules)} maps alone, us": time_call(call_maps, rounds, 2000),
        "load_policy, ms": time_call(load_policy, max(3, rounds // 3), 3) / 1000,
    }
    figures["combine : maps alone"] = figures["combine six signals, us"] / figures[f"the {len(rules)} maps alone, us"]
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
        print(f"{label:<40}{figure:>9.2f}{target}{'  MISSED' * (label in missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
