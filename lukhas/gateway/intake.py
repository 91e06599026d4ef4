"""What a call says of its own state: which subjects it names, and which signals it brings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from lukhas.access.keys import ApiKey
from lukhas.errors import Forbidden, SignalError
from lukhas.modulation.policy import SignalSpec
from lukhas.modulation.signals import Signal, require_known
from lukhas.modulation.state import Effective, Receipt, SignalState, Subject
from lukhas.telemetry import Metrics


class Ignored(msgspec.Struct, frozen=True):
    """An emission that its cooldown kept out; the last one holds."""

    signal: str
    level: float
    retry_after_ms: int


class Sensed(msgspec.Struct, frozen=True):
    """The levels that count for a call, and where each comes from."""

    levels: dict[str, float]
    evidence: dict[str, Effective]
    ignored: tuple[Ignored, ...] = ()


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


def sense(
    state: SignalState,
    subjects: Sequence[Subject],
    signals: Sequence[Signal],
    key: ApiKey,
    specs: Mapping[str, SignalSpec],
    metrics: Metrics,
    now_ms: int,
) -> Sensed:
    """Take a call's signals in and return the levels that count for it.

    They are emitted at the nearest of session and user that the call names, and live on there. A call that names
    neither speaks for itself only: its signals end with it.
    """
    ignored: tuple[Ignored, ...] = ()
    own: list[Signal] = []
    if signals:
        check_may_emit(key, signals, specs)
        if subjects[0].scope in ("session", "user"):
            receipts = emit_signals(state, subjects[0], signals, key, "call", metrics, now_ms)
            ignored = tuple(
                Ignored(signal.name, signal.level, receipt.retry_after_ms)
                for signal, receipt in zip(signals, receipts, strict=True)
                if not receipt.accepted
            )
        else:
            own = list(signals)
    evidence = state.levels(subjects, now_ms)
    for signal in own:
        spec = specs[signal.name]
        known = evidence.get(signal.name)
        if signal.level < spec.min_level or (
            known is not None and spec.role == "guard" and known.level >= signal.level
        ):
            continue
        evidence[signal.name] = Effective(signal.level, "call", f"call:{key.key_id}")
    return Sensed({name: effective.level for name, effective in evidence.items()}, evidence, ignored)
