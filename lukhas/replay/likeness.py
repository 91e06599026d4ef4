"""Where two policies decide alike by construction, so that one decision serves for both.

A candidate mostly changes a map or two; the calls that have none of its signals are then decided once.
"""

from __future__ import annotations

from lukhas.modulation.policy import Policy


def find_differing_signals(a: Policy, b: Policy) -> frozenset[str] | None:
    """Return the signals in whose presence two policies may decide differently.

    A decision is made of the parameters, the style rules, the tool classes, the feedback table, and of the present
    signals' specifications and maps, and of nothing else.

    Returns:
        Names of signals; None where the policies may differ in the presence of any, or of none.
    """
    same = (
        list(a.parameters.items()) == list(b.parameters.items())
        and [(rule.style, rule.text) for rule in a.style_rules] == [(rule.style, rule.text) for rule in b.style_rules]
        and a.tool_classes == b.tool_classes
        and a.knobs == b.knobs
        and (a.touch_all, a.blend) == (b.touch_all, b.blend)
    )
    if not same:
        return None
    names = {name for name in (*a.signals, *b.signals) if a.signals.get(name) != b.signals.get(name)}
    texts_a = {key: rule.text for key, rule in a.rules.items()}
    texts_b = {key: rule.text for key, rule in b.rules.items()}
    names |= {key[0] for key in texts_a.keys() | texts_b.keys() if texts_a.get(key) != texts_b.get(key)}
    return frozenset(names)
