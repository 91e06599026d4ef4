"""`lukhas audit segments`: the log's sealed months, and what became of each."""

from __future__ import annotations

from lukhas.cli.keeping import COLUMNS, describe_row
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.cli.store import open_existing
from lukhas.settings import load_settings


def list_segments(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the log's sealed months: their records, archives, and whether they were pruned."""
    with failing_clearly(as_json):
        from lukhas.audit.segment import read_segments

        settings = load_settings(config_path=config).settings
        with open_existing(settings) as database:
            found = read_segments(database)
        if as_json:
            print_json({"segments": [one.describe() for one in found]})
        elif found:
            print_table(COLUMNS, [describe_row(one) for one in found])
        else:
            print_line("No month is sealed yet. A month is sealed an hour after it is over: lukhas audit seal")
