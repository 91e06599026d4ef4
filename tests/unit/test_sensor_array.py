"""Which sensors are loaded, and that none of them can break a call."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sensor_call import observe

from lukhas.errors import ConfigurationError
from lukhas.gateway.sensors import (
    BUILT_IN,
    REST_S,
    SLOW_S,
    Observation,
    Reading,
    Sensor,
    SensorArray,
    flag_name,
    is_reading,
    load_sensors,
)
from lukhas.moderation.rule import Finding


def default(name: str, value: bool) -> bool:
    return value


class Fixed:
    """Says the same each time, or raises it."""

    signal = "stress"

    def __init__(self, answer: Any, name: str = "fixed") -> None:
        self.name = name
        self.answer = answer
        self.seen = 0
        self.learned = 0

    def sense(self, observation: Observation) -> Reading | None:
        self.seen += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def learn(self, observation: Observation) -> None:
        self.learned += 1
        if isinstance(self.answer, Exception):
            raise self.answer


class Timer:
    """A clock of which every reading is a step later."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.step_s = 0.0

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


def array_of(*sensors: Sensor, failed: list[str] | None = None, **options: Any) -> SensorArray:
    counted: list[str] = [] if failed is None else failed
    return SensorArray(sensors, options.pop("is_enabled", default), on_failure=counted.append, **options)


def test_load_sensors_names_those_that_are_set_after_the_one_that_is_always_on() -> None:
    """Only what is named runs, once; alignment_risk needs no naming."""
    assert load_sensors((), default).names == ("alignment_risk",)
    assert load_sensors(("trust", "stress", "trust", "alignment_risk"), default).names == (
        "alignment_risk",
        "trust",
        "stress",
    )
    assert load_sensors(tuple(BUILT_IN), default).names == ("alignment_risk", *BUILT_IN)


def test_built_in_sensors_are_named_as_they_are_set() -> None:
    """A sensor's name, signal and key are one word."""
    for name, make in BUILT_IN.items():
        assert (make().name, make().signal) == (name, name)


@pytest.mark.parametrize(("name", "near"), [("stres", "stress"), ("Urgency", "urgency"), ("noveltyy", "novelty")])
def test_load_sensors_unknown_name_is_refused_with_the_nearest(name: str, near: str) -> None:
    """A slip of the pen does not mean 'no sensor'."""
    with pytest.raises(ConfigurationError, match=f"Did you mean {near}"):
        load_sensors((name,), default, find_plugins=lambda: ())


def test_flag_turns_a_sensor_off_at_once() -> None:
    """The setting loads a sensor, the flag silences it between two calls."""
    flags: dict[str, bool] = {}
    array = array_of(Fixed(Reading(0.5)), is_enabled=flags.get)
    assert [name for _, _, name in array.read(observe("x"))] == ["fixed"]
    flags["SENSOR_FIXED"] = False
    array.learn(observe("x"))
    assert array.read(observe("x")) == []
    flags["SENSOR_FIXED"] = True
    assert len(array.read(observe("x"))) == 1


@pytest.mark.parametrize(("name", "flag"), [("stress", "SENSOR_STRESS"), ("load-average", "SENSOR_LOAD_AVERAGE")])
def test_flag_name_is_in_capitals(name: str, flag: str) -> None:
    """Flags are written as environment variables are."""
    assert flag_name(name) == flag


def test_read_gives_signal_reading_and_name_in_order() -> None:
    """Sensors that have nothing to say are not in the answer."""
    one, none, two = Fixed(Reading(0.0), "a"), Fixed(None, "b"), Fixed(Reading(1.0, {"n": 1}), "c")
    assert array_of(one, none, two).read(observe("x")) == [
        ("stress", Reading(0.0), "a"),
        ("stress", Reading(1.0, {"n": 1}), "c"),
    ]


