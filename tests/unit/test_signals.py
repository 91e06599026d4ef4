"""Signals: what a level, a ttl, a name and a moment may be, and the two forms in which a caller sends them."""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import pytest

from lukhas import Signal
from lukhas.errors import SignalError, UnknownSignal
from lukhas.modulation.signals import MAX_TTL_MS, parse_signal_body, parse_signal_header, require_known


class FloatLike:
    """A number of another library, as numpy's scalars are."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return self.value


@pytest.mark.parametrize(
    "level",
    [
        pytest.param(2, id="two"),
        pytest.param(-0.1, id="negative"),
        pytest.param(1.0000001, id="just-above-one"),
        pytest.param(math.nan, id="nan"),
        pytest.param(math.inf, id="infinity"),
        pytest.param(-math.inf, id="minus-infinity"),
        pytest.param(True, id="true"),
        pytest.param(False, id="false"),
        pytest.param("0.5", id="text"),
        pytest.param(b"0.5", id="bytes"),
        pytest.param(bytearray(b"0.5"), id="bytearray"),
        pytest.param(memoryview(b"0.5"), id="memoryview"),
        pytest.param(None, id="none"),
        pytest.param([0.5], id="list"),
        pytest.param({}, id="dict"),
        pytest.param(0.5j, id="complex"),
        pytest.param(10**400, id="huge-int"),
        pytest.param(Fraction(10**400), id="huge-fraction"),
        pytest.param(Decimal("NaN"), id="decimal-nan"),
        pytest.param(Decimal("sNaN"), id="decimal-signalling-nan"),
        pytest.param(FloatLike(1.5), id="float-like-too-large"),
    ],
)
def test_signal_wrong_level_is_refused(level: object) -> None:
    """Nothing but a finite number in [0, 1] becomes a level."""
    with pytest.raises(SignalError, match="stress"):
        Signal("stress", level)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        pytest.param(0, 0.0, id="int-zero"),
        pytest.param(1, 1.0, id="int-one"),
        pytest.param(5e-324, 5e-324, id="smallest"),
        pytest.param(FloatLike(0.25), 0.25, id="float-like"),
        pytest.param(Decimal("0.5"), 0.5, id="decimal"),
        pytest.param(Fraction(1, 4), 0.25, id="fraction"),
    ],
)
def test_signal_number_becomes_float(level: object, expected: float) -> None:
    """Numbers of any library are numbers, kept as floats."""
    signal = Signal("stress", level)  # type: ignore[arg-type]
    assert signal.level == expected
    assert type(signal.level) is float


def test_signal_minus_zero_becomes_zero() -> None:
    """A level of -0.0 is 0.0, so that no answer shows a sign."""
    assert math.copysign(1, Signal("stress", -0.0).level) == 1.0


@pytest.mark.parametrize("ttl_ms", [0, -1, 1.5, MAX_TTL_MS + 1, 10**30, True, "5000", math.nan])
def test_signal_wrong_ttl_is_refused(ttl_ms: object) -> None:
    """A ttl is a whole number of ms from 1 to a year."""
    with pytest.raises(SignalError, match="ttl_ms"):
        Signal("stress", 0.5, ttl_ms=ttl_ms)  # type: ignore[arg-type]


@pytest.mark.parametrize("ttl_ms", [1, 5000, MAX_TTL_MS, None])
def test_signal_ttl_in_range_is_kept(ttl_ms: int | None) -> None:
    """Both ends of the range are inside it."""
    assert Signal("stress", 0.5, ttl_ms=ttl_ms).ttl_ms == ttl_ms


@pytest.mark.parametrize("name", ["", None, 5, "a" * 65, b"stress", ["stress"]])
def test_signal_wrong_name_is_refused(name: object) -> None:
    """A name is a text of 1 to 64 characters."""
    with pytest.raises(SignalError, match="name"):
        Signal(name, 0.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("ts", [math.nan, math.inf, True, "now", 1e306, 1_735_689_600_000.0, -1e12])
def test_signal_wrong_ts_is_refused(ts: object) -> None:
    """A moment is in seconds; one in milliseconds would lie in a far future and never decay."""
    with pytest.raises(SignalError, match="ts"):
        Signal("stress", 0.5, ts=ts)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("stress=0.7", [("stress", 0.7, None)], id="one"),
        pytest.param(
            "stress=0.7, novelty=0.2;ttl_ms=5000", [("stress", 0.7, None), ("novelty", 0.2, 5000)], id="documented"
        ),
        pytest.param("  stress  =  .5  ,\tnovelty=1.", [("stress", 0.5, None), ("novelty", 1.0, None)], id="spacing"),
        pytest.param("stress=1e-1 ; ttl_ms = 7 ", [("stress", 0.1, 7)], id="exponent-and-spaced-option"),
        pytest.param("stress=+0.5;", [("stress", 0.5, None)], id="empty-option"),
        pytest.param("a=0,b=1", [("a", 0.0, None), ("b", 1.0, None)], id="no-spaces"),
    ],
)
def test_header_right_form_is_read(text: str, expected: list[tuple[str, float, int | None]]) -> None:
    """The header reads levels and lifetimes, however it is spaced."""
    assert [(s.name, s.level, s.ttl_ms) for s in parse_signal_header(text)] == expected


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("   ", id="blank"),
        pytest.param("stress", id="no-level"),
        pytest.param("stress=", id="empty-level"),
        pytest.param("=0.5", id="no-name"),
        pytest.param("stress=0.7,", id="trailing-comma"),
        pytest.param("stress=0.7,,novelty=0.2", id="empty-item"),
        pytest.param("stress=0.7 novelty=0.2", id="no-comma"),
        pytest.param("stress=0.7, stress=0.2", id="duplicate"),
        pytest.param("stress=2", id="level-two"),
        pytest.param("stress=-0.1", id="negative"),
        pytest.param("stress=nan", id="nan"),
        pytest.param("stress=inf", id="inf"),
        pytest.param("stress=1e999", id="overflow"),
        pytest.param("stress=0x1", id="hex"),
        pytest.param("stress=0_1", id="underscore"),
        pytest.param("stress=\u0660.\u0667", id="unicode-digits"),
        pytest.param("str\u0435ss=0.7", id="unicode-name"),
        pytest.param("stress=\uff10.7", id="full-width-digit"),
        pytest.param("stress=0.7;ttl_ms=0", id="ttl-zero"),
        pytest.param("stress=0.7;ttl_ms=-1", id="ttl-negative"),
        pytest.param("stress=0.7;ttl_ms=1.5", id="ttl-fraction"),
        pytest.param("stress=0.7;ttl_ms=\u0661", id="ttl-unicode-digit"),
        pytest.param("stress=0.7;ttl_ms=9999999999999999", id="ttl-huge"),
        pytest.param("stress=0.7;ttl_ms", id="ttl-without-value"),
        pytest.param("stress=0.7;ttl_ms=5;ttl_ms=6", id="ttl-twice"),
        pytest.param("stress=0.7;source=admin", id="source-is-the-server-s"),
        pytest.param("stress=0.7;ts=1", id="ts-is-the-server-s"),
        pytest.param("stress=0.7\r\nX-Evil: 1", id="header-injection"),
        pytest.param("stress=0.7\x00", id="null-byte"),
        pytest.param("9stress=0.7", id="name-begins-with-digit"),
        pytest.param("a" * 65 + "=0.7", id="name-too-long"),
        pytest.param("x" * 1_000_000, id="huge"),
        pytest.param("stress=" + "1" * 1_000_000, id="huge-number"),
        pytest.param("stress=0.5" + ";" * 100_000 + "a", id="many-options"),
        pytest.param(" " * 200_000 + "=", id="many-spaces"),
    ],
)
def test_header_wrong_form_is_refused(text: str) -> None:
    """A header that is not of the documented form is one clear error, never another exception."""
    with pytest.raises(SignalError):
        parse_signal_header(text)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param({}, [], id="empty-object"),
        pytest.param([], [], id="empty-list"),
        pytest.param({"stress": 0.7}, [("stress", 0.7, None)], id="level"),
        pytest.param({"stress": {"level": 1, "ttl_ms": 5}}, [("stress", 1.0, 5)], id="object"),
        pytest.param({"stress": {"level": 1, "ttl_ms": None}}, [("stress", 1.0, None)], id="null-ttl"),
        pytest.param([{"name": "stress", "level": 0.7, "ttl_ms": 5}], [("stress", 0.7, 5)], id="list"),
    ],
)
def test_body_right_form_is_read(value: object, expected: list[tuple[str, float, int | None]]) -> None:
    """Both documented forms of the body are read."""
    assert [(s.name, s.level, s.ttl_ms) for s in parse_signal_body(value)] == expected


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(None, id="null"),
        pytest.param("stress=0.7", id="text"),
        pytest.param(0.7, id="number"),
        pytest.param({"stress": True}, id="boolean"),
        pytest.param({"stress": "0.7"}, id="text-level"),
        pytest.param({"stress": None}, id="null-level"),
        pytest.param({"stress": {}}, id="no-level"),
        pytest.param({"stress": {"level": 0.5, "source": "admin"}}, id="source"),
        pytest.param({"stress": {"level": 0.5, "ts": 1}}, id="ts"),
        pytest.param({"stress": {"level": 0.5, "ttl_ms": 1.5}}, id="ttl-fraction"),
        pytest.param({"": 0.5}, id="empty-name"),
        pytest.param({1: 0.5}, id="number-as-name"),
        pytest.param(["stress"], id="list-of-text"),
        pytest.param([{"level": 0.5}], id="no-name"),
        pytest.param([{"name": ["stress"], "level": 0.5}], id="list-as-name"),
        pytest.param([{"name": "stress", "level": 0.5}, {"name": "stress", "level": 0.6}], id="duplicate"),
        pytest.param([[[[]]]], id="nested-lists"),
    ],
)
def test_body_wrong_form_is_refused(value: object) -> None:
    """A body that is not of a documented form is one clear error, never another exception."""
    with pytest.raises(SignalError):
        parse_signal_body(value)


def test_unknown_signal_names_those_declared() -> None:
    """The refusal of an unknown name says which ones there are."""
    with pytest.raises(UnknownSignal, match="stress, trust"):
        require_known(["strss"], {"stress": 1, "trust": 1})
