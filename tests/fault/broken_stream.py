"""Breaks thousands of streams, at both ends, and looks for what they leave behind in the gateway.

    python tests/fault/broken_stream.py --streams 20000 [--seed 1] [--concurrency 64] [--json]

The gateway is a process of its own. Clients ask it for streams of both dialects that break in every way of
tests/fault/broken_upstream.py, or break them themselves. A quarter of them runs under a remote moderator, on a second
gateway. Afterwards nothing may be left: no task, no connection, no reservation, no call in flight, no decision without
exactly one outcome; and memory must not grow with the number of streams.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import random
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parent))
import kill_loop
from broken_upstream import KINDS, BrokenUpstream

from lukhas.storage.engine import open_database

ADMIN_KEY = "broken-stream-admin-key-0123456789abcdef"
READ_TIMEOUT_S = 1.0
# What a client that stays may find on record, by how the upstream breaks; all others are `ok` or `broken`.
EXPECTED: Final[dict[str, tuple[str, ...]]] = {
    **dict.fromkeys(("stall", "reset", "truncate", "truncate-held", "garbage-bytes", "garbage-json"), ("broken",)),
    **dict.fromkeys(("half-character-at-the-end", "invalid-utf-8", "line-of-20-mb", "comments-only"), ("broken",)),
    **dict.fromkeys(("no-end", "empty", "gzip-that-is-none", "unfinished-call", "never-ends", "flood"), ("broken",)),
    **dict.fromkeys(("pours", "no-end-held", "no-end-of-a-call"), ("broken",)),
    **dict.fromkeys(("holds", "fills-a-window"), ("broken",)),
    **dict.fromkeys(("stall-head", "reset-head", "slow-head", "wrong-type"), ("failed",)),
    **dict.fromkeys(("error-only", "error-in-the-middle"), ("upstream_error",)),
    "goes-on-behind-a-block": ("blocked",),
    "wrong-shape": ("ok", "broken", "upstream_error"),
    "deep-json": ("broken",),
    **dict.fromkeys(("ok", "half-character-in-a-chunk", "line-of-2-mb", "mixed-line-ends", "comments"), ("ok",)),
    **dict.fromkeys(("event-lines", "byte-order-mark", "end-twice", "data-behind-the-end", "gzip"), ("ok",)),
    **dict.fromkeys(("tiny-chunks", "byte-by-byte", "finish-twice", "usage-twice", "large"), ("ok",)),
}
# How clients leave, and what the upstream does meanwhile.
LEAVES: Final[dict[str, str]] = {
    "leaves-before-the-head": "slow-head",
    "leaves-at-the-first-event": "stall",
    "leaves-while-text-is-held": "holds",
    "leaves-while-a-window-is-asked": "fills-a-window",
    "leaves-with-a-reset": "stall",
    "leaves-an-endless-stream": "never-ends",
    "reads-nothing-and-leaves": "pours",
    "reads-slowly": "large",
}
# Some cost much more than the rest.
RARE: Final = {
    "line-of-20-mb": 0.02,
    "line-of-2-mb": 0.05,
    "flood": 0.05,
    "pours": 0.05,
    "reads-nothing-and-leaves": 0.3,
    "large": 0.3,
}
COUNTED: Final = ("CallRecord", "Relay", "Holdback", "Reservation", "AiohttpAnswer", "ClientResponse", "Departure")


@dataclass
class Phase:
    """What one gateway went through."""

    streams: int = 0
    seconds: float = 0.0
    outcomes: dict[str, dict[str, int]] = field(default_factory=dict)
    records: int = 0
    with_usage: int = 0
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    upstream_connections_left: int = 0
    rss_mb: list[tuple[int, float]] = field(default_factory=list)
    rss_late_slope_kb: float = 0.0
    failures: list[str] = field(default_factory=list)


@dataclass
class Report:
    """What a run came to."""

    plain: Phase = field(default_factory=Phase)
    moderated: Phase = field(default_factory=Phase)

    @property
    def failures(self) -> list[str]:
        """Everything that should not be."""
        return [*self.plain.failures, *self.moderated.failures]


# The gateway's process


def serve() -> None:
    """Serve a gateway in this process, and write on each line that comes what it holds; until the input ends."""
    from lukhas.access.limit import NO_LIMITS, Holder, Limits
    from lukhas.cli.server import serving_beside
    from lukhas.moderation import remote
    from lukhas.openai import aiohttp_upstream
    from lukhas.settings import load_settings

    # Idle connections are no leak: they go before they are counted.
    aiohttp_upstream.KEEPALIVE_S = 0.3
    remote._KEEPALIVE_S = 0.3
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is logged must not stand among the answers
    with serving_beside(load_settings().settings) as (runtime, port):
        # Far above what is used, so that every call is reserved for and none is refused.
        limits = Limits(concurrent_calls=100_000, requests_per_day=10**9, tokens_per_day=10**12)
        runtime.limits.change(Holder("tenant", "default"), limits, expected=NO_LIMITS)
        print(port, file=out, flush=True)
        loop = runtime._tasks[0].get_loop()
        for _ in sys.stdin:
            found = asyncio.run_coroutine_threadsafe(_count(runtime), loop).result(60)
            print(json.dumps(found), file=out, flush=True)


async def _count(runtime: Any) -> dict[str, int]:
    gc.collect()
    await asyncio.sleep(0)
    kinds = Counter(type(one).__name__ for one in gc.get_objects())
    held = runtime.meter.standings(next(iter(runtime.limits.rules.holders())))
    links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
    return {
        "tasks": len(asyncio.all_tasks()),
        "async_generators": kinds["async_generator"],
        "sockets": sum(link.startswith("socket:") for link in links),
        "descriptors": len(links),
        "calls_in_flight": int(runtime.metrics.in_flight.value),
        "calls_reserved": next(one.used for one in held if one.name == "concurrent_calls"),
        "signal_entries": runtime.state.sweep(),
        **{name: kinds[name] for name in COUNTED},
    }


class Gateway:
    """The gateway's process."""

    def __init__(self, data_dir: Path, upstream: str, *, is_moderated: bool, patience_s: float) -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
        environ |= {
            "LUKHAS_DATA_DIR": str(data_dir),
            "LUKHAS_UPSTREAM_BASE_URL": upstream,
            "LUKHAS_UPSTREAM_READ_TIMEOUT_S": str(READ_TIMEOUT_S),
            "LUKHAS_UPSTREAM_TOTAL_TIMEOUT_S": str(patience_s),
            "LUKHAS_UPSTREAM_MAX_RETRIES": "0",
            "LUKHAS_MAX_RESPONSE_BYTES": "24000000",
            "LUKHAS_WRITER_DEADLINE_S": "30",
            "LUKHAS_ADMIN_KEY": ADMIN_KEY,
            "LUKHAS_LOG_LEVEL": "warning",
            "LUKHAS_PORT": "0",
        }
        if is_moderated:
            environ["LUKHAS_MODERATION_URL"] = upstream
        self._log = data_dir.with_suffix(".log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, "--serve"],
                env=environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self.port = int(self._read_line())

    def count(self) -> dict[str, int]:
        """Return what the process holds."""
        assert self.process.stdin is not None
        self.process.stdin.write("count\n")
        self.process.stdin.flush()
        return json.loads(self._read_line())

    def rss_mb(self) -> float:
        """Return resident memory, in MB (10^6 bytes)."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)

    def stop(self) -> str:
        """Shut down, and return what it logged."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        return self._log.read_text(errors="replace")

    def _read_line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the gateway ended: {self.stop()[-3000:]}")
        return line


# Clients


@dataclass(frozen=True)
class Seen:
    """What a client saw: its call's audit id, and the answer's end."""

    audit_id: str | None
    end: str


async def call(gateway: Gateway, upstream: BrokenUpstream, number: int, dialect: str, name: str) -> Seen:
    """Make one streamed call that breaks by its name."""
    kind = LEAVES.get(name, name)
    question = f"What is a heron? kind:{kind} number:{number}"
    body: dict[str, Any] = {"model": "gpt-4o-mini", "stream": True}
    body |= {"messages": [{"role": "user", "content": question}]} if dialect == "chat" else {"input": question}
    raw = json.dumps(body).encode()
    path = "chat/completions" if dialect == "chat" else "responses"
    head = (
        f"POST /v1/{path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ADMIN_KEY}\r\nconnection: close\r\n"
        f"content-type: application/json\r\nx-lukhas-session: s{number % 200}\r\ncontent-length: {len(raw)}\r\n\r\n"
    )
    arrived = upstream.arrived[str(number)] = asyncio.Event()
    limit = 2**12 if name.startswith("reads") else 2**20
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port, limit=limit)
    try:
        writer.write(head.encode() + raw)
        if name == "leaves-before-the-head":
            await arrived.wait()
            return Seen(None, "left")
        got = await reader.readuntil(b"\r\n\r\n")
        audit_id = _find_audit_id(got)
        if name == "reads-nothing-and-leaves":
            await asyncio.sleep(0.3)
            return Seen(audit_id, "left")
        if name == "leaves-while-a-window-is-asked":
            await asyncio.sleep(0.02)
            return Seen(audit_id, "left")
        if name in LEAVES and name != "reads-slowly":
            await reader.readuntil(b"\n\n")
            if name == "leaves-with-a-reset":
                sock: socket.socket = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return Seen(audit_id, "left")
        tail = b""
        while part := await reader.read(4096 if name == "reads-slowly" else 2**18):
            tail = (tail + part)[-4000:]
            if name == "reads-slowly":
                await asyncio.sleep(0.003)
        return Seen(audit_id, _name_end(got, tail))
    except (OSError, asyncio.IncompleteReadError):
        return Seen(None, "cut")
    finally:
        upstream.arrived.pop(str(number), None)
        writer.transport.abort()


