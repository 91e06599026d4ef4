"""Kills a gateway again and again while clients call it, and checks afterwards that no answer lacks its record.

    python tests/fault/kill_loop.py --kills 50

A child process serves; 16 threads call it, plain and streamed; it is killed with SIGKILL at random moments and started
again on the same data directory. The last run is stopped gracefully. Then every answer that a client received whole
must have its decision and its outcome, the log must be free of gaps with right hashes and root, and the database must
pass its integrity check. Prints figures as JSON; exits 1 where something is missing.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lukhas.audit.merkle import append_leaf, fold_root, leaf_hash, unpack_frontier
from lukhas.storage.engine import open_database
from lukhas.testing import FakeUpstream

ADMIN_KEY = "kill-loop-admin-key-0123456789abcdef0123"
BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "What is a heron?"}]}


@dataclass
class Report:
    """What a run came to."""

    kills: int = 0
    plain_answers: int = 0
    streamed_answers: int = 0
    broken_off: int = 0
    records: int = 0
    closed_as_lost: int = 0
    slowest_start_s: float = 0.0
    failures: list[str] = field(default_factory=list)


class Child:
    """`lukhas serve` on a data directory."""

    def __init__(self, data_dir: Path, upstream: str, port: int) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
        environ |= {
            "LUKHAS_DATA_DIR": str(data_dir),
            "LUKHAS_UPSTREAM_BASE_URL": upstream,
            "LUKHAS_ADMIN_KEY": ADMIN_KEY,
            "LUKHAS_LOG_LEVEL": "error",
            "LUKHAS_PORT": str(port),
        }
        began = time.monotonic()
        command = [sys.executable, "-m", "lukhas.cli.main", "serve"]
        self.process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while True:
            if self.process.poll() is not None:
                said = self.process.communicate()[1].decode()
                raise RuntimeError(f"the gateway did not start: {said}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.01)
            if time.monotonic() - began > 30:
                self.end(signal.SIGKILL)
                raise RuntimeError("the gateway did not start in time")
        self.took_s = time.monotonic() - began

    def end(self, how: signal.Signals) -> None:
        """Send a signal and wait."""
        self.process.send_signal(how)
        self.process.wait(30)
        if self.process.stderr is not None:
            self.process.stderr.close()


class Clients:
    """Threads that call until told to stop, and remember the audit ids of the answers that they got whole."""

    def __init__(self, port: int, count: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.plain: list[str] = []
        self.streamed: list[str] = []
        self.broken_off = 0
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let every call in flight end, and stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _run(self, number: int) -> None:
        dice = random.Random(number)
        while not self._stop.is_set():
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
            try:
                while not self._stop.is_set():
                    self._call(connection, dice.random() < 0.5, f"session-{dice.randrange(50)}")
            except (OSError, http.client.HTTPException):
                with self._lock:
                    self.broken_off += 1
                time.sleep(0.05)
            finally:
                connection.close()

    def _call(self, connection: http.client.HTTPConnection, stream: bool, session: str) -> None:
        headers = {"authorization": f"Bearer {ADMIN_KEY}", "content-type": "application/json"}
        headers |= {"x-lukhas-session": session, "x-lukhas-signals": "stress=0.7"}
        connection.request("POST", "/v1/chat/completions", json.dumps({**BODY, "stream": stream}), headers)
        answer = connection.getresponse()
        body = answer.read()
        audit_id = answer.getheader("x-lukhas-audit-id")
        if answer.status != 200 or audit_id is None:
            return
        if stream and not body.endswith(b"data: [DONE]\n\n"):
            return
        with self._lock:
            (self.streamed if stream else self.plain).append(audit_id)


def run(kills: int, data_dir: Path, *, clients: int = 16, seed: int | None = None) -> Report:
    """Run the loop and check what it left."""
    dice = random.Random(seed)
    report = Report()
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    with FakeUpstream() as upstream:
        child = Child(data_dir, upstream.base_url, port)
        callers = Clients(port, clients)
        try:
            for _ in range(kills):
                time.sleep(dice.uniform(0.15, 0.9))
                child.end(signal.SIGKILL)
                report.kills += 1
                upstream.requests.clear()
                child = Child(data_dir, upstream.base_url, port)
                report.slowest_start_s = max(report.slowest_start_s, round(child.took_s, 3))
            time.sleep(0.3)
        finally:
            callers.stop()
            child.end(signal.SIGTERM)
    report.plain_answers, report.streamed_answers = len(callers.plain), len(callers.streamed)
    report.broken_off = callers.broken_off
    check(report, data_dir, [*callers.plain, *callers.streamed])
    return report


def check(report: Report, data_dir: Path, answered: list[str]) -> None:
    """Compare what clients received with what the log holds, and the log with itself."""
    database = open_database(f"sqlite:///{data_dir / 'lukhas.db'}")
    try:
        with database.reading() as connection:
            integrity = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
            query = "SELECT leaf_index, audit_id, kind, leaf_hash, data FROM audit_record ORDER BY leaf_index"
            rows = connection.exec_driver_sql(query).all()
            size, frontier = connection.exec_driver_sql("SELECT size, frontier FROM audit_head").one()
    finally:
        database.close()
    if integrity != ["ok"]:
        report.failures.append(f"integrity_check: {integrity}")
    decided: set[str] = set()
    outcomes: dict[str, list[str]] = {}
    sequences: dict[str, int] = {}
    peaks: list[bytes] = []
    for index, (leaf_index, audit_id, kind, leaf, data) in enumerate(rows):
        record = json.loads(data)
        key_id = record["key_id"]
        sequences[key_id] = sequences.get(key_id, 0) + 1
        if leaf_index != index or int(record["tree"]["index"]) != index:
            report.failures.append(f"the record at place {index} has index {leaf_index}")
        if int(record["tree"]["sequence"]) != sequences[key_id]:
            report.failures.append(f"record {index} breaks the sequence of {key_id}")
        if leaf_hash(bytes(data)) != bytes(leaf):
            report.failures.append(f"record {index} has a wrong hash")
        append_leaf(peaks, index, bytes(leaf))
        if kind == "decision":
            decided.add(audit_id)
        elif kind == "outcome":
            outcomes.setdefault(audit_id, []).append(record["body"]["status"])
    if size != len(rows) or fold_root(unpack_frontier(bytes(frontier), size)) != fold_root(peaks):
        report.failures.append("the stored head is not the log's")
    for audit_id in answered:
        if audit_id not in decided:
            report.failures.append(f"{audit_id} was answered without a decision on record")
        if outcomes.get(audit_id) != ["ok"]:
            report.failures.append(f"{audit_id} was answered, and its outcomes are {outcomes.get(audit_id)}")
    for audit_id in decided - outcomes.keys():
        report.failures.append(f"{audit_id} was left open")
    for audit_id, statuses in outcomes.items():
        if audit_id not in decided or len(statuses) != 1:
            report.failures.append(f"{audit_id} has outcomes {statuses}")
    report.records = len(rows)
    report.closed_as_lost = sum(statuses == ["lost"] for statuses in outcomes.values())


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--seed", type=int, default=None, help="of the moments of the kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lukhas-kill-loop-") as folder:
        report = run(options.kills, Path(folder), clients=options.clients, seed=options.seed)
    print(json.dumps(asdict(report), indent=2))
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
