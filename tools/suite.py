"""Run the tests under coverage, hold the gates, and end with what was skipped and why.

`make test` calls it. On two cores and more the tests run in two processes, side by side. Arguments go to pytest; with
arguments only a part runs, so coverage is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parent.parent


class Gate(NamedTuple):
    """A floor, in percent, for the lines and for the branches of some files together."""

    name: str
    prefixes: tuple[str, ...]
    floor: float


CORE: Final = Gate("pure core", ("lukhas/modulation/", "lukhas/audit/merkle.py"), 95.0)
REST: Final = Gate("the rest", ("lukhas/",), 85.0)


# What runs side by side, of about the same length; together every folder below tests/ that holds tests.
PARTS: Final = (("api", "architecture", "contract", "docs", "fault"), ("unit",))


@dataclass(frozen=True, slots=True)
class Measure:
    """What the tests reached of one gate's files, in percent; a gate without files is at 100."""

    gate: Gate
    lines: float
    branches: float
    weakest: tuple[tuple[str, float], ...]

    @property
    def holds(self) -> bool:
        """Whether lines and branches are both at the floor or above."""
        return min(self.lines, self.branches) >= self.gate.floor


def measure(files: Mapping[str, Mapping[str, Any]], gates: Sequence[Gate] = (CORE, REST)) -> tuple[Measure, ...]:
    """Sum up the files of a `coverage json` report per gate; a file counts for the first gate that names it."""
    sums = {gate: [0, 0, 0, 0] for gate in gates}
    shares: dict[Gate, list[tuple[str, float]]] = {gate: [] for gate in gates}
    for name, file in sorted(files.items()):
        found = next((g for g in gates if name.startswith(g.prefixes)), None)
        if found is None:
            continue
        summary = file["summary"]
        keys = ("covered_lines", "num_statements", "covered_branches", "num_branches")
        for position, key in enumerate(keys):
            sums[found][position] += summary[key]
        shares[found].append((name, float(summary["percent_covered"])))
    return tuple(
        Measure(
            gate,
            _percent(lines, statements),
            _percent(taken, branches),
            tuple(sorted(shares[gate], key=lambda share: share[1])[:8]),
        )
        for gate, (lines, statements, taken, branches) in sums.items()
    )


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 100.0


def main(argv: Sequence[str]) -> int:
    """Run pytest with these arguments and return the exit status: 0 only when tests and gates both hold."""
    with tempfile.TemporaryDirectory() as scratch:
        figures = Path(scratch) / "coverage.json"
        began = time.monotonic()
        if argv:
            report = Path(scratch) / "tests.json"
            status = _run(["pytest", *argv], os.environ | {"LUKHAS_TEST_REPORT": str(report)})
            finished = json.loads(report.read_text("utf-8")) if report.exists() else None
        else:
            _run(["coverage", "erase"])
            status, finished = _run_parts(Path(scratch), began)
        if argv:
            print("\nCoverage is not measured: only a part of the tests ran.")
        elif finished and not (
            _run(["coverage", "combine", "--quiet"]) or _run(["coverage", "json", "--quiet", "-o", str(figures)])
        ):
            measures = measure(json.loads(figures.read_text("utf-8"))["files"])
            status = _judge(measures, bool(finished["skipped"])) or status
    if finished is None:
        print("\n0 passed, 1 failed (the tests did not finish)")
        return status or 1
    _print_skips(finished["skipped"])
    print(f"\n{finished['closing']}", flush=True)
    return status


def _run_parts(scratch: Path, began: float) -> tuple[int, dict[str, Any] | None]:
    """Run every test, in one process for each part; return the status and the joint report, None where one is missing.

    All but the first write their output aside, and it is shown when they are done.
    """
    parts = PARTS if (os.cpu_count() or 1) > 1 else (tuple(name for part in PARTS for name in part),)
    running: list[tuple[subprocess.Popen[bytes], Path, Path]] = []
    for number, part in enumerate(parts):
        report, output = scratch / f"tests-{number}.json", scratch / f"output-{number}.txt"
        environ = os.environ | {"LUKHAS_TEST_REPORT": str(report)}
        command = [sys.executable, "-m", "coverage", "run", "-m", "pytest", *(f"tests/{name}" for name in part)]
        with output.open("wb") as file:
            process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=file if number else None)
        running.append((process, report, output))
    status = 0
    for process, _, output in running:
        status = process.wait() or status
        print(output.read_text("utf-8", "replace"), end="", flush=True)
    reports = [json.loads(report.read_text("utf-8")) for _, report, _ in running if report.exists()]
    return status, join_reports(reports, time.monotonic() - began) if len(reports) == len(running) else None


def join_reports(reports: Sequence[Mapping[str, Any]], seconds: float) -> dict[str, Any]:
    """Return several parts' reports as one."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for report in reports:
        counts.update(report["counts"])
        for count, reason in report["skipped"]:
            skipped[reason] += count
    told = [f"{counts[name]} {name}" for name in ("passed", "failed")]
    told += [f"{counts[name]} {name}" for name in ("errors", "skipped") if counts[name]]
    table = [[count, reason] for reason, count in sorted(skipped.items())]
    return {"skipped": table, "closing": f"{', '.join(told)} in {seconds:.1f}s", "counts": dict(counts)}


def _run(arguments: Sequence[str], environ: Mapping[str, str] | None = None) -> int:
    return subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=environ, check=False).returncode


def _judge(measures: Sequence[Measure], skipped: bool) -> int:
    # A test that this machine cannot run reaches nothing, which says nothing about the code.
    status = 0
    print("\nCoverage       lines  branches  floor")
    for found in measures:
        verdict = "" if found.holds else "  not judged, tests were skipped" if skipped else "  BELOW THE FLOOR"
        print(
            f"  {found.gate.name:<11} {found.lines:5.1f}%    {found.branches:5.1f}%    {found.gate.floor:.0f}%{verdict}"
        )
        if not found.holds:
            status = status if skipped else 1
            for name, share in found.weakest:
                print(f"    {share:5.1f}%  {name}")
    return status


def _print_skips(skipped: Sequence[Sequence[Any]]) -> None:
    if not skipped:
        print("\nNothing was skipped.")
        return
    print("\nSkipped  why")
    for count, reason in skipped:
        print(f"  {count:>5}  {reason}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
