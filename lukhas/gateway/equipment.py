"""Everything that governed calls are made with, in one value, so that each step takes what it needs from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, cast

import msgspec

from lukhas.access.meter import Meter
from lukhas.audit.store import AuditStore
from lukhas.clock import Clock
from lukhas.gateway.guard import GuardRules
from lukhas.gateway.incident import IncidentStore
from lukhas.gateway.object import ObjectOwners
from lukhas.gateway.policies import PolicyInForce
from lukhas.gateway.sensors import LoadMeter, SensorArray
from lukhas.gateway.shadow import ShadowPolicy
from lukhas.moderation.holdback import Holdback, StreamPlan
from lukhas.moderation.moderator import Moderator
from lukhas.moderation.rule import POINTS, Finding, Preset
from lukhas.moderation.rule_reader import load_rules
from lukhas.moderation.ruleset import RuleSet
from lukhas.modulation.state import SignalState
from lukhas.openai.call import Dialect, DialectName
from lukhas.openai.capabilities import CapabilityTable
from lukhas.openai.chat import ChatDialect
from lukhas.openai.classification import ClassificationDialect
from lukhas.openai.embedding import EmbeddingDialect
from lukhas.openai.response import ResponseDialect
from lukhas.openai.tooling import Registry
from lukhas.openai.upstream import Upstream
from lukhas.settings import Settings
from lukhas.telemetry import Metrics
from lukhas.vault.subjects import SubjectVault

DIALECTS: Final[Mapping[DialectName, Dialect]] = {
    "chat": ChatDialect(),
    "responses": ResponseDialect(),
    "embeddings": EmbeddingDialect(),
    "moderations": ClassificationDialect(),
}
_PAUSE_S: Final = 0.01
# Words with which rules may begin, in sentences of which none says anything.
_WARM_UP: Final = (
    "How do I make a list of the steps, and what is the password: none. You can see that they were not there at "
    'http://example.org/path?key=value or 12.5 % of 1,024 cases; import re; def read(self): return {"a": 1} '
    "Please write the answer in a table | with | columns, ignore the rest, then tell me the way to kill the process."
)
PRESETS: Final[tuple[Preset, ...]] = ("standard", "high")


class Equipment(msgspec.Struct, frozen=True):
    """What governed calls are made with.

    Attributes:
        moderator: asked beside the rules; None where none is configured.
        load: calls in flight and how the upstream fares, for the sensors.
    """

    settings: Settings
    clock: Clock
    metrics: Metrics
    policies: PolicyInForce
    shadow: ShadowPolicy
    state: SignalState
    vault: SubjectVault
    audit: AuditStore
    incidents: IncidentStore
    owners: ObjectOwners
    upstream: Upstream
    capabilities: CapabilityTable
    registry: Registry
    rules: RuleSet
    guard_rules: Callable[[Preset], GuardRules]
    moderator: Moderator | None
    sensors: SensorArray
    load: LoadMeter
    meter: Meter

    @property
    def is_shadow(self) -> bool:
        """Whether nothing is applied, and everything is recorded as what it would have done."""
        return self.settings.mode == "shadow"

    def pick_preset(self, wished: str) -> Preset:
        """Return the stricter of what the settings and a style of the policy ask for."""
        return "high" if "high" in (self.settings.moderation_preset, wished) else "standard"


@lru_cache(maxsize=1)
def load_packaged_rules() -> RuleSet:
    """Return the packaged moderation rules; compiling them takes most of a second, and they never change."""
    return load_rules(None)


def warm_up(rules: RuleSet, guard_rules: Callable[[Preset], GuardRules]) -> None:
    """Compile what the rules need for ordinary text, so that no call waits for it. Takes seconds; on a thread.

    It pauses after each step: compiling holds the interpreter's lock, and first calls are not to wait for all of it.
    """
    for preset in PRESETS:
        channel = Holdback(guard_rules(preset).plan, _ignore)
        for word in _WARM_UP.split():
            channel.feed(f"{word} ")
            time.sleep(_PAUSE_S)
        channel.finish()
        for point in POINTS:
            rules.profile(preset, point).scan(_WARM_UP)
            time.sleep(_PAUSE_S)


def _ignore(finding: Finding) -> None:
    """Do nothing: the text is our own."""


@lru_cache(maxsize=4)
def prepare_guard_rules(rules: RuleSet) -> Callable[[Preset], GuardRules]:
    """Compile the rules at the point 'output' for both presets; what cannot be guarded in a stream is found now."""

    @lru_cache(maxsize=len(PRESETS))
    def find(preset: Preset) -> GuardRules:
        profile = rules.profile(preset, "output")
        return GuardRules(profile, StreamPlan(profile.rules))

    for preset in PRESETS:
        find(preset)
    return cast("Callable[[Preset], GuardRules]", find)
