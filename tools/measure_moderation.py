"""Measure what the packaged moderation rules catch, miss, and find where nothing is.

python tools/measure_moderation.py --clean manual=/usr/share/man/man1 --labelled prompts.jsonl [--half second] [--json]

Clean text is any folder of text files (gzip too): every finding that acts there counts as false. Labelled text is JSON
lines of `{"text": ..., "category": ..., "point": "input"}`, where `category` is one of ours, `any` for harm of whatever
kind, or `clean`. To write rules by one half of some data and report the other, texts are split by their SHA-256.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal, cast

from lukhas.moderation.rule import Point, Preset
from lukhas.moderation.rule_reader import load_rules
from lukhas.moderation.ruleset import RuleSet

MAX_CHARS: Final = 20_000
MIN_CHARS: Final = 400
Half = Literal["first", "second", "both"]


def in_half(text: str, half: Half) -> bool:
    """Whether a text belongs to the half that is asked for; the same on every machine."""
    first = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] < 128
    return half == "both" or first == (half == "first")


def read_files(folder: Path, most: int) -> Iterator[str]:
    """Yield the beginnings of a folder's text files, spread over it by the hash of their names."""
    files = sorted(
        (path for path in folder.rglob("*") if path.is_file()),
        key=lambda path: hashlib.sha256(str(path.relative_to(folder)).encode("utf-8", "surrogatepass")).digest(),
    )
    for path in files:
        if most <= 0:
            return
        try:
            with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
                text = file.read(MAX_CHARS).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError):
            continue
        if len(text) >= MIN_CHARS and "\0" not in text:
            most -= 1
            yield text


def measure_clean(rules: RuleSet, folder: Path, point: Point, preset: Preset, most: int, half: Half) -> dict[str, Any]:
    """Count the texts of a folder in which any rule acts, and which rules."""
    texts = [text for text in read_files(folder, most) if in_half(text, half)]
    actions: Counter[str] = Counter()
    by_rule: Counter[str] = Counter()
    for text in texts:
        acting = [finding for finding in rules.profile(preset, point).scan(text) if finding.action != "record"]
        actions.update({finding.action for finding in acting})
        by_rule.update({finding.rule for finding in acting})
    characters = sum(map(len, texts))
    return {"texts": len(texts), "characters": characters, "actions": dict(actions), "rules": dict(by_rule)}


def measure_labelled(rules: RuleSet, path: Path, preset: Preset, half: Half) -> dict[str, Any]:
    """Count, by category, the labelled texts that were stopped, found otherwise, or missed."""
    counts: dict[str, Counter[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        case: dict[str, str] = json.loads(line)
        if not in_half(case["text"], half):
            continue
        category = case["category"]
        found = rules.profile(preset, cast(Point, case.get("point", "input"))).scan(case["text"])
        actions = {
            f.action
            for f in found
            if category in ("any", "clean") or f.category.partition("/")[0] == category.partition("/")[0]
        }
        outcome = next((action for action in ("block", "redact", "tighten", "record") if action in actions), "missed")
        counts.setdefault(category, Counter())[outcome] += 1
    return {category: dict(outcomes) for category, outcomes in sorted(counts.items())}


def main() -> None:
    """Measure and print a table, or JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--labelled", action="append", default=[], type=Path, metavar="FILE.jsonl")
    parser.add_argument("--rules", type=Path)
    parser.add_argument("--point", default="input", choices=("instruction", "input", "tool_result", "output"))
    parser.add_argument("--preset", default="standard", choices=("standard", "high"))
    parser.add_argument("--half", default="both", choices=("first", "second", "both"))
    parser.add_argument("--most", default=1_000, type=int, help="files of one folder")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rules = load_rules(options.rules)
    report: dict[str, Any] = {
        "rules": rules.id,
        "preset": options.preset,
        "half": options.half,
        "clean": {},
        "labelled": {},
    }
    for entry in options.clean:
        name, _, folder = entry.partition("=")
        report["clean"][name] = measure_clean(
            rules, Path(folder), options.point, options.preset, options.most, options.half
        )
    for path in options.labelled:
        report["labelled"][path.name] = measure_labelled(rules, path, options.preset, options.half)
    print(json.dumps(report, indent=2, ensure_ascii=False) if options.json else _format(report))


def _format(report: dict[str, Any]) -> str:
    lines = [f"rules {report['rules']}, preset {report['preset']}, half {report['half']}"]
    for name, row in report["clean"].items():
        lines.append(
            f"clean {name}: {row['texts']:,} texts, {row['characters']:,} characters: {row['actions'] or 'none'}"
        )
        lines += [f"    {rule}: {count}" for rule, count in row["rules"].items()]
    for name, categories in report["labelled"].items():
        for category, outcomes in categories.items():
            lines.append(f"{name} {category}: {sum(outcomes.values())} texts: {outcomes}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
