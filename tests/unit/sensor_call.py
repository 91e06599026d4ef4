"""What the tests of the sensors share: calls with a prompt, and what the sensors see of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lukhas.gateway.sensor.load import LoadMeter
from lukhas.gateway.sensor.observation import Observation
from lukhas.modulation.state import Subject
from lukhas.openai.call import Call, Text
from lukhas.openai.wire import Extension
from lukhas.testing import FrozenClock

KEY = Subject("key", "key_1")
SUBJECTS = (Subject("session", "sub_s"), Subject("user", "sub_u"), KEY, Subject("tenant", "t"), Subject("everyone", ""))


def chat(*messages: tuple[str, str], **fields: Any) -> Call:
    """Return a chat call with messages of (role, text)."""
    body: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in messages], **fields}
    points = {"system": "instruction", "tool": "tool_result"}
    texts = tuple(
        Text(points.get(role, "input"), ("messages", number, "content"), text, number)  # type: ignore[arg-type]
        for number, (role, text) in enumerate(messages)
    )
    return Call("chat", "/chat/completions", body, "m", False, None, Extension(), texts)


def observe(
    call: Call | str, *, subjects: Sequence[Subject] = SUBJECTS, load: LoadMeter | None = None, **fields: Any
) -> Observation:
    """Return what sensors see of a call, or of a call with one user text."""
    made = chat(("user", call)) if isinstance(call, str) else call
    meter = LoadMeter(FrozenClock()) if load is None else load
    return Observation(made, subjects, "key_1", "t", fields.pop("now_ms", 0), meter, **fields)
