"""The test harness itself: skips with a reason, failures where everything is required, environments kept apart."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import suite
from capability import CAPABILITIES, missing
from codebase import ROOT

ABSENT = "nginx"


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[str, int]]:
    """Run pytest on one test source, under this project's conftest, on a machine that has no programs at all."""

    def run_source(source: str, **environ: str) -> tuple[str, int]:
        folder = tmp_path / "checkout" / "tests"
        folder.mkdir(parents=True)
        for name in ("conftest.py", "capability.py"):
            shutil.copy(ROOT / "tests" / name, folder)
        (folder.parent / "pytest.ini").write_text("[pytest]\nmarkers =\n    requires(*names): x\n", "utf-8")
        (folder / "test_it.py").write_text("import os, pytest\n" + source, "utf-8")
        outer = {n: v for n, v in os.environ.items() if not n.startswith(("LUKHAS_", "COVERAGE_")) and n != "CI"}
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "tests"],
            cwd=folder.parent,
            env=outer | {"PATH": str(tmp_path / "empty")} | environ,
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.stdout + ran.stderr, ran.returncode

    return run_source


def test_requires_absent_program_skips_with_the_way_to_install_it(run) -> None:
    """A machine without the program still has a green run, which says what it did not cover."""
    output, status = run(f"@pytest.mark.requires('{ABSENT}')\ndef test_a(): assert False\n")
    assert status == 0, output
    assert f"{ABSENT} is missing (apt-get install" in output
    assert "what was skipped, and why" in output


def test_skip_where_all_is_required_fails(run) -> None:
    """In CI nothing is left out unseen, however a test skips itself."""
    source = (
        f"@pytest.mark.requires('{ABSENT}')\ndef test_mark(): pass\n"
        "def test_call(): pytest.skip('here')\n"
        "@pytest.mark.skip(reason='here')\ndef test_skip_mark(): pass\n"
        "def test_fixture(vectors): pass\n"
    )
    output, status = run(source, LUKHAS_TEST_REQUIRE="all")
    assert status == 1, output
    assert output.count("skipped where everything is required") >= 4
    assert "4 failed" in output


def test_skip_of_a_module_where_all_is_required_fails(run) -> None:
    """A module that skips itself as a whole is seen, too."""
    output, status = run("pytest.skip('here', allow_module_level=True)\n", LUKHAS_TEST_REQUIRE="all")
    assert status != 0, output
    assert "skipped where everything is required: here" in output


def test_expected_failure_where_all_is_required_stays_one(run) -> None:
    """An expected failure ran; it is not a skip."""
    output, status = run("@pytest.mark.xfail\ndef test_a(): assert False\n", LUKHAS_TEST_REQUIRE="all")
    assert status == 0, output
    assert "1 xfailed" in output


def test_requires_misspelt_value_is_refused(run) -> None:
    """A typing error in the variable must not silently turn the requirement off."""
    output, status = run("def test_a(): pass\n", LUKHAS_TEST_REQUIRE="al")
    assert status != 0
    assert "LUKHAS_TEST_REQUIRE must be" in output


def test_requires_unknown_name_fails(run) -> None:
    """A mark that names nothing known is a mistake, not a skip."""
    output, status = run("@pytest.mark.requires('nodejs')\ndef test_a(): pass\n")
    assert status != 0
    assert "requires(nodejs) is not in tests/capability.py" in output


def test_environment_left_changed_fails_the_test_and_spares_the_next(run) -> None:
    """A test that sets LUKHAS_* for good is named, and its neighbour does not see the value."""
    source = (
        "def test_a(): os.environ['LUKHAS_MODE'] = 'shadow'\n"
        "def test_b(): assert 'LUKHAS_MODE' not in os.environ\n"
        "def test_c(monkeypatch): monkeypatch.setenv('LUKHAS_MODE', 'shadow')\n"
        "def test_d(): del os.environ['LUKHAS_DATA_DIR']\n"
    )
    output, status = run(source)
    assert status == 1
    assert "the test left LUKHAS_MODE changed" in output
    assert "the test left LUKHAS_DATA_DIR changed" in output
    assert "4 passed, 2 errors" in output


def test_environment_of_the_shell_does_not_reach_the_tests(run, tmp_path: Path) -> None:
    """Neither the developer's settings nor their data directory are ever used."""
    source = (
        "def test_a():\n"
        "    assert 'LUKHAS_PORT' not in os.environ\n"
        f"    assert not os.environ['LUKHAS_DATA_DIR'].startswith({str(tmp_path / 'mine')!r})\n"
        f"    assert os.path.expanduser('~') != {str(tmp_path / 'mine')!r}\n"
    )
    mine = str(tmp_path / "mine")
    output, status = run(source, LUKHAS_PORT="1", LUKHAS_DATA_DIR=mine, HOME=mine)
    assert status == 0, output


def test_report_for_the_suite_holds_skips_and_closing_line(run, tmp_path: Path) -> None:
    """tools/suite.py gets what it prints last."""
    report = tmp_path / "report.json"
    source = "def test_a(): pass\ndef test_b(): assert False\ndef test_c(): pytest.skip('no reason')\n"
    run(source, LUKHAS_TEST_REPORT=str(report))
    told = json.loads(report.read_text("utf-8"))
    assert told["skipped"] == [[1, "no reason"]]
    assert told["closing"].startswith("1 passed, 1 failed, 1 skipped in ")


def test_capability_table_entries_say_how_to_install() -> None:
    """Whoever lacks a program is told one command."""
    assert all(capability.install for capability in CAPABILITIES.values())
    assert all(missing(name) is None or name in str(missing(name)) for name in CAPABILITIES)


def _file(lines: tuple[int, int], branches: tuple[int, int]) -> dict[str, dict[str, float]]:
    summary = {"covered_lines": lines[0], "num_statements": lines[1], "percent_covered": 50.0}
    return {"summary": summary | {"covered_branches": branches[0], "num_branches": branches[1]}}


@pytest.mark.parametrize(
    ("branches", "holds"),
    [pytest.param((19, 20), True, id="at-the-floor"), pytest.param((18, 20), False, id="below")],
)
def test_gate_core_branches_are_held_apart_from_the_rest(branches: tuple[int, int], holds: bool) -> None:
    """The pure core has its own floor, which good figures elsewhere do not lift."""
    files = {
        "lukhas/modulation/policy.py": _file((100, 100), branches),
        "lukhas/ids.py": _file((90, 100), (9, 10)),
        "tools/suite.py": _file((0, 100), (0, 100)),
    }
    core, rest = suite.measure(files)
    assert core.holds is holds
    assert core.branches == pytest.approx(100 * branches[0] / branches[1])
    assert rest.holds
    assert (rest.lines, rest.branches) == (90.0, 90.0)


def test_suite_runs_every_folder_of_tests_once() -> None:
    """A folder that no part names would never run in CI."""
    folders = {path.parent.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    named = [name for part in suite.PARTS for name in part]
    assert sorted(named) == sorted(folders)


def test_parts_join_into_one_report() -> None:
    """Counts and skips add up; a kind that did not occur is not told, but for the two that always are."""
    one = {"skipped": [[2, "no redis"]], "counts": {"passed": 5, "failed": 0, "errors": 0, "skipped": 2}}
    other = {"skipped": [[1, "no redis"]], "counts": {"passed": 7, "failed": 1, "errors": 0, "skipped": 1}}
    joined = suite.join_reports([one, other], 12.34)
    assert joined["closing"] == "12 passed, 1 failed, 3 skipped in 12.3s"
    assert joined["skipped"] == [[3, "no redis"]]
