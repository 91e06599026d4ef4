"""A simulation as plain JSON types, the one shape that the text, the pages and the JSON are made from."""

from __future__ import annotations

from typing import Any

from lukhas.clock import format_utc
from lukhas.replay.simulate import Simulation
from lukhas.replay.tally import Change, Spread, Tally


def describe(simulation: Simulation) -> dict[str, Any]:
    """Return the whole report.

    `check` is about the log, everything else about the candidate; `histogram.below` and `above` count what lies
    outside the bounds of every policy, such as callers' own values.
    """
    tally, candidate, window = simulation.tally, simulation.candidate, simulation.window
    seen = {name for policy in simulation.revisions.policies.values() for name in policy.parameters}
    return {
        "policy": candidate.id,
        "name": candidate.name,
        "source": candidate.source,
        "since": None if window.since_ms is None else format_utc(window.since_ms),
        "until": None if window.until_ms is None else format_utc(window.until_ms),
        "read": tally.read,
        "check": {
            "checked": tally.checked,
            "mismatches": tally.mismatch_count,
            "listed": [{"index": i, "audit_id": a, "differs": list(parts)} for i, a, parts in tally.mismatches],
            "unknown_revisions": tally.unknown,
            "cut": tally.cut,
            "unreadable": tally.unreadable,
        },
        "simulated": tally.simulated,
        "changed": tally.changed,
        "refused": tally.refused,
        "undeclared_signals": tally.undeclared,
        "parameters": {name: _describe_change(change, tally) for name, change in tally.changes.items()},
        "parameters_removed": sorted(seen - candidate.parameters.keys()),
        "styles": _transitions(tally.styles),
        "safety_modes": _transitions(tally.modes),
        "tools": {
            "calls": tally.calls_with_tools,
            "blocked": _sorted(tally.tools_blocked),
            "allowed": _sorted(tally.tools_allowed),
        },
        "examples": [{"audit_id": one.audit_id, "differs": list(one.parts)} for one in tally.examples],
        "notes": simulation.notes,
    }


def _describe_change(change: Change, tally: Tally) -> dict[str, Any]:
    found: dict[str, Any] = {
        "changed": change.calls,
        "share": round(change.calls / tally.simulated, 6) if tally.simulated else 0.0,
        "tighter_is": change.tighter_is,
        "tighter": change.tighter,
        "looser": change.looser,
        "newly_set": change.newly_set,
        "no_longer_set": change.no_longer_set,
    }
    if change.spread.edges:
        found |= {
            "raised": change.raised,
            "lowered": change.lowered,
            "mean_change": round(change.total / change.calls, 9) if change.calls else 0.0,
            "largest_change": round(change.largest, 9),
        }
    return found | {"histogram": _histogram(change.spread)}


def _histogram(spread: Spread) -> dict[str, Any]:
    if not spread.edges:
        words = sorted({**spread.words_before, **spread.words_after})
        return {
            "values": words,
            "before": [spread.words_before.get(word, 0) for word in words],
            "after": [spread.words_after.get(word, 0) for word in words],
        }
    return {
        "edges": [round(edge, 9) for edge in spread.edges],
        "before": spread.before[:-2],
        "after": spread.after[:-2],
        "below": {"before": spread.before[-2], "after": spread.after[-2]},
        "above": {"before": spread.before[-1], "after": spread.after[-1]},
    }


def _transitions(counts: dict[tuple[str, str], int]) -> list[dict[str, Any]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"before": before, "after": after, "calls": calls} for (before, after), calls in ordered]


def _sorted(counts: dict[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
