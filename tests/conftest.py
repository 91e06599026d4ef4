"""What every test gets: an environment of its own, marks for what the machine lacks, the table of skips."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from capability import CAPABILITIES, is_strict, missing

ROOT = Path(__file__).resolve().parent.parent
VECTORS = ROOT.parent / "shared" / "vectors"
KEPT_PREFIX = "LUKHAS_TEST_"

hypothesis.settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile("dev", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])

_started = pytest.StashKey[float]()
_home = pytest.StashKey["tuple[tempfile.TemporaryDirectory[str], dict[str, str]]"]()


def pytest_configure(config: pytest.Config) -> None:
    """Give the run a home of its own before any test module, and so lukhas.settings, is imported."""
    is_strict()
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "dev")
    home = tempfile.TemporaryDirectory(prefix="lukhas-tests-", ignore_cleanup_errors=True)
    config.stash[_started] = time.monotonic()
    config.stash[_home] = (home, dict(os.environ))
    for name in _ours():
        del os.environ[name]
    os.environ |= {"HOME": home.name, "LUKHAS_DATA_DIR": str(Path(home.name, "data"))}


def pytest_unconfigure(config: pytest.Config) -> None:
    """Put the environment back, for whoever runs pytest from Python."""
    home, before = config.stash[_home]
    os.environ.clear()
    os.environ |= before
    home.cleanup()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose `requires` mark names what is not here."""
    for mark in item.iter_markers("requires"):
        unknown = sorted(set(mark.args) - set(CAPABILITIES))
        if unknown or not mark.args:
            pytest.fail(f"requires({', '.join(unknown)}) is not in tests/capability.py", pytrace=False)
        for name in mark.args:
            if reason := missing(name):
                pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Turn each skip into a failure where everything is required."""
    report: pytest.TestReport = yield  # type: ignore[assignment]
    if report.skipped and is_strict() and not hasattr(report, "wasxfail"):
        report.outcome, report.when = "failed", "call"
        report.longrepr = f"{item.nodeid}: skipped where everything is required: {_reason(report)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    """Turn the skip of a whole module into a failure where everything is required."""
    report: pytest.CollectReport = yield  # type: ignore[assignment]
    if report.skipped and is_strict():
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: skipped where everything is required: {_reason(report)}"
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """End with the table of skips, or hand it to tools/suite.py, which prints it last."""
    stats = terminalreporter.stats
    table = [[count, reason] for reason, count in sorted(Counter(map(_reason, stats.get("skipped", []))).items())]
    kinds = {"passed": "passed", "failed": "failed", "errors": "error", "skipped": "skipped"}
    tally = {name: len(stats.get(kind, [])) for name, kind in kinds.items()}
    counts = [f"{tally[name]} {name}" for name in kinds if tally[name] or name in ("passed", "failed")]
    closing = f"{', '.join(counts)} in {time.monotonic() - config.stash[_started]:.1f}s"
    if report := config.stash[_home][1].get("LUKHAS_TEST_REPORT"):
        Path(report).write_text(json.dumps({"skipped": table, "closing": closing, "counts": tally}), "utf-8")
    elif table:
        terminalreporter.section("what was skipped, and why")
        for count, reason in table:
            terminalreporter.write_line(f"{count:>5}  {reason}")


@pytest.fixture(autouse=True)
def own_environment(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """Give each test a data directory of its own, and fail the test that leaves LUKHAS_* changed behind it."""
    directory = tmp_path_factory.getbasetemp() / "data" / f"{abs(hash(request.node.nodeid)):x}"
    os.environ["LUKHAS_DATA_DIR"] = str(directory)
    before = _ours()
    yield
    after = _ours()
    for name in after.keys() - before.keys():
        del os.environ[name]
    os.environ |= before
    changed = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    if changed:
        pytest.fail(f"the test left {', '.join(changed)} changed; use monkeypatch.setenv", pytrace=False)


@pytest.fixture(scope="session")
def vectors() -> Path:
    """The folder of published test vectors, which stands beside the checkout where it stands at all."""
    if not VECTORS.is_dir():
        pytest.skip("the shared test vectors are missing (../shared/vectors beside the checkout)")
    return VECTORS


def _ours() -> dict[str, str]:
    return {n: v for n, v in os.environ.items() if n.startswith("LUKHAS_") and not n.startswith(KEPT_PREFIX)}


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
