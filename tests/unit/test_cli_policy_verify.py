"""`lukhas policy verify`: proved, refuted with an example in words, and what stands in the way of a proof."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lukhas.cli.main import app
from lukhas.modulation.certificate import Certificate
from lukhas.modulation.policy_reader import load_policy, read_packaged_text

pytest.importorskip("z3", reason="the solver is not installed (extra verify)")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["policy", "verify", *arguments])


@pytest.fixture
def rising(tmp_path: Path) -> Path:
    """A policy whose guard raises the temperature."""
    path = tmp_path / "rising.yaml"
    path.write_text(read_packaged_text().replace("temperature: 1 - 0.85 * x", "temperature: 0.2 + 0.5 * x"), "utf-8")
    return path


def test_verify_packaged_policy_is_proved(tmp_path: Path) -> None:
    """Without a file it is the packaged policy; the certificate is written where asked."""
    path = tmp_path / "certificate.json"
    result = run("--write-certificate", str(path))
    assert result.exit_code == 0, result.output
    assert "result       proved" in result.stdout
    written = Certificate.decode(path.read_bytes())
    assert (written.result, written.policy) == ("proved", load_policy().id)
    assert written.hash in result.stdout


def test_verify_policy_of_the_settings_is_the_default(monkeypatch: pytest.MonkeyPatch, rising: Path) -> None:
    """LUKHAS_POLICY names what is in force here."""
    monkeypatch.setenv("LUKHAS_POLICY", str(rising))
    assert run().exit_code == 1


def test_verify_refuted_policy_says_where_in_words(rising: Path) -> None:
    """The status is 1, and the example names levels and both values."""
    result = run(str(rising))
    assert result.exit_code == 1
    assert "result       refuted" in result.stdout
    assert "with alignment_risk " in result.stdout
    assert "raised to " in result.stdout


def test_verify_json_has_the_certificate_with_its_hash(rising: Path) -> None:
    """JSON carries every statement, the counterexample as data and in words."""
    result = run(str(rising), "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert len(found["hash"]) == 64
    refuted = [statement for statement in found["statements"] if statement["result"] == "refuted"]
    assert {statement["id"] for statement in refuted} >= {"tighten:alignment_risk:temperature"}
    assert all(statement["counterexample"]["confirmed"] for statement in refuted)
    assert all(statement["in_words"].startswith("with ") for statement in refuted)
    assert found["sha256"] == load_draft_hash(rising)


def load_draft_hash(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_verify_file_with_mistakes_is_not_a_policy(tmp_path: Path) -> None:
    """A file that does not parse has its places, as everywhere; it is not proved, which is status 1."""
    path = tmp_path / "broken.yaml"
    path.write_text(read_packaged_text().replace("role: style", "role: stile"), "utf-8")
    result = run(str(path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["code"] == "policy_invalid"
    assert run(str(tmp_path / "missing.yaml")).exit_code == 2


def test_verify_without_time_is_not_proved(tmp_path: Path) -> None:
    """A proof that had no time ends as 'not proved', with status 1."""
    result = run("--timeout", "0.1")
    assert result.exit_code == 1
    assert "not proved" in result.stdout
    assert "result       proved" not in result.stdout


def test_verify_without_solver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 3, and the command that installs the extra."""
    monkeypatch.setattr("lukhas.modulation.prover.is_solver_installed", lambda: False)
    result = run()
    assert result.exit_code == 3
    assert "pip install 'lukhas-pwm[verify]'" in result.stderr


def test_verify_prints_values_never_as_markup(tmp_path: Path) -> None:
    """What stands in a policy cannot steer the terminal."""
    path = tmp_path / "own\x1b[31m.yaml"
    path.write_text(read_packaged_text(), "utf-8")
    assert "\x1b" not in run(str(path)).stdout


@pytest.mark.parametrize(
    ("changed", "arguments", "expected"),
    [
        pytest.param(False, [], "proved", id="packaged"),
        pytest.param(True, [], "not proved", id="own"),
        pytest.param(True, ["--verify"], "proved", id="own-verified"),
    ],
)
def test_policy_show_says_what_is_proved(tmp_path: Path, changed: bool, arguments: list[str], expected: str) -> None:
    """The packaged policy's certificate ships; another policy is proved where it is asked for."""
    path = tmp_path / "own.yaml"
    path.write_text(read_packaged_text() + "# mine\n" * changed, "utf-8")
    shown = CliRunner().invoke(app, ["policy", "show", str(path), *arguments])
    assert f"proof    {expected}\n" in shown.stdout
    asked = CliRunner().invoke(app, ["policy", "show", str(path), "--json", *arguments])
    assert json.loads(asked.stdout)["proof"] == expected
