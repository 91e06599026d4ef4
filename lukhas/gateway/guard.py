"""Judges one call's answer: text by the rules as it comes, tool calls by allowlist, schema and rules (I3, I4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, cast

import msgspec
import orjson

from lukhas.audit.redaction import redact_text
from lukhas.gateway.violation import Point, Violation
from lukhas.ids import make_id
from lukhas.moderation.holdback import Holdback, StreamPlan
from lukhas.moderation.rule import Finding, Severity
from lukhas.moderation.ruleset import Profile
from lukhas.openai.argument import check_arguments
from lukhas.openai.call import CallVerdict, TextChannel, TextKind, ToolCall, replace_values, walk_strings

# A model that repeats itself would otherwise fill the record with one and the same line.
_MOST_FINDINGS: Final = 200
_LARGEST_ARGUMENTS: Final = 1_000_000


class GuardRules(msgspec.Struct, frozen=True):
    """What an answer is judged by; the same for every call with the same preset and rules.

    Attributes:
        profile: the rules at the point 'output'.
        plan: the same, for streams.
    """

    profile: Profile
    plan: StreamPlan


class ToolScope(msgspec.Struct, frozen=True):
    """Which tools the model may call in this call.

    Attributes:
        allows_function, allows_hosted: whether the allowlist admits a function's name, a hosted tool's type.
        schemas: the JSON Schema of each function that was offered to the model; None for free text.
        is_open: whether tools may come from elsewhere than this request (a stored prompt), so that a call of what was
            not offered is judged by the allowlist alone.
    """

    allows_function: Callable[[str], bool]
    allows_hosted: Callable[[str], bool]
    schemas: Mapping[str, Any]
    is_open: bool = False


class AnswerFindings(msgspec.Struct):
    """What the guard saw, for the outcome's record."""

    findings: list[dict[str, Any]] = []
    dropped: int = 0
    blocked_calls: list[dict[str, Any]] = []
    media: list[str] = []
    moderator_failed: bool = False

    def describe(self) -> dict[str, Any]:
        """Return what is worth recording, as plain JSON; empty where nothing was found."""
        found: dict[str, Any] = {}
        if self.findings:
            found["findings"] = self.findings
        if self.dropped:
            found["more_findings"] = self.dropped
        if self.blocked_calls:
            found["blocked_calls"] = self.blocked_calls
        if self.media:
            found["unmoderated"] = self.media
        if self.moderator_failed:
            found["moderator"] = "failed"
        return found


