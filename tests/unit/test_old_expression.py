"""Expressions of older policies, translated through their tree."""

from __future__ import annotations

import pytest

from lukhas.modulation.old_expression import Untranslatable, Variables, translate

OWN = Variables(frozenset({"level", "x"}))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("0.8 - (level * 0.6)", "0.8 - x * 0.6", id="level"),
        pytest.param("max(0.1, 0.7 - 0.6*x)", "max(0.1, 0.7 - 0.6 * x)", id="x"),
        pytest.param("level_high * level", "level_high * x", id="only-the-name-itself"),
        pytest.param("'level' if level > 0.5 else current", "'level' if x > 0.5 else current", id="not-in-texts"),
        pytest.param("['level', browser]", "['level', browser]", id="not-in-tools"),
        pytest.param("level ** 3", "x * x * x", id="power"),
        pytest.param("(1 - level) ** 2", "(1 - x) * (1 - x)", id="power-of-a-sum"),
        pytest.param("+float(level)", "x", id="plus-and-float"),
        pytest.param("min([1, level])", "min(1, x)", id="list-of-arguments"),
        pytest.param("strict if x>0.3 else balanced", "strict if x > 0.3 else balanced", id="members"),
        pytest.param("1 -\n  level", "1 - x", id="two-lines"),
    ],
)
def test_translate_expression_is_carried_over(before: str, after: str) -> None:
    """The tree is what counts: names are replaced where they are names."""
    assert translate(before, OWN).text == after


def test_translate_ceilings_stand_around_each_level() -> None:
    """max_level of the signal itself and of others it names."""
    variables = Variables(frozenset({"level"}), {"": 0.9, "stress": 0.8, "trust": 1.0})
    assert translate("level + stress + trust", variables).text == "min(x, 0.9) + min(stress, 0.8) + trust"


def test_translate_signal_called_min_does_not_change_the_function() -> None:
    """A function's name is no variable."""
    assert translate("min(level, 1)", Variables(frozenset({"level"}), {"min": 0.5})).text == "min(x, 1)"


def test_translate_tools_are_listed() -> None:
    """Whoever makes the classes has to know every tool that is named."""
    assert translate("['a'] if x > 0.7 else [b, 'a']", OWN).tools == ("a", "b")


@pytest.mark.parametrize(
    ("text", "column", "says"),
    [
        pytest.param("1 + math.exp(level)", 5, "'math.exp'", id="attribute-call"),
        pytest.param("int(level)", 1, "'int'", id="unknown-function"),
        pytest.param("level // 2", 1, "operator", id="floor-division"),
        pytest.param("level ** 0.5", 1, "power", id="root"),
        pytest.param("level ** 99999999", 1, "power", id="large-power"),
        pytest.param("a.b", 1, "'a.b'", id="attribute"),
        pytest.param("levels['x']", 1, "index", id="index"),
        pytest.param("(lambda: 1)()", 1, "function", id="lambda"),
        pytest.param("__import__('os').system('true')", 1, "does not exist", id="code"),
        pytest.param("[1, 2]", 2, "names of tools", id="list-of-numbers"),
        pytest.param("0.7 -", 1, "cannot be understood", id="half"),
        pytest.param("", 1, "is empty", id="empty"),
        pytest.param(")(", 1, "closes none", id="brackets"),
        pytest.param("a\x00b", 2, "U+0000", id="null"),
        pytest.param("x" * 3000, 2000, "longer than", id="long"),
        pytest.param("(" * 900 + "x" + ")" * 900, 1, "", id="deep"),
        pytest.param("-" * 1900 + "x", 1, "nested too deeply", id="deep-minus"),
    ],
)
def test_translate_what_does_not_exist_here_is_refused(text: str, column: int, says: str) -> None:
    """With the column and the reason; nothing is ever evaluated."""
    with pytest.raises(Untranslatable) as refused:
        translate(text, OWN)
    assert says in refused.value.reason
    assert refused.value.column >= 1
    if says and "understood" not in says:
        assert refused.value.column == column