BAD_READINGS = [
    pytest.param(0.5, id="no-reading"),
    pytest.param(Reading(math.nan), id="nan"),
    pytest.param(Reading(math.inf), id="infinite"),
    pytest.param(Reading(-0.01), id="below"),
    pytest.param(Reading(1.01), id="above"),
    pytest.param(Reading(True), id="boolean"),
    pytest.param(Reading("0.5"), id="text"),  # type: ignore[arg-type]
    pytest.param(Reading(None), id="none"),  # type: ignore[arg-type]
    pytest.param(Reading(0.5, None), id="evidence-none"),  # type: ignore[arg-type]
    pytest.param(Reading(0.5, {"seen": "the user wrote this"}), id="evidence-text"),
    pytest.param(Reading(0.5, {"seen": "x" * 33}), id="evidence-long-word"),
    pytest.param(Reading(0.5, {"the user wrote this": 1}), id="evidence-text-as-name"),
    pytest.param(Reading(0.5, {1: 1}), id="evidence-number-as-name"),  # type: ignore[dict-item]
    pytest.param(Reading(0.5, {"n": math.nan}), id="evidence-nan"),
    pytest.param(Reading(0.5, {"n": 2**70}), id="evidence-huge"),
    pytest.param(Reading(0.5, {"n": object()}), id="evidence-object"),
    pytest.param(Reading(0.5, {"n": [["deep"]]}), id="evidence-deep"),
    pytest.param(Reading(0.5, {"n": ["x"] * 33}), id="evidence-long-list"),
    pytest.param(Reading(0.5, {f"n{number}": 1 for number in range(33)}), id="evidence-large"),
    pytest.param(ValueError("the user wrote this"), id="raises"),
    pytest.param(RecursionError(), id="raises-recursion"),
]


@pytest.mark.parametrize("answer", BAD_READINGS)
def test_read_sensor_that_fails_is_counted_and_left_out(answer: Any) -> None:
    """Its neighbours are read all the same, and it is asked again at the next call."""
    failed: list[str] = []
    bad, good = Fixed(answer, "bad"), Fixed(Reading(0.5, {"cues": ["a", "b"], "n": 1.5}), "good")
    array = array_of(bad, good, failed=failed)
    for _ in range(2):
        assert [name for _, _, name in array.read(observe("x"))] == ["good"]
    assert failed == ["bad", "bad"]
    assert bad.seen == 2


def test_learn_reaches_those_that_learn_and_survives_failures() -> None:
    """A sensor may have nothing to learn, and one that fails at it does not stop the next."""

    class Plain:
        name = signal = "plain"

        def sense(self, observation: Observation) -> Reading | None:
            return None

    failed: list[str] = []
    bad, good = Fixed(ValueError(), "bad"), Fixed(None, "good")
    array_of(Plain(), bad, good, failed=failed).learn(observe("x"))
    assert (failed, good.learned) == (["bad"], 1)


def test_read_sensor_that_is_slow_three_times_in_a_row_rests() -> None:
    """Twice may be the machine; the third time is counted, costs its reading, and gives it a minute's rest."""
    timer, failed = Timer(), list[str]()
    sensor = Fixed(Reading(0.5))
    array = array_of(sensor, failed=failed, timer=timer)
    timer.step_s = SLOW_S * 2
    assert [len(array.read(observe("x"))) for _ in range(3)] == [1, 1, 0]
    assert failed == ["fixed"]
    assert array.read(observe("x")) == []
    array.learn(observe("x"))
    assert (sensor.seen, sensor.learned) == (3, 0)
    timer.step_s = 0
    timer.now_s += REST_S
    assert len(array.read(observe("x"))) == 1
    assert failed == ["fixed"]


def test_read_sensor_that_is_slow_now_and_then_goes_on() -> None:
    """A quick answer between two slow ones ends the run."""
    timer, failed = Timer(), list[str]()
    array = array_of(Fixed(Reading(0.5)), failed=failed, timer=timer)
    for step_s in (1.0, 1.0, 0.0, 1.0, 1.0, 0.0):
        timer.step_s = step_s
        assert len(array.read(observe("x"))) == 1
    assert failed == []


