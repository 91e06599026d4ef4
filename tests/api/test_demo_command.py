"""`lukhas demo`: eight situations through the official client, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lukhas.cli.demo import list_changes

DEADLINE_S = 60


def run(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with its temporary files in a folder of ours."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("LUKHAS_")}
    return subprocess.run(
        [sys.executable, "-m", "lukhas.cli.main", "demo", *arguments],
        env=environ | {"TMPDIR": str(folder)} | more,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def test_demo_plays_eight_situations_and_ends_by_itself(tmp_path: Path) -> None:
    """Each situation says what changed and why; one record is explained; nothing stays behind."""
    ran = run(folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    for number in range(1, 9):
        assert f"\n{number}. " in ran.stdout
    assert "temperature: 1.2 -> 0.28   (stress 0.7: max(0.1, 0.7 - 0.6 * x))" in ran.stdout
    assert "tools: retrieve_knowledge, open_url -> retrieve_knowledge" in ran.stdout
    assert "tools stripped  open_url" in ran.stdout
    assert "outcome   ok: The model answered." in ran.stdout
    assert "denied   The call was denied: moderation found 'injection' in the input. Incident inc_" in ran.stdout
    assert "temperature: 1 -> 0.32   (alignment_risk 0.8: 1 - 0.85 * x)" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert list(tmp_path.iterdir()) == []


def test_demo_json_has_what_was_sent_and_what_arrived(tmp_path: Path) -> None:
    """Programs get each situation whole, and a proxy of the environment is not asked."""
    ran = run("--json", folder=tmp_path, HTTP_PROXY="http://127.0.0.1:9", ALL_PROXY="http://127.0.0.1:9")
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    quiet, load, risk, remembered, novelty, strict, denied, tightened = found["situations"]
    assert quiet["changes"] == {}
    assert load["changes"]["max_tokens"] == {"before": 2000, "after": 980}
    assert risk["changes"]["temperature"] == {"before": 1.0, "after": 0.32}
    assert (remembered["signals"], remembered["streamed"]) == ({}, True)
    assert remembered["received"]["temperature"] == pytest.approx(0.32, abs=0.01)
    assert (novelty["style"], novelty["streamed"]) == ("creative", True)
    assert novelty["answer"].startswith("[echo]")
    assert strict["received"]["temperature"] == 0.1
    assert (denied["denied"], denied["received"], denied["changes"]) == (True, {}, {})
    assert (tightened["signals"], tightened["changes"]["temperature"]["before"]) == ({}, 1.0)
    assert tightened["received"]["temperature"] < 0.5
    assert tightened["changes"]["tools"]["after"] == ["retrieve_knowledge"]
    assert found["record"]["audit_id"] == risk["audit_id"]
    assert found["record"]["outcome"]["status"] == "ok"


def test_demo_settings_of_the_environment_do_not_matter(tmp_path: Path) -> None:
    """The demo is the same everywhere, and touches nobody's data."""
    own = tmp_path / "own"
    (tmp_path / "tmp").mkdir()
    ran = run(
        folder=tmp_path / "tmp",
        LUKHAS_DATA_DIR=str(own),
        LUKHAS_MODE="shadow",
        LUKHAS_PORT="1",
        OPENAI_API_KEY="hunter2",
    )
    assert ran.returncode == 0, ran.stderr
    assert "temperature: 1.2 -> 0.28" in ran.stdout
    assert not own.exists()


def test_demo_without_the_client_says_how_to_get_it() -> None:
    """A missing package is status 3, with the command that brings it."""
    code = "import sys; sys.modules['openai'] = None; from lukhas.cli.main import app; app(['demo'])"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tempfile.gettempdir(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ran.returncode == 3
    assert "pip install 'lukhas-pwm[demo]'" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("sent", "received", "changes"),
    [
        pytest.param({"a": 1, "model": "m"}, {"a": 1, "model": "n", "stream": True}, {}, id="nothing-of-interest"),
        pytest.param({"a": 1}, {"a": 2}, {"a": (1, 2)}, id="changed"),
        pytest.param({"a": 1}, {}, {"a": (1, None)}, id="gone"),
        pytest.param({}, {"a": 0}, {"a": (None, 0)}, id="added"),
        pytest.param({"messages": [1]}, {"messages": [0, 1]}, {"messages": (1, 2)}, id="messages-are-counted"),
    ],
)
def test_list_changes_requests_are_compared(
    sent: dict[str, object], received: dict[str, object], changes: dict[str, object]
) -> None:
    """What differs is told with its value before and after."""
    assert list_changes(sent, received) == changes
