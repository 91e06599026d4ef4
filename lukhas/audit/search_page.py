"""Searching the log, newest first, in pages: through the index as far as it reaches, by reading what it has not yet."""

from __future__ import annotations

import base64
import binascii
import struct
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, Final, cast

import msgspec

from lukhas.audit.search_index import SearchIndex
from lukhas.audit.search_query import FILTERS, Condition, Facts, Query, facts
from lukhas.audit.source import Line, RecordSource
from lukhas.errors import InvalidRequest, StorageUnavailable

_TOGETHER: Final = 256
_TIME_LIMIT_S: Final = 2.0
_CURSOR: Final = struct.Struct(">qqq8s")
_NO_TIME: Final = -(2**63)


class Row(msgspec.Struct, frozen=True):
    """One record that was found: where it is, and a line about it."""

    index: int
    audit_id: str
    time: str
    kind: str
    tenant: str
    key_id: str
    summary: str


@dataclass(frozen=True, slots=True)
class Page:
    """What one search found.

    Attributes:
        rows: newest first.
        next_cursor: where the next page goes on; None where this is the last.
        indexed_to: how many records of the log the index has; what came after was read one by one.
        complete: False where the time was over before the page was full; `next_cursor` goes on from there.
    """

    rows: Sequence[Row]
    next_cursor: str | None
    indexed_to: int
    complete: bool


def search(
    query: Query,
    source: RecordSource,
    index: SearchIndex | None,
    *,
    floor: int = 0,
    time_limit_s: float = _TIME_LIMIT_S,
    now: Callable[[], float] = time.monotonic,
) -> Page:
    """Return one page of what is searched for. Blocks.

    Times of a query with a cursor are those of its first page, so that an age such as 24h means the same on each.

    Args:
        index: what is asked first; without one, or where it cannot be read, records are read one by one.
        floor: records below this index are left out.
        time_limit_s: after this time the page ends with what was found.
        now: a clock in seconds.

    Raises:
        InvalidRequest: the cursor is not one of this query.
        StorageUnavailable: the log cannot be read.
    """
    before = source.size()
    if query.cursor is not None:
        at, query = _read_cursor(query)
        before = min(at, before)
    condition = Condition(query)
    reach = 0
    if index is not None:
        try:
            reach = index.reach()
        except StorageUnavailable:
            index = None
    rows: list[Row] = []
    deadline = now() + time_limit_s
    if condition.is_impossible:
        return Page((), None, reach, True)
    for lines, reached in _read_down(condition, source, index, reach, before, floor):
        for at, data in lines:
            found = facts(data)
            if found is None or not condition.admits(found):
                continue
            if len(rows) == query.limit:
                return Page(rows, write_cursor(query, rows[-1].index), reach, True)
            rows.append(_describe(at, found))
        if reached > floor and now() > deadline:
            return Page(rows, write_cursor(query, reached), reach, False)
    return Page(rows, None, reach, True)


def _read_down(
    condition: Condition, source: RecordSource, index: SearchIndex | None, reach: int, before: int, floor: int
) -> Generator[tuple[Sequence[Line], int]]:
    """Yield records that may be meant, newest first, in batches, each with the index down to which all was seen."""
    oldest = source.read(floor, 1)
    if not oldest:
        return
    floor = oldest[0][0]
    if index is None:
        yield from _scan(source, floor, before)
        return
    yield from _scan(source, max(reach, floor), before)
    before = min(before, reach)
    try:
        ranges = index.ranges(condition.since_ms, condition.until_ms, floor, before)
    except StorageUnavailable:
        ranges = [(floor, before)]
    for low, high in ranges:
        if not condition.facets and not condition.terms:
            yield from _scan(source, low, high)
            continue
        while low < high:
            try:
                hits = index.find(condition, low, high, _TOGETHER)
            except StorageUnavailable:
                # The index only spares reading: without it, the same is found more slowly.
                yield from _scan(source, low, high)
                break
            high = hits[-1] if len(hits) == _TOGETHER else low
            yield source.pick(hits)[::-1], high


def _scan(source: RecordSource, low: int, high: int) -> Generator[tuple[Sequence[Line], int]]:
    while low < high:
        start = max(low, high - _TOGETHER)
        yield [line for line in source.read(start, high - start) if line[0] < high][::-1], start
        high = start


def _describe(at: int, found: Facts) -> Row:
    document = found.document

    def word(name: str) -> str:
        value = document.get(name)
        return value if isinstance(value, str) else ""

    summary = _summarize(document.get("body"))
    return Row(at, word("audit_id"), word("time"), word("kind"), word("tenant"), word("key_id"), summary)


def _summarize(body: object) -> str:
    if not isinstance(body, dict):
        return ""
    table = cast(dict[str, Any], body)
    parameters = table.get("parameters")
    mode = cast(dict[str, Any], parameters).get("safety_mode") if isinstance(parameters, dict) else None
    inputs = table.get("inputs")
    levels = cast(dict[str, Any], inputs).get("levels") if isinstance(inputs, dict) else None
    parts: list[str] = []
    for title, value in (
        ("", table.get("event")),
        ("", table.get("model")),
        ("", mode),
        ("", "shadow" if table.get("mode") == "shadow" else None),
        ("status", table.get("status")),
        ("error", table.get("error")),
        ("denied", table.get("denied")),
        ("signals", ", ".join(cast(dict[str, Any], levels)) if isinstance(levels, dict) else None),
        ("stripped", len(cast(list[Any], table["stripped"])) if isinstance(table.get("stripped"), list) else None),
        ("incidents", len(cast(list[Any], table["incidents"])) if isinstance(table.get("incidents"), list) else None),
    ):
        if isinstance(value, (str, int)) and value:
            parts.append(f"{title} {value}".strip()[:120])
    return "; ".join(parts)


def _digest(query: Query) -> bytes:
    named = "\0".join(f"{name}={getattr(query, name)!r}" for name in (*FILTERS, "text"))
    return blake2b(named.encode("utf-8", "replace"), digest_size=8).digest()


def write_cursor(query: Query, at: int) -> str:
    """Return the cursor of the page that begins below an index."""
    times = [_NO_TIME if one is None else one for one in (query.since_ms, query.until_ms)]
    return base64.urlsafe_b64encode(_CURSOR.pack(at, *times, _digest(query))).decode().rstrip("=")


def _read_cursor(query: Query) -> tuple[int, Query]:
    wrong = InvalidRequest(
        "This is not a cursor of this search.",
        hint="Send it with the same filters as the page that it came with, or without a cursor for the first page.",
        param="cursor",
    )
    text = query.cursor or ""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        at, since, until, digest = _CURSOR.unpack(raw)
    except (binascii.Error, struct.error, ValueError):
        raise wrong from None
    # Whether there are times is the caller's word; which, the first page's.
    differs = (since == _NO_TIME) != (query.since_ms is None) or (until == _NO_TIME) != (query.until_ms is None)
    if digest != _digest(query) or at < 0 or differs:
        raise wrong
    return at, replace(
        query,
        since_ms=None if since == _NO_TIME else since,
        until_ms=None if until == _NO_TIME else until,
    )
