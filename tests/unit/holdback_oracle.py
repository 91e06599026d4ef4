"""Judges the streaming guard: random rules and texts, and what a scan of the whole text says of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Sequence

from lukhas.errors import ConfigurationError
from lukhas.moderation.holdback import Holdback, StreamPlan
from lukhas.moderation.pattern import WrongPattern, compile_rule
from lukhas.moderation.rule import Action, Finding, Rule
from lukhas.moderation.ruleset import CompiledRule

ALPHABET = "ab1 \n-"
LETTERS = "abAB1 -\nß"
FLAT = ("a", "b", "1", "-", "ab", "ba", "[ab]", "[^a]", ".", r"\w", r"\d", r"\s", " ", "[a-]", r"\W")
COUNTS = ("", "", "", "?", "{1,3}", "{0,2}", "{2}", "{2,4}", "??", "{1,3}?", "{0,2}?", "{1,3}+", "?+")
NARROW = ("a", "b", "1", "ab", "ba", "[ab]", "[^a]", ".", r"\w", r"\d", "[b1]")
MOST_AHEAD = 6
EDGES = (r"\b", r"\B", "^", "$", r"\Z", r"\A", "(?m:a)")
AROUND = ("(?=%s)", "(?!%s)", "(?<=%s)", "(?<!%s)")


def make_rule(
    name: str, pattern: str, action: Action, *, category: str = "c", ignore_case: bool = False, longest: int = 0
) -> CompiledRule:
    """Compile one rule as the packaged ones are."""
    rule = Rule(name, category, "high", pattern=pattern, ignore_case=ignore_case, longest_chars=longest)
    return CompiledRule(compile_rule(rule), action)


def make_pattern(chance: random.Random, *, flat: bool, depth: int = 2) -> str:
    """Write a random pattern that is bounded; a flat one looks at nothing beside its match."""
    parts: list[str] = []
    for _ in range(chance.randint(1, 3)):
        kind = chance.random()
        if depth and kind < 0.3:
            inner = make_pattern(chance, flat=flat, depth=depth - 1)
            other = make_pattern(chance, flat=flat, depth=depth - 1)
            form = chance.choice(("(?:%s|%s)", "(?:%s|%s)", "(%s|%s)", "(?:%s%s)") + (() if flat else ("(?>%s|%s)",)))
            parts.append(form % (inner, other) + chance.choice(COUNTS if not flat else COUNTS[:11]))
        elif not flat and kind < 0.42:
            parts.append(chance.choice(EDGES))
        elif not flat and kind < 0.52:
            parts.append(chance.choice(AROUND) % make_pattern(chance, flat=True, depth=0))
        elif not flat and kind < 0.55 and "(a" in "".join(parts):
            parts.append(r"\1")
        else:
            parts.append(chance.choice(FLAT) + ("" if depth == 0 else chance.choice(COUNTS[:10] if flat else COUNTS)))
    return "".join(parts)


def make_narrow_rules(chance: random.Random) -> list[CompiledRule]:
    """Compile rules whose every match can be completed within six characters, all of them from `ab1`."""
    rules: list[CompiledRule] = []
    while not rules:
        for number in range(chance.randint(1, 3)):
            parts = [chance.choice(NARROW) + chance.choice(COUNTS) for _ in range(chance.randint(1, 3))]
            if chance.random() < 0.5:
                parts = [f"(?:{parts[0]}|{chance.choice(NARROW)}{chance.choice(NARROW)})", *parts[1:]]
            try:
                rule = make_rule(f"r{number}", "".join(parts), chance.choice(("block", "redact", "record")))
            except WrongPattern:
                continue
            if rule.longest_chars <= MOST_AHEAD:
                rules.append(rule)
    return rules


def make_rules(chance: random.Random, *, flat: bool = False) -> list[CompiledRule]:
    """Compile one to four random rules; those that the compiler or the plan refuses are left out."""
    actions: Sequence[Action] = ("block", "redact", "redact", "tighten", "record")
    rules: list[CompiledRule] = []
    for number in range(chance.randint(1, 4)):
        try:
            rule = make_rule(
                f"r{number}",
                make_pattern(chance, flat=flat),
                chance.choice(actions),
                category=chance.choice("cd"),
                ignore_case=chance.random() < 0.3,
            )
            StreamPlan([rule])
        except (WrongPattern, ConfigurationError):
            continue
        rules.append(rule)
    return rules


def scan(rules: Iterable[CompiledRule], text: str) -> list[Finding]:
    """Find each rule's matches in a whole text, each rule by itself, in order."""
    found: list[Finding] = []
    for compiled in rules:
        rule = compiled.rule
        for match in compiled.pattern.finditer(text):
            start, end = match.span()
            if end > start and compiled.passes(match):
                end = min(end, start + compiled.longest_chars) if compiled.is_cut else end
                found.append(Finding(rule.id, rule.category, rule.severity, compiled.action, start, end))
    return sorted(found, key=lambda finding: (finding.start, finding.end, finding.rule))


