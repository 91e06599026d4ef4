"""Strict YAML: what is typed how, what is refused where, and that nothing takes long."""

from __future__ import annotations

import time
from typing import Any

import pytest
import yaml

from lukhas.modulation import yaml_source
from lukhas.modulation.policy_reader import read_packaged_text
from lukhas.modulation.yaml_source import MAX_BYTES, Item, Place, YamlMistake, parse_yaml

PARSERS = [pytest.param(yaml.SafeLoader, id="python")]
if yaml.__with_libyaml__:
    PARSERS.append(pytest.param(yaml.CSafeLoader, id="c"))


@pytest.fixture(params=PARSERS, autouse=True)
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run each test with both of PyYAML's parsers: places must not depend on how it was built."""
    monkeypatch.setattr(yaml_source, "_LOADER", request.param)


def plain(item: Item) -> Any:
    if isinstance(item.value, dict):
        return {key: plain(part) for key, part in item.value.items()}
    return [plain(part) for part in item.value] if isinstance(item.value, list) else item.value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("a: [true, False, TRUE]", [True, False, True], id="booleans"),
        pytest.param(
            "a: [yes, no, on, off, y, n]", ["yes", "no", "on", "off", "y", "n"], id="yaml-1.1-booleans-are-words"
        ),
        pytest.param("a: [null, ~, Null, ]", [None, None, None], id="null"),
        pytest.param("a: [1, -2, +3, 007]", [1, -2, 3, 7], id="integers"),
        pytest.param("a: [1.5, .5, 1., 1e3, -1.5E-2]", [1.5, 0.5, 1.0, 1000.0, -0.015], id="floats"),
        pytest.param(
            "a: [.nan, .inf, -.Inf, NaN, 1e999]", [".nan", ".inf", "-.Inf", "NaN", "1e999"], id="no-nan-or-infinity"
        ),
        pytest.param(
            "a: [0x10, 1_000, 12:30:00, 2026-01-01]",
            ["0x10", "1_000", "12:30:00", "2026-01-01"],
            id="yaml-1.1-forms-are-words",
        ),
        pytest.param("a: ['1', \"true\", '']", ["1", "true", ""], id="quoted"),
        pytest.param("a: 99999999999999999999999", 1e23, id="very-long-integer"),
        pytest.param("---\na: 1\n...\n", 1, id="document-marks"),
        pytest.param("\ufeffa: 1", 1, id="byte-order-mark"),
        pytest.param("a: 1\r\nb: 2\r\n", 1, id="crlf"),
        pytest.param("a: \u00e9\U0001f600", "\u00e9\U0001f600", id="unicode"),
        pytest.param("a: |\n  x\n  y\n", "x\ny\n", id="block"),
    ],
)
def test_yaml_values_are_typed_as_in_1_2(text: str, expected: object) -> None:
    """Plain scalars follow YAML 1.2's core schema; what it cannot hold exactly stays a word."""
    assert plain(parse_yaml(text))["a"] == expected


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        pytest.param("", 1, 1, "empty", id="empty"),
        pytest.param("# only\n# comments\n", 1, 1, "empty", id="only-comments"),
        pytest.param("a: &x 1\nb: *x", 1, 4, "anchors", id="anchor"),
        pytest.param("a: 1\nb: *x", 2, 4, "aliases", id="alias"),
        pytest.param("&x a: 1", 1, 1, "anchors", id="anchor-on-key"),
        pytest.param("a: &x [1]", 1, 4, "anchors", id="anchor-on-list"),
        pytest.param("a: !!python/object/apply:os.system ['id']", 1, 4, "tags", id="python-tag"),
        pytest.param("a: !!str 1", 1, 4, "tags", id="standard-tag"),
        pytest.param("a: ! 1", 1, 4, "tags", id="bare-tag"),
        pytest.param("a: 1\nb: {c: 1, c: 2}", 2, 11, "'c' stands twice (first at line 2)", id="duplicate-in-flow"),
        pytest.param("a: 1\n\na: 2", 3, 1, "'a' stands twice (first at line 1)", id="duplicate"),
        pytest.param("a: 1\n'a': 2", 2, 1, "'a' stands twice", id="duplicate-in-quotes"),
        pytest.param("? [a]\n: 1", 1, 3, "plain word", id="list-as-key"),
        pytest.param("? {a: 1}\n: 1", 1, 3, "plain word", id="table-as-key"),
        pytest.param("a: 1\n--- \nb: 2", 2, 1, "one document", id="two-documents"),
        pytest.param("a: 1\n  b: 2", 2, 4, "not valid YAML", id="bad-indent"),
        pytest.param("a: [1, 2\nb: 3", 2, 2, "not valid YAML", id="bracket-not-closed"),
        pytest.param("a: 'x", 1, 6, "not valid YAML", id="quote-not-closed"),
        pytest.param('a: "\\U00110000"', None, None, "", id="escape-beyond-unicode"),
        pytest.param("a:\t\x00", 1, 4, "U+0000", id="null-byte"),
        pytest.param("a: 1\nb: \x07", 2, 4, "U+0007", id="control-character"),
        pytest.param("a: \ud800", 1, 4, "U+D800", id="surrogate"),
        pytest.param("a: \ufeff", 1, 4, "U+FEFF", id="byte-order-mark-inside"),
        pytest.param("a: " + "[" * 40 + "]" * 40, 1, 35, "deeper than 32", id="depth"),
        pytest.param("{" * 900_000, 1, 33, "", id="very-deep-flow"),
        pytest.param("[" * 900_000, 1, 33, "deeper than 32", id="very-deep-list"),
        pytest.param("\n".join(" " * i + "a:" for i in range(1300)), 33, 33, "deeper than 32", id="very-deep-block"),
        pytest.param("- " * 400_000, 1, 65, "deeper than 32", id="very-deep-sequence"),
        pytest.param("a: " + "x" * MAX_BYTES, 1, 1, "larger than 1,000,000", id="too-large"),
        pytest.param("\u00e9" * 600_000, 1, 1, "larger than 1,000,000", id="too-large-in-bytes"),
        pytest.param("a: \ud800" + "x" * MAX_BYTES, 1, 1, "larger than 1,000,000", id="too-large-with-surrogate"),
    ],
)
def test_yaml_refused_names_the_place(text: str, line: int | None, column: int | None, says: str) -> None:
    """What is not of the strict form is one mistake with its place, found at once."""
    started = time.process_time()
    with pytest.raises(YamlMistake) as caught:
        parse_yaml(text)
    assert time.process_time() - started < 4.0  # seconds, not minutes, even under coverage on a busy machine
    mistake = caught.value.mistake
    assert says in mistake.message
    if line is not None:
        assert (mistake.place.line, mistake.place.column) == (line, column)
    assert str(mistake).startswith(f"line {mistake.place.line}, column {mistake.place.column}: ")


