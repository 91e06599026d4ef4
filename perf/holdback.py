"""What guarding a stream costs: tokens a second on prose, code and JSON, beside the same rules asked one by one.

python perf/holdback.py [--rounds 7] [--json]

Medians over rounds, interleaved, in one run. "new" is text that the plan has not seen, after other text of its kind;
"seen" is the same text once more. A token is at most nine letters with the space before them, or a few signs or digits:
3 to 4 characters. "naive" asks each rule that withholds of the whole tail with each token, by the `regex` package's own
partial search; it is also wrong (docs/explanation/streaming.md), and is here for its price alone.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import regex

from lukhas import __version__
from lukhas.moderation.holdback import Holdback, StreamPlan
from lukhas.moderation.rule import PRESETS, WITHHOLDING
from lukhas.moderation.rule_reader import load_rules
from lukhas.moderation.ruleset import CompiledRule

ROOT = Path(__file__).resolve().parents[1]
TOKEN = re.compile(r" ?[^\W\d_]{1,9}|\d{1,3}|\s+|[^\w\s]{1,3}|.", re.DOTALL)
TARGET_US = 6.0
CHARS = 30_000
NAIVE_CHARS = 4_000


def read_texts() -> dict[str, str]:
    """Return a text of each kind; the project's own pages, modules and interface description."""
    prose = "\n".join(path.read_text() for path in sorted((ROOT / "docs").rglob("*.md")))
    code = "\n".join(path.read_text() for path in sorted((ROOT / "lukhas").rglob("*.py")))
    rows = [
        {"id": n, "name": f"row {n}", "level": n / 7, "tags": ["north", "south"], "ok": n % 3 == 0} for n in range(900)
    ]
    texts = {"prose": prose, "code": code, "JSON": json.dumps(rows, indent=1)}
    return {kind: text[: 8 * CHARS] for kind, text in texts.items()}


def split(text: str) -> list[str]:
    """Cut a text as a model writes it."""
    return TOKEN.findall(text)


def guard(plan: StreamPlan, tokens: Sequence[str]) -> Callable[[], int]:
    """Return a call that streams tokens through one guard."""

    def stream() -> int:
        channel = Holdback(plan, lambda _: None)
        feed = channel.feed
        for token in tokens:
            feed(token)
        channel.finish()
        return len(tokens)

    return stream


def naive(rules: Sequence[CompiledRule], tokens: Sequence[str]) -> Callable[[], int]:
    """Return a call that asks each rule of the whole tail with each token."""
    patterns = [rule.pattern for rule in rules if rule.action in WITHHOLDING]

    def stream() -> int:
        tail = ""
        for token in tokens:
            tail += token
            hold = len(tail)
            for pattern in patterns:
                found: regex.Match[str] | None = pattern.search(tail, partial=True)
                if found is not None:
                    hold = min(hold, found.start())
            tail = tail[max(0, hold - 1) :]
        return len(tokens)

    return stream


def measure(rounds: int) -> dict[str, float]:
    """Return the price of each case in us a token."""
    ruleset = load_rules(None)
    texts = {kind: split(text) for kind, text in read_texts().items()}
    spent: dict[str, list[float]] = {}

    def note(name: str, run: Callable[[], int]) -> None:
        start = time.perf_counter()
        tokens = run()
        spent.setdefault(name, []).append((time.perf_counter() - start) / tokens * 1e6)

    standard = ruleset.profile("standard", "output").rules
    for _ in range(rounds):
        for preset in PRESETS:
            rules = ruleset.profile(preset, "output").rules
            for kind, tokens in texts.items():
                plan = StreamPlan(rules)
                few = len(tokens) // 8
                guard(plan, tokens[few:])()
                note(f"{preset}, {len(rules)} rules, {kind}, new", guard(plan, tokens[:few]))
                note(f"{preset}, {len(rules)} rules, {kind}, seen", guard(plan, tokens[:few]))
        for kind, tokens in texts.items():
            note(f"naive, {kind}", naive(standard, tokens[: NAIVE_CHARS // 4]))
        for count in (10, 30):
            plan = StreamPlan(standard[:: len(standard) // count][:count])
            few = len(texts["prose"]) // 8
            guard(plan, texts["prose"][few:])()
            note(f"{count} of the standard rules, prose, new", guard(plan, texts["prose"][:few]))
    return {name: statistics.median(times) for name, times in spent.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures = measure(options.rounds)
    if options.json:
        print(json.dumps(figures))
        return
    print(f"LUKHAS {__version__}, Python {platform.python_version()}, regex {regex.__version__}, {platform.machine()}")
    for kind, text in read_texts().items():
        print(f"{kind}: {len(text) / len(split(text)):.1f} characters a token")
    for name, figure in figures.items():
        print(f"{name:44} {figure:8.2f} us a token {1e6 / figure:12,.0f} tokens/s")
    worst = max(figure for name, figure in figures.items() if name.startswith("standard"))
    print(f"target {TARGET_US} us a token: {'met' if worst <= TARGET_US else 'missed'} ({worst:.2f} at most)")
    sys.exit(0 if worst <= TARGET_US else 1)


if __name__ == "__main__":
    main()
