"""`lukhas audit reindex`: making the search index anew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line
from lukhas.errors import ConfigurationError
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.audit.search_index import SearchIndex
    from lukhas.audit.source import RecordSource


def rebuild_index(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Delete the search index and make it anew from the log. A running gateway goes on."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.audit.source import RecordSource
        from lukhas.cli.audit_database import open_log_database
        from lukhas.cli.progress import showing_progress

        with open_log_database(settings) as database:
            index = find_index(settings, RecordSource(database))
            if index is None:
                raise ConfigurationError(
                    "A log on PostgreSQL has no search index: it is searched by reading it.",
                    param="LUKHAS_DATABASE_URL",
                )
            with showing_progress("records") as progress:
                records = index.rebuild(progress)
            index.close()
        if as_json:
            print_json({"records": records})
        else:
            print_line(f"The search index has {records} records.")


def find_index(settings: Settings, source: RecordSource) -> SearchIndex | None:
    """Return the data directory's index of a log in SQLite; None where the database is on a server."""
    from lukhas.audit.search_index import SearchIndex
    from lukhas.cli.store import find_file

    is_file = find_file(settings.sqlalchemy_url) is not None
    return SearchIndex(settings.data_dir, source) if is_file else None
