"""Plays recorded decisions again: each by its own revision, to check it, and by the candidate, to compare."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from lukhas.errors import RequestError
from lukhas.modulation.decision import Decision
from lukhas.modulation.dispatcher import Dispatcher
from lukhas.modulation.policy import SAFETY_MODE, TOOLS, Policy
from lukhas.replay.check import Expected, compare, encode_decision, is_cut
from lukhas.replay.likeness import find_differing_signals
from lukhas.replay.recorded import Body, Row, decode_values
from lukhas.replay.tally import (
    MOST_EXAMPLES,
    MOST_LABELS,
    Example,
    Tally,
    add_change,
    add_count,
    make_tally,
)
from lukhas.replay.tool_verdict import Offer, ToolJudge

_MOST_KEPT: Final = 8_192
_NAMES: Final = msgspec.json.Decoder(list[str])
_Before = tuple[dict[str, Any], str, list[str]]
_Key = tuple[str, bytes, bytes, bytes, bytes]


@dataclass(slots=True)
class _Outcome:
    """What equal inputs under one revision gave and would give; counted, and tallied once.

    Attributes:
        expected: None where the revision is not known, or does not decide these inputs.
        before: the parameters as recorded.
        after: None where the candidate does not decide these inputs, and then `refusal` says why.
        parts: what differs between before and after.
        undeclared: signals that the candidate does not declare, so that it never saw them.
        calls: how many recorded calls had these inputs.
    """

    expected: Expected | None
    before: dict[str, Any]
    before_style: str
    before_touched: list[str]
    after: Decision | None
    parts: list[str]
    undeclared: list[str]
    refusal: str
    calls: int = 0


class Player:
    """Plays rows and tallies what differs. One per thread or process.

    Args:
        candidate: the policy that is tried.
        revisions: the policies that may have decided, by id.
    """

    def __init__(self, candidate: Policy, revisions: dict[str, Policy]) -> None:
        self._candidate = candidate
        self._dispatcher = Dispatcher(candidate)
        self._dispatchers = {name: Dispatcher(policy) for name, policy in revisions.items()}
        self._differing = {name: find_differing_signals(policy, candidate) for name, policy in revisions.items()}
        self._policies = revisions
        self._judge = ToolJudge(candidate, revisions)
        self._kept: dict[_Key, _Outcome] = {}
        self._tally = self._make_tally()

    def play(self, rows: Iterable[Row]) -> Tally:
        """Play rows; equal inputs under one revision are decided once and counted."""
        tally = self._tally = self._make_tally()
        for row in rows:
            tally.read += 1
            if not row.is_whole:
                self._note_mismatch(row, ["hash"])
            elif row.body is None:
                tally.unreadable += 1
            else:
                self._play_one(row, row.body)
        self._settle()
        return tally

    def _play_one(self, row: Row, body: Body) -> None:
        inputs = body.inputs
        is_known = body.policy in self._dispatchers
        # Of a revision that is not known nothing says what equal inputs gave.
        parameters = b"" if is_known else bytes(body.parameters)
        key = (body.policy, bytes(inputs.levels), bytes(inputs.caller), bytes(inputs.nudges), parameters)
        found = self._kept.get(key)
        if found is None:
            try:
                found = self._decide(body)
            except (msgspec.MsgspecError, TypeError, ValueError, AttributeError):
                # Inputs that nothing can be decided by: of a known revision, no decision was made of them.
                if is_known:
                    self._note_mismatch(row, ["inputs"])
                else:
                    self._tally.unreadable += 1
                return
            if len(self._kept) >= _MOST_KEPT:
                self._settle()
            self._kept[key] = found
        if self._check(row, body, found, is_known):
            # Its values are not those of its inputs, so they are compared by themselves.
            try:
                alone = _compare(_read_before(body), found)
            except msgspec.MsgspecError:
                return
            alone.calls = 1
            self._count_call(row, body, alone)
            self._fold(alone)
            return
        found.calls += 1
        self._count_call(row, body, found)

    def _decide(self, body: Body) -> _Outcome:
        levels = cast("dict[str, float]", msgspec.json.decode(body.inputs.levels))
        caller = decode_values(body.inputs.caller)
        nudges = cast("dict[str, float] | None", msgspec.json.decode(body.inputs.nudges))
        own = self._dispatchers.get(body.policy)
        known = {name: level for name, level in levels.items() if name in self._candidate.signals}
        undeclared = [name for name in levels if name not in known]
        made, after, refusal = None, None, ""
        if own is not None:
            try:
                made = own.decide(levels, caller=caller, nudges=nudges)
            except RequestError:
                made = None  # a record that its own revision would have refused is no record of it
        differing = self._differing.get(body.policy)
        if made is not None and differing is not None and differing.isdisjoint(levels):
            after = made
        else:
            try:
                after = self._dispatcher.decide(known, caller=caller, nudges=nudges)
            except RequestError as refused:
                refusal = refused.message
        expected = None if made is None else encode_decision(made)
        found = _Outcome(expected, {}, "", [], after, [], undeclared, refusal)
        if made is not None:
            # What the revision decides, and not the first record of it, which may be the one that was tampered with.
            return _compare((made.parameters, made.style, made.touched), found)
        return _compare(_read_before(body), found)

    def _check(self, row: Row, body: Body, found: _Outcome, is_known: bool) -> bool:
        """Check a record against its own revision; return whether it differs."""
        tally = self._tally
        if not is_known:
            add_count(tally.unknown, body.policy, 1)
            return False
        wrong = ["inputs"] if found.expected is None else compare(body, found.expected)
        if wrong and is_cut(body):
            tally.cut += 1
            return True
        tally.checked += 1
        if wrong:
            self._note_mismatch(row, wrong)
        return bool(wrong)

    def _count_call(self, row: Row, body: Body, found: _Outcome) -> None:
        tally, after = self._tally, found.after
        if after is None:
            add_count(tally.refused, found.refusal, 1)
            return
        for name in found.undeclared:
            add_count(tally.undeclared, name, 1)
        tally.simulated += 1
        parts = found.parts
        if body.inputs.tools:
            parts = parts + self._count_tools(body, found, after)
        if parts:
            tally.changed += 1
            if len(tally.examples) < MOST_EXAMPLES:
                tally.examples.append(Example(row.audit_id, parts))

    def _count_tools(self, body: Body, found: _Outcome, after: Decision) -> list[str]:
        tools = tuple(name for name in body.inputs.tools if isinstance(name, str))
        allowlist: Any = found.before.get(TOOLS, [])
        stripped = tuple(name for name in body.stripped if isinstance(name, str))
        is_denied = body.denied is not None
        verdict = self._judge.judge(
            Offer(tools, stripped, is_denied, body.policy, tuple(allowlist), tuple(after.parameters[TOOLS]))
        )
        tally = self._tally
        tally.calls_with_tools += 1
        for name in verdict.blocked:
            add_count(tally.tools_blocked, name, 1)
        for name in verdict.allowed:
            add_count(tally.tools_allowed, name, 1)
        return ["tool calls"] if verdict.blocked or verdict.allowed else []

    def _settle(self) -> None:
        for found in self._kept.values():
            if found.calls:
                self._fold(found)
        self._kept.clear()

    def _fold(self, found: _Outcome) -> None:
        after = found.after
        if after is None:
            return
        tally, count = self._tally, found.calls
        for name, spec in self._candidate.parameters.items():
            if name in found.before:
                add_change(tally, spec, found.before[name], after.parameters[name], count)
        if found.before_touched != after.touched:
            touched_before, touched_after = set(found.before_touched), set(after.touched)
            for name in touched_after - touched_before:
                tally.changes[name].newly_set += count
            for name in touched_before - touched_after:
                if name in tally.changes:
                    tally.changes[name].no_longer_set += count
        if found.before_style != after.style:
            add_count(tally.styles, (found.before_style, after.style), count)
        mode = str(found.before.get(SAFETY_MODE))
        if mode != after.safety_mode:
            add_count(tally.modes, (mode, after.safety_mode), count)

    def _note_mismatch(self, row: Row, parts: list[str]) -> None:
        tally = self._tally
        tally.mismatch_count += 1
        if len(tally.mismatches) < MOST_LABELS:
            tally.mismatches.append((row.index, row.audit_id, parts))

    def _make_tally(self) -> Tally:
        return make_tally(self._candidate, self._policies.values())


def _read_before(body: Body) -> _Before:
    return decode_values(body.parameters) or {}, body.style, _NAMES.decode(body.touched)


def _compare(before: _Before, found: _Outcome) -> _Outcome:
    """Return the outcome with what was decided before, and which parts of it would be others."""
    parameters, style, touched = before
    after = found.after
    parts: list[str] = []
    if after is not None and after.parameters is not parameters:
        parts = [n for n, value in after.parameters.items() if n in parameters and parameters[n] != value]
        if touched != after.touched:
            parts += [n for n in sorted({*touched} ^ {*after.touched}) if n not in parts]
        if after.style != style:
            parts.append("style")
    return _Outcome(found.expected, parameters, style, touched, after, parts, found.undeclared, found.refusal)
