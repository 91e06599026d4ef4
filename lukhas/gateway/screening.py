"""Moderates what a request brings: every text that the model would read, at the points input and tool result (I3)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, Literal, cast

import msgspec

from lukhas.audit.redaction import redact_text
from lukhas.errors import LukhasError, ModerationDenied
from lukhas.gateway.violation import Violation
from lukhas.ids import make_id
from lukhas.moderation.moderator import Verdict
from lukhas.moderation.rule import Finding, Preset
from lukhas.moderation.ruleset import RuleSet
from lukhas.openai.call import Call, Path, Text

_MOST_FINDINGS: Final = 200
# What only classifies generates nothing: refusing to judge a text because of what it says would help nobody.
_NEVER_BLOCKED: Final = frozenset(("moderations",))


class Screened(msgspec.Struct):
    """What moderation found in one request.

    Attributes:
        findings: every match of a rule, each with the path of its text.
        edits: redacted texts by their path in the body.
        violations: what blocks or tightens, one for each rule and point.
        denial: why the call may not go on; None where it may.
        notes: further facts for the record.
    """

    findings: list[tuple[Text, Finding]] = []
    edits: dict[Path, str] = {}
    violations: list[Violation] = []
    denial: LukhasError | None = None
    notes: dict[str, Any] = {}

    def describe(self, preset: str, rules: str) -> dict[str, Any]:
        """Return what the record says of it, as plain JSON. Holds none of the texts."""
        document: dict[str, Any] = {"preset": preset, "rules": rules, **self.notes}
        if self.findings:
            document["findings"] = [
                {
                    "rule": finding.rule,
                    "category": finding.category,
                    "severity": finding.severity,
                    "action": finding.action,
                    "point": text.point,
                    "place": _format_path(text.path),
                    "start": finding.start,
                    "end": finding.end,
                }
                for text, finding in self.findings[:_MOST_FINDINGS]
            ]
            if len(self.findings) > _MOST_FINDINGS:
                document["more_findings"] = len(self.findings) - _MOST_FINDINGS
        return document


_CLEAN: Final = Screened()


def screen(call: Call, rules: RuleSet, preset: Preset) -> Screened:
    """Run the rules over every text of a request.

    Texts of one group are also read as one, so that a match split over two parts of a message is found.

    Raises:
        ModerationUnavailable: a rule took too long; nothing passes unread.
    """
    screened: Screened | None = None
    texts = call.texts
    group, begin = -1, 0
    for position, text in enumerate(texts):
        found = rules.profile(preset, text.point).scan(text.text)
        if found:
            screened = screened or Screened([], {}, [], None, {})
            _take(screened, text, found, rules, preset)
        if text.group != group:
            group, begin = text.group, position
        elif position + 1 == len(texts) or texts[position + 1].group != group:
            screened = _screen_joined(screened, texts[begin : position + 1], rules, preset)
    if screened is None:
        return _CLEAN
    _judge(screened, call)
    return screened


def _take(screened: Screened, text: Text, found: Sequence[Finding], rules: RuleSet, preset: Preset) -> None:
    screened.findings += [(text, finding) for finding in found]
    if any(finding.action == "redact" for finding in found):
        screened.edits[text.path] = rules.profile(preset, text.point).redact(text.text, found)


def _screen_joined(screened: Screened | None, parts: Sequence[Text], rules: RuleSet, preset: Preset) -> Screened | None:
    """Find what only shows where the parts of a message are joined."""
    ends = list(accumulate(len(part.text) for part in parts))
    for finding in rules.profile(preset, parts[0].point).scan("".join(part.text for part in parts)):
        place = bisect_right(ends, finding.start)
        if place < len(ends) and finding.end > ends[place]:
            screened = screened or Screened([], {}, [], None, {})
            # Its parts cannot be told apart from the rest once they are redacted one by one.
            action: Any = "block" if finding.action == "redact" else finding.action
            screened.findings.append((parts[place], msgspec.structs.replace(finding, action=action)))
    return screened


def _judge(screened: Screened, call: Call) -> None:
    if call.dialect in _NEVER_BLOCKED:
        return
    seen: set[tuple[str, str]] = set()
    for text, finding in screened.findings:
        if finding.action not in ("block", "tighten") or (text.point, finding.rule) in seen:
            continue
        seen.add((text.point, finding.rule))
        action: Literal["block", "tighten"] = "block" if finding.action == "block" else "tighten"
        screened.violations.append(
            Violation(
                make_id("inc"),
                text.point,
                finding.category,
                finding.rule,
                finding.severity,
                action,
                details={"place": _format_path(text.path)},
            )
        )
    screened.denial = _deny(screened.violations)


def add_verdicts(screened: Screened, texts: Sequence[Text], verdicts: Sequence[Verdict], moderator: str) -> Screened:
    """Take a moderator's verdicts in beside what the rules found; the given value is not changed."""
    flagged = [(text, verdict) for text, verdict in zip(texts, verdicts, strict=True) if verdict.is_flagged]
    if not flagged:
        return screened
    violations = [
        Violation(
            make_id("inc"),
            text.point,
            "moderator",
            f"{moderator}:{verdict.categories[0][0][:64]}",
            verdict.severity,
            "block",
            details={
                "place": _format_path(text.path),
                "categories": {name[:64]: round(score, 4) for name, score in verdict.categories[:16]},
            },
        )
        for text, verdict in flagged
    ]
    merged = [*screened.violations, *violations]
    return Screened(screened.findings, screened.edits, merged, _deny(merged), screened.notes)


def deny_media(call: Call) -> ModerationDenied:
    """Return the refusal of media that no moderator can read."""
    first = call.media[0]
    if call.dialect == "embeddings":
        return ModerationDenied(
            "The input is a list of token numbers, which no moderator can read.",
            hint="Send text (LangChain: check_embedding_ctx_length=False), or let the gateway's operator set "
            "LUKHAS_ON_UNMODERATED=record.",
            param="input",
        )
    return ModerationDenied(
        f"The request holds media ({first.kind}) that no moderator can read.",
        hint="The gateway's operator may let such media pass, on record: LUKHAS_ON_UNMODERATED=record.",
        param=_format_path(first.path),
    )


def _deny(violations: Iterable[Violation]) -> ModerationDenied | None:
    blocking = [one for one in violations if one.action == "block"]
    if not blocking:
        return None
    first = blocking[0]
    where = {"tool_result": "a tool's result", "instruction": "an instruction"}.get(first.point, "the input")
    place: str | None = cast("str | None", first.details.get("place"))
    return ModerationDenied(
        f"The call was denied: moderation found '{first.category}' in {where}. Incident {first.incident_id}.",
        param=place,
    )


def _format_path(path: Path) -> str:
    # Indices and known names only: a name that a caller chose may be a text of its own.
    parts: list[str] = []
    for step in path[:8]:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        else:
            name = redact_text(step) if step.isascii() and step.replace("_", "").isalnum() and len(step) <= 40 else "?"
            parts.append(f".{name}" if parts else name)
    return "".join(parts)
