"""`lukhas policy simulate`: a candidate policy over what was recorded."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from lukhas.cli.output import ConfigOption, Exit, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.errors import InvalidRequest, PolicyError
from lukhas.settings import Settings, load_settings

_AGE: Final = re.compile(r"(\d{1,6})([smhdw])\Z", re.ASCII)
_UNITS_MS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_MOST_LISTED: Final = 20


def simulate_policy(
    policy: Annotated[Path, typer.Option(help="The candidate: a policy file.")],
    since: Annotated[
        str | None, typer.Option(help="Begin at: an age such as 7d or 12h, or 2026-12-31 or 2026-12-31T08:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="End before: the same forms.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most that many decisions, the newest.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.json, report.html and report.png.")] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Replay recorded decisions: check each by its own revision, and say what a candidate would have changed."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.clock import SystemClock
        from lukhas.modulation.policy_reader import load_policy
        from lukhas.replay.report import describe

        now_ms = SystemClock().now_ms()
        since_ms = None if since is None else read_moment(since, now_ms, "--since")
        until_ms = None if until is None else read_moment(until, now_ms, "--until")
        if since_ms is not None and until_ms is not None and until_ms <= since_ms:
            raise InvalidRequest("--until is not after --since.", param="--until")
        candidate = load_policy(policy)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
        report = describe(_simulate(settings, candidate, since_ms, until_ms, limit))
        report["files"] = [] if out is None else write_files(report, out)
        if as_json:
            print_json(report)
        else:
            print_report(report)
        if report["check"]["mismatches"]:
            raise typer.Exit(Exit.INTEGRITY)


def read_moment(text: str, now_ms: int, param: str) -> int:
    """Return ms since the epoch for an age or a moment; a moment without a zone is UTC.

    Raises:
        InvalidRequest: neither.
    """
    age = _AGE.match(text.strip())
    if age:
        return now_ms - int(age[1]) * _UNITS_MS[age[2]]
    try:
        found = datetime.fromisoformat(text.strip())
        return round((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise InvalidRequest(
            f"'{text[:40]}' is no time.", hint="Write an age such as 7d, 12h or 30m, or a date.", param=param
        ) from None


def write_files(report: dict[str, Any], folder: Path) -> list[str]:
    """Write the report's files and return their paths; the picture only where matplotlib is installed.

    Raises:
        OSError: one cannot be written.
    """
    import orjson

    from lukhas.replay.page import render_page
    from lukhas.replay.picture import draw_report

    paths = [folder / "report.json", folder / "report.html"]
    paths[0].write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    paths[1].write_text(render_page(report), "utf-8")
    if find_spec("matplotlib") is not None:
        paths.append(folder / "report.png")
        draw_report(report, paths[-1])
    return [str(path) for path in paths]


def print_report(report: dict[str, Any]) -> None:
    """Print a report for people."""
    check = report["check"]
    print_line(f"candidate  {report['policy']} ({report['source']})")
    print_line(f"decisions  {report['read']:,} read, {report['simulated']:,} decided by the candidate")
    print_line(f"check      {_say_check(check)}")
    for one in check["listed"][:_MOST_LISTED]:
        print_line(f"  record {one['index']}  {one['audit_id']}  differs in {', '.join(one['differs'])}")
    if check["mismatches"] > _MOST_LISTED:
        print_line(f"  and {check['mismatches'] - _MOST_LISTED:,} more")
    share = f" ({report['changed'] / report['simulated']:.1%})" if report["simulated"] else ""
    print_line(f"changed    {report['changed']:,} calls would have been others{share}")
    for reason, count in report["refused"].items():
        print_line(f"refused    {count:,} calls: {reason}")
    for note in report["notes"]:
        print_line(f"note       {note}")
    _print_parameters(report["parameters"])
    for title, rows in (("style", report["styles"]), ("safety mode", report["safety_modes"])):
        if rows:
            print_line()
            print_table((title, "by the candidate", "calls"), [(r["before"], r["after"], r["calls"]) for r in rows])
    tools = report["tools"]
    if tools["blocked"] or tools["allowed"]:
        print_line()
        found = [(name, "blocked", count) for name, count in tools["blocked"].items()]
        found += [(name, "allowed", count) for name, count in tools["allowed"].items()]
        print_table(("tool", "would be", "calls"), found)
    if report["examples"]:
        print_line()
        rows = [(one["audit_id"], one["differs"]) for one in report["examples"]]
        print_table(("some of these calls", "differ in"), rows)
    if report["files"]:
        print_line()
        for path in report["files"]:
            print_line(f"Wrote {path}")
        if find_spec("matplotlib") is None:
            print_line("No picture: matplotlib is not installed. Run: pip install 'lukhas-pwm[plot]'")


def _say_check(check: dict[str, Any]) -> str:
    unknown = sum(check["unknown_revisions"].values())
    said = f"{check['checked']:,} decided again by their own revision: "
    said += f"{check['mismatches']:,} NOT as recorded" if check["mismatches"] else "all byte for byte as recorded"
    if not check["checked"] and not check["mismatches"]:
        said = "nothing to check"
    return said + (f"; {unknown:,} of unknown revisions" if unknown else "")


def _print_parameters(parameters: dict[str, Any]) -> None:
    rows = [
        (
            *(name, change["changed"], f"{change['share']:.1%}"),
            *((change["tighter"], change["looser"]) if change["tighter_is"] else (None, None)),
            *(change.get("mean_change"), change.get("largest_change")),
            *(change["newly_set"], change["no_longer_set"]),
        )
        for name, change in parameters.items()
        if change["changed"] or change["newly_set"] or change["no_longer_set"]
    ]
    if rows:
        print_line()
        heads = ("parameter", "calls", "share", "tighter", "looser", "mean", "largest", "newly set", "no longer")
        print_table(heads, rows)


def _simulate(settings: Settings, candidate: Any, since_ms: int | None, until_ms: int | None, limit: int | None) -> Any:
    from lukhas.cli.store import open_existing
    from lukhas.errors import StorageUnavailable
    from lukhas.modulation.policy_reader import load_policy
    from lukhas.replay.simulate import simulate
    from lukhas.storage import migrate

    also: tuple[str, ...] = ()
    if settings.policy is not None:
        try:
            also = (load_policy(settings.policy).text,)
        except PolicyError:
            also = ()  # a broken file never decided anything
    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        with _progress() as report:
            return simulate(
                database,
                settings.sqlalchemy_url,
                candidate,
                also=also,
                since_ms=since_ms,
                until_ms=until_ms,
                limit=limit,
                on_progress=report,
            )


@contextmanager
def _progress() -> Generator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, on standard error so that a report can go elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("records"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("records", total=None)
        yield lambda done, span: bar.update(task, completed=done, total=span)
