"""`lukhas doctor`: is everything here that serving needs, and what to do where it is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from lukhas.cli.output import ConfigOption, Exit, JsonOption, print_json, print_line, print_table
from lukhas.errors import LukhasError
from lukhas.settings import load_settings

if TYPE_CHECKING:
    from lukhas.cli.finding import Finding


def doctor(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Examine this installation; changes nothing. Exit 1 where something is wrong, 3 where it is out of reach."""
    from lukhas.cli.examination import examine
    from lukhas.cli.finding import Finding

    try:
        settings = load_settings(config_path=config).settings
    except LukhasError as failure:
        findings = [Finding("settings", "fail", failure.message, failure.hint or "Correct it; see: lukhas config show")]
    else:
        findings = examine(settings)
    failed = [one for one in findings if one.state == "fail"]
    if as_json:
        rows = [{"check": f.check, "state": f.state, "found": f.found, "advice": f.advice} for f in findings]
        print_json({"ok": not failed, "checks": rows})
    else:
        _print(findings)
    if failed:
        raise typer.Exit(Exit.UNAVAILABLE if any(one.out_of_reach for one in failed) else Exit.NEGATIVE)


def _print(findings: list[Finding]) -> None:
    print_table(("check", "state", "found"), [(f.check, f.state, f.found) for f in findings])
    advice = [f for f in findings if f.state != "ok" and f.advice]
    if advice:
        print_line()
        print_table(("what to do", ""), [(f.check, f.advice) for f in advice])
    print_line()
    counts = {state: sum(f.state == state for f in findings) for state in ("ok", "warn", "fail")}
    print_line(", ".join(f"{count} {state}" for state, count in counts.items()))
