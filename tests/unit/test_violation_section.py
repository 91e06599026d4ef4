"""The policy's section `violations`: its defaults, its mistakes with their places, and what a change of it says."""

from __future__ import annotations

import re

import pytest

from lukhas.errors import PolicyError
from lukhas.modulation.difference import compare_policies
from lukhas.modulation.policy import Policy, ViolationSpec
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text

PACKAGED = read_packaged_text()
SECTION = re.compile(r"^violations:\n(?:[ ].*\n|\n)+", re.MULTILINE)


def with_section(section: str, base: str = PACKAGED) -> str:
    assert SECTION.search(base)
    return SECTION.sub("", base) + section


def parse(section: str, base: str = PACKAGED) -> Policy:
    return parse_policy(with_section(section, base))


def test_violations_absent_are_the_packaged_ones() -> None:
    """A policy from before the section tightens as the packaged one does."""
    assert parse("").violations == parse_policy(PACKAGED).violations
    assert parse("").violations == ViolationSpec("alignment_risk", 0.3, 0.5, 0.8, 0.95, 0.9, 600_000)


def test_violations_of_an_empty_table_are_the_packaged_ones() -> None:
    """Each part has its own default."""
    assert parse("violations: {}\n").violations == parse("").violations
    assert parse("violations: {levels: {}}\n").violations == parse("").violations


def test_violations_in_full_are_read() -> None:
    """Every part is taken as it stands, for any guard."""
    base = PACKAGED.replace(
        "\nparameters:", "\n  hazard: {role: guard, max_ttl_ms: 5000, ttl_ms: 5000}\n\nparameters:", 1
    )
    levels = "levels: {low: 0.1, medium: 0.1, high: 1}"
    text = f"violations: {{signal: hazard, {levels}, ceiling: 1, widen_above: 0, ttl_ms: 9}}\n"
    assert parse(text, base).violations == ViolationSpec("hazard", 0.1, 0.1, 1, 1, 0, 9)


def test_violations_default_is_fitted_to_the_signal() -> None:
    """A policy without the section loads whatever its signal allows: the ttl is cut, the levels are lifted."""
    base = PACKAGED.replace(
        "ttl_ms: 600000, max_ttl_ms: 86400000, half_life_ms: 120000, min_level: 0.05",
        "ttl_ms: 1000, max_ttl_ms: 2000, half_life_ms: 120000, min_level: 0.97",
        1,
    )
    found = parse("", base).violations
    assert (found.low, found.medium, found.high, found.ceiling, found.ttl_ms) == (0.97, 0.97, 0.97, 0.97, 2000)


@pytest.mark.parametrize(
    ("section", "place", "said"),
    [
        pytest.param("violations: 3\n", (1, 13), "must be a table", id="no-table"),
        pytest.param("violations:\n  signal: stress\n", (2, 11), "'stress' is a style signal", id="style"),
        pytest.param(
            "violations:\n  signal: alignment_rusk\n", (2, 11), "did you mean 'alignment_risk'", id="unknown-signal"
        ),
        pytest.param("violations:\n  signal: [a]\n", (2, 11), "must be a text", id="signal-type"),
        pytest.param("violations:\n  levels: {low: 2}\n", (2, 17), "from 0 to 1", id="level-above"),
        pytest.param("violations:\n  levels: {low: true}\n", (2, 17), "from 0 to 1", id="level-boolean"),
        pytest.param("violations:\n  levels: {low: .nan}\n", (2, 17), "from 0 to 1", id="level-nan"),
        pytest.param("violations:\n  levels: {low: 0.01}\n", (2, 17), "would not count", id="level-below-minimum"),
        pytest.param("violations:\n  levels: {low: 0.6, medium: 0.5}\n", (2, 30), "is below 'low'", id="falling"),
        pytest.param("violations:\n  levels: {high: 0.4}\n", (2, 18), "is below 'medium'", id="falling-default"),
        pytest.param("violations:\n  levels: {hgih: 0.4}\n", (2, 12), "did you mean 'high'", id="unknown-level"),
        pytest.param("violations:\n  ceiling: 0.7\n", (2, 12), "below the level of 'high'", id="low-ceiling"),
        pytest.param("violations:\n  ceiling: null\n", (2, 12), "must be a number", id="null-ceiling"),
        pytest.param("violations:\n  widen_above: 1.1\n", (2, 16), "from 0 to 1", id="widen"),
        pytest.param("violations:\n  ttl_ms: 86400001\n", (2, 11), "from 1 to 86400000", id="ttl-past-longest"),
        pytest.param("violations:\n  ttl_ms: 0\n", (2, 11), "from 1 to", id="ttl-zero"),
        pytest.param("violations:\n  ttl: 5\n", (2, 3), "unknown key 'ttl'", id="unknown-key"),
    ],
)
def test_violations_mistake_is_shown_at_its_place(section: str, place: tuple[int, int], said: str) -> None:
    """Each mistake names its line and column, and there is no second one for the same thing."""
    text = with_section(section)
    with pytest.raises(PolicyError) as caught:
        parse_policy(text)
    before = text.index(section)
    first_line = text[:before].count("\n")
    assert [(m.place.line - first_line, m.place.column) for m in caught.value.mistakes] == [place], str(caught.value)
    assert said in str(caught.value)


def test_difference_of_violations_is_said_in_words() -> None:
    """A change of the section is part of `policy diff`, old and new beside each other."""
    a, b = parse_policy(PACKAGED), parse("violations: {ceiling: 0.9, ttl_ms: 1000}\n")
    texts = [change.text for change in compare_policies(a, b).changes]
    assert texts == ["violations: ceiling 0.95 -> 0.9", "violations: ttl 600 s -> 1 s"]