def first_block(findings: Iterable[Finding]) -> Finding | None:
    """Return the finding that ends a run."""
    return next((finding for finding in findings if finding.action == "block"), None)


def expect(text: str, findings: Sequence[Finding]) -> str:
    """Return what may be released of a whole text."""
    block = first_block(findings)
    end = block.start if block else len(text)
    released: list[str] = []
    done = 0
    spans: list[tuple[int, int, str]] = []
    for finding in findings:
        if finding.action == "redact" and finding.start < end:
            if spans and finding.start < spans[-1][1]:
                spans[-1] = (spans[-1][0], max(spans[-1][1], finding.end), spans[-1][2])
            else:
                spans.append((finding.start, finding.end, finding.category))
    for start, stop, category in spans:
        released += (text[done:start], f"[redacted:{category}]")
        done = min(stop, end)
    return "".join((*released, text[done:end]))


def run(plan: StreamPlan, text: str, cuts: Sequence[int]) -> tuple[str, list[Finding], bool]:
    """Stream a text cut at some places."""
    findings: list[Finding] = []
    guard = Holdback(plan, findings.append)
    released = [guard.feed(text[low:high]) for low, high in itertools.pairwise((0, *cuts, len(text)))]
    released.append(guard.finish())
    return "".join(released), sorted(findings, key=lambda f: (f.start, f.end, f.rule)), guard.is_blocked


def judge(rules: Sequence[CompiledRule], text: str, all_cuts: Iterable[Sequence[int]]) -> int:
    """Compare streaming with the whole text's scan for several ways of cutting; return how many.

    Raises:
        AssertionError: with the rules, the text and the cuts.
    """
    # Random patterns can be slow in the extreme; what is judged here is the verdict, not the time it takes.
    plan = StreamPlan(rules, timeout_s=20)
    whole = scan(rules, text)
    block = first_block(whole)
    released = expect(text, whole)
    if block is not None:
        strict = [f for f in whole if f.action == "redact" and f.start < block.start] + [block]
    else:
        strict = whole
    told: list[Finding] | None = None
    count = 0
    for cuts in all_cuts:
        context = (text, list(cuts), [(r.rule.id, r.rule.pattern, r.rule.ignore_case, r.action) for r in rules])
        got, findings, is_blocked = run(plan, text, cuts)
        assert got == released, (got, released, context)
        assert is_blocked == (block is not None), context
        judged = findings if block is None else [f for f in findings if f.action in ("redact", "block")]
        assert sorted(judged, key=str) == sorted(strict, key=str), (findings, whole, context)
        if block is not None:
            # What only reports is told where its text was released; what lies there and is sure is never left out.
            assert all(f.end <= block.start for f in findings if f.action in ("record", "tighten")), context
            assert told is None or findings == told, (findings, told, context)
            told = findings
        count += 1
    return count


def judge_hold(rules: Sequence[CompiledRule], text: str) -> int:
    """Compare, after each character, what is held with what each text to come could still make of it.

    The texts to come are all those over `ab1` that are long enough for the rules' longest match.
    """
    depth = max(rule.longest_chars for rule in rules)
    plan = StreamPlan(rules)
    watched = [rule for rule in rules if rule.action in ("block", "redact")]
    guard = Holdback(plan, lambda _: None)
    ends = ["".join(end) for size in range(depth + 1) for end in itertools.product("ab1", repeat=size)]
    for place, character in enumerate(text, 1):
        guard.feed(character)
        if guard.is_blocked:
            return place
        futures = [{(f.start, f.end, f.rule) for f in scan(watched, text[:place] + end)} for end in ends]
        sure = set[tuple[int, int, str]].intersection(*futures)
        open_ = set[tuple[int, int, str]].union(*futures) - sure
        needed = min((start for start, _, _ in open_), default=place)
        merged: list[tuple[int, int]] = []
        for start, end, _ in sorted(sure):
            if merged and start < merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        for start, end in merged:
            if start < needed < end:
                needed = start
        released = guard._base + len(guard._node.held) - guard._node.size
        context = (text[:place], released, needed, [(r.rule.pattern, r.rule.ignore_case, r.action) for r in rules])
        assert released == needed, context
    return len(text)
