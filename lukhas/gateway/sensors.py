"""The sensors that are turned on, read for each call. A sensor that fails costs its reading, never the call."""

from __future__ import annotations

import difflib
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, TypeVar, cast

from lukhas.errors import ConfigurationError
from lukhas.gateway.sensor.alignment_risk import AlignmentRiskSensor
from lukhas.gateway.sensor.ambiguity import AmbiguitySensor
from lukhas.gateway.sensor.load import LoadMeter
from lukhas.gateway.sensor.novelty import NoveltySensor
from lukhas.gateway.sensor.observation import Observation, Reading, Sensor
from lukhas.gateway.sensor.stress import StressSensor
from lukhas.gateway.sensor.trust import TrustSensor
from lukhas.gateway.sensor.urgency import UrgencySensor

__all__ = ["BUILT_IN", "GROUP", "LoadMeter", "Observation", "Reading", "Sensor", "SensorArray", "load_sensors"]

GROUP: Final = "lukhas.sensors"
SLOW_S: Final = 0.005
# So many slow answers in a row, and a sensor rests: it runs on the event loop, where every call waits for it.
SLOW_RUN: Final = 3
REST_S: Final = 60.0

BUILT_IN: Final[Mapping[str, Callable[[], Sensor]]] = {
    "stress": StressSensor,
    "urgency": UrgencySensor,
    "ambiguity": AmbiguitySensor,
    "novelty": NoveltySensor,
    "trust": TrustSensor,
}
_ALWAYS: Final = "alignment_risk"
_MAX_EVIDENCE: Final = 32
_NAME: Final = re.compile(r"[a-z][a-z0-9_-]{0,63}\Z", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,32}\Z", re.ASCII)

T = TypeVar("T")


