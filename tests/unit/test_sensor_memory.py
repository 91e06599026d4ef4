"""Sensors that remember: novelty and trust, and alignment risk from what moderation found."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensor_call import KEY, SUBJECTS, observe

from lukhas.gateway.sensor.alignment_risk import AlignmentRiskSensor
from lukhas.gateway.sensor.novelty import BITS, REMEMBERED, NoveltySensor, compare, make_sketch
from lukhas.gateway.sensor.trust import HALF_LIFE_MS, Conduct, TrustSensor, trust_level
from lukhas.gateway.sensors import is_reading
from lukhas.moderation.rule import Action, Finding, Severity
from lukhas.modulation.state import Subject

FIRST = "How do I read a CSV file in Python without any library?"
LIKE = "How do I write a CSV file in Python without any library?"
OTHER = "Tell me a long story about a dragon who learns to paint mountains"


def novelty(sensor: NoveltySensor, text: str, subjects: tuple[Subject, ...] = SUBJECTS) -> float | None:
    found = sensor.sense(observe(text, subjects=subjects))
    return None if found is None else found.level


def finding(rule: str, severity: Severity = "medium", action: Action = "record") -> Finding:
    return Finding(rule, "injection", severity, action, 0, 4)


def test_novelty_first_prompt_is_no_reading() -> None:
    """There is nothing to compare with, and sensing alone remembers nothing."""
    sensor = NoveltySensor()
    assert novelty(sensor, FIRST) is None
    assert novelty(sensor, FIRST) is None
    assert len(sensor) == 0


def test_novelty_of_the_same_like_and_other_prompts_rises() -> None:
    """The same prompt is not new at all, a variant a little, another subject very."""
    sensor = NoveltySensor()
    sensor.learn(observe(FIRST))
    same, like, other = (novelty(sensor, text) for text in (FIRST, LIKE, OTHER))
    assert same == 0
    assert like is not None
    assert other is not None
    assert 0 < like < 0.3
    assert other > 0.6


@pytest.mark.parametrize(
    ("first", "like", "other"),
    [
        pytest.param(
            "Как прочитать файл CSV на Питоне без библиотек",
            "Как записать файл CSV на Питоне без библиотек",
            "Расскажи длинную историю про дракона, который рисует горы",
            id="cyrillic",
        ),
        pytest.param(
            "如何用编程语言读取表格文件",
            "如何用编程语言写入表格文件",
            "请讲一个会画山水的龙的故事给我听",
            id="chinese",
        ),
        pytest.param(
            "파이썬에서 표 파일을 라이브러리 없이 읽는 방법",
            "파이썬에서 표 파일을 라이브러리 없이 쓰는 방법",
            "산을 그리는 용의 긴 이야기를 들려줘 그리고 바다와 하늘과 숲과 강에 대해서도 조금씩",
            id="korean",
        ),
    ],
)
def test_novelty_in_other_scripts_rises_too(first: str, like: str, other: str) -> None:
    """N-grams are of characters, whatever the script."""
    sensor = NoveltySensor()
    sensor.learn(observe(first))
    like_level, other_level = novelty(sensor, like), novelty(sensor, other)
    assert like_level is not None
    assert other_level is not None
    assert like_level < 0.4 < 0.6 < other_level


def test_novelty_ignores_case_order_and_spacing() -> None:
    """What is compared is which n-grams there are."""
    sensor = NoveltySensor()
    sensor.learn(observe(FIRST))
    assert novelty(sensor, "  ".join(reversed(FIRST.upper().split()))) == 0


def test_novelty_short_prompt_counts_less_and_a_tiny_one_not_at_all() -> None:
    """'Yes' is not news."""
    sensor = NoveltySensor()
    sensor.learn(observe(FIRST))
    assert novelty(sensor, "yes") is None
    short = novelty(sensor, "why not green apples")
    assert short is not None
    assert short < 0.6


def test_novelty_subjects_are_kept_apart() -> None:
    """One session's prompts say nothing about another's; without session and user, the key's count."""
    sensor = NoveltySensor()
    sensor.learn(observe(FIRST))
    assert novelty(sensor, FIRST, (Subject("session", "sub_other"), *SUBJECTS[1:])) is None
    assert novelty(sensor, FIRST, (KEY,)) is None
    sensor.learn(observe(FIRST, subjects=(KEY,)))
    assert novelty(sensor, FIRST, (KEY,)) == 0


