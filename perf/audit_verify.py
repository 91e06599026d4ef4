"""Verified records a second, beside plain loops that hash, and that parse and hash, in one run over one file.

    python perf/audit_verify.py [--records 200000] [--rounds 3] [--json]

The file is made by the log's own encoder. Rounds are interleaved; medians are printed with their ratio to the loop
that only hashes. Peak memory is that of a process of its own for each size, a quarter and all of the records.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import msgspec

from lukhas.audit.checkpoint import Checkpoint
from lukhas.audit.merkle import append_leaf, fold_root, leaf_hash
from lukhas.audit.note import NoteSigner, parse_verifier
from lukhas.audit.record import AuditRecord, encode_record, splice_tail
from lukhas.audit.verify.offline import Evidence, verify_export

TRACE = [
    {"parameter": "temperature", "before": 0.6, "after": 0.32, "signal": "stress", "level": 0.8, "line": 12 + number}
    for number in range(10)
]
BODY = {"policy": "pol_01ARZ3NDEKTSV4RRFFQ69G5FAV", "model": "gpt-4o-mini", "trace": TRACE}
KEYS = 50
EVERY = 5_000
RSS = """
import resource, sys
from pathlib import Path
from lukhas.audit.note import parse_verifier
from lukhas.audit.verify.offline import Evidence, verify_export
key, notes, file, processes = sys.argv[1:]
assert verify_export(Path(file), Evidence([parse_verifier(key)], [Path(notes)], processes=int(processes))).ok
print(max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def make_log(folder: Path, name: str, records: int, signer: NoteSigner) -> Path:
    """Write a log with a signed checkpoint over each few thousand records."""
    file, notes = folder / f"{name}.jsonl", folder / f"{name}-notes"
    notes.mkdir()
    heads = [
        encode_record(
            AuditRecord(
                "decision",
                f"aud_{number:026d}",
                "acme",
                f"key_{number % KEYS}",
                "req_1",
                1_700_000_000_000,
                None,
                None,
                BODY,
            )
        ).head
        for number in range(1_000)
    ]
    peaks: list[bytes] = []
    numbers = [0] * KEYS
    previous: bytes | None = None
    with file.open("wb") as out:
        for index in range(records):
            key = index % 1_000 % KEYS
            numbers[key] += 1
            line = splice_tail(heads[index % 1_000], index, numbers[key], previous)
            previous = leaf_hash(line)
            append_leaf(peaks, index, previous)
            out.write(line + b"\n")
            if (index + 1) % EVERY == 0 or index + 1 == records:
                (notes / f"{index + 1}").write_bytes(Checkpoint("perf", index + 1, fold_root(peaks)).sign(signer))
    return file


def hash_lines(file: Path) -> None:
    """Hash every line, and nothing else."""
    with file.open("rb") as lines:
        for line in lines:
            sha256(b"\x00" + line[:-1]).digest()


def parse_lines(file: Path) -> None:
    """Parse and hash every line."""
    decode = msgspec.json.Decoder().decode
    with file.open("rb") as lines:
        for line in lines:
            decode(line)
            sha256(b"\x00" + line[:-1]).digest()


def peak_mb(file: Path, key: str, processes: int) -> float:
    """Return the largest resident size of a verification, or of one of its processes, in MB."""
    command = [sys.executable, "-c", RSS, key, str(file.with_name(f"{file.stem}-notes")), str(file), str(processes)]
    found = subprocess.run(command, capture_output=True, check=True, text=True, env=os.environ | {"PYTHONPATH": "."})
    return int(found.stdout) / 1000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    signer = NoteSigner("perf", bytes(32))
    key = str(signer.verifier)
    cores = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(prefix="lukhas-verify-") as made:
        folder = Path(made)
        small = make_log(folder, "small", max(chosen.records // 4, 1), signer)
        file = make_log(folder, "large", chosen.records, signer)

        def verify(processes: int) -> Callable[[], None]:
            def run() -> None:
                evidence = Evidence([parse_verifier(key)], [folder / "large-notes"], processes=processes)
                assert verify_export(file, evidence).ok

            return run

        ways = {
            "hash only": lambda: hash_lines(file),
            "parse and hash": lambda: parse_lines(file),
            "verify, 1 process": verify(1),
            f"verify, {cores} processes": verify(cores),
        }
        rates: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(chosen.rounds):
            for way, run in ways.items():
                started = time.perf_counter()
                run()
                rates[way].append(chosen.records / (time.perf_counter() - started))
        medians = {way: statistics.median(found) for way, found in rates.items()}
        peaks = {f"{each.stem}, {n} processes": peak_mb(each, key, n) for each in (small, file) for n in (1, cores)}
        size = file.stat().st_size / chosen.records
    if chosen.json:
        print(json.dumps({"records_per_s": medians, "peak_mb": peaks, "line_bytes": size}))
        return
    print(f"{chosen.records} records of {size:.0f} bytes, {chosen.rounds} rounds, Python {platform.python_version()}")
    for way, rate in medians.items():
        print(f"{way:24} {rate:12,.0f} records/s  {rate / medians['hash only']:6.2f} of the loop that only hashes")
    for name, mb in peaks.items():
        print(f"peak memory, {name:24} {mb:8.1f} MB")


if __name__ == "__main__":
    main()