def test_read_all_built_in_sensors_of_one_call() -> None:
    """Together they answer with sound readings, alignment risk first."""
    array = load_sensors(tuple(BUILT_IN), default)
    call = observe("URGENT: fix it somehow!!", findings=[Finding("a", "b", "low", "record", 0, 1)], feedback=0.9)
    array.learn(observe("something that came before, about gardens"))
    found = array.read(call)
    assert [name for _, _, name in found] == ["alignment_risk", *BUILT_IN]
    assert all(is_reading(reading) and signal == name for signal, reading, name in found)


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Install a plug-in package: its module's source and its entry point."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def install_package(module: str, source: str, entry: str) -> None:
        (tmp_path / f"{module}.py").write_text(textwrap.dedent(source), "utf-8")
        info = tmp_path / f"{module}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n", "utf-8")
        (info / "entry_points.txt").write_text(f"[lukhas.sensors]\n{entry}\n", "utf-8")

    return install_package


PLUGIN = """
    from lukhas.gateway.sensors import Observation, Reading

    class Weekend:
        name = "weekend"
        signal = "stress"

        def sense(self, observation: Observation) -> Reading | None:
            return Reading(0.25, {"day": "sunday"})

    ready = Weekend()

    def make():
        return Weekend()

    wrong = Weekend()
    wrong.signal = None
"""


@pytest.mark.parametrize("what", ["Weekend", "make", "ready"])
def test_load_sensors_plugin_is_loaded_by_its_entry_point(install: Callable[[str, str, str], None], what: str) -> None:
    """A class, a function that makes one, and an object serve alike."""
    install(f"plugin_{what.lower()}", PLUGIN, f"weekend = plugin_{what.lower()}:{what}")
    found = load_sensors(("weekend",), default).read(observe("x"))
    assert found == [("stress", Reading(0.25, {"day": "sunday"}), "weekend")]


def test_load_sensors_plugin_that_is_not_named_is_not_imported(install: Callable[[str, str, str], None]) -> None:
    """Installing a package runs none of its code; a built-in name is never looked up."""
    install("plugin_explosive", "raise SystemExit(1)", "stress = plugin_explosive:X")
    assert load_sensors(("stress",), default).names == ("alignment_risk", "stress")


def test_load_sensors_unknown_name_may_be_near_a_plugin(install: Callable[[str, str, str], None]) -> None:
    """What is installed is offered too."""
    install("plugin_near", PLUGIN, "weekend = plugin_near:Weekend")
    with pytest.raises(ConfigurationError, match="Did you mean weekend"):
        load_sensors(("weekends",), default)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        pytest.param("weekend = {}:absent", "cannot be loaded: AttributeError", id="absent-name"),
        pytest.param("weekend = no_such_module_here:X", "cannot be loaded: ModuleNotFoundError", id="absent-module"),
        pytest.param("weekend = {}:wrong", "is no sensor", id="no-signal"),
        pytest.param("weekend = {}:Reading", "cannot be loaded: TypeError", id="wants-arguments"),
        pytest.param("holiday = {}:Weekend", "is no sensor", id="other-name"),
    ],
)
def test_load_sensors_plugin_that_is_no_sensor_is_refused(
    install: Callable[[str, str, str], None], entry: str, message: str, request: pytest.FixtureRequest
) -> None:
    """Start fails with the reason, not the first call."""
    module = f"plugin_{request.node.callspec.id.replace('-', '_')}"
    install(module, PLUGIN, entry.format(module))
    with pytest.raises(ConfigurationError, match=message):
        load_sensors((entry.split(" ", 1)[0],), default)


def test_load_sensors_two_plugins_of_one_name_are_refused(install: Callable[[str, str, str], None]) -> None:
    """Which of them would run must not depend on the order of a search path."""
    install("plugin_twin_a", PLUGIN, "weekend = plugin_twin_a:Weekend")
    install("plugin_twin_b", PLUGIN, "weekend = plugin_twin_b:Weekend")
    with pytest.raises(ConfigurationError, match="Two installed packages"):
        load_sensors(("weekend",), default)
