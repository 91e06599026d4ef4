"""How long a proof takes: the packaged policy, and generated ones of 12 signals and 12 parameters.

    python perf/verify.py [COUNT]

Prints one line per policy: statements, result, seconds of the whole proof with its worker process. Targets: the
packaged policy in under 10 s, a generated one in under 60 s.
"""

from __future__ import annotations

import platform
import sys
import time
from random import Random

from lukhas.modulation.policy_reader import read_packaged_text
from lukhas.modulation.prover import prove

GUARDS = ("alignment_risk", "leak_risk", "cost_risk")
STYLES = ("stress", "ambiguity", "urgency", "novelty", "trust", "load", "depth", "haste", "calm")
NUMBERS = ("temperature", "top_p", "memory_write", "verbosity", "effort", "weight", "share")
WHOLE = ("max_output_tokens", "planner_beam", "retrieval_k")


def write_policy(seed: int) -> str:
    """Write a sound policy in which each of 3 guards and 9 styles maps each of 12 parameters."""
    random = Random(seed)
    lines = ["version: 1", f"name: generated-{seed}", "signals:"]
    lines += [f"  {name}: {{role: guard}}" for name in GUARDS]
    lines += [f"  {name}: {{role: style, precedence: {i}, weight: 0.{i + 1}}}" for i, name in enumerate(STYLES)]
    lines.append("parameters:")
    tighter = {name: "higher" if name == "effort" else "lower" for name in NUMBERS + WHOLE}
    for name in NUMBERS:
        lines.append(f"  {name}: {{type: number, default: 0.5, min: 0.05, max: 1, tighter: {tighter[name]}}}")
    for name in WHOLE:
        lines.append(f"  {name}: {{type: integer, default: 40, min: 1, max: 2048, tighter: {tighter[name]}}}")
    lines.append("  safety_mode: {type: enum, values: [strict, balanced, creative], default: balanced, tighter: first}")
    lines.append("  tools: {type: tools, default: [retrieval, browser], tighter: subset}")
    lines.append("maps:")
    for signal in GUARDS + STYLES:
        lines.append(f"  {signal}:")
        for name in NUMBERS + WHOLE:
            lines.append(f'    {name}: "{_map(random, signal, name, tighter[name])}"')
        at = random.randint(2, 9) / 10
        lines.append(f'    safety_mode: "strict if x > {at} else current"')
        lines.append(f'    tools: "[retrieval] if x > {at} else current"')
    lines.append("styles: {strict: {}, focused: {}, creative: {}, balanced: {}}")
    lines += ["style_rules:", "  - {style: strict, when: safety_mode == strict or alignment_risk > 0.8}"]
    lines += ["  - {style: focused, when: stress > 0.7 and not calm > 0.5}"]
    lines += ["  - {style: creative, when: novelty + trust > 1.2}", "  - {style: balanced}"]
    lines += ["tools:", "  retrieval: {patterns: ['retrieve_*']}", "  browser: {functions: [open_url]}"]
    lines += ["feedback:", "  temperature: {min: -0.2, max: 0.2}", "  top_p: {min: -0.2, max: 0.2}"]
    lines += ["  memory_write: {min: 0, max: 0.2}", "  verbosity: {min: -0.3, max: 0.3}"]
    return "\n".join(lines) + "\n"


def _map(random: Random, signal: str, name: str, tighter: str) -> str:
    a, b = random.randint(30, 90) / 100, random.randint(5, 30) / 100
    other = random.choice([style for style in STYLES if style != signal])
    if signal in GUARDS:
        sign = "+" if tighter == "higher" else "-"
        if name in WHOLE:
            return random.choice(
                [f"max(1, round({a * 60:.1f} - {b * 100:.1f} * x))", f"{a * 60:.1f} - {b * 90:.1f} * x"]
            )
        start = a if tighter == "lower" else b
        forms = [
            f"clamp({start} {sign} {b} * x, 0.05, 1)",
            f"{start} {sign} {b} * x * x",
            f"min(current, {start}) if x > 0.6 else 1" if tighter == "lower" else f"max(current, {start})",
            f"{start} {sign} {b} * max(x, 0.2) {sign} 0.1 * {other}",
            f"{start} {sign} round(4 * x) / 40",
        ]
        return random.choice(forms if name not in ("temperature", "top_p", "memory_write", "verbosity") else forms[:2])
    if name in WHOLE:
        return random.choice([f"max(1, round({a * 1000:.0f} - {b * 900:.0f} * x))", f"20 + round(40 * x * {other})"])
    return random.choice(
        [
            f"max(0.1, {a} - {b} * x)",
            f"min(1, {a} + {b} * x + 0.1 * {other})",
            f"{a} if x > {b} and {other} < 0.5 else max(0.05, current - 0.1)",
            f"clamp(current * (1 - {b} * x), 0.05, 1)",
            "0.1 + round(8 * x) / 10",
        ]
    )


def main() -> None:
    """Prove and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    print(f"{platform.machine()}, Python {platform.python_version()}")
    policies = [("packaged", read_packaged_text()), *((f"12 x 12, seed {n}", write_policy(n)) for n in range(count))]
    for name, text in policies:
        started = time.perf_counter()
        found = prove(text, source=name, deadline_s=60.0)
        seconds = time.perf_counter() - started
        slowest = max(found.statements, key=lambda s: s.seconds, default=None)
        by_result = {r: sum(s.result == r for s in found.statements) for r in ("proved", "not proved", "refuted")}
        print(f"{name:18} {found.solver:12} {found.result:10} {by_result} {seconds:6.2f} s")
        if slowest is not None:
            print(f"  slowest: {slowest.id} {slowest.seconds:.2f} s; warnings: {len(found.warnings)}")


if __name__ == "__main__":
    main()