class CallGuard:
    """The guard of one answer; see `lukhas.openai.call.AnswerGuard`.

    Args:
        on_violation: told at once, so that the next call is already decided strictly (I5).
        is_observing: shadow mode: everything passes unchanged, and is recorded as what it would have been.
        is_stream: whether text comes piece by piece; a plain answer's runs are whole, and read in one go.
        keeps_text: whether released text is kept for a moderator that is asked later.
    """

    def __init__(
        self,
        rules: GuardRules,
        tools: ToolScope,
        *,
        on_violation: Callable[[Violation], None],
        admits_media: bool,
        is_observing: bool,
        is_stream: bool = True,
        keeps_text: bool = False,
    ) -> None:
        self.found = AnswerFindings()
        self._rules = rules
        self._tools = tools
        self._on_violation = on_violation
        self._admits_media = admits_media
        self._is_observing = is_observing
        self._is_stream = is_stream
        self._keeps_text = keeps_text
        self._released: list[tuple[int, str]] = []
        self._runs = 0
        self._refusal = ""
        self._reported: set[tuple[str, str]] = set()

    @property
    def refusal(self) -> str:
        """Why the last thing was blocked, for the caller."""
        return self._refusal

    def open(self, kind: TextKind) -> TextChannel:
        """Open one run of text."""
        channel: TextChannel = (
            Holdback(self._rules.plan, self._take_finding)
            if self._is_stream
            else _Whole(self._rules.profile, self._take_finding)
        )
        if self._is_observing:
            channel = _Observed(channel)
        if not self._keeps_text:
            return channel
        self._runs += 1
        return _Kept(channel, self._released, self._runs)

    def judge(self, call: ToolCall) -> CallVerdict:
        """Judge a tool call by allowlist, schema and rules."""
        reason = self._find_fault(call)
        if reason is not None:
            rule, severity, why = reason
            return self._block_call(call, rule, severity, why)
        arguments, blocking = self._moderate_arguments(call)
        if blocking is not None:
            self._report("call", blocking.category, blocking.rule, blocking.severity, "block", call.name)
            self.found.blocked_calls.append(
                {"tool": redact_text(call.name[:200]), "rule": blocking.rule, **_name_call(call)}
            )
            if not self._is_observing:
                return CallVerdict(False, message=self._refuse_call(call, f"its arguments hold '{blocking.category}'"))
        if self._is_observing:
            arguments = call.arguments
        if self._keeps_text:
            self._runs += 1
            self._released.append((self._runs, arguments))
        return CallVerdict(True, arguments)

    def admit_media(self, kind: str) -> bool:
        """Say whether media that no moderator can read may pass; either way it is recorded."""
        if len(self.found.media) < _MOST_FINDINGS:
            self.found.media.append(kind)
        if self._admits_media or self._is_observing:
            return True
        self._refusal = f"A part of the answer ({kind}) was withheld: no moderator can read it."
        return False

    def take_released(self) -> dict[int, str]:
        """Return what was released since the last time, by run of text, in order."""
        joined: dict[int, str] = {}
        for run, text in self._released:
            joined[run] = joined.get(run, "") + text
        self._released.clear()
        return joined

    def refuse_whole(self, category: str, severity: Severity, rule: str) -> str:
        """Take in that a moderator flagged the answer as a whole; return what the caller is told."""
        self._report("output", category, rule, severity, "block", None)
        return self._refusal

    def _find_fault(self, call: ToolCall) -> tuple[str, Severity, str] | None:
        tools = self._tools
        allows = tools.allows_hosted if call.kind == "hosted" else tools.allows_function
        if not allows(call.name):
            return "not_allowed", "medium", "the policy in force does not allow it"
        if call.kind == "hosted":
            return None
        if call.name not in tools.schemas:
            return None if tools.is_open else ("not_offered", "low", "it was not offered to the model")
        schema = tools.schemas[call.name]
        if schema is None:
            return None
        if call.kind == "custom":
            # Free text where a schema was set would go round it.
            return "arguments", "low", "it takes arguments, not free text"
        if len(call.arguments) > _LARGEST_ARGUMENTS:
            return "arguments", "low", "its arguments are too large"
        fault = check_arguments(schema, call.arguments)
        return None if fault is None else ("arguments", "low", f"its arguments do not fit its schema: {fault}")

    def _block_call(self, call: ToolCall, rule: str, severity: Severity, why: str) -> CallVerdict:
        self.found.blocked_calls.append({"tool": redact_text(call.name[:200]), "rule": rule, **_name_call(call)})
        self._report("call", "tool", rule, severity, "block", call.name)
        if self._is_observing:
            return CallVerdict(True, call.arguments)
        return CallVerdict(False, message=self._refuse_call(call, why))

    def _refuse_call(self, call: ToolCall, why: str) -> str:
        shown = call.name if len(call.name) <= 64 and call.name.isprintable() else "a tool"
        self._refusal = f"The call of '{redact_text(shown)}' was blocked: {why}."
        return self._refusal

    def _moderate_arguments(self, call: ToolCall) -> tuple[str, Finding | None]:
        """Return the arguments with redactions, and the finding that blocks them, if one does."""
        if not call.arguments:
            return call.arguments, None
        if call.kind != "custom":
            try:
                value: Any = orjson.loads(call.arguments)
            except orjson.JSONDecodeError:
                value = None
            if isinstance(value, dict):
                return self._moderate_object(call.arguments, cast("dict[str, Any]", value))
        text, blocking = self._moderate_text(call.arguments)
        return text, blocking

    def _moderate_object(self, arguments: str, value: dict[str, Any]) -> tuple[str, Finding | None]:
        # In JSON a text may be written in many ways, so the rules read what it means, names of members too.
        edits: dict[tuple[str | int, ...], str] = {}
        blocking: Finding | None = None
        for path, text in walk_strings(value, skip=_nothing):
            moderated, blocks = self._moderate_text(text)
            blocking = blocking or blocks
            if moderated is not text:
                edits[path] = moderated
        names = "\n".join(_list_names(value))
        if names:
            moderated, blocks = self._moderate_text(names)
            if moderated is not names:
                blocks = blocks or Finding("redacted", "arguments", "medium", "block", 0, 0)
            blocking = blocking or blocks
        if not edits:
            return arguments, blocking
        return orjson.dumps(replace_values(value, edits)).decode(), blocking

    def _moderate_text(self, text: str) -> tuple[str, Finding | None]:
        profile = self._rules.profile
        found = profile.scan(text)
        if not found:
            return text, None
        blocking: Finding | None = None
        has_redaction = False
        for finding in found:
            if finding.action == "block":
                blocking = blocking or finding
            elif finding.action == "redact":
                has_redaction = True
            self._note(finding)
            if finding.action == "tighten":
                self._report("output", finding.category, finding.rule, finding.severity, "tighten", None)
        return (profile.redact(text, found) if has_redaction else text), blocking

    def _take_finding(self, finding: Finding) -> None:
        self._note(finding)
        if finding.action in ("block", "tighten"):
            action: Literal["block", "tighten"] = "block" if finding.action == "block" else "tighten"
            self._report("output", finding.category, finding.rule, finding.severity, action, None)

    def _note(self, finding: Finding) -> None:
        found = self.found
        if len(found.findings) >= _MOST_FINDINGS:
            found.dropped += 1
            return
        found.findings.append(
            {
                "rule": finding.rule,
                "category": finding.category,
                "severity": finding.severity,
                "action": finding.action,
                "start": finding.start,
                "end": finding.end,
            }
        )

    def _report(
        self,
        point: Point,
        category: str,
        rule: str,
        severity: Severity,
        action: Literal["block", "tighten"],
        tool: str | None,
    ) -> None:
        shown = None if tool is None else redact_text(tool[:200])
        # Once a call: what repeats itself in one answer is one violation, or a loop would saturate its subject's risk.
        if (rule, shown or "") in self._reported:
            return
        self._reported.add((rule, shown or ""))
        incident_id = make_id("inc")
        if action == "block" and tool is None:
            self._refusal = f"The answer was stopped here by policy: {category}. Incident {incident_id}."
        self._on_violation(Violation(incident_id, point, category, rule, severity, action, tool=shown))


