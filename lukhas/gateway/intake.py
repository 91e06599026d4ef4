"""What a call says of its own state: which subjects it names, and which signals it brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from lukhas.access.keys import ApiKey
from lukhas.errors import Forbidden, SignalError
from lukhas.gateway.sensors import Reading
from lukhas.modulation.policy import SignalSpec
from lukhas.modulation.signals import Signal, require_known
from lukhas.modulation.state import Effective, Receipt, SignalState, Subject
from lukhas.telemetry import Metrics


class Ignored(msgspec.Struct, frozen=True):
    """An emission that its cooldown kept out; the last one holds."""

    signal: str
    level: float
    retry_after_ms: int


class Taken(msgspec.Struct, frozen=True):
    """What became of the signals that a call brought.

    Attributes:
        own: those that hold for this call alone.
    """

    own: tuple[Signal, ...] = ()
    ignored: tuple[Ignored, ...] = ()


NOTHING_TAKEN: Final = Taken()


class Sensed(msgspec.Struct, frozen=True):
    """The levels that count for a call, and where each comes from."""

    levels: dict[str, float]
    evidence: dict[str, Effective]


def list_subjects(session: str | None, user: str | None, key: ApiKey) -> list[Subject]:
    """Return the subjects of a call, nearest first; session and user are `sub_...` ids."""
    subjects = [Subject("key", key.key_id), Subject("tenant", key.tenant), Subject("everyone", "")]
    if user is not None:
        subjects.insert(0, Subject("user", user))
    if session is not None:
        subjects.insert(0, Subject("session", session))
    return subjects


def merge_signals(header: Sequence[Signal], body: Sequence[Signal]) -> list[Signal]:
    """Join the signals of header and body.

    Raises:
        SignalError: a name stands in both.
    """
    if not header or not body:
        return [*header, *body]
    names = {signal.name for signal in header}
    for signal in body:
        if signal.name in names:
            raise SignalError(f"Signal '{signal.name}' stands in the header and in the body; send it once.")
    return [*header, *body]


def check_may_emit(key: ApiKey, signals: Sequence[Signal], specs: Mapping[str, SignalSpec]) -> None:
    """Check that a key may emit these: without the scope `signals` it may only raise guards.

    Raises:
        UnknownSignal: a name that the policy does not declare.
        Forbidden: a style signal without the scope.
    """
    require_known((signal.name for signal in signals), specs)
    if key.allows("signals"):
        return
    for signal in signals:
        if specs[signal.name].role != "guard":
            guards = ", ".join(name for name, spec in specs.items() if spec.role == "guard")
            raise Forbidden(
                f"This key may not emit '{signal.name}': without the scope 'signals' it may only raise {guards}.",
                hint="Create a key with it: lukhas key create --scope signals",
                param="signals",
            )


def emit_signals(
    state: SignalState,
    subject: Subject,
    signals: Sequence[Signal],
    key: ApiKey,
    via: str,
    metrics: Metrics,
    now_ms: int,
) -> list[Receipt]:
    """Emit checked signals to one subject, as this key."""
    receipts: list[Receipt] = []
    for signal in signals:
        receipt = state.emit(
            subject,
            signal.name,
            signal.level,
            ttl_ms=signal.ttl_ms,
            source=f"{via}:{key.key_id}",
            owner=key.key_id,
            now_ms=now_ms,
        )
        metrics.signals.add(signal.name, "yes" if receipt.accepted else "no")
        receipts.append(receipt)
    return receipts


def take_signals(
    state: SignalState,
    subjects: Sequence[Subject],
    signals: Sequence[Signal],
    key: ApiKey,
    specs: Mapping[str, SignalSpec],
    metrics: Metrics,
    now_ms: int,
) -> Taken:
    """Take a call's signals in.

    They are emitted at the nearest of session and user that the call names, and live on there. A call that names
    neither speaks for itself only: its signals end with it.

    Raises:
        UnknownSignal, Forbidden: as `check_may_emit`.
    """
    if not signals:
        return NOTHING_TAKEN
    check_may_emit(key, signals, specs)
    if subjects[0].scope not in ("session", "user"):
        return Taken(own=tuple(signals))
    receipts = emit_signals(state, subjects[0], signals, key, "call", metrics, now_ms)
    ignored = tuple(
        Ignored(signal.name, signal.level, receipt.retry_after_ms)
        for signal, receipt in zip(signals, receipts, strict=True)
        if not receipt.accepted
    )
    return Taken(ignored=ignored)


def read_levels(
    state: SignalState,
    subjects: Sequence[Subject],
    own: Sequence[Signal],
    key: ApiKey,
    specs: Mapping[str, SignalSpec],
    now_ms: int,
) -> Sensed:
    """Return the levels that count for a call: what its subjects hold, and what it says of itself alone."""
    evidence = state.levels(subjects, now_ms)
    for signal in own:
        spec = specs[signal.name]
        known = evidence.get(signal.name)
        if signal.level < spec.min_level or (
            known is not None and spec.role == "guard" and known.level >= signal.level
        ):
            continue
        evidence[signal.name] = Effective(signal.level, "call", f"call:{key.key_id}")
    return Sensed({name: effective.level for name, effective in evidence.items()}, evidence)


def add_readings(
    sensed: Sensed, readings: Sequence[tuple[str, Reading, str]], specs: Mapping[str, SignalSpec]
) -> tuple[Sensed, list[dict[str, Any]]]:
    """Merge what sensors read: of a guard the highest counts, of a style signal an emitted one comes first.

    Args:
        readings: signal, reading and the sensor's name.

    Returns:
        The levels, and every reading as the record has it, with whether it counted.
    """
    if not readings:
        return sensed, []
    evidence = dict(sensed.evidence)
    noted: list[dict[str, Any]] = []
    for name, reading, sensor in readings:
        spec = specs.get(name)
        known = evidence.get(name)
        counts = spec is not None and reading.level >= spec.min_level
        if known is not None and (spec is None or spec.role == "style" or known.level >= reading.level):
            # Of two sensors of one style signal, the higher one counts.
            counts = counts and known.scope == "sensor" and reading.level > known.level
        if counts:
            evidence[name] = Effective(reading.level, "sensor", f"sensor:{sensor}")
        noted.append(
            {
                "sensor": sensor,
                "signal": name,
                "level": round(reading.level, 6),
                "evidence": reading.evidence,
                "counted": counts,
            }
        )
    return Sensed({name: effective.level for name, effective in evidence.items()}, evidence), noted
