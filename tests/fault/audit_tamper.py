"""Change an audit log in a thousand random ways, and see each one found and its first wrong record named.

    python tests/fault/audit_tamper.py [--edits 1000] [--records 300] [--seed 1] [--json]

Half of the edits are made to an export file, half directly in the tables of a database. The first wrong record is
computed apart, by comparing the lines with the original ones. Where a log is rebuilt with a valid chain only
checkpoints can tell, and the span that they give must hold it.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import stored_tampering
import tampering

from lukhas.audit.verify.finding import Finding, Report
from lukhas.audit.verify.offline import Evidence, verify_export

STORED_RECORDS = 300


@dataclass
class Tally:
    """What came of the edits of each kind."""

    done: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    exact: Counter[str] = field(default_factory=Counter)
    spanned: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    def judge(self, kind: str, report: Report, expected: int | None, may_span: bool) -> None:
        """Compare a report with the first wrong record; None: no record is wrong."""
        self.done[kind] += 1
        first = report.findings[0] if report.findings else None
        self.found[kind] += first is not None
        if first is not None and (expected is None or first.index == expected):
            self.exact[kind] += 1
        elif first is not None and may_span and _holds(first, expected):
            self.spanned[kind] += 1
        else:
            self.missed.append(f"{kind}: expected {expected}, found {first}")


def _holds(first: Finding, expected: int | None) -> bool:
    last = first.index if first.last is None else first.last
    return (
        first.kind == "forked"
        and expected is not None
        and None not in (first.index, last)
        and (
            first.index <= expected <= last  # type: ignore[operator]
        )
    )


def run_file(tally: Tally, folder: Path, rng: random.Random, edits: int, records: int) -> None:
    """Change an export `edits` times."""
    log = tampering.make_original(rng, records, 17)
    tampering.write_notes(folder / "notes", log.notes)
    file = folder / "log.jsonl"
    file.write_bytes(log.raw)
    evidence = Evidence([log.signer.verifier], [folder / "notes"])
    assert verify_export(file, evidence).ok, "the untouched log must be whole"
    kinds = list(tampering.KINDS)
    for number in range(edits):
        kind = kinds[number % len(kinds)]
        changed = tampering.KINDS[kind](rng, log)
        file.write_bytes(changed.raw)
        expected = tampering.first_difference(log, changed.raw)
        tally.judge(kind, verify_export(file, evidence), expected, changed.only_checkpoints)


def run_database(tally: Tally, folder: Path, rng: random.Random, edits: int, records: int) -> None:
    """Change a database `edits` times."""
    original, scratch = folder / "original.db", folder / "changed.db"
    stored_tampering.make_database(original, records, 17)
    assert stored_tampering.verify(original).ok, stored_tampering.verify(original).findings
    kinds = list(stored_tampering.KINDS)
    for number in range(edits):
        kind = kinds[number % len(kinds)]
        expected = stored_tampering.change(original, scratch, kind, rng)
        tally.judge(kind, stored_tampering.verify(scratch), expected, "rebuilt" in kind)


def run_commands(folder: Path, rng: random.Random) -> list[str]:
    """Run the command itself once for each kind of change to a file; return what did not exit with 4."""
    log = tampering.make_original(rng, 60, 17)
    tampering.write_notes(folder / "command", log.notes)
    file = folder / "command.jsonl"
    wrong: list[str] = []
    for kind, make in {"untouched": None, **tampering.KINDS}.items():
        file.write_bytes(log.raw if make is None else make(rng, log).raw)
        command = [sys.executable, "-m", "lukhas.cli.main", "audit", "verify", "--export", str(file), "--json"]
        command += ["--key", str(log.signer.verifier), "--checkpoint", str(folder / "command")]
        code = subprocess.run(command, capture_output=True, check=False, timeout=120).returncode
        if code != (0 if make is None else 4):
            wrong.append(f"{kind}: exit {code}")
    return wrong


def main() -> None:
    """Run, print a table by kind, and fail where anything was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--edits", type=int, default=1_000)
    parser.add_argument("--records", type=int, default=STORED_RECORDS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    tally, rng = Tally(), random.Random(chosen.seed)
    with tempfile.TemporaryDirectory(prefix="lukhas-tamper-") as folder:
        run_file(tally, Path(folder), rng, chosen.edits // 2, chosen.records)
        run_database(tally, Path(folder), rng, chosen.edits - chosen.edits // 2, chosen.records)
        wrong = run_commands(Path(folder), rng)
    if chosen.json:
        rows = {kind: [tally.found[kind], tally.exact[kind], tally.spanned[kind]] for kind in tally.done}
        print(json.dumps({"kinds": rows, "missed": tally.missed, "commands": wrong}))
    else:
        print(f"{'kind':34} {'edits':>6} {'found':>6} {'exact':>6} {'span':>6}")
        for kind, count in tally.done.items():
            print(f"{kind:34} {count:6} {tally.found[kind]:6} {tally.exact[kind]:6} {tally.spanned[kind]:6}")
        print(f"{'all':34} {tally.done.total():6} {tally.found.total():6} {tally.exact.total():6}", end=" ")
        print(f"{tally.spanned.total():6}")
        print("\n".join([*tally.missed[:20], *wrong]) or "Every edit was found, and its first wrong record named.")
    raise SystemExit(1 if tally.missed or wrong else 0)


if __name__ == "__main__":
    main()