def test_yaml_places_point_at_keys_and_values() -> None:
    """A value knows where it and its key begin, and whether columns inside it are exact."""
    root = parse_yaml("a:\n  b: 'x y'\n  c: >-\n    long\n    text\n  d: [1,\n      two]\n")
    assert isinstance(root.value, dict)
    inner = root.value["a"].value
    assert isinstance(inner, dict)
    assert (inner["b"].place, inner["b"].key_place, inner["b"].path) == (Place(2, 7), Place(2, 3), "a.b")
    assert inner["b"].inline
    assert not inner["c"].inline
    assert isinstance(inner["d"].value, list)
    assert (inner["d"].value[1].place, inner["d"].value[1].path) == (Place(7, 7), "a.d[1]")


def test_yaml_large_file_is_read_in_time() -> None:
    """A file near the limit of size is read, or refused, in a time that an operator does not notice."""
    started = time.process_time()
    parse_yaml("".join(f"k{i}: {i}\n" for i in range(20_000)))
    assert time.process_time() - started < 10.0


def test_yaml_places_of_the_packaged_policy_do_not_depend_on_the_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of PyYAML's parsers give equal items for the whole packaged policy."""
    ours = parse_yaml(read_packaged_text())
    monkeypatch.setattr(yaml_source, "_LOADER", yaml.SafeLoader)
    assert parse_yaml(read_packaged_text()) == ours
