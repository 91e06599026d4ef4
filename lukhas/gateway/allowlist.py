"""Which tools one decision allows (I4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from lukhas.modulation.policy import TOOLS, Policy
from lukhas.openai.tooling import Registry


class Allowlist:
    """A decision's tools, judged by the registry's classes first, then by the policy's."""

    __slots__ = ("_defaults", "_policy", "_registry", "_tools")

    def __init__(self, registry: Registry, policy: Policy, tools: Sequence[str]) -> None:
        self._registry = registry
        self._policy = policy
        self._tools = tools
        self._defaults = cast("Sequence[str]", policy.defaults[TOOLS])

    def allows_function(self, name: str) -> bool:
        """Say whether a function may be offered and called."""
        return self._allows(self._tools, name)

    def allows_hosted(self, kind: str) -> bool:
        """Say whether a tool that the provider runs may be offered and called, by its type."""
        return self._policy.allows_hosted(self._tools, kind)

    def denies_always(self, name: str) -> bool:
        """Say whether a function is denied whatever the present risk: its earlier results were never to be had."""
        return not self._allows(self._tools, name) and not self._allows(self._defaults, name)

    def _allows(self, tools: Sequence[str], name: str) -> bool:
        found = self._registry.classify(name)
        if found is None:
            return self._policy.allows_tool(tools, name)
        return found in tools or (name in tools and name not in self._policy.tool_classes)
