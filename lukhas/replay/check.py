"""The check before anything is simulated: the recorded revision must give the recorded decision, byte for byte."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from lukhas.audit.plain import encode_sorted, to_plain
from lukhas.modulation.decision import Decision
from lukhas.replay.recorded import Body

# Steps that the gateway adds after the dispatcher has decided.
GATEWAY_STEPS: Final = frozenset({"capability", "tools"})
_ENCODER: Final = msgspec.json.Encoder(order="sorted")


class _StepName(msgspec.Struct, gc=False):
    step: str


_STEPS: Final = msgspec.json.Decoder(list[_StepName])


class Expected(NamedTuple):
    """The bytes that a record of a decision must have."""

    parameters: bytes
    style: str
    touched: bytes
    levels: bytes
    trace: bytes


def encode_decision(decision: Decision) -> Expected:
    """Encode a decision as its record has it."""
    return Expected(
        _encode(decision.parameters),
        decision.style,
        _encode(decision.touched),
        _encode(decision.levels),
        _encode(decision.trace),
    )


def compare(body: Body, expected: Expected) -> list[str]:
    """Return the names of the parts in which a record differs from what its own revision decides."""
    wrong: list[str] = []
    if bytes(body.parameters) != expected.parameters:
        wrong.append("parameters")
    if body.style != expected.style:
        wrong.append("style")
    if bytes(body.touched) != expected.touched:
        wrong.append("touched")
    if bytes(body.inputs.levels) != expected.levels:
        wrong.append("levels")
    if not _is_same_trace(bytes(body.trace), expected.trace):
        wrong.append("trace")
    return wrong


def is_cut(body: Body) -> bool:
    """Return whether a compared part was too long to be recorded whole, so that it cannot compare."""
    parts = (body.parameters, body.touched, body.inputs.levels, body.inputs.caller, body.trace)
    return any(b'"_cut":{' in bytes(part) or b"[cut:" in bytes(part) for part in parts)


def _encode(value: Any) -> bytes:
    try:
        return _ENCODER.encode(value)
    except (OverflowError, TypeError, ValueError):
        # As the log itself does with what JSON cannot hold, such as an integer beyond 64 bits.
        return encode_sorted(to_plain(value))


def _is_same_trace(recorded: bytes, expected: bytes) -> bool:
    if recorded == expected:
        return True
    # What the gateway added stands at the end.
    head = expected[:-1]
    if not recorded.startswith(head):
        return False
    rest = recorded[len(head) :]
    if len(head) > 1:
        if not rest.startswith(b","):
            return False
        rest = rest[1:]
    try:
        return all(step.step in GATEWAY_STEPS for step in _STEPS.decode(b"[" + rest))
    except msgspec.MsgspecError:
        return False
