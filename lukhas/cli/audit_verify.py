"""`lukhas audit verify`: whether every record is what was written, in the database or in an export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lukhas.cli.output import (
    ConfigOption,
    Exit,
    JsonOption,
    failing_clearly,
    print_json,
    print_line,
    print_table,
    show,
    show_text,
)
from lukhas.cli.progress import showing_progress
from lukhas.errors import InvalidRequest

if TYPE_CHECKING:
    from lukhas.audit.verify.finding import Report


def verify_log(
    export: Annotated[Path | None, typer.Option(metavar="FILE", help="Verify this export, offline.")] = None,
    key: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="The log's verifier key, or a file with it; repeatable.")
    ] = None,
    checkpoint: Annotated[
        list[Path] | None, typer.Option(metavar="PATH", help="A signed checkpoint, or a folder of them; repeatable.")
    ] = None,
    tiles: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The log's tiles, which tell exactly which record is wrong.")
    ] = None,
    proof: Annotated[list[Path] | None, typer.Option(metavar="FILE", help="A receipt to verify; repeatable.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail too where something could not be checked.")] = False,
    processes: Annotated[int, typer.Option(min=0, max=256, help="Processes that work; 0: one for each core.")] = 0,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Verify the log: in the database, or with --export FILE --key KEY offline. Exit 4 where anything is wrong."""
    with failing_clearly(as_json):
        paths, receipts = checkpoint or [], proof or []
        if export is None and not receipts:
            report = _verify_database(config, key or [], paths, processes)
        else:
            if not key:
                raise InvalidRequest(
                    "An offline verification needs the log's key.",
                    hint="Give --key: what `lukhas audit key` printed, from whom you trust.",
                    param="key",
                )
            report = _verify_offline(export, key, paths, tiles, receipts, processes)
        if as_json:
            print_json(_describe(report))
        else:
            print_report(report)
        if not report.ok or (strict and report.warnings):
            raise typer.Exit(Exit.INTEGRITY)


def _verify_offline(
    export: Path | None,
    keys: list[str],
    checkpoints: list[Path],
    tiles: Path | None,
    receipts: list[Path],
    processes: int,
) -> Report:
    from lukhas.audit.verify.anchor import TileFolder, read_keys
    from lukhas.audit.verify.offline import Evidence, verify_export, verify_receipts

    folder = None if tiles is None else TileFolder(tiles)
    evidence = Evidence(read_keys(keys), checkpoints, folder, receipts, processes)
    if export is None:
        return verify_receipts(evidence)
    with showing_progress("bytes") as progress:
        return verify_export(export, evidence, progress)


def _verify_database(config: Path | None, keys: list[str], checkpoints: list[Path], processes: int) -> Report:
    from lukhas.audit.verify.anchor import collect_notes, read_keys
    from lukhas.audit.verify.database import verify_database
    from lukhas.cli.audit_database import open_log_database
    from lukhas.settings import load_settings

    settings = load_settings(config_path=config).settings
    notes = collect_notes(checkpoints)
    shipped = None
    if settings.audit_ship:
        from lukhas.audit.ship_target import open_target

        shipped = open_target(settings.audit_ship)
    with open_log_database(settings) as database, showing_progress("records") as progress:
        return verify_database(database, read_keys(keys), notes, shipped, progress)


def print_report(report: Report) -> None:
    """Print a verification for people."""
    span = f"{report.first} to {report.size - 1}" if report.records else "none"
    print_line(f"records      {report.records} ({span})")
    if report.root is not None:
        print_line(f"root         {report.root}")
    compared = [one for one in report.checkpoints if one.state != "beside"]
    fitting = sum(one.state == "fits" for one in compared)
    print_line(
        f"checkpoints  {fitting} of {len(compared)} fit; the key vouches for the first {report.anchored} records"
    )
    if report.anchored > report.size:
        print_line(f"the log      goes on behind this export: it is signed up to {report.anchored} records")
    for text in report.warnings:
        print_line(f"warning      {show_text(text)}")
    if report.ok:
        print_line("Nothing is wrong." if not report.warnings else "Nothing is wrong in what could be checked.")
        return
    print_line()
    rows = [(one.kind, _span(one.index, one.last), show(one.audit_id)) for one in report.findings]
    print_table(("wrong", "first record", "audit id"), rows)
    print_line()
    for one in report.findings:
        print_line(show_text(one.message))


def _span(index: int | None, last: int | None) -> str:
    if index is None:
        return "-"
    return f"{index}" if last is None or last == index else f"{index} to {last}"


def _describe(report: Report) -> object:
    import msgspec

    return msgspec.to_builtins(report)
