"""What a call would be made of, without making it: for `lukhas modulate` and `POST /api/v1/modulate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lukhas.gateway.enforcement import CHAT, apply_decision, read_caller
from lukhas.modulation.dispatcher import Modulator
from lukhas.modulation.signals import Signal
from lukhas.openai.capabilities import CapabilityTable
from lukhas.openai.wire import encode_json

DEFAULT_MODEL = "gpt-4o-mini"


def preview(
    modulator: Modulator,
    capabilities: CapabilityTable,
    signals: Sequence[Signal],
    *,
    model: str | None = None,
    request: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the decision for these signals, and the request as it would go upstream.

    Args:
        model: whose capabilities count; the request's own where None.
        request: a chat request; a bare one where None.

    Returns:
        Plain JSON types: policy, parameters, style, tools, touched, limits, levels, trace, model, written, and
        `request` where one was given.

    Raises:
        SignalError, InvalidRequest, PolicyDenied: as the gateway itself would.
    """
    body: dict[str, Any] = {"messages": [{"role": "user", "content": ""}], **(request or {})}
    if model is not None or "model" not in body:
        body["model"] = DEFAULT_MODEL if model is None else model
    chat = CHAT.parse(encode_json(body))
    decision = modulator.combine(signals, caller=read_caller(chat.body, modulator.dispatcher))
    applied = apply_decision(chat.body, decision, modulator.dispatcher, capabilities.find(chat.model))
    document = decision.to_dict()
    document["model"] = chat.model
    document["written"] = applied.written
    if request is not None:
        document["request"] = applied.body
        document["stripped"] = list(applied.stripped.removed)
    return document
