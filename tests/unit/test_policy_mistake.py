"""Broken policy files: each kind of mistake is found at its place, all of them at once, and none yields a policy."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lukhas.errors import PolicyError
from lukhas.modulation.policy_reader import load_policy, parse_policy, read_packaged_text
from lukhas.modulation.yaml_source import Mistake

GOOD = """\
version: 1
name: small
signals:
  alignment_risk: {role: guard}
  stress: {role: style, precedence: 2}
  trust: {role: style, precedence: 1}
parameters:
  temperature: {type: number, default: 0.6, min: 0, max: 1, tighter: lower}
  verbosity: {type: number, default: 0.5, min: 0, max: 1}
  beam: {type: integer, default: 2, min: 1, max: 6, tighter: lower}
  safety_mode: {type: enum, values: [strict, balanced], default: balanced, tighter: first}
  tools: {type: tools, default: [retrieval], tighter: subset}
maps:
  alignment_risk:
    temperature: 1 - 0.8 * x
    tools: "[] if x > 0.7 else current"
  stress:
    temperature: 0.7 - 0.5 * x
styles:
  strict: {preamble: Take care.}
  balanced: {}
style_rules:
  - {style: strict, when: safety_mode == strict}
  - {style: balanced}
tools:
  retrieval: {functions: [retrieve], patterns: ["retrieve_*"]}
feedback:
  temperature: {min: -0.2, max: 0.2, rating: 1}
