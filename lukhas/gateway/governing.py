"""From a read request to what goes upstream: sense, moderate the input, decide, apply (steps 3 to 6 of a call).

No step waits here: between the signals that a decision read and the decision itself, nothing else can happen.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

import msgspec
import orjson

from lukhas.audit.redaction import redact_text
from lukhas.errors import InvalidRequest, LukhasError, PolicyDenied
from lukhas.gateway.allowlist import Allowlist
from lukhas.gateway.discretion import join_names
from lukhas.gateway.enforcement import Applied, apply_decision, limit_output, read_caller
from lukhas.gateway.equipment import DIALECTS, Equipment
from lukhas.gateway.guard import CallGuard, ToolScope
from lukhas.gateway.intake import Sensed, add_readings, list_subjects, read_levels, take_signals
from lukhas.gateway.recording import CallRecord
from lukhas.gateway.screening import Screened, add_verdicts, deny_media, screen
from lukhas.gateway.sensors import Observation
from lukhas.gateway.tightening import SOURCE as VIOLATION
from lukhas.gateway.tightening import Raised, tighten
from lukhas.gateway.violation import Violation
from lukhas.ids import make_id
from lukhas.moderation.moderator import Verdict
from lukhas.moderation.rule import SEVERITIES, Preset
from lukhas.modulation.dispatcher import Decision
from lukhas.modulation.policy import Policy
from lukhas.modulation.signals import Signal
from lukhas.modulation.state import Subject
from lukhas.openai.argument import check_schema
from lukhas.openai.call import Call, Text, replace_values
from lukhas.openai.offer import NOTHING, Stripped, list_tools
from lukhas.openai.tool_result import Settled, settle_results, unmatched_results

INCIDENTS: Final = b"x-lukhas-incidents"
_MOST_NAMED: Final = 20
_BLOCKED_RESULT: Final = "This call was blocked by policy. It was not run."


class Checked(msgspec.Struct, frozen=True):
    """What had to be asked elsewhere before the decision.

    Attributes:
        texts, verdicts: what a remote moderator said of each text; empty where none was asked.
        moderator_failed: it could not be asked, and is not required.
        is_access: the denial is no policy's, and holds in shadow mode too.
        denial: the call may not go on: another tenant's object, or a required moderator that failed.
        blocked_calls: tool calls that an earlier answer had blocked although the upstream still holds them.
        screened: what the rules find in it, by preset, where that was looked for ahead; else the decision looks.
    """

    texts: Sequence[Text] = ()
    verdicts: Sequence[Verdict] = ()
    moderator_failed: bool = False
    denial: LukhasError | None = None
    is_access: bool = False
    blocked_calls: Sequence[str] = ()
    screened: Mapping[str, Screened] = {}


class Governed(msgspec.Struct, frozen=True):
    """A request as it goes upstream, and the guard of its answer."""

    body: dict[str, Any]
    guard: CallGuard
    headers: list[tuple[bytes, bytes]]
    denial: LukhasError | None
    hides_usage: bool
    answered: Sequence[str] = ()


class Governor:
    """Decides calls, and hands each decision to its record."""

    def __init__(self, equipment: Equipment) -> None:
        self._with = equipment
        # The one that is always there reads findings, of which a usual call has none.
        self._has_sensors = len(equipment.sensors.names) > 1

    def govern(
        self, record: CallRecord, call: Call, signals: Sequence[Signal], checked: Checked, *, operation: str = "create"
    ) -> Governed:
        """Sense, screen, decide, apply, and start writing the decision.

        Raises:
            RequestError: what is wrong with the request, found before any of it takes effect.
            Overloaded, StorageUnavailable: the decision cannot be recorded.
        """
        tools = self._with
        active = tools.policies.active
        dispatcher = active.dispatcher
        policy = dispatcher.policy
        key = record.key
        # Everything that can be wrong with the request is found before its signals are taken in.
        caller = read_caller(call.body, dispatcher, call.dialect)
        offered = list_tools(call.dialect, call.body)
        subjects = list_subjects(record.session, record.user, key)
        now_ms = tools.clock.now_ms()
        taken = take_signals(tools.state, subjects, signals, key, policy.signals, tools.metrics, now_ms)
        own = read_levels(tools.state, subjects, taken.own, key, policy.signals, now_ms)
        sensed, readings = self._read_sensors(record, call, subjects, own, (), policy, now_ms)
        decision = dispatcher.decide(sensed.levels, caller=caller)
        preset = tools.pick_preset(policy.styles[decision.style].moderation)
        began = time.perf_counter()
        screened = checked.screened.get(preset) or screen(call, tools.rules, preset)
        tools.metrics.screen_seconds.add(time.perf_counter() - began)
        if checked.verdicts:
            screened = add_verdicts(screened, checked.texts, checked.verdicts, self._moderator_name)
        if screened.findings or screened.violations:
            self._raise(record, screened.violations, subjects, policy, now_ms)
            own = read_levels(tools.state, subjects, taken.own, key, policy.signals, now_ms)
            sensed, readings = self._read_sensors(
                record, call, subjects, own, [finding for _, finding in screened.findings], policy, now_ms
            )
            decision = dispatcher.decide(sensed.levels, caller=caller)
            stricter = tools.pick_preset(policy.styles[decision.style].moderation)
            if stricter != preset:
                again = checked.screened.get(stricter) or screen(call, tools.rules, stricter)
                screened = self._screen_again(record, screened, again, subjects, policy, now_ms)
                preset = stricter
        shadow = tools.shadow.compare(decision, sensed.levels, caller) if tools.shadow.is_on else None
        denial = checked.denial or screened.denial
        if call.media:
            notes = {**screened.notes, "unmoderated": sorted({one.kind for one in call.media})}
            screened = msgspec.structs.replace(screened, notes=notes)
            if tools.settings.on_unmoderated == "block" and denial is None:
                denial = deny_media(call)
        allows = Allowlist(tools.registry, policy, decision.tools)
        body, written, stripped = call.body, dict[str, Any](), NOTHING
        settled: tuple[Settled, ...] = ()
        hides_usage = False
        try:
            edited = replace_values(call.body, screened.edits)
            edited, settled = settle_results(
                call.dialect, edited, allows.denies_always, checked.blocked_calls, _BLOCKED_RESULT
            )
            applied = apply_decision(
                edited,
                decision,
                dispatcher,
                tools.capabilities.find(call.model),
                dialect=DIALECTS[call.dialect],
                allows_function=allows.allows_function,
                allows_hosted=allows.allows_hosted,
            )
            written, stripped = applied.written, applied.stripped
            if not tools.is_shadow:
                for name, schema in stripped.kept_functions.items():
                    if schema is not None:
                        check_schema(schema, f"tools: {redact_text(name[:64])}")
                body = applied.body
                body, hides_usage = self._budget(record, call, applied, written)
        except PolicyDenied as refused:
            denial = denial or refused
            self._raise(record, [_forced(refused)], subjects, policy, now_ms)
        except InvalidRequest as wrong:
            # Signals and violations of this request have been taken in, so that it goes on record like any other.
            denial = denial or wrong
        fresh = _list_fresh(call, settled, checked.blocked_calls)
        if fresh:
            self._raise(record, [_settled(one) for one in fresh], subjects, policy, now_ms)
        document = self._describe(record, call, decision, active.certificate, sensed, caller, offered)
        if operation != "create":
            document["operation"] = operation
        document["written"] = written
        if readings:
            document["sensors"] = readings
        if shadow is not None:
            document["shadow"] = shadow
        if taken.ignored:
            document["inputs"]["ignored"] = taken.ignored
        if stripped.removed:
            tools.metrics.tools_stripped.add(by=len(stripped.removed))
            document["stripped"] = [redact_text(name) for name in stripped.removed]
        if settled:
            document["settled_results"] = [redact_text(one.name) for one in settled]
        unmatched = unmatched_results(call.dialect, call.body) if call.dialect in ("chat", "responses") else ()
        if unmatched:
            document["unmatched_results"] = len(unmatched)
        if call.extension.task is not None:
            document["task"] = redact_text(call.extension.task)
        if denial is not None:
            document["denied"] = redact_text(denial.message)
        moderation = screened.describe(preset, tools.rules.id)
        if checked.verdicts:
            moderation["moderator"] = self._moderator_name
        if checked.moderator_failed:
            moderation["moderator"] = "failed"
        document["moderation"] = moderation
        if record.incidents:
            document["incidents"] = list(record.incidents)
        for text, finding in screened.findings:
            tools.metrics.findings.add(text.point, finding.category, finding.action)
        record.decide(document)
        guard = self._make_guard(record, call, decision, policy, subjects, allows, stripped)
        headers = self._answer_headers(record, decision, policy, stripped)
        return Governed(body, guard, headers, denial, hides_usage, checked.blocked_calls)

    def screen_ahead(self, call: Call) -> dict[str, Screened]:
        """Run the rules over a large call under each preset that its decision could ask for; on any thread.

        Raises:
            ModerationUnavailable: a rule took too long.
        """
        tools = self._with
        presets: set[Preset] = {tools.pick_preset(style.moderation) for style in tools.policies.policy.styles.values()}
        return {preset: screen(call, tools.rules, preset) for preset in presets}

    @property
    def _moderator_name(self) -> str:
        moderator = self._with.moderator
        return "none" if moderator is None else moderator.name

    def _read_sensors(
        self,
        record: CallRecord,
        call: Call,
        subjects: Sequence[Subject],
        own: Sensed,
        findings: Sequence[Any],
        policy: Policy,
        now_ms: int,
    ) -> tuple[Sensed, list[dict[str, Any]]]:
        """Merge what sensors read into the levels; a caller's own style signal wins over a sensor's."""
        sensors = self._with.sensors
        if not self._has_sensors and not findings:
            return own, []
        observation = Observation(
            call=call,
            subjects=subjects,
            key_id=record.key.key_id,
            tenant=record.key.tenant,
            now_ms=now_ms,
            load=self._with.load,
            held=own.levels,
            feedback=None,
            violations=sum(one.source == VIOLATION for one in own.evidence.values()),
            findings=findings,
        )
        if self._has_sensors:
            record.observation = observation
        return add_readings(own, sensors.read(observation), policy.signals)

    def _screen_again(
        self,
        record: CallRecord,
        before: Screened,
        again: Screened,
        subjects: Sequence[Subject],
        policy: Policy,
        now_ms: int,
    ) -> Screened:
        """Take in what the stricter preset finds that the first findings brought about."""
        known = {(one.point, one.rule) for one in before.violations}
        new = [one for one in again.violations if (one.point, one.rule) not in known]
        # Found together counts once, by the gravest: only what is graver than before raises anything.
        worst = max((SEVERITIES.index(one.severity) for one in before.violations), default=-1)
        graver = [one for one in new if SEVERITIES.index(one.severity) > worst]
        self._raise(record, graver, subjects, policy, now_ms)
        self._note(record, [one for one in new if one not in graver])
        return Screened(
            again.findings, again.edits, [*before.violations, *new], before.denial or again.denial, again.notes
        )

    def _raise(
        self,
        record: CallRecord,
        violations: Sequence[Violation],
        subjects: Sequence[Subject],
        policy: Policy,
        now_ms: int,
    ) -> None:
        """Tighten at once, and keep the incidents for the next record."""
        if not violations:
            return
        tools = self._with
        if tools.is_shadow:
            marked = [msgspec.structs.replace(one, details={**one.details, "mode": "shadow"}) for one in violations]
            self._note(record, marked)
        else:
            self._note(record, violations, tighten(tools.state, policy, subjects, violations, record.key, now_ms))

    def _note(self, record: CallRecord, violations: Sequence[Violation], raised: Sequence[Raised] = ()) -> None:
        """Keep incidents, with what they have raised, for the call's next record."""
        rows = self._with.incidents.make_rows(
            violations, raised, record.audit_id, record.key, record.session, record.user
        )
        record.note_violations(violations, rows)

    def _make_guard(
        self,
        record: CallRecord,
        call: Call,
        decision: Decision,
        policy: Policy,
        subjects: Sequence[Subject],
        allows: Allowlist,
        stripped: Stripped,
    ) -> CallGuard:
        tools = self._with
        preset = tools.pick_preset(policy.styles[decision.style].moderation)

        # What only classifies quotes what it was asked about; nobody has violated anything by that.
        only_classifies = call.dialect == "moderations"

        loop, home = asyncio.get_running_loop(), threading.get_ident()

        def raise_one(violation: Violation) -> None:
            # The policy may have changed since; what it does with violations is then the new one's to say.
            self._raise(record, [violation], subjects, tools.policies.policy, tools.clock.now_ms())

        def on_violation(violation: Violation) -> None:
            if only_classifies:
                return
            if threading.get_ident() == home:
                raise_one(violation)
            else:
                # A large answer is judged on a thread. State is the loop's, which does this before it takes the result.
                loop.call_soon_threadsafe(raise_one, violation)

        scope = ToolScope(
            allows.allows_function,
            allows.allows_hosted,
            tools.registry.bind(stripped.kept_functions),
            is_open=call.body.get("prompt") is not None and call.dialect == "responses",
        )
        return CallGuard(
            tools.guard_rules(preset),
            scope,
            on_violation=on_violation,
            admits_media=tools.settings.on_unmoderated == "record",
            is_observing=tools.is_shadow or only_classifies,
            is_stream=call.stream,
            keeps_text=tools.moderator is not None,
        )

    def _budget(
        self, record: CallRecord, call: Call, applied: Applied, written: dict[str, Any]
    ) -> tuple[dict[str, Any], bool]:
        """Hold the answer to what its reservation leaves, and see to it that its usage is reported."""
        body = applied.body
        reservation = record.reservation
        if reservation is None:
            return body, False
        if reservation.output_cap is not None:
            changed = limit_output(
                body, call.dialect, self._with.capabilities.find(call.model), reservation.output_cap // call.choices
            )
            written |= changed
            body = {**body, **changed}
        if not reservation.counts_tokens or not call.stream or call.dialect != "chat":
            return body, False
        options: Any = body.get("stream_options")
        known = cast("dict[str, Any]", options) if isinstance(options, dict) else {}
        if known.get("include_usage") is True:
            return body, False
        return {**body, "stream_options": {**known, "include_usage": True}}, True

    def _describe(
        self,
        record: CallRecord,
        call: Call,
        decision: Decision,
        certificate: str | None,
        sensed: Sensed,
        caller: Mapping[str, Any],
        offered: Sequence[str],
    ) -> dict[str, Any]:
        self._with.metrics.decisions.add(decision.safety_mode)
        document: dict[str, Any] = {
            "mode": "shadow" if self._with.is_shadow else "enforce",
            "dialect": call.dialect,
            "model": redact_text(call.model),
            "stream": call.stream,
            "inputs": {
                "levels": decision.levels,
                "evidence": sensed.evidence,
                "caller": caller,
                "tools": [redact_text(name) for name in offered],
            },
            "policy": decision.policy,
            "parameters": decision.parameters,
            "style": decision.style,
            "touched": decision.touched,
            "trace": decision.trace,
        }
        if certificate is not None:
            document["certificate"] = certificate
        return document

    def _answer_headers(
        self, record: CallRecord, decision: Decision, policy: Policy, stripped: Stripped
    ) -> list[tuple[bytes, bytes]]:
        if self._with.is_shadow:
            # An application that follows these headers must not act on what was only thought.
            defaults = policy.defaults
            parameters, mode = dict(defaults), str(defaults["safety_mode"])
        else:
            parameters, mode = decision.parameters, decision.safety_mode
        headers = [
            (b"x-lukhas-audit-id", record.audit_id.encode()),
            (b"x-lukhas-policy", decision.policy.encode()),
            (b"x-lukhas-mode", b"shadow" if self._with.is_shadow else b"enforce"),
            (b"x-lukhas-safety-mode", mode.encode()),
            (b"x-lukhas-parameters", orjson.dumps(parameters)),
        ]
        if stripped.removed and not self._with.is_shadow:
            headers.append((b"x-lukhas-tools-stripped", join_names(stripped.removed)))
        return [*headers, *list_incidents(record, is_shadow=self._with.is_shadow)]


