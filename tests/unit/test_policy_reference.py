"""The pages about the policy say what the code does: tables, keys, limits, and the recipe runs."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from lukhas import Modulator, Signal
from lukhas.errors import PolicyError
from lukhas.modulation import expression, parameter_reader, signals, yaml_source
from lukhas.modulation.policy import ParameterSpec
from lukhas.modulation.policy_reader import load_policy, parse_policy, read_packaged_text

ROOT = Path(__file__).resolve().parent.parent.parent
REFERENCE = ROOT / "docs" / "reference" / "policy.md"
HOW_TO = ROOT / "docs" / "how-to" / "change-the-policy.md"
POLICY = load_policy()


def signal_table() -> str:
    rows = ["| signal | role | precedence | weight | cooldown_ms | ttl_ms | max_ttl_ms | half_life_ms | min_level |"]
    rows.append("| --- " * 9 + "|")
    for s in POLICY.signals.values():
        cells = (
            s.name,
            s.role,
            s.precedence,
            s.weight,
            s.cooldown_ms,
            s.ttl_ms,
            s.max_ttl_ms,
            s.half_life_ms,
            s.min_level,
        )
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def parameter_table() -> str:
    rows = ["| parameter | type | default | bounds or values | tighter |", "| --- | --- | --- | --- | --- |"]
    for p in POLICY.parameters.values():
        default = f"[{', '.join(p.default)}]" if isinstance(p.default, tuple) else f"{p.default}"
        rows.append(f"| {p.name} | {p.kind} | {default} | {bounds(p)} | {p.tighter or 'none'} |")
    return "\n".join(rows)


def bounds(spec: ParameterSpec) -> str:
    if spec.kind == "enum":
        return ", ".join(spec.values)
    return "classes and functions" if spec.kind == "tools" else f"{spec.low:g} to {spec.high:g}"


def map_table() -> str:
    rows = ["| signal | parameter | expression |", "| --- | --- | --- |"]
    for signal in POLICY.signals:
        for rule in POLICY.rules.values():
            if rule.signal == signal:
                rows.append(f"| {signal} | {rule.parameter} | `{rule.text}` |")
    return "\n".join(rows)


@pytest.mark.parametrize("table", [signal_table, parameter_table, map_table], ids=lambda table: table.__name__)
def test_reference_tables_are_those_of_the_packaged_policy(table) -> None:
    """The tables of packaged values are the packaged file's."""
    assert table() in REFERENCE.read_text("utf-8"), table()


def test_reference_names_every_key_that_the_readers_ask_for() -> None:
    """Each key that the code reads from a policy file stands in the reference."""
    text = REFERENCE.read_text("utf-8")
    folder = ROOT / "lukhas" / "modulation"
    keys: set[str] = set()
    for name in ("policy_reader", "parameter_reader", "map_reader", "violation_reader"):
        source = (folder / f"{name}.py").read_text("utf-8")
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
                first = node.args[0]
                is_read = node.func.attr in ("get", "table", "word", "words", "number", "integer")
                if is_read and isinstance(first, ast.Constant) and isinstance(first.value, str):
                    keys.add(first.value)
    assert len(keys) > 30
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_reference_names_every_limit() -> None:
    """The limits in the reference are those in the code."""
    text = REFERENCE.read_text("utf-8").replace(",", "")
    for limit in (
        expression.MAX_LENGTH,
        expression.MAX_DEPTH,
        expression.MAX_NODES,
        int(expression.MAX_NUMBER),
        yaml_source.MAX_BYTES,
        yaml_source.MAX_DEPTH,
        parameter_reader.MAX_ENTRIES,
        signals.MAX_TTL_MS,
    ):
        assert re.search(rf"\b{limit}\b", text), limit


def test_how_to_example_loads_and_decides() -> None:
    """The recipe's lines, put where it says, make a policy that decides as it promises; so does its mistake."""
    page = HOW_TO.read_text("utf-8")
    snippet = re.search(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert snippet is not None
    parts = re.split(r" *# under (\w+):\n", snippet[1])[1:]
    text = read_packaged_text()
    for section, lines in zip(parts[::2], parts[1::2], strict=True):
        text = text.replace(f"\n{section}:\n", f"\n{section}:\n{lines}", 1)
    decision = Modulator(policy=parse_policy(text)).combine([Signal("outage", 1.0)])
    assert decision.parameters["max_output_tokens"] == 400
    assert decision.tools == []
    broken = text.replace("1200 - 800 * x", "1200 - 800 * y")
    with pytest.raises(PolicyError) as caught:
        parse_policy(broken, "policy.yaml")
    shown = str(caught.value).split("\n")[1].partition("Allowed:")[0]
    assert shown in page
