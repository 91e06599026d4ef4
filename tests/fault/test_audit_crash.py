"""What an audit log holds after kills, power cuts and failing disks: short forms of the scripts beside this file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> dict[str, Any]:
    """Run a script in a process of its own, since it forks, and return its report."""
    done = subprocess.run([sys.executable, str(HERE / script), *arguments], capture_output=True, timeout=120)
    assert done.stdout, done.stderr.decode()
    report = json.loads(done.stdout)
    assert done.returncode == (1 if report["failures"] else 0), done.stderr.decode()
    return report


def test_log_survives_six_rounds_of_kills() -> None:
    """The short form of `audit_kill_loop.py --rounds 200`: nothing acknowledged is lost, and the tree is whole."""
    report = run("audit_kill_loop.py", "--rounds", "6", "--seed", "5")
    assert report["failures"] == []
    assert report["kills"] >= 6 and report["acknowledged"] > 300


@pytest.mark.requires("cc")
def test_log_survives_ten_power_cuts() -> None:
    """The short form of `power_cut.py --cuts 200`: what was not synced may be gone, what was acknowledged is there."""
    report = run("power_cut.py", "--cuts", "10", "--seconds", "0.7", "--seed", "5")
    assert report["failures"] == []
    assert report["cuts"] == 10 and report["acknowledged"] > 100
    assert report["cuts_with_loss"] > 0 and report["checkpoints"] > 0


@pytest.mark.requires("cc")
def test_power_cut_finds_records_that_were_acknowledged_before_they_were_durable() -> None:
    """The harness can fail: writers that do not sync lose what they have acknowledged."""
    report = run("power_cut.py", "--cuts", "10", "--seconds", "0.7", "--seed", "5", "--pragma", "synchronous=OFF")
    assert report["failures"] != []


@pytest.mark.requires("cc")
def test_log_survives_eight_faults_of_the_disk() -> None:
    """The short form of `disk_fault_loop.py --faults 100`: writing goes on by itself, and no sync is tried again."""
    report = run("disk_fault_loop.py", "--faults", "8", "--seed", "5")
    assert report["failures"] == []
    assert report["syncs_tried_again"] == 0 and sum(report["failed"].values()) > 20
