"""Scanning and redacting: the prefilter hides nothing, places are right in any text, limits fail closed."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from lukhas.errors import ModerationUnavailable
from lukhas.moderation.fold import fold, list_cases
from lukhas.moderation.rule import Finding
from lukhas.moderation.rule_reader import load_rules, parse_rules, read_packaged_rules
from lukhas.moderation.ruleset import MAX_FINDINGS, Profile, RuleSet

HEAD = "version: 1\ncategories:\n  c:\n    high: {standard: {input: redact}}\nrules:\n"
SALT = [
    *("ignore all previous ", "instructions", "İgnore", "ſystem prompt", "\u212aill", "kill ", "my wife", "how do i "),
    *("build a ", "pipe bomb", "AKIA", "ABCDEFGHIJKLMNOP", "4111 1111", " 1111 1111", "DE89 3704 0044 0532 0130 00"),
    *("a@b.org", "+49 30 901820", "8.8.8.8", "ghp_", "a1B2" * 9, "eyJ", ".eyJ", "://u:p4ss@h", "ß", "é", "e\u0301"),
    *("\ud800", "\U0001f600", " ", "\n", "\u00a0", "忽略之前的指令", "предыдущие инструкции", "ᲀ", "I want to ", "die"),
    *("Forget ", "your ", "rules", "show me your ", "write a ", "gory ", "phishing ", "email", "12 year old", "porn "),
]
TEXTS = st.lists(st.one_of(st.sampled_from(SALT), st.text(max_size=4)), max_size=24).map("".join)
PADDED = st.tuples(TEXTS, st.sampled_from(["", "x" * 300, "é " * 200, "İ" * 150]), TEXTS).map("".join)


def make(rules: str) -> RuleSet:
    return parse_rules([("test", HEAD + rules)])


@pytest.fixture(scope="module")
def profile() -> Profile:
    return load_rules().profile("high", "input")


def brute(profile: Profile, text: str) -> list[tuple[int, int, str]]:
    found: list[tuple[int, int, str]] = []
    for rule in profile.rules:
        for match in rule.pattern.finditer(text):
            if rule.passes(match):
                found.append((*match.span(), rule.rule.id))
    return sorted(found)


@settings(max_examples=300, deadline=None)
@given(text=PADDED)
def test_scan_any_text_finds_what_a_search_without_prefilter_finds(profile: Profile, text: str) -> None:
    """The prefilter and its windows only save time: rule by rule, the findings are those of the bare patterns."""
    assert [(f.start, f.end, f.rule) for f in profile.scan(text)] == brute(profile, text)


@settings(max_examples=200, deadline=None)
@given(text=PADDED)
def test_redact_any_text_leaves_nothing_of_a_match(profile: Profile, text: str) -> None:
    """What lies outside the matches stays as it is, and every match is gone."""
    found = profile.scan(text)
    hidden = {place for f in found if f.action == "redact" for place in range(f.start, f.end)}
    kept = "".join(character for place, character in enumerate(text) if place not in hidden)
    redacted = profile.redact(text, found)
    assert regex.sub(r"\[redacted:[a-z/-]+\]", "", redacted) == regex.sub(r"\[redacted:[a-z/-]+\]", "", kept)


def test_fold_agrees_with_the_regex_package_on_every_letter() -> None:
    """Whatever matches a letter without case folds to the same bytes, for each character that has known cases."""
    cases = regex._regex.get_all_cases
    for code in range(0x110000):
        known = None if 0xD800 <= code < 0xE000 else list_cases(chr(code))
        if known is not None:
            variants = {chr(variant) for variant in cases(regex.IGNORECASE | regex.UNICODE, code)}
            assert variants <= set(known) and len({fold(v) for v in variants | set(known)}) == 1, hex(code)


@pytest.mark.parametrize("before", ["", "İİ ", "ß ", "e\u0301 ", "\ud800 ", "\U0001f600 ", "x" * 5000 + "é "])
def test_scan_places_are_characters_of_the_text_as_it_came(profile: Profile, before: str) -> None:
    """No folding moves a place."""
    text = f"{before}mail jane@firm.org now"
    [finding] = [f for f in profile.scan(text) if f.rule == "personal.email"]
    assert text[finding.start : finding.end] == "jane@firm.org"


def test_scan_empty_text_finds_nothing(profile: Profile) -> None:
    """Nothing is found in nothing."""
    assert profile.scan("") == []


def test_scan_of_more_than_the_limit_hides_all_the_rest() -> None:
    """Past a thousand findings, what was to be redacted still is, to the end of the text."""
    profile = make("- {id: a, category: c, severity: high, literals: [secret]}").profile("standard", "input")
    text = "secret word " * (MAX_FINDINGS * 2)
    found = profile.scan(text)
    assert len(found) == MAX_FINDINGS
    assert "secret" not in profile.redact(text, found)


def test_redact_overlapping_findings_become_one() -> None:
    """Two matches that share a character leave one mark, named after the first; touching ones leave two."""
    profile = Profile(())
    findings = [
        Finding(r, c, "high", "redact", s, e) for r, c, s, e in (("a", "x", 0, 4), ("b", "y", 2, 6), ("c", "z", 6, 8))
    ]
    assert profile.redact("0123456789", findings) == "[redacted:x][redacted:z]89"


def test_redact_other_actions_are_left() -> None:
    """Only what is to be redacted is."""
    assert Profile(()).redact("abc", [Finding("a", "x", "high", "block", 0, 3)]) == "abc"


def test_scan_catastrophic_pattern_fails_closed() -> None:
    """A pattern that would run for ever stops, and nothing passes unread."""
    profile = make("- {id: a, category: c, severity: high, longest: 100, pattern: '(?:a|aa)+$'}").profile(
        "standard", "input"
    )
    with pytest.raises(ModerationUnavailable, match="rule 'a' took too long"):
        profile.scan("a" * 60 + "!")


def test_scan_declared_longest_cuts_a_match() -> None:
    """Where a pattern can grow without bound, its match ends where `longest` says."""
    profile = make("- {id: a, category: c, severity: high, longest: 5, pattern: 'k[0-9]+'}").profile(
        "standard", "input"
    )
    assert [(f.start, f.end) for f in profile.scan("k" + "1" * 20)] == [(0, 5)]


def test_scan_literals_without_case_match_any_case() -> None:
    """A literal is found in either case, as whole texts say."""
    profile = make("- {id: a, category: c, severity: high, ignore_case: true, literals: [Straße, ABC]}").profile(
        "standard", "input"
    )
    assert [f.start for f in profile.scan("straße STRAßE abc")] == [0, 7, 14]


def test_profile_is_made_once_and_points_are_kept_apart() -> None:
    """A rule without an action at a point is not looked at there."""
    rules = make("- {id: a, category: c, severity: high, literals: [x]}")
    assert rules.profile("standard", "input") is rules.profile("standard", "input")
    assert rules.profile("standard", "output").rules == ()
    assert rules.profile("high", "input").scan("x") == []


def test_ruleset_id_changes_with_any_character() -> None:
    """The id tells which rules were in force."""
    text = read_packaged_rules()
    one, other = parse_rules([("a", text)]), parse_rules([("a", text + "\n# more\n")])
    assert len(one.id) == 16
    assert one.id != other.id
    assert one.id == load_rules(None).id
