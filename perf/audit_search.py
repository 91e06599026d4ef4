"""What search costs and gives: index rate, processor time a record, and queries beside a LIKE over the records.

Run: python perf/audit_search.py --records 100000 --queries 100
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from lukhas.audit.log import AuditLog
from lukhas.audit.record import AuditRecord, encode_record
from lukhas.audit.search_index import FILE_NAME, SearchIndex
from lukhas.audit.search_page import search
from lukhas.audit.search_query import Query
from lukhas.audit.source import RecordSource
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter


def fill(database: Database, records: int) -> None:
    """Append records like decisions, every thousandth with a rare word."""
    writer = GroupCommitWriter(database, max_rows=100_000)
    writer.start()
    log = AuditLog()
    filler = [f"part{number}" for number in range(60)]
    for start in range(0, records, 1_000):
        entries = [
            encode_record(
                AuditRecord(
                    "decision",
                    make_id("aud"),
                    f"tenant-{number % 10}",
                    f"key_{number % 100}",
                    make_id("req"),
                    number,
                    None,
                    None,
                    {
                        "model": "gpt-4o-mini",
                        "parameters": {"safety_mode": "balanced"},
                        "text": "heron" if number % 1_000 == 0 else "crow",
                        "more": " ".join(random.sample(filler, 40)),
                    },
                )
            )
            for number in range(start, min(records, start + 1_000))
        ]
        writer.submit_sync(log.write_together, entries, 60)
    writer.close(30)


def measure(name: str, count: int, ask: Callable[[], object]) -> None:
    """Print the median and the 99th percentile of one question, in ms."""
    times: list[float] = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    print(f"{name:28} p50 {times[count // 2]:9.2f} ms   p99 {times[min(count - 1, count * 99 // 100)]:9.2f} ms")


def main() -> None:
    """Fill a log, index it, and ask."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--queries", type=int, default=100)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        database = open_database(f"sqlite:///{folder}/lukhas.db")
        migrate.upgrade(database)
        fill(database, given.records)
        source = RecordSource(database)
        index = SearchIndex(Path(folder), source)
        began, used = time.perf_counter(), time.process_time()
        records = index.rebuild()
        took, used = time.perf_counter() - began, time.process_time() - used
        size = (Path(folder) / FILE_NAME).stat().st_size
        print(
            f"indexed {records} records: {records / took:.0f}/s, {used / records * 1e6:.0f} us of processor and ",
            end="",
        )
        print(f"{size / records:.0f} bytes each")
        for name, query in (
            ("rare word", Query(text="heron")),
            ("rare word of a tenant", Query(text="heron", tenant="tenant-0")),
            ("newest of a key", Query(key="key_7")),
            ("newest of all", Query()),
            ("half of the time", Query(tenant="tenant-1", until_ms=given.records // 2)),
        ):
            measure(name, given.queries, lambda query=query: search(query, source, index))

        def scan() -> object:
            with database.reading() as connection:
                sql = "SELECT leaf_index FROM audit_record WHERE data LIKE ? ORDER BY leaf_index DESC LIMIT 50"
                return connection.exec_driver_sql(sql, ("%heron%",)).all()

        measure("rare word by LIKE", min(5, given.queries), scan)
        database.close()


if __name__ == "__main__":
    main()
