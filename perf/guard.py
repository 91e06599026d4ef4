"""What the guards cost: plain calls and streams through the gateway, beside the same calls sent directly.

    python perf/guard.py [--rounds 3] [--seconds 4] [--json]

Starts mock upstreams and gateways on loopback and stops them. Plain calls: as packaged, and with everything on (tools
in the request, five sensors, limits on the tenant, a session). Streams: time to the first token beside the direct
stream's, and tokens released per second of the gateway's CPU time. Each round measures every variant once.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import platform
import socket
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from load import BODY, PATH, client_name, run_load
from process import HERE, Server, call, free_port, run_process, start_gateway, start_mock, wait_until_ready

TARGET_ADDED_MS = 2.0
TARGET_PER_S = 1_700
AIM_PER_S = 2_500
TARGET_FIRST_MS = 2.0
TARGET_TOKENS_PER_S = 50_000
CLIENTS = 32
TOKENS = 2_000
# As a model speaks: one token after another.
PACED_TOKENS, BETWEEN_MS = 20, 5.0
SENSORS = "stress,urgency,ambiguity,novelty,trust"


def _function(name: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    return {"type": "function", "function": {"name": name, "description": "Looks it up.", "parameters": parameters}}


FULL_BODY = json.dumps(
    {
        **json.loads(BODY),
        "user": "bench",
        "tools": [_function(name) for name in ("retrieve_knowledge", "search_docs", "send_money")],
    }
)
LIMITS = {
    "limits": {
        "requests_per_minute": 10_000_000,
        "tokens_per_minute": 1_000_000_000,
        "tokens_per_day": 1_000_000_000,
        "concurrent_calls": 10_000,
    },
    "reason": "the bench",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when every target is met and no call failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant is measured")
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}",
        "load_average_before": round(os.getloadavg()[0], 2),
        "client": client_name(),
        "plain": _measure_plain(options.rounds, options.seconds),
        "stream": _measure_streams(options.rounds, options.seconds),
    }
    report["misses"] = _find_misses(report)
    print(json.dumps(report, indent=2)) if options.json else _print_report(report)
    return 1 if report["misses"] else 0


def _measure_plain(rounds: int, seconds: float) -> list[dict[str, Any]]:
    with start_mock() as mock, _start_gateways(f"http://127.0.0.1:{mock.port}/v1") as (packaged, full):
        key = {"Authorization": f"Bearer {packaged.key}"}
        everything = {"Authorization": f"Bearer {full.key}", "X-Lukhas-Session": "bench"}
        variants: list[tuple[str, Server, Mapping[str, str], str]] = [
            ("direct to the mock", mock, {}, BODY),
            ("guards as packaged", packaged, key, BODY),
            ("everything on", full, everything, FULL_BODY),
        ]
        for name, server, headers, body in variants:
            status, answer = call(
                server.port, "POST", PATH, body.encode(), {"Content-Type": "application/json", **headers}
            )
            if status != 200 or not json.loads(answer).get("choices"):
                raise SystemExit(f"{name}: answered {status} {answer[:500].decode(errors='replace')}")
            run_load(server.port, headers, clients=CLIENTS, seconds=1, body=body)
        found: dict[str, list[dict[str, float]]] = {name: [] for name, *_ in variants}
        for _ in range(rounds):
            for name, server, headers, body in variants:
                one = run_load(server.port, headers, clients=1, seconds=seconds, body=body)
                before = server.cpu_s()
                many = run_load(server.port, headers, clients=CLIENTS, seconds=seconds, body=body)
                found[name].append(
                    {
                        "p50_ms": one.p50_us / 1000,
                        "per_s": many.per_s,
                        "cpu_us": (server.cpu_s() - before) * 1e6 / max(1, many.calls),
                        "failed": one.failed + many.failed,
                    }
                )
        rows = [{"name": name, **_medians(measured)} for name, measured in found.items()]
        for row in rows[1:]:
            row["added_p50_ms"] = row["p50_ms"] - rows[0]["p50_ms"]
        rows[1]["rss_mb"], rows[2]["rss_mb"] = packaged.rss_mb(), full.rss_mb()
        return rows


@contextlib.contextmanager
def _start_gateways(url: str) -> Iterator[tuple[Server, Server]]:
    with start_gateway(url) as packaged, start_gateway(url, environment={"LUKHAS_SENSORS": SENSORS}) as full:
        headers = {"Authorization": f"Bearer {full.key}", "Content-Type": "application/json", "If-Match": "*"}
        status, answer = call(full.port, "PUT", "/api/v1/limits/tenants/default", json.dumps(LIMITS).encode(), headers)
        if status != 200:
            raise SystemExit(f"the limits were not taken: {status} {answer[:500].decode(errors='replace')}")
        yield packaged, full


def _measure_streams(rounds: int, seconds: float) -> dict[str, Any]:
    with (
        _start_stream(PACED_TOKENS, BETWEEN_MS) as paced,
        start_gateway(f"http://127.0.0.1:{paced.port}/v1") as before_paced,
        _start_stream(TOKENS) as upstream,
        start_gateway(f"http://127.0.0.1:{upstream.port}/v1") as gateway,
    ):
        body = json.dumps({**json.loads(BODY), "stream": True}).encode()
        targets = {"direct": (paced, {}), "gateway": (before_paced, {"Authorization": f"Bearer {before_paced.key}"})}
        key = {"Authorization": f"Bearer {gateway.key}"}
        firsts: dict[str, list[float]] = {name: [] for name in targets}
        rates: list[float] = []
        walls: list[float] = []
        for _ in range(5):
            _read_stream(gateway.port, body, key)
            _first_token_ms(before_paced.port, body, targets["gateway"][1])
        for _ in range(rounds):
            for _ in range(30):
                for name, (server, headers) in targets.items():
                    firsts[name].append(_first_token_ms(server.port, body, headers))
            before, began, streams = gateway.cpu_s(), time.monotonic(), 0
            while time.monotonic() - began < seconds:
                _read_stream(gateway.port, body, key)
                streams += 1
            rates.append(streams * TOKENS / (gateway.cpu_s() - before))
            walls.append(streams * TOKENS / (time.monotonic() - began))
        direct, guarded = (statistics.median(firsts[name]) for name in targets)
        return {
            "first_token_direct_ms": direct,
            "first_token_gateway_ms": guarded,
            "first_token_added_ms": guarded - direct,
            "tokens_per_cpu_s": statistics.median(rates),
            "tokens_per_s": statistics.median(walls),
        }


@contextlib.contextmanager
def _start_stream(tokens: int, between_ms: float = 0) -> Iterator[Server]:
    port = free_port()
    command = [sys.executable, str(HERE / "mock_upstream" / "stream.py"), str(port), str(tokens), str(between_ms)]
    with run_process(command) as (pid, log):
        wait_until_ready(port, "/v1/models", pid, log)
        yield Server("stream", port, pid)


def _first_token_ms(port: int, body: bytes, headers: Mapping[str, str]) -> float:
    """Return the time from the request to the first event with text, in ms.

    It is a word with which no rule begins: one that could be the start of a match waits for what comes after it.
    """
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"POST {PATH} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}content-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as conn:
        conn.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        conn.sendall(head.encode() + body)
        seen = b""
        while b'"content":"Hello' not in seen:
            part = conn.recv(65_536)
            if not part:
                raise SystemExit(f"the stream ended without a token: {seen[-500:]!r}")
            seen += part
        return (time.perf_counter() - began) * 1000


def _read_stream(port: int, body: bytes, headers: Mapping[str, str]) -> None:
    """Read one stream to its end, and see that all of its text is there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse().read()
    finally:
        connection.close()
    if not answer.rstrip().endswith(b"[DONE]"):
        raise SystemExit(f"a stream broke off: {answer[-300:]!r}")


