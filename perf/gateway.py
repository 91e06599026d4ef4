"""What the gateway adds to a model call, beside a direct call to the same local mock upstream.

    python perf/gateway.py [--rounds 3] [--seconds 4] [--long] [--json]

Starts a mock upstream (nginx, else uvicorn) and the gateway on loopback, with authentication and durable audit on, and
stops both. Each round measures every variant once, so that a slow moment of the machine falls on all of them; the table
shows medians over the rounds. `--long` adds resident memory after 100,000 calls.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from load import BODY, PATH, client_name, run_load
from memory import SIGNALS, TARGET_MB, print_memory, watch_memory
from process import SERVE, Server, call, start_gateway, start_mock

TARGET_ADDED_P50_MS = 1.5
TARGET_PER_S = 2_000
AIM_PER_S = 3_000
CLIENTS = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the bench; 0 when every target is met and no call failed."""
    options = _read_arguments(arguments)
    load_average = round(os.getloadavg()[0], 2)
    with (
        start_mock() as mock,
        start_gateway(f"http://127.0.0.1:{mock.port}/v1", shlex.split(options.gateway_command)) as gateway,
    ):
        variants = _list_variants(mock, gateway)
        _check_answers(variants)
        rounds = _measure(variants, options.rounds, options.seconds)
        report = _summarise(rounds, mock.name, load_average)
        report["rss_mb"] = round(gateway.rss_mb(), 1)
        if options.long:
            report["memory"] = watch_memory(gateway, calls=options.calls)
    report["misses"] = _find_misses(report)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _print_report(report)
    return 1 if report["misses"] else 0


Variant = tuple[str, Server, Mapping[str, str]]


def _read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="how often each variant is measured")
    parser.add_argument("--seconds", type=float, default=4, help="length of each measurement")
    parser.add_argument("--long", action="store_true", help="also watch memory over many calls")
    parser.add_argument("--calls", type=int, default=100_000, help="how many, with --long")
    parser.add_argument("--json", action="store_true", help="print JSON alone")
    parser.add_argument("--gateway-command", default=shlex.join(SERVE), help="what starts the gateway")
    return parser.parse_args(arguments)


def _list_variants(mock: Server, gateway: Server) -> list[Variant]:
    key = {"Authorization": f"Bearer {gateway.key}"}
    session = {**key, "X-Lukhas-Session": "bench"}
    return [
        ("direct to the mock", mock, {}),
        ("gateway", gateway, key),
        ("gateway, session", gateway, session),
        ("gateway, session, six signals", gateway, {**session, "X-Lukhas-Signals": SIGNALS}),
    ]


def _check_answers(variants: Sequence[Variant]) -> None:
    # A fast wrong answer must not count.
    for name, server, headers in variants:
        status, body = call(server.port, "POST", PATH, BODY.encode(), {"Content-Type": "application/json", **headers})
        if status != 200 or not json.loads(body).get("choices"):
            raise SystemExit(f"{name}: answered {status} {body[:500].decode(errors='replace')}")


def _measure(variants: Sequence[Variant], rounds: int, seconds: float) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name, _, _ in variants}
    for _, server, headers in variants:
        run_load(server.port, headers, clients=CLIENTS, seconds=1)
    for _ in range(rounds):
        for name, server, headers in variants:
            one = run_load(server.port, headers, clients=1, seconds=seconds)
            cpu_before = server.cpu_s()
            many = run_load(server.port, headers, clients=CLIENTS, seconds=seconds)
            cpu_us = (server.cpu_s() - cpu_before) * 1e6 / max(1, many.calls)
            found[name].append(
                {
                    "p50_ms": one.p50_us / 1000,
                    "p99_ms": one.p99_us / 1000,
                    "per_s": many.per_s,
                    "p99_at_32_ms": many.p99_us / 1000,
                    "cpu_us": cpu_us,
                    "failed": one.failed + many.failed,
                }
            )
    return found


def _summarise(
    rounds: Mapping[str, Sequence[Mapping[str, float]]], mock_name: str, load_average: float
) -> dict[str, Any]:
    rows: list[dict[str, Any]] = []
    for name, measured in rounds.items():
        row: dict[str, Any] = {field: statistics.median(one[field] for one in measured) for field in measured[0]}
        row["failed"] = sum(int(one["failed"]) for one in measured)
        row["name"] = name
        row["rounds"] = [dict(one) for one in measured]
        rows.append(row)
    direct = rows[0]
    for row in rows[1:]:
        row["added_p50_ms"] = row["p50_ms"] - direct["p50_ms"]
        row["share_of_direct"] = row["per_s"] / direct["per_s"]
    return {
        "machine": f"{os.cpu_count()} cores, Python {platform.python_version()}, {platform.machine()}",
        # Others' work on the machine shows here: it should be near 0 before the first run.
        "load_average_before": load_average,
        "mock": mock_name,
        "client": client_name(),
        "rows": rows,
    }


def _find_misses(report: Mapping[str, Any]) -> list[str]:
    misses: list[str] = []
    for row in report["rows"]:
        if row["failed"]:
            misses.append(f"{row['name']}: {row['failed']} calls failed")
        if "added_p50_ms" not in row:
            continue
        if row["added_p50_ms"] >= TARGET_ADDED_P50_MS:
            misses.append(f"{row['name']}: adds {row['added_p50_ms']:.2f} ms, target under {TARGET_ADDED_P50_MS} ms")
        if row["per_s"] < TARGET_PER_S:
            misses.append(f"{row['name']}: {row['per_s']:,.0f} calls/s, target {TARGET_PER_S:,}")
    memory = report.get("memory")
    if memory is not None and (memory["end_mb"] >= TARGET_MB or memory["failed"]):
        misses.append(f"memory: {memory['end_mb']} MB, {memory['failed']} failed; target under {TARGET_MB:g} MB")
    return misses


def _print_report(report: Mapping[str, Any]) -> None:
    print(f"{report['machine']}; load average before: {report['load_average_before']}")
    print(f"mock upstream: {report['mock']}; load by {report['client']}; medians of the rounds\n")
    print(f"{'':32}{'p50 ms':>8}{'added':>8}{'p99 ms':>8}{'calls/s':>10}{'of direct':>10}{'CPU us':>8}{'failed':>8}")
    print(f"{'':32}{'1 client':>8}{'ms':>8}{'':>8}{f'at {CLIENTS}':>10}{'':>10}{'a call':>8}")
    for row in report["rows"]:
        added = f"{row['added_p50_ms']:.2f}" if "added_p50_ms" in row else ""
        share = f"{row['share_of_direct']:.3f}" if "share_of_direct" in row else ""
        print(
            f"{row['name']:32}{row['p50_ms']:>8.2f}{added:>8}{row['p99_ms']:>8.2f}{row['per_s']:>10,.0f}{share:>10}"
            f"{row['cpu_us']:>8.0f}{row['failed']:>8}"
        )
    print(f"\nresident memory of the gateway now: {report['rss_mb']} MB")
    if "memory" in report:
        print_memory(report["memory"])
    print(
        f"\ntargets: added p50 under {TARGET_ADDED_P50_MS} ms, {TARGET_PER_S:,} calls/s at {CLIENTS} clients "
        f"({AIM_PER_S:,} to aim for), under {TARGET_MB:g} MB"
    )
    print("\n".join(f"MISSED {miss}" for miss in report["misses"]) or "all met")


if __name__ == "__main__":
    raise SystemExit(main())