class _Whole:
    """A run of text that is all there; it comes out as a stream's would (see `lukhas.moderation.holdback`)."""

    def __init__(self, profile: Profile, on_finding: Callable[[Finding], None]) -> None:
        self.is_blocked = False
        self._profile = profile
        self._on_finding = on_finding
        self._text = ""

    def feed(self, text: str) -> str:
        self._text += text
        return ""

    def finish(self) -> str:
        text, self._text = self._text, ""
        found = self._profile.scan(text)
        if not found:
            return text
        # What stands behind a block is never read.
        stop = min((finding.start for finding in found if finding.action == "block"), default=None)
        for finding in found:
            if stop is None or finding.start <= stop:
                self._on_finding(finding)
        self.is_blocked = stop is not None
        redacting = [finding for finding in found if finding.action == "redact"]
        if stop is None:
            return self._profile.redact(text, redacting) if redacting else text
        return self._profile.redact(text[:stop], [one for one in redacting if one.start < stop])


class _Observed:
    """A channel that lets everything pass; what it finds is only noted."""

    is_blocked = False

    def __init__(self, channel: TextChannel) -> None:
        self._channel = channel

    def feed(self, text: str) -> str:
        if not self._channel.is_blocked:
            self._channel.feed(text)
        return text

    def finish(self) -> str:
        if not self._channel.is_blocked:
            self._channel.finish()
        return ""


class _Kept:
    """A channel that keeps what it released, for a moderator that is asked about whole windows."""

    def __init__(self, channel: TextChannel, released: list[tuple[int, str]], run: int) -> None:
        self._channel = channel
        self._released = released
        self._run = run

    @property
    def is_blocked(self) -> bool:
        return self._channel.is_blocked

    def feed(self, text: str) -> str:
        released = self._channel.feed(text)
        if released:
            self._released.append((self._run, released))
        return released

    def finish(self) -> str:
        released = self._channel.finish()
        if released:
            self._released.append((self._run, released))
        return released


class StoppedGuard:
    """A guard that lets nothing more pass: for an answer that a moderator flagged as a whole."""

    def __init__(self, refusal: str) -> None:
        self.refusal = refusal

    def open(self, kind: TextKind) -> TextChannel:
        """Open a run of text of which nothing is released."""
        return _Stopped()

    def judge(self, call: ToolCall) -> CallVerdict:
        """Block the call."""
        return CallVerdict(False, message=self.refusal)

    def admit_media(self, kind: str) -> bool:
        """Let no media pass."""
        return False


class _Stopped:
    is_blocked = True

    def feed(self, text: str) -> str:
        return ""

    def finish(self) -> str:
        return ""


def _name_call(call: ToolCall) -> dict[str, str]:
    return {} if call.call_id is None else {"call_id": redact_text(call.call_id[:128])}


def _nothing(path: object) -> bool:
    return False


def _list_names(value: Any) -> list[str]:
    names: list[str] = []
    waiting: list[Any] = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            members = cast("dict[str, Any]", one)
            names += members
            waiting += members.values()
        elif isinstance(one, list):
            waiting += cast("list[Any]", one)
    return names
