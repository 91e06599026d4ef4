"""What a parameter does along the signals, and the pictures of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lukhas.errors import InvalidRequest, UnknownSignal
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy_reader import load_policy, parse_policy, read_packaged_text
from lukhas.modulation.sensitivity import measure_sensitivity
from lukhas.modulation.sensitivity_picture import draw_sensitivity

PNG = b"\x89PNG\r\n\x1a\n"


def packaged() -> Dispatcher:
    return Dispatcher(load_policy())


def test_measure_has_a_line_for_each_signal_that_is_the_dispatchers() -> None:
    """Every point is a decision, and levels below the least count as absent."""
    dispatcher = packaged()
    found = measure_sensitivity(dispatcher, "temperature")
    assert [line.signal for line in found.lines] == list(dispatcher.policy.signals)
    assert found.plane is None
    for line in found.lines:
        assert line.levels == sorted(line.levels)
        assert (line.levels[0], line.levels[-1]) == (0.0, 1.0)
        for level, value in zip(line.levels, line.values, strict=True):
            assert value == dispatcher.decide({line.signal: level}).parameters["temperature"]
    stress = found.lines[1]
    assert stress.values[stress.levels.index(0.19)] == found.default == 0.6
    assert stress.values[stress.levels.index(0.5)] == pytest.approx(0.4)
    assert stress.maps == "max(0.1, 0.7 - 0.6 * x)"
    assert found.lines[2].maps is None


def test_measure_jumps_are_sharp() -> None:
    """A threshold is shown where it is, not somewhere between two points of a grid."""
    text = read_packaged_text().replace("strict if x > 0.3 else", "strict if x > 0.3333 else")
    line = measure_sensitivity(Dispatcher(parse_policy(text)), "safety_mode", "alignment_risk").lines[0]
    at = line.levels.index(0.3333)
    assert (line.values[at], line.values[at + 1]) == ("balanced", "strict")
    assert line.levels[at + 1] - line.levels[at] < 1e-12


def test_measure_guard_shows_the_callers_limit() -> None:
    """A guard's cap limits a caller even where the default lies below it."""
    line = measure_sensitivity(packaged(), "temperature", "alignment_risk").lines[0]
    at = line.levels.index(0.2)
    assert (line.values[at], line.limits[at]) == (0.6, pytest.approx(0.83))
    assert line.limits[0] is None


def test_measure_plane_is_by_row_and_column() -> None:
    """`values[row][column]` belongs to y[row] and x[column]."""
    dispatcher = packaged()
    plane = measure_sensitivity(dispatcher, "temperature", "stress", "alignment_risk").plane
    assert plane is not None
    for row, column in ((0, 50), (50, 0), (25, 40), (50, 50)):
        levels = {"stress": plane.x[column], "alignment_risk": plane.y[row]}
        assert plane.values[row][column] == dispatcher.decide(levels).parameters["temperature"]


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        pytest.param(("temprature",), InvalidRequest, "did you mean 'temperature'", id="misspelt-parameter"),
        pytest.param(("",), InvalidRequest, "no parameter", id="empty-parameter"),
        pytest.param(("größe" * 100,), InvalidRequest, "no parameter", id="unicode-parameter"),
        pytest.param(("top_p", "stres"), UnknownSignal, "did you mean 'stress'", id="misspelt-signal"),
        pytest.param(("top_p", "stress", "x"), UnknownSignal, "no signal 'x'", id="unknown-second"),
        pytest.param(("top_p", "stress", "stress"), InvalidRequest, "two different", id="twice-the-same"),
        pytest.param(("top_p", None, "stress"), InvalidRequest, "needs a first", id="second-without-first"),
    ],
)
def test_measure_wrong_name_is_refused(arguments: tuple[str], error: type[Exception], says: str) -> None:
    """Each mistake says what would be right."""
    with pytest.raises(error, match=says):
        measure_sensitivity(packaged(), *arguments)


@pytest.mark.parametrize("parameter", list(load_policy().parameters))
def test_draw_every_parameter_gives_a_picture(parameter: str, tmp_path: Path) -> None:
    """Numbers, enums and lists of tools: each has lines, and a plane of two signals."""
    for name, signals in (("line", ()), ("one", ("urgency",)), ("plane", ("alignment_risk", "urgency"))):
        path = tmp_path / f"{name}.png"
        draw_sensitivity(measure_sensitivity(packaged(), parameter, *signals), path)
        assert path.read_bytes().startswith(PNG)
        assert path.stat().st_size > 10_000


def test_draw_other_signals_give_other_pictures(tmp_path: Path) -> None:
    """What is drawn is what was measured."""
    for signal in ("stress", "novelty"):
        draw_sensitivity(measure_sensitivity(packaged(), "temperature", signal), tmp_path / f"{signal}.png")
    assert (tmp_path / "stress.png").read_bytes() != (tmp_path / "novelty.png").read_bytes()


def test_draw_name_with_dollars_is_no_formula(tmp_path: Path) -> None:
    """matplotlib reads $...$ as a formula; a policy's name is a name."""
    text = read_packaged_text().replace("name: lukhas-recommended", 'name: "a $\\\\frac{$ b"')
    draw_sensitivity(measure_sensitivity(Dispatcher(parse_policy(text)), "tools"), tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(PNG)
