"""The page about the sensors gives the weights that the code has, and its how-to works as it is written."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lukhas.gateway.sensor import alignment_risk, ambiguity, load, novelty, observation, stress, trust, urgency
from lukhas.gateway.sensors import BUILT_IN, SLOW_S, load_sensors

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    """Give the page's text on one line."""
    return " ".join((DOCS / "explanation" / "sensors.md").read_text("utf-8").split())


def test_page_has_every_sensor(page: str) -> None:
    """Whoever adds a sensor describes it."""
    for name in ("alignment_risk", *BUILT_IN):
        assert f"| `{name}` |" in page


def test_page_text_bounds_are_the_codes(page: str) -> None:
    """How much is read, and how slow is too slow."""
    assert f"its last {observation.MAX_PROMPT_CHARS:,} characters" in page
    assert f"more than {SLOW_S * 1000:g} ms three times" in page


def test_page_alignment_risk_is_the_codes(page: str) -> None:
    """Levels by severity."""
    levels = alignment_risk.LEVELS
    assert f"low {levels['low']}, medium {levels['medium']}, high {levels['high']}" in page


def test_page_stress_is_the_codes(page: str) -> None:
    """The weights, where each part begins and is full, and how fast it fades."""
    parts = (stress.UTILISATION, stress.LATENCY_RATIO, stress.ERROR_RATIO)
    assert "`{:g} u or {:g} l or {:g} e`".format(*(weight for _, _, weight in parts)) in page
    for low, high, _ in parts:
        assert f"| {low:g} | {high:g} |" in page
    assert f"weighs {load.UPPER / (1 - load.UPPER):.0f} times one below" in page
    assert f"halve every {load.REST_HALF_LIFE_MS // 1000} s" in page
    assert f"the first {load.MIN_ANSWERS} answers" in page


def test_page_urgency_is_the_codes(page: str) -> None:
    """A weight for each class of cues, and what calm and length leave."""
    for kind, weight in urgency.WEIGHTS.items():
        assert f"| `{kind}` | {weight:g} |" in page
    assert urgency.CALM_SHARE == 0.25
    assert "a quarter of the level is left" in page
    assert f"at most {urgency.SHORT_ANSWER_TOKENS} output tokens" in page
    bounds = f"from {urgency.LONG_NONE_WORDS} to {urgency.LONG_FULL_WORDS} words"
    assert f"{bounds} the level falls to {urgency.LONG_SHARE:g} of itself" in page


def test_page_ambiguity_is_the_codes(page: str) -> None:
    """The formula with its weights, and every feature."""
    sum_of = " or ".join(f"{weight:g} {name}" for name, weight in ambiguity.WEIGHTS.items())
    assert f"`({sum_of}) * (1 - {ambiguity.ANCHORED_SHARE:g} anchors)`" in page
    for name in (*ambiguity.WEIGHTS, "anchors"):
        assert f"| `{name}` |" in page
    assert f"from {ambiguity.BRIEF_NONE_WORDS} words down to {ambiguity.BRIEF_FULL_WORDS}" in page
    assert f"A text of {ambiguity.SELF_CONTAINED_WORDS} words" in page


def test_page_novelty_is_the_codes(page: str) -> None:
    """The formula, and what is kept."""
    assert f"`(1 - s) * min(1, n / {novelty.FULL_GRAMS})`" in page
    assert f"the last {novelty.REMEMBERED} prompts" in page
    assert f"one of {novelty.BITS:,} bits" in page
    assert f"last {novelty.MAX_WORDS} words" in page
    assert f"for {novelty.MAX_SUBJECTS:,} subjects" in page


def test_page_trust_is_the_codes(page: str) -> None:
    """The formula, its numbers, and the example's levels."""
    assert f"`good / (good + {trust.HALF_CALLS:g} + bad)`" in page
    assert f"at most {trust.MAX_CALLS:g}, and {trust.FEEDBACK_CALLS:g} for full satisfaction" in page
    assert f"`bad` is {trust.VIOLATION_CALLS:g} for each violation" in page
    assert f"kept in the process's memory for {trust.MAX_SUBJECTS:,} of them" in page
    best = trust.trust_level(trust.Conduct(trust.MAX_CALLS), 0.0)
    after = trust.trust_level(trust.Conduct(trust.MAX_CALLS * trust.KEPT_SHARE, 1.0), 0.0)
    assert f"from {best:.2f} after any number of clean calls to {after:.2f}" in page


def test_how_to_sensor_loads_and_its_test_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Class, entry point and test, typed in from the page as they stand."""
    text = (DOCS / "how-to" / "write-a-sensor.md").read_text("utf-8")
    source, test = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    entry = re.search(r'^long-prompt = "(.+)"$', text, re.MULTILINE)
    assert entry is not None
    module, _, _ = entry[1].partition(":")
    folder, _, name = module.partition(".")
    (tmp_path / folder).mkdir()
    (tmp_path / folder / f"{name}.py").write_text(source, "utf-8")
    info = tmp_path / f"{folder}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {folder}\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text(f"[lukhas.sensors]\nlong-prompt = {entry[1]}\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_sensors(("long-prompt",), lambda flag, default: default).names == ("alignment_risk", "long-prompt")
    scope: dict[str, object] = {}
    exec(test, scope)  # the page's own text
    scope["test_long_prompt_is_read"]()  # type: ignore[operator]