"""

# (id, what stands in the good file, what stands there instead, line, column, part of the message)
MISTAKES = [
    ("version-missing", "version: 1\n", "", 1, 1, "'version' is missing"),
    ("version-2", "version: 1", "version: 2", 1, 10, "must be 1"),
    ("version-true", "version: 1", "version: true", 1, 10, "must be 1"),
    ("name-number", "name: small", "name: 5", 2, 7, "must be a text"),
    ("unknown-key", "name: small", "nmae: small", 2, 1, "did you mean 'name'?"),
    ("apply-unknown", "name: small", "apply: some", 2, 8, "one of touched, all"),
    ("combine-near", "name: small", "combine: blendd", 2, 10, "did you mean 'blend'?"),
    ("not-a-table", GOOD, "- a\n- b\n", 1, 1, "must be a table"),
    ("just-a-word", GOOD, "hello", 1, 1, "must be a table"),
    ("empty", GOOD, "", 1, 1, "empty"),
    ("signals-a-list", "signals:\n", "signals: []\nunused:\n", 3, 10, "must be a table"),
    ("signal-name-bad", "  trust:", "  Trust:", 6, 3, "cannot name a signal"),
    ("signal-name-reserved", "  trust:", "  current:", 6, 3, "no word of the language"),
    ("signal-name-keyword", "  trust:", "  lambda:", 6, 3, "no word of the language"),
    ("signal-not-a-table", "trust: {role: style, precedence: 1}", "trust: 5", 6, 10, "must be a table"),
    ("role-missing", "trust: {role: style, precedence: 1}", "trust: {precedence: 1}", 6, 10, "'role' is missing"),
    ("role-unknown", "trust: {role: style", "trust: {role: gaurd", 6, 17, "did you mean 'guard'?"),
    ("no-alignment-risk", "alignment_risk: {role: guard}", "alignment_rsk: {role: guard}", 4, 3, "violations raise it"),
    ("alignment-risk-a-style", "{role: guard}", "{role: style, precedence: 9}", 4, 3, "role: guard"),
    (
        "precedence-missing",
        "trust: {role: style, precedence: 1}",
        "trust: {role: style}",
        6,
        10,
        "'precedence' is missing",
    ),
    ("precedence-twice", "precedence: 1}", "precedence: 2}", 6, 10, "same precedence as 'stress'"),
    ("precedence-fraction", "precedence: 1}", "precedence: 1.5}", 6, 36, "whole number from -1000 to 1000"),
    ("guard-cooldown", "{role: guard}", "{role: guard, cooldown_ms: 5}", 4, 46, "a guard has no cooldown"),
    ("weight-zero", "precedence: 1}", "precedence: 1, weight: 0}", 6, 47, "from 0.001 to 1"),
    ("weight-nan", "precedence: 1}", "precedence: 1, weight: .nan}", 6, 47, "from 0.001 to 1"),
    ("ttl-zero", "precedence: 1}", "precedence: 1, ttl_ms: 0}", 6, 47, "whole number from 1"),
    ("ttl-text", "precedence: 1}", "precedence: 1, ttl_ms: '5'}", 6, 48, "whole number from 1"),
    ("ttl-boolean", "precedence: 1}", "precedence: 1, ttl_ms: true}", 6, 47, "whole number from 1"),
    ("ttl-over-max", "precedence: 1}", "precedence: 1, ttl_ms: 9, max_ttl_ms: 8}", 6, 10, "longer than max_ttl_ms"),
    ("half-life-negative", "precedence: 1}", "precedence: 1, half_life_ms: -1}", 6, 53, "whole number from 1"),
    ("min-level-two", "precedence: 1}", "precedence: 1, min_level: 2}", 6, 50, "from 0 to 1"),
    ("signal-unknown-key", "precedence: 1}", "precedence: 1, tll_ms: 5}", 6, 39, "did you mean 'ttl_ms'?"),
    ("parameters-missing", GOOD[GOOD.index("parameters:") : GOOD.index("maps:")], "", 1, 1, "'parameters' is missing"),
    ("parameter-named-as-signal", "  verbosity: {", "  stress: {", 9, 3, "already the name of a signal"),
    ("type-unknown", "verbosity: {type: number", "verbosity: {type: float", 9, 21, "number, integer, enum, tools"),
    (
        "default-outside",
        "verbosity: {type: number, default: 0.5",
        "verbosity: {type: number, default: 1.5",
        9,
        38,
        "outside [0, 1]",
    ),
    ("default-missing", "default: 0.5, ", "", 9, 14, "'default' is missing"),
    ("min-above-max", "default: 0.5, min: 0, max: 1", "default: 0.5, min: 2, max: 1", 9, 14, "min 2 is above max 1"),
    ("min-infinite", "default: 0.5, min: 0", "default: 0.5, min: -.inf", 9, 48, "must be a number"),
    ("too-many-decimals", "default: 0.5, min: 0,", "default: 0.5, min: 0.00000000001,", 9, 48, "at most 9 decimals"),
    ("integer-fraction", "default: 2, min: 1", "default: 2.5, min: 1", 10, 34, "whole number"),
    ("tighter-unknown", "max: 6, tighter: lower", "max: 6, tighter: smaller", 10, 62, "one of lower, higher"),
    ("enum-empty", "values: [strict, balanced]", "values: []", 11, 16, "at least one value"),
    ("enum-member-bad", "values: [strict, balanced]", "values: [strict, Balanced]", 11, 46, "cannot be a member"),
    ("enum-member-twice", "values: [strict, balanced]", "values: [strict, balanced, strict]", 11, 56, "stands twice"),
    ("enum-default-unknown", "default: balanced", "default: balancd", 11, 66, "did you mean 'balanced'?"),
    ("no-safety-mode", "  safety_mode: {", "  safety_mod: {", 1, 1, "must have 'safety_mode'"),
    ("safety-mode-without-direction", ", tighter: first", "", 1, 1, "tighter: first"),
    ("no-tools", "  tools: {type: tools, default: [retrieval], tighter: subset}\n", "", 1, 1, "must have 'tools'"),
    ("tools-without-subset", "[retrieval], tighter: subset", "[retrieval]", 12, 10, "needs tighter: subset"),
    ("tools-default-unknown", "default: [retrieval]", "default: [retrival]", 12, 34, "did you mean 'retrieval'?"),
    (
        "second-tools",
        "  verbosity: {type: number, default: 0.5, min: 0, max: 1}",
        "  more: {type: tools, default: [], tighter: subset}",
        9,
        3,
        "only the parameter 'tools'",
    ),
    ("map-unknown-signal", "  stress:\n    temp", "  strss:\n    temp", 17, 3, "did you mean 'stress'?"),
    ("map-unknown-parameter", "    temperature: 0.7", "    temprature: 0.7", 18, 5, "did you mean 'temperature'?"),
    (
        "map-guard-no-direction",
        "    temperature: 1 - 0.8 * x",
        "    verbosity: 1 - 0.8 * x",
        15,
        5,
        "no tighter direction",
    ),
    ("map-loosens", "temperature: 1 - 0.8 * x", "temperature: 0.2 + 0.8 * x", 15, 18, "may only tighten"),
    (
        "map-loosens-between",
        "temperature: 1 - 0.8 * x",
        "temperature: 0.9 if 0.4001 < x < 0.4002 else 0.5",
        15,
        18,
        "may only tighten",
    ),
    ("map-loosens-in-tools", "[] if x > 0.7 else current", "[] if x < 0.7 else current", 16, 13, "may only tighten"),
    (
        "map-loosens-elsewhere",
        "[] if x > 0.7 else current",
        "[retrieval] if x < 0.7 else current",
        16,
        13,
        "may only tighten",
    ),
    ("map-unknown-name", "0.7 - 0.5 * x", "0.7 - 0.5 * y", 18, 30, "'y'"),
    ("map-names-guard", "0.7 - 0.5 * x", "0.7 - 0.5 * alignment_risk", 18, 30, "cannot depend on a guard"),
    ("map-syntax", "0.7 - 0.5 * x", "0.7 - 0.5 *", 18, 28, "cannot be understood"),
    ("map-attribute", "0.7 - 0.5 * x", "0.7 - x.real", 18, 24, "attribute"),
    ("map-division-by-zero", "0.7 - 0.5 * x", "0.7 / trust", 18, 18, "divisor can be zero"),
    ("map-boolean", "0.7 - 0.5 * x", "true", 18, 18, "must be an expression"),
    ("map-null", "0.7 - 0.5 * x", "", 18, 17, "must be an expression"),
    ("map-table", "0.7 - 0.5 * x", "{a: 1}", 18, 18, "must be an expression"),
    ("map-tools-unknown", "[] if x > 0.7 else current", "[retriev] if x > 0.7 else []", 16, 13, "did you mean"),
    ("map-tools-numbers", '"[] if x > 0.7 else current"', "[1, 2]", 16, 12, "must be an expression"),
    ("style-unknown-key", "{preamble: Take care.}", "{preambel: Take care.}", 20, 12, "did you mean 'preamble'?"),
    ("style-five-stops", "{preamble: Take care.}", "{stop: [a, b, c, d, e]}", 20, 18, "at most 4"),
    ("style-moderation", "{preamble: Take care.}", "{moderation: higher}", 20, 24, "one of standard, high"),
    (
        "rules-missing",
        GOOD[GOOD.index("style_rules:") : GOOD.index("tools:\n  retrieval")],
        "",
        1,
        1,
        "'style_rules' is missing",
    ),
    ("rules-empty", "style_rules:\n", "style_rules: []\nunused:\n", 22, 14, "must be a list of rules"),
    ("rule-unknown-style", "{style: balanced}", "{style: blanced}", 24, 13, "did you mean 'balanced'?"),
    ("rule-last-with-condition", "{style: balanced}", "{style: balanced, when: stress > 1}", 24, 5, "must hold always"),
    (
        "rule-first-without-condition",
        "{style: strict, when: safety_mode == strict}",
        "{style: strict}",
        23,
        5,
        "only the last rule",
    ),
    ("rule-condition-wrong", "safety_mode == strict}", "safety_mode == lax}", 23, 42, "one of strict, balanced"),
    ("rule-condition-number", "when: safety_mode == strict", "when: 5", 23, 27, "must be a condition"),
    ("rule-division", "when: safety_mode == strict", "when: 1 / stress > 2", 23, 27, "divisor can be zero"),
    ("class-unknown-declared", "  retrieval: {functions", "  unknown: {functions", 26, 3, "cannot be declared"),
    ("class-pattern-bad", '"retrieve_*"', '"retrieve [a]"', 26, 50, "1 to 64 of"),
    ("class-function-twice", "functions: [retrieve]", "functions: [retrieve, retrieve]", 26, 37, "stands twice"),
    (
        "class-function-shared",
        "tools:\n  retrieval",
        "tools:\n  other: {functions: [retrieve]}\n  retrieval",
        27,
        27,
        "already belongs to class 'other'",
    ),
    ("class-risk", 'patterns: ["retrieve_*"]', "risk: extreme", 26, 44, "one of low, medium, high"),
    ("feedback-beam", "  temperature: {min: -0.2", "  beam: {min: -0.2", 28, 3, "feedback can move only"),
    ("feedback-too-far", "{min: -0.2, max: 0.2", "{min: -0.2, max: 0.3", 28, 33, "from 0 to 0.2"),
    (
        "feedback-not-a-parameter",
        "  temperature: {min: -0.2, max",
        "  top_p: {min: -0.2, max",
        28,
        3,
        "not a parameter",
    ),
    ("feedback-rating", "rating: 1}", "rating: 2}", 28, 46, "from -1 to 1"),
    ("anchor", "name: small", "name: &a small", 2, 7, "anchors"),
    ("duplicate-key", "name: small", "version: 1", 2, 1, "stands twice"),
    ("tab-indent", "  alignment_risk:", "\talignment_risk:", 4, 1, "not valid YAML"),
    ("control-character", "name: small", "name: sm\x01all", 2, 9, "U+0001"),
]


def mistakes_of(text: str) -> tuple[Mistake, ...]:
    with pytest.raises(PolicyError) as caught:
        parse_policy(text, "p.yaml")
    found = caught.value.mistakes
    assert all(isinstance(mistake, Mistake) for mistake in found)
    return found  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("before", "after", "line", "column", "says"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES]
)
def test_policy_mistake_names_its_place_and_what_is_right(
    before: str, after: str, line: int, column: int, says: str
) -> None:
    """Each kind of mistake is reported at its own line and column, with what would be right."""
    assert before in GOOD
    found = mistakes_of(GOOD.replace(before, after, 1))
    places = [(m.place.line, m.place.column) for m in found if says in m.message]
    assert places.count((line, column)) == 1, [str(mistake) for mistake in found]


def test_policy_good_file_loads() -> None:
    """The file that every mistake is made in is itself right."""
    policy = parse_policy(GOOD)
    assert policy.name == "small"
    assert list(policy.signals) == ["stress", "trust", "alignment_risk"]
    assert next(iter(policy.parameters)) == "safety_mode"


def test_policy_kinds_of_mistakes_are_many() -> None:
    """The promise is 30 kinds."""
    assert len({row[0] for row in MISTAKES}) == len(MISTAKES) >= 80


def test_policy_all_mistakes_are_reported_in_order() -> None:
    """Several mistakes in one file are all named, top to bottom, in the error's own text too."""
    text = GOOD.replace("precedence: 1}", "precedence: 1, weight: 7}").replace("0.7 - 0.5 * x", "0.7 - y")
    text = text.replace("{style: balanced}", "{style: blanced}").replace("name: small", "nam: small")
    with pytest.raises(PolicyError, match="4 mistakes") as caught:
        parse_policy(text, "p.yaml")
    assert [m.place.line for m in caught.value.mistakes] == [2, 6, 18, 24]  # type: ignore[attr-defined]
    for at in ("p.yaml:2:1:", "p.yaml:6:47: signals.trust.weight:", "p.yaml:18:24:", "p.yaml:24:13:"):
        assert at in str(caught.value)