def list_incidents(record: CallRecord, *, is_shadow: bool) -> list[tuple[bytes, bytes]]:
    """Return the header that names a call's incidents so far; none where there is none."""
    if not record.incidents or is_shadow:
        return []
    return [(INCIDENTS, ", ".join(record.incidents[:_MOST_NAMED]).encode())]


def _forced(refused: PolicyDenied) -> Violation:
    return Violation(make_id("inc"), "advertise", "tool", "forced", "low", "block")


def _settled(settled: Settled) -> Violation:
    return Violation(make_id("inc"), "result", "tool", "not_allowed", "medium", "block", tool=redact_text(settled.name))


def _list_fresh(call: Call, settled: Sequence[Settled], known: Sequence[str]) -> list[Settled]:
    """Return those results that the caller has just added: an old one in the history was an incident before."""
    if not settled:
        return []
    items: Any = call.body.get("messages" if call.dialect == "chat" else "input")
    fresh: set[Any] = set()
    for item in reversed(cast("list[Any]", items) if isinstance(items, list) else []):
        entry = cast("dict[str, Any]", item) if isinstance(item, dict) else {}
        is_result = entry.get("role") in ("tool", "function") or str(entry.get("type", "")).endswith("_output")
        if not is_result:
            break
        fresh.add(entry.get("tool_call_id") or entry.get("call_id") or entry.get("name"))
    return [one for one in settled if (one.call_id or one.name) in fresh and one.call_id not in known]
