"""`lukhas db`: bring the databases up to date, and check them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from lukhas.cli.output import (
    ConfigOption,
    Exit,
    JsonOption,
    failing_clearly,
    print_json,
    print_line,
    show,
)
from lukhas.cli.store import find_file, open_existing
from lukhas.errors import StorageUnavailable
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.storage.engine import Database, Schema

app = typer.Typer(help="Bring the databases up to date, and check them.", no_args_is_help=True)

SCHEMAS: Final[tuple[Schema, ...]] = ("main", "vault")
# What SQLite says of a file that is damaged, as against one that is locked or absent.
_DAMAGED: Final = ("malformed", "not a database", "corrupt")
_READ_TOGETHER: Final = 500


@app.command("upgrade")
def upgrade(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Bring the tables to this program's revision, making the databases where there are none."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.storage import migrate
        from lukhas.storage.engine import open_database, vault_url

        done: list[dict[str, Any]] = []
        for schema in SCHEMAS:
            url = settings.sqlalchemy_url if schema == "main" else vault_url(settings.sqlalchemy_url)
            database = open_database(url, schema=schema)
            try:
                before = migrate.current(database)
                migrate.upgrade(database)
                after = migrate.current(database)
            finally:
                database.close()
            done.append({"database": schema, "place": _name(database), "before": before, "after": after})
        if as_json:
            print_json({"databases": done})
            return
        for one in done:
            moved = f"{one['before'] or 'empty'} -> {one['after']}" if one["before"] != one["after"] else "up to date"
            print_line(f"{one['database']:6} {one['place']}: {moved}")


@app.command("check")
def check(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Check revision, tables, files and the audit log's hashes. Exit 4 where what is stored is damaged."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        found = [("main", *check_schema(settings, "main")), ("vault", *_check_vault(settings))]
    problems = [problem for _, _, wrong in found for problem in wrong]
    if as_json:
        rows = [{"database": schema, "place": place, "problems": wrong} for schema, place, wrong in found]
        print_json({"ok": not problems, "databases": rows})
    else:
        for schema, place, wrong in found:
            print_line(f"{schema:6} {place}: {'ok' if not wrong else ''}".rstrip())
            for problem in wrong:
                print_line(f"  {show(problem)}")
    if problems:
        # A database that waits for an upgrade is whole.
        raise typer.Exit(Exit.NEGATIVE if all(p.startswith("revision:") for p in problems) else Exit.INTEGRITY)


def check_schema(settings: Settings, schema: Schema) -> tuple[str, list[str]]:
    """Return where a database is, and all that is wrong with it.

    Raises:
        StorageUnavailable: there is none yet, or it cannot be reached.
    """
    from lukhas.storage import migrate

    with open_existing(settings, schema) as database:
        try:
            problems = migrate.check(database)
            if schema == "main" and not problems:
                problems = check_log(database)
        except StorageUnavailable as failure:
            if not any(word in failure.hint for word in _DAMAGED):
                raise
            problems = [f"integrity: {failure.message} {failure.hint}"]
        return _name(database), problems


def _check_vault(settings: Settings) -> tuple[str, list[str]]:
    """Check the vault; beside a main database a missing one is a finding, since only serving makes it."""
    from lukhas.storage.engine import vault_url

    path = find_file(vault_url(settings.sqlalchemy_url))
    if path is not None and not path.is_file():
        return str(path), ["revision: there is no vault yet (run: lukhas db upgrade)"]
    return check_schema(settings, "vault")


def check_log(database: Database) -> list[str]:
    """Return where the audit log's records are not those that were hashed into its head."""
    from sqlalchemy import select
    from sqlalchemy.exc import NoResultFound

    from lukhas.audit.merkle import append_leaf, leaf_hash, pack_frontier
    from lukhas.audit.statement import read_head
    from lukhas.storage.metadata import AUDIT_RECORD

    record = AUDIT_RECORD.c
    peaks: list[bytes] = []
    count = 0
    with database.reading() as connection, connection.begin():
        try:
            size, frontier, _ = read_head(connection)
        except (NoResultFound, TypeError, ValueError):
            return ["integrity: the audit log's head cannot be read"]
        query = select(record.leaf_index, record.leaf_hash, record.data).order_by(record.leaf_index)
        # Rows past the head belong to a transaction that this look does not see whole on every database.
        rows = connection.execution_options(yield_per=_READ_TOGETHER).execute(query.where(record.leaf_index < size))
        for index, leaf, data in rows:
            if index != count:
                return [f"integrity: record {count} of the audit log is missing"]
            # SQLite keeps whatever type was put in, so a changed record need not even be bytes.
            if not isinstance(data, bytes) or leaf_hash(data) != leaf:
                return [f"integrity: record {index} of the audit log is not what was written"]
            append_leaf(peaks, count, leaf)
            count += 1
    if count != size:
        return [f"integrity: the audit log's head counts {size} records, and there are {count}"]
    return [] if pack_frontier(peaks) == frontier else ["integrity: the audit log's head does not fit its records"]


def _name(database: Database) -> str:
    return str(database.path) if database.path is not None else f"{database.kind} ({database.schema})"
