"""The checks of `lukhas doctor` on what guards calls: whatever would refuse a start, or make every call fail."""

from __future__ import annotations

from collections.abc import Iterator

from lukhas.cli.finding import Finding
from lukhas.cli.store import open_existing
from lukhas.errors import LukhasError, ModerationUnavailable, PolicyError, StorageUnavailable
from lukhas.settings import Settings


def check_policy(settings: Settings) -> Iterator[Finding]:
    """Load the policy that a start without a stored one would take."""
    from lukhas.modulation.policy_reader import load_policy

    try:
        policy = load_policy(settings.policy)
    except PolicyError as failure:
        yield Finding("policy", "fail", failure.message, "Correct these places; check with: lukhas policy show")
    else:
        yield Finding("policy", "ok", f"{policy.id} ({policy.source})")


def check_shadow_policy(settings: Settings) -> Iterator[Finding]:
    """Load the candidate, where there is one; without it serving goes on, so a mistake is a warning."""
    if settings.shadow_policy is None:
        return
    from lukhas.modulation.policy_reader import load_policy

    try:
        policy = load_policy(settings.shadow_policy)
    except PolicyError as failure:
        yield Finding("shadow policy", "warn", failure.message, "Correct it: until then no candidate decides beside.")
    else:
        yield Finding("shadow policy", "ok", f"{policy.id} ({policy.source})")


def check_capabilities(settings: Settings) -> Iterator[Finding]:
    """Load the capability table."""
    from lukhas.openai.capabilities import load_capabilities

    try:
        table = load_capabilities(settings.capabilities)
    except LukhasError as failure:
        advice = failure.hint or "Correct the file, or unset LUKHAS_CAPABILITIES."
        yield Finding("capabilities", "fail", failure.message, advice)
    else:
        yield Finding("capabilities", "ok", f"{len(table.rows)} rows ({settings.capabilities or 'packaged'})")


def check_rules(settings: Settings) -> Iterator[Finding]:
    """Load the operator's moderation rules over the packaged ones, and prepare them for streams as a start does."""
    path, preset = settings.moderation_rules, settings.moderation_preset
    if path is None:
        # They are tested before they ship, and compiling them takes a second.
        yield Finding("moderation rules", "ok", f"packaged, preset {preset}")
        return
    from lukhas.gateway.equipment import prepare_guard_rules
    from lukhas.moderation.rule_reader import load_rules

    try:
        rules = load_rules(path)
        prepare_guard_rules(rules)
    except LukhasError as failure:
        advice = failure.hint or "Correct the file, or unset LUKHAS_MODERATION_RULES."
        yield Finding("moderation rules", "fail", failure.message, advice)
    else:
        yield Finding("moderation rules", "ok", f"{rules.id} ({path}), preset {preset}")


def check_tools(settings: Settings) -> Iterator[Finding]:
    """Load the registry of tools."""
    from lukhas.openai.tooling import load_registry

    try:
        registry = load_registry(settings.tools)
    except LukhasError as failure:
        yield Finding("tools", "fail", failure.message, failure.hint or "Correct the file, or unset LUKHAS_TOOLS.")
    else:
        yield Finding("tools", "ok", f"{len(registry.names)} registered ({settings.tools or 'built in'})")


def check_sensors(settings: Settings) -> Iterator[Finding]:
    """Load the sensors; a plug-in that is named is imported."""
    from lukhas import flags
    from lukhas.gateway.sensors import load_sensors

    try:
        sensors = load_sensors(settings.sensors, flags.is_enabled)
    except LukhasError as failure:
        yield Finding("sensors", "fail", failure.message, failure.hint or "Correct LUKHAS_SENSORS.")
    else:
        yield Finding("sensors", "ok", ", ".join(sensors.names))


def check_moderator(settings: Settings) -> Iterator[Finding]:
    """Ask the moderation API one harmless question, where one is set."""
    if not settings.moderation_url:
        yield Finding("moderation API", "ok", "none: the rules alone moderate")
        return
    import asyncio

    from lukhas.moderation.remote import RemoteModerator

    async def ask() -> None:
        moderator = RemoteModerator(
            settings.moderation_url,
            api_key=settings.moderation_api_key,
            model=settings.moderation_model,
            timeout_s=settings.moderation_timeout_s,
        )
        try:
            await moderator.check(("ok",), "input")
        finally:
            await moderator.close()

    try:
        asyncio.run(ask())
    except ModerationUnavailable as failure:
        found = f"{settings.moderation_url}: {failure.message}"
        if settings.moderation_required:
            yield Finding("moderation API", "fail", found, f"{failure.hint} Until then every call is refused.", True)
        else:
            yield Finding("moderation API", "warn", found, f"{failure.hint} Until then calls pass without it.")
    except LukhasError as failure:
        yield Finding("moderation API", "fail", failure.message, failure.hint or "Correct it.")
    else:
        yield Finding("moderation API", "ok", f"{settings.moderation_url} answers")


def check_limits(settings: Settings) -> Iterator[Finding]:
    """Read the stored limits as a start does."""
    from lukhas.access.limit import LimitStore
    from lukhas.clock import SystemClock
    from lukhas.storage import migrate
    from lukhas.storage.writer import GroupCommitWriter

    try:
        with open_existing(settings) as database:
            if not migrate.is_current(database):
                return
            unused = GroupCommitWriter(database, max_rows=1, name="unused")
            count = len(LimitStore(database, unused, SystemClock()).rules.holders())
    except StorageUnavailable:
        return  # the check of the database says it
    except LukhasError as failure:
        yield Finding("limits", "fail", failure.message, failure.hint)
    else:
        yield Finding("limits", "ok", f"{count} keys and tenants have some" if count else "none are set")