def _find_audit_id(head: bytes) -> str | None:
    _, found, rest = head.partition(b"x-lukhas-audit-id: ")
    return rest.partition(b"\r\n")[0].decode() if found else None


def _name_end(head: bytes, tail: bytes) -> str:
    if not head.startswith(b"HTTP/1.1 200"):
        return f"status {head[9:12].decode()}"
    if b'{"error":' in tail.rpartition(b"data: ")[2]:
        return "error event"
    if b"[DONE]" in tail or b'"type":"response.' in tail or b'"type": "response.' in tail:
        return "last event"
    return "end" if tail.endswith(b"0\r\n\r\n") else "cut"


# The run


async def run_phase(
    phase: Phase, data_dir: Path, streams: int, seed: int, concurrency: int, *, is_moderated: bool, patience_s: float
) -> None:
    """Break streams against one gateway, and look at what is left."""
    dice = random.Random(seed)
    names = [*EXPECTED, *LEAVES]
    assert set(EXPECTED) == set(KINDS), "every kind needs its expectation"
    weights = [RARE.get(name, 1.0) for name in names]
    plan = [(dice.choice(("chat", "responses")), name) for name in names] * 2 if streams >= len(names) * 2 else []
    plan += [(dice.choice(("chat", "responses")), dice.choices(names, weights)[0]) for _ in range(streams - len(plan))]
    dice.shuffle(plan)
    seen: list[tuple[str, str, Seen]] = []
    async with BrokenUpstream(seed) as upstream:
        upstream.moderation_pause_s = 0.04
        gateway = await asyncio.to_thread(
            Gateway, data_dir, upstream.base_url, is_moderated=is_moderated, patience_s=patience_s
        )
        try:
            await asyncio.gather(*(call(gateway, upstream, 10**9 + n, "chat", "ok") for n in range(8)))
            phase.before = await asyncio.to_thread(_settle, gateway, None)
            began = time.monotonic()
            queue = iter(enumerate(plan))

            async def work() -> None:
                for number, (dialect, name) in queue:
                    try:
                        async with asyncio.timeout(120):
                            seen.append((name, dialect, await call(gateway, upstream, number, dialect, name)))
                    except TimeoutError:
                        phase.failures.append(f"{name} ({dialect}, number {number}) hangs")

            workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(plan)))]
            while not all(worker.done() for worker in workers):
                await asyncio.wait(workers, timeout=1.0)
                phase.rss_mb.append((len(seen), gateway.rss_mb()))
                _show(len(seen), streams, phase.rss_mb[-1][1])
            await asyncio.gather(*workers)
            phase.seconds = round(time.monotonic() - began, 1)
            phase.streams = len(seen)
            phase.after = await asyncio.to_thread(_settle, gateway, phase.before)
            phase.upstream_connections_left = upstream.open
        finally:
            log = await asyncio.to_thread(gateway.stop)
    phase.rss_late_slope_kb = _fit(phase.rss_mb[len(phase.rss_mb) // 2 :])
    judge(phase, data_dir, seen, log, warm_up=8)


def _settle(gateway: Gateway, before: dict[str, int] | None) -> dict[str, int]:
    """Count what the gateway holds, as soon as it holds no more than before, or after the idle connections' time."""
    end = time.monotonic() + 12
    while True:
        found = gateway.count()
        is_quiet = found["calls_in_flight"] == 0 and found["sockets"] <= (before or {"sockets": 2})["sockets"]
        if (is_quiet and (before is None or found["tasks"] <= before["tasks"])) or time.monotonic() > end:
            return found
        time.sleep(0.25)


def judge(phase: Phase, data_dir: Path, seen: Sequence[tuple[str, str, Seen]], log: str, *, warm_up: int) -> None:
    """Compare what clients saw with the log, and the counts before with those after."""
    failures = phase.failures
    found = read_outcomes(data_dir)
    whole = [one.audit_id for _, _, one in seen if one.end == "last event" and one.audit_id]
    check = kill_loop.Report()
    kill_loop.check(check, data_dir, [])
    failures += check.failures
    phase.records = check.records
    if check.closed_as_lost:
        failures.append(f"{check.closed_as_lost} decisions were closed as lost")
    decided = len(found)
    if decided != len(seen) + warm_up:
        failures.append(f"{len(seen) + warm_up} calls, {decided} decisions")
    for name, dialect, one in seen:
        outcome = found.get(one.audit_id or "", {})
        status = str(outcome.get("status"))
        key = f"{status} / {one.end}"
        phase.outcomes.setdefault(f"{name} {dialect}", {}).setdefault(key, 0)
        phase.outcomes[f"{name} {dialect}"][key] += 1
        phase.with_usage += "usage" in outcome
        allowed = EXPECTED.get(name, ("ok",) if name == "reads-slowly" else ("client_gone", "broken"))
        if (one.audit_id and status not in allowed) or one.end == "cut" or not (one.audit_id or one.end == "left"):
            failures.append(f"{name} ({dialect}): on record {status}, seen {one.end}; allowed {allowed}")
    for audit_id in whole:
        status = found.get(audit_id, {}).get("status")
        if status not in ("ok", "blocked", "upstream_error"):
            failures.append(f"{audit_id} had its last event, and is on record as {status}")
    for name in ("tasks", "async_generators", "sockets", "descriptors", "calls_in_flight", "calls_reserved", *COUNTED):
        # The database's readers open as many files as ever read at once.
        spare = 12 if name == "descriptors" else 0
        if phase.after[name] > phase.before[name] + spare:
            failures.append(f"{name}: {phase.before[name]} before, {phase.after[name]} after")
    if "Traceback" in log or '"level": "error"' in log or "[error" in log:
        failures.append(f"the gateway's log: {log[-1500:]}")


def read_outcomes(data_dir: Path) -> dict[str, dict[str, Any]]:
    """Return the outcome of each decided call by audit id."""
    database = open_database(f"sqlite:///{data_dir / 'lukhas.db'}")
    try:
        with database.reading() as connection:
            rows = connection.exec_driver_sql("SELECT audit_id, kind, data FROM audit_record").all()
    finally:
        database.close()
    found: dict[str, dict[str, Any]] = {audit_id: {} for audit_id, kind, _ in rows if kind == "decision"}
    found |= {audit_id: json.loads(data)["body"] for audit_id, kind, data in rows if kind == "outcome"}
    return found


def _fit(points: Sequence[tuple[int, float]]) -> float:
    """Return the slope of resident memory by least squares, in kB per 1,000 streams."""
    if len(points) < 3:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
    return round(slope * 1e6, 1)


def _show(done: int, streams: int, rss_mb: float) -> None:
    if sys.stderr.isatty():
        filled = round(40 * done / max(1, streams))
        print(f"\r[{'#' * filled:40}] {done}/{streams}  {rss_mb:.0f} MB ", end="", file=sys.stderr, flush=True)


def run(folder: Path, streams: int, *, seed: int = 1, concurrency: int = 64, patience_s: float = 4.0) -> Report:
    """Break streams, three quarters of them without a remote moderator.

    Args:
        folder: where the gateways' data go.
        streams: how many.
        seed: of the order, and of what is random in a break.
        concurrency: how many at once.
        patience_s: the deadline of one call.
    """
    report = Report()
    part = streams // 4
    for name, phase, count in (("plain", report.plain, streams - part), ("moderated", report.moderated, part)):
        data_dir = folder / name
        data_dir.mkdir()
        options = {"is_moderated": name == "moderated", "patience_s": patience_s}
        asyncio.run(run_phase(phase, data_dir, count, seed, concurrency, **options))
    return report


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    with tempfile.TemporaryDirectory(prefix="lukhas-broken-stream-") as folder:
        report = run(Path(folder), options.streams, seed=options.seed, concurrency=options.concurrency)
    if options.json:
        print(json.dumps({**asdict(report), "failures": report.failures}, indent=2))
    else:
        _print(report)
    return 1 if report.failures else 0


def _print(report: Report) -> None:
    for name, phase in (("without a remote moderator", report.plain), ("under a remote moderator", report.moderated)):
        print(f"\n{phase.streams:,} broken streams {name}, in {phase.seconds} s: {phase.records:,} records,")
        print(f"  usage on record for {phase.with_usage:,}")
        for kind, outcomes in sorted(phase.outcomes.items()):
            print(f"  {kind:44} " + "; ".join(f"{end} {count}" for end, count in sorted(outcomes.items())))
        print(f"  {'left in the gateway':30}{'before':>8}{'after':>8}")
        for field_name, before in phase.before.items():
            print(f"  {field_name:30}{before:>8}{phase.after[field_name]:>8}")
        print(f"  connections left at the upstream: {phase.upstream_connections_left}")
        for done, megabytes in phase.rss_mb[:: max(1, len(phase.rss_mb) // 10)]:
            print(f"  {done:>8,} streams  {megabytes:>7.1f} MB")
        print(f"  second half: {phase.rss_late_slope_kb:+.0f} kB per 1,000 streams")
    print("\n".join(f"FAILED {failure}" for failure in report.failures[:40]) or "\nnothing was left behind")


if __name__ == "__main__":
    sys.exit(main())
