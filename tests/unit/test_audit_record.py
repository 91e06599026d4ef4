"""The bytes of a record."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lukhas.audit.record import (
    LARGEST_RECORD_BYTES,
    AuditRecord,
    encode_again,
    encode_record,
    parse_record,
    splice_tail,
)

ID = "aud_01ARZ3NDEKTSV4RRFFQ69G5FAV"
MOMENT = 1_767_323_045_678


class Point(msgspec.Struct):
    y: float
    x: float
    label: str | None = None


@dataclasses.dataclass
class Pair:
    left: int
    right: float


class Color(enum.Enum):
    RED = "red"


def make(body: Any, **fields: Any) -> bytes:
    given = {"kind": "decision", "audit_id": ID, "tenant": "default", "key_id": "key_1", "request_id": "req_1"}
    given |= {"time_ms": MOMENT, "session": None, "user": None, "body": body} | fields
    return splice_tail(encode_record(AuditRecord(**given)).head, 42, 7)


def body_of(body: Any) -> Any:
    return parse_record(make(body))["body"]


def test_record_bytes_have_sorted_keys_and_the_tail_last() -> None:
    """The whole form of a record, byte for byte."""
    assert make({"b": 1, "a": [Point(1.5, 2.0)]}) == (
        b'{"audit_id":"aud_01ARZ3NDEKTSV4RRFFQ69G5FAV","body":{"a":[{"label":null,"x":2.0,"y":1.5}],"b":1},'
        b'"end_user":null,"key_id":"key_1","kind":"decision","request_id":"req_1","schema":2,"session":null,'
        b'"tenant":"default","time":"2026-01-02T03:04:05.678Z",'
        b'"tree":{"index":"0000000000000042","previous":"0000000000000000000000000000000000000000000000000000000000000000","sequence":"0000000000000007"}}'
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


@given(JSON)
def test_record_of_any_json_parses_and_encodes_to_the_same_bytes(body: Any) -> None:
    """The stored bytes are canonical: what parses them can make them again; and every parser accepts them."""
    data = make(body)
    assert encode_again(parse_record(data)) == data
    parsed = json.loads(data)
    assert list(parsed)[-1] == "tree"
    assert json.dumps(parsed, sort_keys=True) == json.dumps(parsed)
    assert len(data) <= LARGEST_RECORD_BYTES


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        pytest.param(float("nan"), "[nan]", id="nan"),
        pytest.param(float("inf"), "[inf]", id="inf"),
        pytest.param(Point(float("-inf"), 1), {"y": "[-inf]", "x": 1, "label": None}, id="inf-in-struct"),
        pytest.param([None, {"deep": (float("nan"),)}], [None, {"deep": ["[nan]"]}], id="nan-deep"),
        pytest.param(
            {1: "a", "1": "b", False: "c", None: "d"}, {"1": "a", "1#2": "b", "false": "c", "null": "d"}, id="keys"
        ),
        pytest.param({1.5: "a", (1, 2): "b"}, {"1.5": "a", "[1,2]": "b"}, id="odd-keys"),
        pytest.param(b"text", "dGV4dA==", id="bytes"),
        pytest.param([b"text", object()], ["dGV4dA==", "[object:object]"], id="bytes-beside-an-object"),
        pytest.param({"s": {3, 1, 2}, object: 1}, {"s": [1, 2, 3], "[object:type]": 1}, id="set"),
        pytest.param("a\ud800b", "a\\ud800b", id="surrogate"),
        pytest.param({"\udfff": 1}, {"\\udfff": 1}, id="surrogate-key"),
        pytest.param([object()], ["[object:object]"], id="object"),
        pytest.param([Pair(1, float("nan")), object()], [{"left": 1, "right": "[nan]"}, "[object:object]"], id="data"),
        pytest.param([Color.RED, object()], ["red", "[object:object]"], id="enum"),
        pytest.param(
            [datetime.date(2026, 1, 2), decimal.Decimal("1.10"), uuid.UUID(int=0), Path("/x"), object()],
            ["2026-01-02", "1.10", "00000000-0000-0000-0000-000000000000", "/x", "[object:object]"],
            id="library-types",
        ),
        pytest.param({"n": 2**80, "o": object()}, {"n": str(2**80), "o": "[object:object]"}, id="large-integer"),
        pytest.param([10**20_000, object()], ["[integer:66439 bits]", "[object:object]"], id="huge-integer"),
    ],
)
def test_record_of_what_json_cannot_say_is_marked(value: Any, kept: Any) -> None:
    """Odd values never crash and never vanish without a mark."""
    assert body_of(value) == kept


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"\xff\xfe", id="bytes"),
        pytest.param(datetime.datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=datetime.UTC), id="datetime"),
        pytest.param(datetime.timedelta(seconds=90), id="duration"),
        pytest.param(decimal.Decimal("1.10"), id="decimal"),
        pytest.param(uuid.UUID(int=7), id="uuid"),
        pytest.param(Color.RED, id="enum"),
        pytest.param({3, 1, 2}, id="set"),
        pytest.param(Pair(1, 2.5), id="dataclass"),
        pytest.param(1e22, id="float"),
    ],
)
def test_record_of_a_value_does_not_depend_on_its_neighbours(value: Any) -> None:
    """The fast and the careful way to encode agree."""
    assert body_of([value, object()])[0] == body_of([value])[0]


def test_record_of_a_cycle_and_of_deep_nesting_ends() -> None:
    """Values without an end are cut with a mark."""
    cycle: list[Any] = [1]
    cycle.append(cycle)
    assert body_of(cycle) == [1, "[cycle]"]
    twice = {"a": 1}
    assert body_of([twice, twice, object()])[1] == {"a": 1}
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    assert b"[too deep]" in make(deep)


def huge_cases() -> list[Any]:
    nested: Any = "x" * 100
    for _ in range(9):
        nested = [nested] * 4
    return [
        pytest.param("x" * 5_000_000, id="string"),
        pytest.param("\x00é\ud800" * 100_000, id="string-that-grows"),
        pytest.param(list(range(200_000)), id="list"),
        pytest.param({str(number): number for number in range(100_000)}, id="dict"),
        pytest.param({"k" * 100_000: 1, "k" * 100_001: 2}, id="keys"),
        pytest.param(nested, id="tree"),
        pytest.param([["y" * 300] * 300] * 300, id="matrix"),
        pytest.param({"_cut": {str(n): {"_cut": "z" * 50} for n in range(5_000)}}, id="own-mark"),
    ]


@pytest.mark.parametrize("body", huge_cases())
def test_record_of_a_huge_body_stays_below_the_limit_and_accounts(body: Any) -> None:
    """A record always fits, keeps the beginning, and says by count and SHA-256 what it left out."""
    data = make(body)
    assert len(data) <= LARGEST_RECORD_BYTES
    assert encode_again(parse_record(data)) == data
    assert b"sha256" in data or b"[cut:" in data
    assert make(body) == data


def test_record_with_a_long_list_keeps_its_beginning() -> None:
    """What is kept is in order, and the count of the rest is right."""
    kept = body_of({"items": list(range(100_000))})["items"]
    assert kept[:-1] == list(range(len(kept) - 1))
    assert kept[-1]["_cut"]["count"] == 100_000 - (len(kept) - 1)


def test_record_just_at_the_limit_is_not_cut() -> None:
    """The limit is one of bytes, and the tail is counted."""
    room = LARGEST_RECORD_BYTES - len(make(""))
    largest = next(size for size in range(room, 0, -1) if b"[cut:" not in make("x" * size))
    assert LARGEST_RECORD_BYTES - 40 <= len(make("x" * largest)) <= LARGEST_RECORD_BYTES


def test_record_with_huge_names_still_fits() -> None:
    """A caller's text in the envelope cannot push a record over its limit."""
    data = make({"a": 1}, request_id="r" * 100_000, tenant="t" * 100_000)
    assert len(data) <= LARGEST_RECORD_BYTES
    assert parse_record(data)["body"] == {"a": 1}
