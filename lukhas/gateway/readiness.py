"""The truth about each dependency, as `/readyz` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lukhas.storage.writer import GroupCommitWriter

if TYPE_CHECKING:
    from lukhas.gateway.runtime import Runtime


async def describe_readiness(runtime: Runtime) -> dict[str, Any]:
    """Return whether calls are served, what is degraded, and each check with its problem in words."""
    upstream = await runtime.upstream.check()
    policy = runtime.policies.status()
    shadow = runtime.shadow.status()
    database = _find_problem(runtime.writer, runtime.settings.writer_deadline_s)
    vault = _find_problem(runtime.vault_writer, runtime.settings.writer_deadline_s)
    moderator = None if runtime.moderator is None else runtime.moderator.status()
    # Every call would fail, so none should come here. Where it is not required, calls pass, and records say so.
    stops_calls = runtime.settings.moderation_required and runtime.settings.mode != "shadow"
    unrecorded = runtime.pipeline.unrecorded
    custody = runtime.custody.problems()
    is_stored = (database is None and vault is None) or unrecorded.is_open
    ready = is_stored and not runtime.is_draining and not (moderator and stops_calls)
    degraded = any(
        problem is not None
        for problem in (
            database,
            vault,
            runtime.writer.checkpoint_error,
            unrecorded.problem(),
            *custody.values(),
            upstream,
            policy.problem,
            runtime.keys_stale,
            runtime.limits_stale,
            moderator,
            None if shadow is None else shadow.problem,
        )
    )
    return {
        "ready": ready,
        "status": "unavailable" if not ready else "degraded" if degraded else "ok",
        "draining": runtime.is_draining,
        "mode": runtime.settings.mode,
        "checks": {
            "database": _state(database or runtime.writer.checkpoint_error, waiting_rows=runtime.writer.depth),
            "vault": _state(vault),
            "audit": _state("; ".join(f"{part}: {said}" for part, said in custody.items()) or None),
            "unrecorded": _state(unrecorded.problem(), calls=unrecorded.count),
            "keys": _state(runtime.keys_stale),
            "limits": _state(runtime.limits_stale),
            "policy": _state(
                policy.problem,
                id=policy.policy,
                source=policy.source,
                proof=policy.proof,
                **({} if policy.refused is None else {"refused": _publish(policy.refused)}),
            ),
            **({} if shadow is None else {"shadow_policy": _state(shadow.problem, id=shadow.policy)}),
            "upstream": _state(upstream, name=runtime.upstream.name),
            "moderation": _state(
                moderator,
                rules=runtime.rules.id,
                preset=runtime.settings.moderation_preset,
                moderator=None if runtime.moderator is None else runtime.moderator.name,
            ),
        },
    }


def _find_problem(writer: GroupCommitWriter, deadline_s: float) -> str | None:
    """Return why a writer's rows are not durable in time; None where they are."""
    if not writer.healthy:
        return writer.last_error or "the writer has stopped"
    took_s = writer.busy_s
    # A lock that another process keeps, or a disk that hangs: calls are refused already, the database has not answered.
    return None if took_s <= deadline_s else f"a transaction has not ended for {took_s:.0f} s"


def _publish(refused: dict[str, Any]) -> dict[str, Any]:
    # Anybody may ask whether the gateway is ready; who changes policies, and why, is for those who may read them.
    return {name: refused.get(name) for name in ("event", "policy", "time", "problem")}


def _state(problem: str | None, **more: Any) -> dict[str, Any]:
    return {"ok": problem is None, **({} if problem is None else {"problem": problem}), **more}