def test_policy_with_very_many_mistakes_is_refused_in_time() -> None:
    """A file of nothing but mistakes lists the first hundred, and takes no longer for the rest."""
    started = time.process_time()
    found = mistakes_of(GOOD + "".join(f"key_{i}: 1\n" for i in range(40_000)))
    assert len(found) == 100
    assert time.process_time() - started < 20.0


def test_policy_long_key_does_not_fill_the_message() -> None:
    """What a file contains is quoted in part only."""
    with pytest.raises(PolicyError) as caught:
        parse_policy(GOOD + f"? {'k' * 100_000}\n: {{a: 1}}\n")
    assert len(str(caught.value)) < 1000


def test_policy_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    """A missing file, a folder and an impossible path are policy errors."""
    for path in (tmp_path / "none.yaml", tmp_path, "nu\0ll.yaml"):
        with pytest.raises(PolicyError, match="cannot be read"):
            load_policy(path)


@pytest.mark.parametrize(
    ("raw", "line", "column", "says"),
    [
        pytest.param(b"version: 1\nname: \xff\xfe", 2, 7, "not UTF-8", id="not-utf-8"),
        pytest.param(GOOD.encode("utf-16"), 1, 1, "not UTF-8", id="utf-16"),
        pytest.param(b"a: " + b"x" * 2_000_000, 1, 1, "larger than", id="too-large"),
        pytest.param(b"a: " + "\u00e9".encode() * 600_000, 1, 1, "larger than", id="too-large-cut-in-a-character"),
    ],
)
def test_policy_file_of_wrong_bytes_is_refused(tmp_path: Path, raw: bytes, line: int, column: int, says: str) -> None:
    """Bytes that are no text of at most 1 MB are one mistake."""
    path = tmp_path / "p.yaml"
    path.write_bytes(raw)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    (mistake,) = caught.value.mistakes
    assert isinstance(mistake, Mistake)
    assert (mistake.place.line, mistake.place.column) == (line, column)
    assert says in mistake.message


@pytest.mark.parametrize(
    "text",
    [pytest.param(GOOD.replace("\n", "\r\n"), id="crlf"), pytest.param("\ufeff" + GOOD, id="byte-order-mark")],
)
def test_policy_file_of_other_editors_loads(tmp_path: Path, text: str) -> None:
    """Line ends and a byte order mark change the id, since they change the bytes, and nothing else."""
    path = tmp_path / "p.yaml"
    path.write_bytes(text.encode())
    policy = load_policy(path)
    assert policy.rules.keys() == parse_policy(GOOD).rules.keys()
    assert policy.id != parse_policy(GOOD).id


def test_policy_packaged_loads_from_a_copy(tmp_path: Path) -> None:
    """A copy of the packaged policy has the packaged policy's id."""
    path = tmp_path / "p.yaml"
    path.write_bytes(read_packaged_text().encode())
    assert load_policy(path).id == load_policy().id
    assert load_policy(path).sha256 == load_policy().sha256
