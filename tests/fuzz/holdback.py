"""The long form of the streaming guard's property test.

    python tests/fuzz/holdback.py --seconds 120 --seed 1

Random rules, texts and cuts: streaming agrees with a scan of the whole text, and holds back what it must and no more.
Stops at the first disagreement, with the rules, the text and the cuts that show it; then the exit code is not 0.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from holdback_oracle import LETTERS, judge, judge_hold, make_narrow_rules, make_rules


def main() -> None:
    """Judge for a while and print how much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    until = time.monotonic() + options.seconds
    sets = runs = holds = 0
    while time.monotonic() < until:
        flat = sets % 4 == 0
        rules = make_rules(chance, flat=flat)
        if not rules:
            continue
        sets += 1
        for _ in range(3):
            text = "".join(chance.choices(LETTERS, weights=(5, 5, 1, 1, 4, 2, 1, 1, 1), k=chance.randint(1, 12)))
            cuts = [(), range(1, len(text)), *((place,) for place in range(1, len(text)))]
            cuts += [sorted(chance.sample(range(1, len(text)), 2)) for _ in range(6) if len(text) > 3]
            runs += judge(rules, text, cuts)
        text = "".join(chance.choices("ab1", k=60))
        runs += judge(rules, text, [sorted(chance.sample(range(1, 60), k)) for k in (1, 5, 20)])
        if sets % 8 == 1:
            # Past the batches of rules that only report.
            text = "".join(chance.choices(LETTERS, k=2600))
            runs += judge(rules, text, [sorted(chance.sample(range(1, 2600), k)) for k in (1, 40)])
        if sets % 8 == 0:
            holds += judge_hold(make_narrow_rules(chance), "".join(chance.choices("ab1", k=8)))
    print(f"{sets:,} rule sets, {runs:,} cut texts, {holds:,} states held against every continuation: all agree")


if __name__ == "__main__":
    main()
