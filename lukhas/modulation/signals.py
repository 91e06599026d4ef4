"""A signal: one statement about the application's state, with a level in [0, 1]."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, SupportsFloat

from lukhas.errors import SignalError, UnknownSignal

CANONICAL: Final = ("alignment_risk", "stress", "ambiguity", "urgency", "novelty", "trust")
MAX_TTL_MS: Final = 366 * 86_400_000
MAX_TS_S: Final = 1e11

_HEADER_ITEM: Final = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]{0,63})\s*=\s*([^\s,;]+)\s*((?:;[^,]*)?)\Z", re.ASCII)
_DECIMAL: Final = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?\Z", re.ASCII)


@dataclass(frozen=True, slots=True)
class Signal:
    """One emission of a signal.

    Attributes:
        name: a name that the policy declares.
        level: a ratio in [0, 1].
        ttl_ms: life in ms; None takes the policy's.
        source: who says so.
        audit_id: the record that this emission belongs to, if any.
        ts: when it was emitted, in seconds since the Unix epoch; None means at the moment of use.

    Raises:
        SignalError: NaN, an infinity, a level outside [0, 1], or a wrong type.
    """

    name: str
    level: float
    ttl_ms: int | None = None
    source: str = ""
    audit_id: str | None = None
    ts: float | None = None

    def __post_init__(self) -> None:
        check_name(self.name)
        object.__setattr__(self, "level", check_level(self.name, self.level))
        if self.ttl_ms is not None:
            check_ttl(self.name, self.ttl_ms)
        if self.ts is not None:
            _check_ts(self.name, self.ts)


def check_name(name: object) -> str:
    """Return a signal's name; whether a policy declares it is the policy's to say."""
    if not isinstance(name, str) or not name or len(name) > 64:
        raise SignalError("A signal's name must be a text of 1 to 64 characters.", param="signals")
    return name


def check_level(name: str, level: object) -> float:
    """Return a level as a float, refusing anything but a finite number in [0, 1]."""
    if type(level) is float and 0.0 <= level <= 1.0:
        return level + 0.0  # the usual case, ahead of an instance check that costs 10 us
    number = math.nan
    # Numbers of other libraries (numpy, decimal) are numbers too; text, and what holds its bytes, is not.
    if isinstance(level, SupportsFloat) and not isinstance(level, bool):
        try:
            number = float(level)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
    if not 0.0 <= number <= 1.0:
        raise SignalError(f"The level of signal '{name[:64]}' must be a number in [0, 1].", param="signals")
    return number + 0.0


def check_ttl(name: str, ttl_ms: object) -> int:
    """Return a time to live in whole ms, from 1 to a year."""
    if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, int) or not 1 <= ttl_ms <= MAX_TTL_MS:
        raise SignalError(
            f"The ttl_ms of signal '{name[:64]}' must be a whole number of ms from 1 to {MAX_TTL_MS}.", param="signals"
        )
    return ttl_ms


def _check_ts(name: str, ts: object) -> None:
    # Milliseconds given for seconds would lie in a far future, where nothing decays.
    if isinstance(ts, bool) or not isinstance(ts, (int, float)) or not abs(ts) <= MAX_TS_S:
        raise SignalError(f"The ts of signal '{name}' must be in seconds since the epoch.", param="ts")


def parse_signal_header(text: str) -> list[Signal]:
    """Parse `stress=0.7, novelty=0.2;ttl_ms=5000`; a name may stand once.

    Raises:
        SignalError: the text is not of this form.
    """
    found: dict[str, Signal] = {}
    for part in text.split(","):
        item = _HEADER_ITEM.match(part)
        if item is None or not _DECIMAL.match(item[2]):
            raise SignalError(
                "X-Lukhas-Signals cannot be read.",
                hint="Write it as: stress=0.7, novelty=0.2;ttl_ms=5000",
                param="X-Lukhas-Signals",
            )
        name, level = item[1], float(item[2])
        if name in found:
            raise SignalError(f"Signal '{name}' stands twice in X-Lukhas-Signals.", param="X-Lukhas-Signals")
        found[name] = Signal(name, level, ttl_ms=_header_ttl(name, item[3]))
    return list(found.values())


def _header_ttl(name: str, text: str) -> int | None:
    ttl_ms: int | None = None
    for option in filter(None, (part.strip() for part in text.split(";"))):
        key, _, value = option.partition("=")
        if key.strip() != "ttl_ms" or not re.fullmatch(r"[0-9]{1,12}", value.strip(), re.ASCII) or ttl_ms is not None:
            raise SignalError(
                f"Signal '{name}' has an option that is not known.",
                hint="The only option is ;ttl_ms=5000",
                param="X-Lukhas-Signals",
            )
        ttl_ms = check_ttl(name, int(value))
    return ttl_ms


def parse_signal_body(value: object) -> list[Signal]:
    """Parse signals of a JSON body.

    Either `{"stress": 0.7, "novelty": {"level": 0.2, "ttl_ms": 5000}}` or
    `[{"name": "stress", "level": 0.7, "ttl_ms": 5000}]`.

    Raises:
        SignalError: anything else.
    """
    if isinstance(value, dict):
        return [_body_signal(name, part) for name, part in value.items()]  # type: ignore[misc]
    if not isinstance(value, list):
        raise SignalError("Signals must be an object of levels, or a list of objects.", param="signals")
    found: dict[str, Signal] = {}
    for part in value:  # type: ignore[misc]
        name: object = part.get("name") if isinstance(part, dict) else None  # type: ignore[misc]
        signal = _body_signal(check_name(name), {k: v for k, v in part.items() if k != "name"})  # type: ignore[misc]
        if signal.name in found:
            raise SignalError(f"Signal '{signal.name}' stands twice.", param="signals")
        found[signal.name] = signal
    return list(found.values())


def _body_signal(name: object, value: object) -> Signal:
    name = check_name(name)
    if not isinstance(value, dict):
        return Signal(name, value)  # type: ignore[arg-type]
    fields: dict[str, object] = dict(value)  # type: ignore[arg-type]
    unknown = sorted(set(fields) - {"level", "ttl_ms"})
    if unknown:
        # `source` and `ts` are the server's to set: a caller could otherwise speak for another, or from the future.
        raise SignalError(
            f"Signal '{name}' has a field that cannot be set: '{unknown[0][:40]}'.",
            hint="Only level and ttl_ms can.",
            param="signals",
        )
    if "level" not in fields:
        raise SignalError(f"Signal '{name}' has no level.", param="signals")
    return Signal(name, fields["level"], ttl_ms=fields.get("ttl_ms"))  # type: ignore[arg-type]


def require_known(names: Iterable[str], declared: Mapping[str, object]) -> None:
    """Refuse a name that the policy does not declare, naming those that it does.

    Raises:
        UnknownSignal: for the first such name.
    """
    for name in names:
        if name not in declared:
            raise UnknownSignal(
                f"The policy declares no signal '{name[:64]}'.", hint=f"It has: {', '.join(declared)}.", param="signals"
            )
