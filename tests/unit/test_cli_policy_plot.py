"""`lukhas policy plot`: pictures and figures of a parameter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import lukhas.cli.policy_plot
from lukhas.cli.main import app
from lukhas.modulation.policy_reader import load_policy


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", "plot", *arguments])


def test_plot_writes_a_picture_of_the_parameters_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path it lands in the working directory, and the figures are printed too."""
    monkeypatch.chdir(tmp_path)
    result = run("temperature")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "temperature.png").read_bytes().startswith(b"\x89PNG")
    assert "Wrote temperature.png" in result.stdout
    row = next(line.split() for line in result.stdout.splitlines() if line.startswith("stress"))
    assert row[:7] == ["stress", "style", "0.6", "0.55", "0.4", "0.25", "0.1"]


def test_plot_json_has_the_figures_and_draws_only_where_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs get figures; a picture only with --out."""
    monkeypatch.chdir(tmp_path)
    found = json.loads(run("top_p", "--against", "stress,alignment_risk", "--json").stdout)
    assert found["policy"] == load_policy().id
    assert found["plane"]["x_signal"] == "stress"
    assert len(found["lines"]) == 2
    assert found["picture"] is None
    assert list(tmp_path.iterdir()) == []
    assert json.loads(run("top_p", "--json", "--out", "a.png").stdout)["picture"] == "a.png"
    assert (tmp_path / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        pytest.param(["temprature"], "did you mean 'temperature'", id="parameter"),
        pytest.param(["top_p", "--against", "stres"], "did you mean 'stress'", id="signal"),
        pytest.param(["top_p", "--against", "stress,trust,urgency"], "one signal, or two", id="three"),
        pytest.param(["top_p", "--against", "stress,"], "one signal, or two", id="half-a-pair"),
        pytest.param(["top_p", "--against", ""], "one signal, or two", id="none"),
        pytest.param(["top_p", "--policy", "none.yaml"], "cannot be read", id="policy"),
        pytest.param(["top_p", "--out", "none/a.png"], "No such file", id="folder"),
    ],
)
def test_plot_wrong_use_is_exit_2(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong is said in a line, and nothing is drawn."""
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_plot_without_matplotlib_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra a picture is exit 3; the figures still come."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lukhas.cli.policy_plot, "find_spec", lambda name: None)
    result = run("top_p")
    assert result.exit_code == 3
    assert "lukhas-pwm[plot]" in result.stderr
    assert run("top_p", "--json").exit_code == 0