def test_novelty_without_a_person_is_no_reading() -> None:
    """A whole tenant's prompts are not one conversation."""
    sensor = NoveltySensor()
    for subjects in ((), (Subject("tenant", "t"),)):
        sensor.learn(observe(FIRST, subjects=subjects))
        assert novelty(sensor, FIRST, subjects) is None
    assert len(sensor) == 0


def test_novelty_forgets_old_prompts_and_old_subjects() -> None:
    """Memory is bounded both ways: the oldest prompt of a subject, and the subject unheard of for longest."""
    sensor = NoveltySensor(max_subjects=2)
    sensor.learn(observe(FIRST))
    for number in range(REMEMBERED):
        sensor.learn(observe(f"{OTHER} part {number}"))
    level = novelty(sensor, FIRST)
    assert level is not None
    assert level > 0.6
    for name in ("sub_a", "sub_b"):
        sensor.learn(observe(FIRST, subjects=(Subject("session", name),)))
    assert len(sensor) == 2
    assert novelty(sensor, FIRST) is None


def test_novelty_keeps_no_text() -> None:
    """What is remembered are 1,024 bits, not words."""
    sketch = make_sketch(["my", "secret", "word", "is", "xylophone"])
    assert isinstance(sketch, int)
    assert sketch.bit_length() <= BITS


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=6), max_size=300), st.lists(st.text(max_size=6), max_size=300))
def test_compare_sketches_is_a_symmetric_ratio(one: list[str], other: list[str]) -> None:
    """Similarity lies in [0, 1], is the same both ways, and is 1 with itself."""
    first, second = make_sketch(one), make_sketch(other)
    if first is not None and second is not None:
        assert 0 <= compare(first, second) <= 1
        assert compare(first, second) == compare(second, first)
        assert compare(first, first) == 1


def test_compare_full_sketches_is_finite() -> None:
    """A text that sets every bit is still comparable."""
    full = 2**BITS - 1
    assert compare(full, full) == 1
    assert 0 <= compare(full, full >> 1) <= 1


def test_trust_begins_neutral_and_rises_slowly() -> None:
    """Nobody is trusted or distrusted at first; each clean call adds less than the one before."""
    sensor = TrustSensor()
    levels: list[float] = []
    for number in range(100):
        found = sensor.sense(observe("x"))
        if found is not None:
            levels.append(found.level)
        else:
            assert number < 5
        sensor.learn(observe("x"))
    steps = [after - before for before, after in pairwise(levels)]
    assert all(step > 0 for step in steps)
    assert steps == sorted(steps, reverse=True)
    assert levels[0] < 0.25
    assert levels[-1] > 0.75


def test_trust_violation_is_felt_at_once_and_for_long() -> None:
    """However long the good conduct, one violation takes most of it, and time alone gives it back slowly."""
    sensor = TrustSensor()
    for _ in range(5_000):
        sensor.learn(observe("x"))
    before = sensor.sense(observe("x"))
    sensor.learn(observe("x", is_violation=True))
    after = sensor.sense(observe("x"))
    later = sensor.sense(observe("x", now_ms=HALF_LIFE_MS))
    assert before is not None
    assert after is not None
    assert later is not None
    assert before.level > 0.9
    assert after.level < 0.5
    assert after.level < later.level < before.level


def test_trust_violations_known_elsewhere_count() -> None:
    """What another replica recorded is not forgotten here, and is not counted twice."""
    sensor = TrustSensor()
    for _ in range(50):
        sensor.learn(observe("x"))
    clean, one = sensor.sense(observe("x")), sensor.sense(observe("x", violations=1))
    assert clean is not None
    assert one is not None
    assert one.level < clean.level / 2
    sensor.learn(observe("x", is_violation=True))
    assert sensor.sense(observe("x", violations=1)) == sensor.sense(observe("x"))


def test_trust_belongs_to_the_user_across_sessions() -> None:
    """A new session does not wash a user clean; another user is another."""
    sensor = TrustSensor()
    sensor.learn(observe("x", is_violation=True))
    new_session = (Subject("session", "sub_new"), *SUBJECTS[1:])
    found = sensor.sense(observe("x", subjects=new_session))
    assert found is not None
    assert found.level < 0.05
    assert sensor.sense(observe("x", subjects=(Subject("user", "sub_other"), KEY))) is None


