"""The streaming guard where much text comes at once: the same verdict, without looking at each place."""

from __future__ import annotations

import random

import pytest
from holdback_oracle import LETTERS, judge, judge_hold, make_narrow_rules, make_rule, make_rules

from lukhas.moderation.holdback import Holdback, StreamPlan
from lukhas.moderation.rule import Finding
from lukhas.moderation.rule_reader import load_rules

FILLER = "The heron stands still, and waits; 12 storks (or more) fly by at 7:45. "
PLANTED = (
    "sk-proj-Zx81kQm2Lr94TfBw7uYn",
    "https://bird:wader-9x@nest.example/a",
    "AKIAQ3EGRTZY5NMB2KLD",
    "glpat-Zx81kQm2Lr94TfBw7uYn",
)


def test_holdback_far_agrees_with_whole_scan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random rules over random texts and cuts, every piece taken as a long one."""
    monkeypatch.setattr("lukhas.moderation.holdback.FAR_CHARS", 1)
    chance = random.Random(11)
    count = 0
    while count < 2_000:
        rules = make_rules(chance)
        if rules:
            text = "".join(chance.choices(LETTERS, weights=(5, 5, 1, 1, 4, 2, 1, 1, 1), k=chance.randint(1, 12)))
            count += judge(rules, text, [(), range(1, len(text)), *((place,) for place in range(1, len(text)))])


def test_holdback_far_holds_exactly_what_can_still_match(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long pieces hold back no more than short ones."""
    monkeypatch.setattr("lukhas.moderation.holdback.FAR_CHARS", 1)
    chance = random.Random(12)
    for _ in range(30):
        judge_hold(make_narrow_rules(chance), "".join(chance.choices("ab1", k=8)))


def test_packaged_rules_find_the_same_however_long_the_pieces_are() -> None:
    """200,000 characters with matches in them: whole, in long pieces and in short ones."""
    profile = load_rules().profile("standard", "output")
    plan = StreamPlan(profile.rules)
    chance = random.Random(13)
    parts: list[str] = []
    for number in range(40):
        parts += (
            FILLER * chance.randint(1, 130),
            "x" * chance.randint(0, 40),
            " ",
            PLANTED[number % len(PLANTED)],
            " ",
        )
    text = "".join(parts)
    whole = profile.scan(text)
    assert len(whole) >= 40
    expected = (profile.redact(text, whole), {(one.rule, one.start, one.end) for one in whole})
    for size in (len(text), 30_000, 5_000, 300):
        found: list[Finding] = []
        guard = Holdback(plan, found.append)
        shown = "".join(guard.feed(text[start : start + size]) for start in range(0, len(text), size)) + guard.finish()
        assert (shown, {(one.rule, one.start, one.end) for one in found}) == expected, size


def test_rules_that_look_far_back_agree_with_whole_scan() -> None:
    """What stands before a match may have been released many pieces ago, and still counts."""
    rules = [
        make_rule("r0", "(?<=1[ab]{0,30}-)[ab]{2,3}", "redact"),
        make_rule("r1", "(?i)(?<=(?:1a|1b) {1,200}-)b{1,2}(?=[ ]|$)", "redact", category="d"),
        make_rule("r2", "(?<![ab]1)-a{2}+", "block"),
        make_rule("r3", "(?<=1[ab ]{0,9}-)b[ab]", "tighten"),
    ]
    chance = random.Random(14)
    for size in (12, 40, 300, 5_000):
        for count in range(4, 0, -1):
            text = "".join(chance.choices("ab1 -", weights=(4, 4, 2, 4, 3), k=size))
            cuts = [(), range(1, size), *(sorted(chance.sample(range(1, size), 6)) for _ in range(4))]
            judge(rules[:count], text, cuts)
    judge(rules, "1a" + " " * 180 + "-b", [(), range(1, 184), (3,), (182,), (183,)])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        pytest.param("postgres://app:s3cretPw@db.local/x", "postgres://[redacted:secret]@db.local/x", id="url"),
        pytest.param("db_password = 'hunter2-and-9'", "db_password = '[redacted:secret]'", id="assignment"),
        pytest.param("export DB_PASSWORD=hunter2-and-9", "export DB_PASSWORD=[redacted:secret]", id="environment"),
    ],
)
def test_packaged_rule_leaves_what_stands_around_a_secret(text: str, shown: str) -> None:
    """The reader sees what was there, streamed character by character after much else, as in one go."""
    profile = load_rules().profile("standard", "output")
    filler = FILLER * 4
    assert profile.redact(filler + text, profile.scan(filler + text)) == filler + shown
    guard = Holdback(StreamPlan(profile.rules), lambda _: None)
    assert "".join(map(guard.feed, filler + text)) + guard.finish() == filler + shown
