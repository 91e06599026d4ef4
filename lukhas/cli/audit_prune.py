"""`lukhas audit prune`: delete the records of old months whose archive is proved whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from lukhas.cli.keeping import counting_records, open_keeping
from lukhas.cli.output import ConfigOption, Exit, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.errors import InvalidRequest
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.audit.segment import Segment


def prune_segments(
    older_than: Annotated[
        int | None,
        typer.Option("--older-than", metavar="MONTHS", help="Months since a month's end; else the retention set."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be pruned.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete the records of old months from the database. Each month's archive is read back and proved first."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        months = _choose_months(settings, older_than)
        with open_keeping(settings) as keeping:
            chosen, kept = keeping.plan(months)
            reason = kept.reason if kept.segment is None else f"{kept.segment.name} stays: {kept.reason}"
            is_asked = bool(chosen) and not dry_run and not yes
            if chosen and not as_json:
                print_table(("month", "records", "archive"), [_describe(one) for one in chosen], title="To be pruned")
            if is_asked and not _confirm(as_json):
                raise typer.Exit(Exit.NEGATIVE)
            if not dry_run and chosen:
                total = sum(one.end_index - one.first_index for one in chosen)
                with counting_records(total) as on_progress:
                    keeping.prune(months, on_progress)
        if as_json:
            found = {"months": [one.name for one in chosen], "pruned": not dry_run and bool(chosen), "kept": reason}
            print_json(found)
        elif not chosen:
            print_line(f"Nothing to prune: {reason}.")
        elif dry_run:
            print_line("Nothing was deleted. Without --dry-run these would be pruned.")
        else:
            print_line(f"Pruned. Every proof still holds. {reason[0].upper()}{reason[1:]}.")


def _choose_months(settings: Settings, older_than: int | None) -> int:
    months = settings.audit_retention_months if older_than is None else older_than
    if months:
        return months
    raise InvalidRequest(
        "Say how old records must be: no retention is set.",
        hint=f"lukhas audit prune --older-than {settings.audit_retention_min_months}, "
        "or set LUKHAS_AUDIT_RETENTION_MONTHS.",
        param="older-than",
    )


def _describe(segment: Segment) -> tuple[object, ...]:
    return segment.name, segment.end_index - segment.first_index, segment.archive


def _confirm(as_json: bool) -> bool:
    if as_json or not sys.stdin.isatty():
        raise InvalidRequest("Pruning deletes records from the database; nobody is here to confirm.", hint="Add --yes.")
    return typer.confirm("Delete these records from the database?", err=True)
