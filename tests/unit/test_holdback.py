"""The streaming guard: what it releases, what it finds, what it refuses."""

from __future__ import annotations

import random

import pytest
from holdback_oracle import LETTERS, judge, judge_hold, make_narrow_rules, make_rule, make_rules, run, scan

from lukhas.errors import ConfigurationError
from lukhas.moderation.holdback import Holdback, StreamPlan
from lukhas.moderation.rule import Finding
from lukhas.moderation.rule_reader import load_rules


def feed_all(plan: StreamPlan, *pieces: str) -> list[str]:
    """Return what each piece releases, and last what the end does."""
    guard = Holdback(plan, lambda _: None)
    return [*map(guard.feed, pieces), guard.finish()]


def test_holdback_random_rules_agrees_with_whole_scan() -> None:
    """Every 2-cut and some multi-cuts of random texts, under random rules, give the whole text's verdict."""
    chance = random.Random(4)
    count = 0
    while count < 6_000:
        rules = make_rules(chance)
        if not rules:
            continue
        text = "".join(chance.choices(LETTERS, weights=(5, 5, 1, 1, 4, 2, 1, 1, 1), k=chance.randint(1, 12)))
        count += judge(rules, text, [(), range(1, len(text)), *((place,) for place in range(1, len(text)))])
        text = "".join(chance.choices("ab1", k=60))
        count += judge(rules, text, [sorted(chance.sample(range(1, 60), 9)) for _ in range(3)])


def test_holdback_long_text_agrees_with_whole_scan() -> None:
    """So do texts longer than the batches in which rules that only report are looked at."""
    chance = random.Random(6)
    for _ in range(40):
        rules = make_rules(chance)
        text = "".join(chance.choices(LETTERS, k=2_600))
        judge(rules, text, [sorted(chance.sample(range(1, 2_600), 40))])


def test_holdback_narrow_rules_holds_exactly_what_can_still_match() -> None:
    """What is held begins at the earliest place at which some text to come completes a match."""
    chance = random.Random(4)
    for _ in range(80):
        judge_hold(make_narrow_rules(chance), "".join(chance.choices("ab1", k=8)))


@pytest.mark.parametrize(
    ("pattern", "pieces", "released"),
    [
        pytest.param("abcX|bc", ("zabc", "d"), ["z", "a[redacted:c]d", ""], id="earliest-alive-start"),
        pytest.param(r"\bfoo\b", ("a foo", "d foo", ""), ["a ", "food ", "", "[redacted:c]"], id="boundary-at-end"),
        pytest.param("a{2,4}", ("aaa", "b"), ["", "[redacted:c]b", ""], id="count-at-end"),
        pytest.param("a(?!b)", ("xa", "bac"), ["x", "ab[redacted:c]c", ""], id="look-ahead"),
        pytest.param("(?<=id )[0-9]{3}", ("id ", "123", "4"), ["id ", "[redacted:c]", "4", ""], id="look-behind"),
        pytest.param("x(?:ab){0,3}", ("xab", "ab"), ["", "", "[redacted:c]"], id="repeat-at-end"),
        pytest.param("a[0-9]*?b", ("ax",), ["ax", ""], id="lazy-is-dead"),
        pytest.param("end$", ("an end", "\n"), ["an ", "", "[redacted:c]\n"], id="line-end"),
    ],
)
def test_feed_text_that_can_become_a_match_is_held(pattern: str, pieces: tuple[str, ...], released: list[str]) -> None:
    """Each piece releases all that no text to come can make part of a match."""
    longest = 8 if "*" in pattern else 0
    assert feed_all(StreamPlan([make_rule("r", pattern, "redact", longest=longest)]), *pieces) == released


def test_feed_after_block_releases_nothing() -> None:
    """Text before the match goes out, and nothing after, not even at the end."""
    found: list[Finding] = []
    guard = Holdback(StreamPlan([make_rule("r", "bad", "block")]), found.append)
    assert [guard.feed("so b"), guard.feed("ad!"), guard.feed("more"), guard.finish(), guard.feed("x")] == [
        "so ",
        *("", "", "", ""),
    ]
    assert guard.is_blocked
    assert [(f.start, f.end, f.action) for f in found] == [(3, 6, "block")]