def test_trust_clock_that_steps_back_changes_nothing() -> None:
    """A violation does not grow older or younger by it."""
    sensor = TrustSensor()
    sensor.learn(observe("x", now_ms=10_000, is_violation=True))
    assert sensor.sense(observe("x", now_ms=0)) == sensor.sense(observe("x", now_ms=10_000))


def test_trust_memory_is_bounded() -> None:
    """The subject unheard of for longest is forgotten first."""
    sensor = TrustSensor(max_subjects=3)
    for number in range(10):
        sensor.learn(observe("x", subjects=(Subject("user", f"sub_{number}"),), is_violation=True))
    assert len(sensor) == 3
    assert sensor.sense(observe("x", subjects=(Subject("user", "sub_0"),))) is None
    assert sensor.sense(observe("x", subjects=(Subject("user", "sub_9"),))) is not None


history = st.lists(st.booleans(), max_size=60)


@given(history, st.integers(0, 60), st.floats(-1, 1), st.integers(0, 1000))
def test_trust_one_more_violation_never_raises_it(
    history: list[bool], place: int, feedback: float, violations: int
) -> None:
    """Put a violation anywhere into any history: trust is not higher, and stays in bounds."""

    def level(calls: list[bool], recent: int) -> float:
        sensor = TrustSensor()
        for is_violation in calls:
            sensor.learn(observe("x", is_violation=is_violation))
        found = sensor.sense(observe("x", feedback=feedback, violations=recent))
        assert found is None or is_reading(found)
        # Neutral is where nothing is known; a violation ends that, downwards.
        return 1.0 if found is None else found.level

    plain = level(history, violations)
    at = min(place, len(history))
    assert level([*history[:at], True, *history[at:]], violations) <= plain + 1e-12
    assert level(history, violations + 1) <= plain + 1e-12


@given(st.floats(0, 400), st.floats(0, 50), st.floats(-1, 1), st.floats(-1, 1))
def test_trust_level_better_feedback_never_lowers_it(calls: float, violations: float, one: float, two: float) -> None:
    """Satisfaction counts for a subject, dissatisfaction against."""
    low, high = sorted((one, two))
    conduct = Conduct(calls, violations)
    assert 0 <= trust_level(conduct, low) <= trust_level(conduct, high) < 1


def test_alignment_risk_findings_add_up() -> None:
    """Low, medium and high findings are levels 0.2, 0.4 and 0.6, joined as independent doubts."""
    sensor = AlignmentRiskSensor()
    found = sensor.sense(observe("x", findings=[finding("a", "low"), finding("b", "high", "tighten")]))
    assert found is not None
    assert found.level == pytest.approx(1 - 0.8 * 0.4)
    assert found.evidence == {"low": 1, "high": 1}


@pytest.mark.parametrize(
    "findings",
    [
        pytest.param([], id="none"),
        pytest.param([finding("a", "high", "block")], id="blocked"),
        pytest.param([finding("a", "high", "redact")], id="redacted"),
    ],
)
def test_alignment_risk_without_passing_findings_is_no_reading(findings: list[Finding]) -> None:
    """What was blocked or redacted is dealt with already."""
    assert AlignmentRiskSensor().sense(observe("x", findings=findings)) is None


def test_alignment_risk_rule_that_fires_often_counts_once() -> None:
    """A list of addresses is not a hundred risks."""
    sensor = AlignmentRiskSensor()
    once, often = (sensor.sense(observe("x", findings=[finding("a")] * count)) for count in (1, 100))
    assert once == often


severities = st.sampled_from(("low", "medium", "high"))


@given(st.dictionaries(st.text(max_size=3), severities, max_size=20), severities)
def test_alignment_risk_one_more_rule_never_lowers_it(rules: dict[str, Severity], more: Severity) -> None:
    """More findings never read as less risk, and never as more than 1."""
    sensor = AlignmentRiskSensor()
    findings = [finding(rule, severity) for rule, severity in rules.items()]
    before = sensor.sense(observe("x", findings=findings))
    after = sensor.sense(observe("x", findings=[*findings, finding("another", more)]))
    assert after is not None
    assert is_reading(after)
    assert after.level >= (before.level if before is not None else 0)