def _medians(measured: Sequence[Mapping[str, float]]) -> dict[str, float]:
    row = {field: statistics.median(one[field] for one in measured) for field in measured[0]}
    row["failed"] = sum(one["failed"] for one in measured)
    return row


def _find_misses(report: Mapping[str, Any]) -> list[str]:
    misses: list[str] = []
    for row in report["plain"][1:]:
        if row["failed"]:
            misses.append(f"{row['name']}: {row['failed']:.0f} calls failed")
        if row["added_p50_ms"] >= TARGET_ADDED_MS:
            misses.append(f"{row['name']}: adds {row['added_p50_ms']:.2f} ms, target under {TARGET_ADDED_MS} ms")
        if row["per_s"] < TARGET_PER_S:
            misses.append(f"{row['name']}: {row['per_s']:,.0f} calls/s, target {TARGET_PER_S:,}")
    stream = report["stream"]
    if stream["first_token_added_ms"] >= TARGET_FIRST_MS:
        misses.append(f"first token: {stream['first_token_added_ms']:.2f} ms later, target under {TARGET_FIRST_MS} ms")
    if stream["tokens_per_cpu_s"] < TARGET_TOKENS_PER_S:
        misses.append(f"{stream['tokens_per_cpu_s']:,.0f} tokens per CPU second, target {TARGET_TOKENS_PER_S:,}")
    return misses


def _print_report(report: Mapping[str, Any]) -> None:
    print(f"{report['machine']}; load average before: {report['load_average_before']}; load by {report['client']}\n")
    print(f"{'':24}{'p50 ms':>8}{'added':>8}{'calls/s':>10}{'CPU us':>8}{'failed':>8}{'MB':>8}")
    print(f"{'':24}{'1 client':>8}{'ms':>8}{f'at {CLIENTS}':>10}{'a call':>8}")
    for row in report["plain"]:
        added = f"{row['added_p50_ms']:.2f}" if "added_p50_ms" in row else ""
        memory = f"{row['rss_mb']:.0f}" if "rss_mb" in row else ""
        print(
            f"{row['name']:24}{row['p50_ms']:>8.2f}{added:>8}{row['per_s']:>10,.0f}{row['cpu_us']:>8.0f}"
            f"{row['failed']:>8.0f}{memory:>8}"
        )
    stream = report["stream"]
    print(
        f"\nstream of a token every {BETWEEN_MS:g} ms: first token {stream['first_token_direct_ms']:.2f} ms direct, "
        f"{stream['first_token_gateway_ms']:.2f} ms through the gateway (+{stream['first_token_added_ms']:.2f} ms)\n"
        f"streams of {TOKENS:,} tokens at once: {stream['tokens_per_cpu_s']:,.0f} tokens per second of CPU, "
        f"{stream['tokens_per_s']:,.0f} per second on one connection\n"
    )
    print(
        f"targets: added p50 under {TARGET_ADDED_MS} ms, {TARGET_PER_S:,} calls/s at {CLIENTS} clients "
        f"({AIM_PER_S:,} to aim for), first token within {TARGET_FIRST_MS} ms, {TARGET_TOKENS_PER_S:,} tokens per CPU "
        "second"
    )
    print("\n".join(f"MISSED {miss}" for miss in report["misses"]) or "all met")


if __name__ == "__main__":
    raise SystemExit(main())
