"""Differences between the packaged policy and every near neighbour of it that loads: each is seen and said."""

from __future__ import annotations

from typing import Any

import yaml
from test_import_mutation import mutate, places

from lukhas.errors import PolicyError
from lukhas.modulation.difference import compare_policies
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy, parse_policy, read_packaged_text


def neighbours(value: Any) -> list[Any]:
    """Return values near one that may stand in its place; `...` removes it."""
    if isinstance(value, bool) or value is None:
        return [...]
    if isinstance(value, (int, float)):
        return [value * 0.9]
    if isinstance(value, list):
        return [value[:-1], [*value, "code_exec"]]
    if isinstance(value, dict):
        return [...]
    swapped = {"touched": "all", "precedence": "blend", "low": "high", "high": "low", "medium": "low"}
    return [swapped.get(value, "0.3"), "balanced"]


def meaning(policy: Policy) -> list[Any]:
    """Return all that a policy says but its maps' wording, which may change without changing a value."""
    rules = [(rule.style, rule.text) for rule in policy.style_rules]
    parts = [policy.signals, policy.parameters, policy.styles, policy.tool_classes, policy.knobs]
    return [*(dict(part) for part in parts), rules, policy.touch_all, policy.blend, set(policy.rules)]


def test_difference_of_any_one_change_is_said() -> None:
    """Policies that differ in one value (every fifth here) are never called the same, and the words are never empty."""
    text = read_packaged_text()
    packaged = load_policy()
    seen = 0
    for path in places(yaml.safe_load(text))[::5]:
        value = yaml.safe_load(text)
        for step in path:
            value = value[step]
        for put in neighbours(value):
            document = yaml.safe_load(text)
            mutate(document, path, put)
            try:
                changed = parse_policy(yaml.safe_dump(document, sort_keys=False))
            except PolicyError:
                continue
            # Either way round, in turn: what one policy has and the other has not is said both ways.
            pair = (packaged, changed) if seen % 2 else (changed, packaged)
            found = compare_policies(*pair)
            assert found.changes or meaning(changed) == meaning(packaged), path
            assert all(str(change) for change in found.changes)
            seen += 1
    assert seen > 20
