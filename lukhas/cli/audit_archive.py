"""`lukhas audit archive`: archive the sealed months, as the gateway does every hour."""

from __future__ import annotations

from lukhas.cli.keeping import COLUMNS, counting_records, describe_row, open_keeping
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.errors import ConfigurationError
from lukhas.settings import load_settings


def archive_segments(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Seal what is over, and archive every sealed month that is not archived yet. Each archive is read back."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        if not settings.audit_archive:
            raise ConfigurationError(
                "There is no place to archive to.",
                hint="Set LUKHAS_AUDIT_ARCHIVE to file:///folder or s3://bucket/prefix.",
                param="LUKHAS_AUDIT_ARCHIVE",
            )
        with open_keeping(settings) as keeping:
            assert keeping.archiver is not None
            keeping.segments.seal()
            waiting = [one for one in keeping.segments.list() if one.archived_ms is None]
            total = sum(one.end_index - one.first_index for one in waiting)
            with counting_records(total) as on_progress:
                keeping.archiver.archive_all(on_progress)
            names = {one.name for one in waiting}
            done = [one for one in keeping.segments.list() if one.name in names]
        if as_json:
            print_json({"archived": [one.describe() for one in done]})
        elif done:
            print_table(COLUMNS, [describe_row(one) for one in done], title="Archived")
        else:
            print_line("Nothing to archive: every sealed month is archived.")