def test_finish_twice_returns_nothing_more() -> None:
    """The rest is released once."""
    guard = Holdback(StreamPlan([make_rule("r", "bad", "block")]), lambda _: None)
    assert [guard.feed("ab"), guard.finish(), guard.finish()] == ["a", "b", ""]


def test_feed_reporting_rules_hold_nothing_and_are_found() -> None:
    """Rules that only report let all pass at once, and find what was cut in two."""
    plan = StreamPlan([make_rule("r", "bad", "record"), make_rule("s", r"y\Xz", "tighten")])
    assert not plan.withholds
    found: list[Finding] = []
    guard = Holdback(plan, found.append)
    assert [guard.feed("a b"), guard.feed("ad yéz"), guard.finish()] == ["a b", "ad yéz", ""]
    assert sorted((f.rule, f.start, f.end) for f in found) == [("r", 2, 5), ("s", 6, 9)]


@pytest.mark.parametrize(
    ("pattern", "longest"),
    [
        pytest.param(r"a(?=.*b)", 0, id="looks-ahead-without-bound"),
        pytest.param(r"(?<=a{1,})b", 0, id="looks-back-without-bound"),
        pytest.param(r"(?:a\X)", 5, id="cannot-be-followed"),
    ],
)
def test_plan_of_a_rule_that_could_hold_for_ever_is_refused(pattern: str, longest: int) -> None:
    """Such a rule may report, and may not withhold."""
    StreamPlan([make_rule("r", pattern, "record", longest=longest)])
    with pytest.raises(ConfigurationError, match="'r'"):
        StreamPlan([make_rule("r", pattern, "redact", longest=longest)])


def test_feed_pattern_that_takes_too_long_blocks() -> None:
    """A search past its time is reported as what blocked, and nothing of the undecided text goes out."""
    found: list[Finding] = []
    guard = Holdback(StreamPlan([make_rule("r", "x(?:a|aa){1,90}c", "record")], timeout_s=0.01), found.append)
    text = "x" + "a" * 80 + "bc" * 1_200
    assert guard.feed(text) == ""
    assert guard.is_blocked
    assert [f.action for f in found] == ["block"]


def test_cut_rule_never_releases_what_a_scan_finds() -> None:
    """A pattern without bound, cut at a declared length: what a scan would redact is not released."""
    rules = [make_rule("r", "A[a-z]+B?", "redact", longest=6)]
    plan = StreamPlan(rules)
    for text in ("xAabcdefghijB-", "Aab", "AabB.", "AAabcAdefghijklmno"):
        for place in range(len(text)):
            released, _, _ = run(plan, text, [place])
            covered = {at for f in scan(rules, text) for at in range(f.start, f.end)}
            kept = [c for at, c in enumerate(text) if at not in covered]
            left = iter(kept)
            assert all(c in left for c in released.replace("[redacted:c]", "")), (text, place, released)


def test_held_text_stays_bounded() -> None:
    """After a long run, what is kept is a context and a tail, whatever the rules met."""
    plan = StreamPlan(load_rules(None).profile("high", "output").rules)
    guard = Holdback(plan, lambda _: None)
    for number in range(3_000):
        guard.feed(f"word{number} -")
    assert len(guard._node.held) < 200  # pyright: ignore[reportPrivateUsage] # what is kept is not shown elsewhere


@pytest.mark.parametrize("preset", ["standard", "high"])
def test_packaged_rules_stream_as_they_scan(preset: str) -> None:
    """The packaged rules give the same verdict streamed as on the whole text."""
    rules = load_rules(None).profile("high" if preset == "high" else "standard", "output").rules
    key = "AKIA" + "QWERTYUIOPASDFGH"
    texts = (
        f"The key is {key}, and mail to ann.lee@example.org or call +49 30 1234567.",
        "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEow" * 40 + "\n-----END RSA PRIVATE KEY-----\nok",
        "Pay with 4111 1111 1111 1111 or GB82 WEST 1234 5698 7654 32, from 8.8.8.8.",
        "postgres://user:hunter2secret@db.example.org:5432/x password = 'correct-horse-battery'",
    )
    for text in texts:
        judge(rules, text, [(), range(1, len(text)), *((place,) for place in range(1, len(text), 5))])