class SensorArray:
    """Reads every sensor that is on.

    Args:
        sensors: in the order in which they are read.
        is_enabled: tells of a flag, by name and default, whether it is on; asked at every call.
        on_failure: told the name of a sensor that raised, answered nonsense, or was slow three times in a row.
        timer: s on a clock that never steps back.
    """

    def __init__(
        self,
        sensors: Sequence[Sensor],
        is_enabled: Callable[[str, bool], bool],
        *,
        on_failure: Callable[[str], None] = lambda name: None,
        timer: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._sensors = tuple((sensor, sensor.name, flag_name(sensor.name)) for sensor in sensors)
        self._is_enabled = is_enabled
        self._on_failure = on_failure
        self._timer = timer
        self._slow: dict[str, int] = {}
        self._resting: dict[str, float] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The sensors' names, in the order in which they are read."""
        return tuple(name for _, name, _ in self._sensors)

    def read(self, observation: Observation) -> list[tuple[str, Reading, str]]:
        """Return (signal, reading, sensor's name) of every sensor that is on and has something to say."""
        found: list[tuple[str, Reading, str]] = []
        for sensor, name, flag in self._sensors:
            if not self._is_enabled(flag, True) or self._rests(name):
                continue
            reading, is_sound = self._run(name, sensor.sense, observation)
            if not is_sound or reading is None:
                continue
            if is_reading(reading):
                found.append((sensor.signal, reading, name))
            else:
                self._on_failure(name)
        return found

    def learn(self, observation: Observation) -> None:
        """Show the call, now that it is over, to every sensor that is on and learns."""
        for sensor, name, flag in self._sensors:
            learn = getattr(sensor, "learn", None)
            if learn is not None and self._is_enabled(flag, True) and not self._rests(name):
                self._run(name, learn, observation)

    def _rests(self, name: str) -> bool:
        until = self._resting.get(name)
        if until is None:
            return False
        if self._timer() < until:
            return True
        del self._resting[name]
        return False

    def _run(self, name: str, step: Callable[[Observation], T], observation: Observation) -> tuple[T | None, bool]:
        began = self._timer()
        try:
            answer = step(observation)
        except Exception:  # noqa: BLE001 - a sensor is a plug-in; its failure costs its reading, and is counted
            self._on_failure(name)
            return None, False
        ended = self._timer()
        if ended - began <= SLOW_S:
            self._slow.pop(name, None)
            return answer, True
        slow = self._slow.get(name, 0) + 1
        self._slow[name] = slow
        if slow < SLOW_RUN:
            return answer, True
        del self._slow[name]
        self._resting[name] = ended + REST_S
        self._on_failure(name)
        return None, False


def load_sensors(
    names: Sequence[str],
    is_enabled: Callable[[str, bool], bool],
    *,
    on_failure: Callable[[str], None] = lambda name: None,
    find_plugins: Callable[[], Iterable[EntryPoint]] = lambda: entry_points(group=GROUP),
) -> SensorArray:
    """Make the sensors that are named, and alignment_risk, which is always there.

    A name that is not built in is looked up among the entry points of group `lukhas.sensors`; nothing else of any
    plug-in is imported.

    Raises:
        ConfigurationError: an unknown name, or a plug-in that cannot be loaded or is no sensor.
    """
    sensors: list[Sensor] = [AlignmentRiskSensor()]
    plugins: dict[str, list[EntryPoint]] | None = None
    for name in dict.fromkeys(names):
        if name == _ALWAYS:
            continue
        if name in BUILT_IN:
            sensors.append(BUILT_IN[name]())
            continue
        if plugins is None:
            plugins = {}
            for entry in find_plugins():
                plugins.setdefault(entry.name, []).append(entry)
        sensors.append(_load_plugin(name, plugins))
    return SensorArray(sensors, is_enabled, on_failure=on_failure)


def flag_name(name: str) -> str:
    """Return the flag that turns a sensor off: `SENSOR_STRESS` for stress."""
    return f"SENSOR_{name.upper().replace('-', '_')}"


def is_reading(value: object) -> bool:
    """Tell whether something is a reading with a level in [0, 1] and plain, short evidence."""
    if not isinstance(value, Reading):
        return False
    level: Any = value.level
    if isinstance(level, bool) or not isinstance(level, (int, float)) or not 0.0 <= level <= 1.0:
        return False
    evidence: Any = value.evidence
    if not isinstance(evidence, dict) or len(cast("dict[Any, Any]", evidence)) > _MAX_EVIDENCE:
        return False
    return all(_is_word(key) and _is_plain(one) for key, one in cast("dict[Any, Any]", evidence).items())


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        items = cast("Sequence[Any]", value)
        return len(items) <= _MAX_EVIDENCE and all(_is_scalar(item) for item in items)
    return _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int):
        return -(2**53) <= value <= 2**53
    return math.isfinite(value) if isinstance(value, float) else _is_word(value)


def _is_word(value: Any) -> bool:
    # A sentence has blanks: what a person wrote does not get into the record this way.
    return isinstance(value, str) and _WORD.match(value) is not None


def _load_plugin(name: str, plugins: Mapping[str, list[EntryPoint]]) -> Sensor:
    found = plugins.get(name, [])
    if not found:
        known = [*BUILT_IN, *plugins]
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ConfigurationError(
            f"There is no sensor '{name[:64]}'.", hint=f"Did you mean {near[0]}?" if near else "", param="sensors"
        )
    if len({entry.value for entry in found}) > 1:
        raise ConfigurationError(
            f"Two installed packages bring a sensor '{name[:64]}'.", hint="Uninstall one of them.", param="sensors"
        )
    try:
        made: Any = found[0].load()
        sensor: Any = made() if isinstance(made, type) or not hasattr(made, "sense") else made
    except Exception as failure:
        raise ConfigurationError(
            f"The sensor '{name}' cannot be loaded: {type(failure).__name__}: {failure}.",
            hint=f"Its entry point is {found[0].value}.",
            param="sensors",
        ) from failure
    signal: Any = getattr(sensor, "signal", None)
    if (
        getattr(sensor, "name", None) != name
        or _NAME.match(name) is None
        or not (isinstance(signal, str) and _NAME.match(signal))
        or not callable(getattr(sensor, "sense", None))
    ):
        raise ConfigurationError(
            f"What the entry point '{name}' of group {GROUP} names is no sensor.",
            hint="It needs `name` (the same name, lower case), `signal` and `sense(observation)`.",
            param="sensors",
        )
    return cast(Sensor, sensor)
