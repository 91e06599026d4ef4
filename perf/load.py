"""Load on one URL: by wrk where it is installed, else by asyncio clients in processes of their own.

Run as a program it is one such process; see `main`.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

BODY = json.dumps(
    {
        "model": "gpt-4o-mini",
        "messages": [
            {"role": "system", "content": "You answer questions about geography in one or two sentences."},
            {"role": "user", "content": "What is the capital of France, and since when?"},
        ],
        "temperature": 0.9,
        "max_tokens": 400,
    }
)
PATH = "/v1/chat/completions"
_LUA_DONE = """
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.write(string.format('RESULT {"calls": %d, "seconds": %.6f, "failed": %d, "p50_us": %.1f, "p99_us": %.1f}\\n',
    summary.requests, summary.duration / 1e6, failed + summary.errors.status,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Load:
    """What one run of load saw.

    Attributes:
        calls: answers of any status.
        seconds: how long it ran.
        failed: answers outside 2xx and broken connections.
        p50_us: median latency, in us.
        p99_us: 99th percentile of latency, in us.
    """

    calls: int
    seconds: float
    failed: int
    p50_us: float
    p99_us: float

    @property
    def per_s(self) -> float:
        """Calls each second."""
        return self.calls / self.seconds


def client_name() -> str:
    """Return which client makes the load."""
    return "wrk" if shutil.which("wrk") else "asyncio"


def run_load(port: int, headers: Mapping[str, str], *, clients: int, seconds: float, body: str = BODY) -> Load:
    """Call chat completions over `clients` kept-alive connections for `seconds`."""
    headers = {"Content-Type": "application/json", **headers}
    return (_run_wrk if shutil.which("wrk") else _run_asyncio)(port, headers, clients, seconds, body)


def _run_wrk(port: int, headers: Mapping[str, str], clients: int, seconds: float, body: str) -> Load:
    lines = ['wrk.method = "POST"', f"wrk.body = [==[{body}]==]"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items()]
    with tempfile.NamedTemporaryFile("w", prefix="bench-", suffix=".lua") as script:
        script.write("\n".join(lines) + _LUA_DONE)
        script.flush()
        threads = "1" if clients == 1 else "2"
        command = ["wrk", "-t", threads, "-c", str(clients), "-d", f"{max(1, round(seconds))}s", "--timeout", "30s"]
        command += ["-s", script.name, f"http://127.0.0.1:{port}{PATH}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = next(line for line in output.splitlines() if line.startswith("RESULT "))
    return Load(**json.loads(found.removeprefix("RESULT ")))


def _run_asyncio(port: int, headers: Mapping[str, str], clients: int, seconds: float, body: str) -> Load:
    shares = [clients] if clients < 4 else [clients // 2, clients - clients // 2]
    order = json.dumps({"port": port, "headers": dict(headers), "seconds": seconds, "body": body})
    processes = [
        subprocess.Popen([sys.executable, __file__, str(share), order], stdout=subprocess.PIPE, text=True)
        for share in shares
    ]
    parts = [Load(**json.loads(process.communicate()[0])) for process in processes]
    return Load(
        sum(part.calls for part in parts),
        max(part.seconds for part in parts),
        sum(part.failed for part in parts),
        # Equal clients on equal work: the mean of the halves' percentiles is close enough for this fallback.
        statistics.mean(part.p50_us for part in parts),
        statistics.mean(part.p99_us for part in parts),
    )


async def _talk(port: int, request: bytes, end: float, took_us: list[float]) -> int:
    failed = 0
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (begun := time.perf_counter()) < end:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        took_us.append((time.perf_counter() - begun) * 1e6)
        failed += not head.startswith(b"HTTP/1.1 2")
    writer.close()
    return failed


async def _talk_all(clients: int, port: int, headers: Mapping[str, str], seconds: float, body: str) -> Load:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    took_us: list[float] = []
    begun = time.perf_counter()
    failed = sum(await asyncio.gather(*(_talk(port, request, begun + seconds, took_us) for _ in range(clients))))
    took_us.sort()
    count = len(took_us)
    return Load(count, time.perf_counter() - begun, failed, took_us[count // 2], took_us[count * 99 // 100])


def main() -> None:
    """Make load with the number of clients and the order given as arguments; print the result as JSON."""
    print(json.dumps(asdict(asyncio.run(_talk_all(int(sys.argv[1]), **json.loads(sys.argv[2]))))))


if __name__ == "__main__":
    main()
