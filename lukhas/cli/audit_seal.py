"""`lukhas audit seal`: seal the months that are over, as the gateway does every hour."""

from __future__ import annotations

from lukhas.cli.keeping import COLUMNS, describe_row, open_keeping
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table
from lukhas.settings import load_settings


def seal_segments(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Seal every month that has been over for an hour. Exit 4 where a sealed one is no longer what it was."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        with open_keeping(settings) as keeping:
            sealed = keeping.segments.seal()
        if as_json:
            print_json({"sealed": [one.describe() for one in sealed]})
        elif sealed:
            print_table(COLUMNS, [describe_row(one) for one in sealed], title="Sealed")
        else:
            print_line("Nothing to seal: every month that is over is sealed, and as it was.")
