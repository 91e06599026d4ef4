"""`lukhas audit list`: searching the log from the command line, and following it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.errors import InvalidRequest
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.audit.search_index import SearchIndex
    from lukhas.audit.search_page import Row
    from lukhas.audit.search_query import Query
    from lukhas.audit.source import RecordSource

_COLUMNS: Final = ("record", "index", "time", "kind", "tenant", "key", "what")
_LOOK_EVERY_S: Final = 0.5


def list_records(
    since: Annotated[str | None, typer.Option(help="Begin at: an age such as 24h or 7d, or a time in UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="End before: an age such as 1h, or a time in UTC.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    session: Annotated[str | None, typer.Option(help="The name that calls send for the session, or sub_...")] = None,
    user: Annotated[str | None, typer.Option(help="The name that calls send for the end user, or sub_...")] = None,
    key: Annotated[str | None, typer.Option(help="Only of this API key: key_...")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as decision, outcome or note.")] = None,
    mode: Annotated[str | None, typer.Option(help="Safety mode, such as strict; or enforce or shadow.")] = None,
    signal: Annotated[str | None, typer.Option(help="Only where this signal was active, sent or released.")] = None,
    tool: Annotated[str | None, typer.Option(help="Only where this tool was offered, stripped or called.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    status: Annotated[str | None, typer.Option(help="Only outcomes that ended so, such as ok or blocked.")] = None,
    text: Annotated[str | None, typer.Option(help='Words that occur; "words in a row"; a beginning*.')] = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="Most that are listed.")] = 50,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new records until interrupted.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search the audit log, newest first."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.audit.moment import parse_moment
        from lukhas.audit.search_query import Query
        from lukhas.audit.source import RecordSource
        from lukhas.cli.audit_database import open_log_database
        from lukhas.cli.audit_reindex import find_index
        from lukhas.clock import SystemClock

        now_ms = SystemClock().now_ms()
        query = Query(
            since_ms=None if since is None else parse_moment(since, now_ms, "since"),
            until_ms=None if until is None else parse_moment(until, now_ms, "until"),
            tenant=tenant,
            key=key,
            kind=kind,
            mode=mode,
            signal=signal,
            tool=tool,
            model=model,
            status=status,
            text=text,
            limit=limit,
        )
        with open_log_database(settings) as database:
            query = replace(
                query,
                session=_find_subject(settings, tenant, "session", session),
                user=_find_subject(settings, tenant, "user", user),
            )
            source = RecordSource(database)
            index = find_index(settings, source)
            if follow:
                _follow(query, source, index, as_json)
                return
            rows, following = _collect(query, source, index)
        if as_json:
            print_json({"records": [_describe(row) for row in rows], "more": following})
        elif not rows:
            print_line("There are no such records.")
        else:
            print_table(_COLUMNS, [_list_line(row) for row in rows])
            if following:
                print_line(f"There are older ones: more with --limit, up to 500, or --until {rows[-1].time}")


def _collect(query: Query, source: RecordSource, index: SearchIndex | None, floor: int = 0) -> tuple[list[Row], bool]:
    """Return a page that is full, however long that takes, and whether there are more."""
    from lukhas.audit.search_page import search

    rows: list[Row] = []
    asked = query
    while True:
        page = search(asked, source, index, floor=floor)
        rows += page.rows
        if page.complete or page.next_cursor is None or len(rows) >= query.limit:
            return rows, page.next_cursor is not None
        asked = replace(query, limit=query.limit - len(rows), cursor=page.next_cursor)


def _follow(query: Query, source: RecordSource, index: SearchIndex | None, as_json: bool) -> None:
    """Print what is there, oldest first, and then what comes, until interrupted."""
    size = source.size()
    rows, _ = _collect(query, source, index)
    _print_lines(rows, as_json)
    # Those that came while the first were read are below this too, or among them.
    seen = max(size, rows[0].index + 1 if rows else 0)
    try:
        while True:
            time.sleep(_LOOK_EVERY_S)
            size = source.size()
            if size <= seen:
                continue
            found: list[Row] = []
            more, asked = True, replace(query, limit=500)
            while more:
                part, more = _collect(asked, source, None, seen)
                found += part
                # Older ones of the same burst: the next page ends where this one began.
                if more and part:
                    asked = replace(asked, cursor=_cursor_after(asked, part))
            _print_lines([row for row in found if row.index >= seen], as_json)
            seen = max(size, found[0].index + 1 if found else 0)
    except KeyboardInterrupt:
        return


def _cursor_after(query: Query, rows: Sequence[Row]) -> str:
    from lukhas.audit.search_page import write_cursor

    return write_cursor(query, rows[-1].index)


def _print_lines(rows: Sequence[Row], as_json: bool) -> None:
    import orjson

    for row in reversed(rows):
        if as_json:
            sys.stdout.write(orjson.dumps(_describe(row)).decode() + "\n")
        else:
            print_line("  ".join(show(cell) for cell in _list_line(row)))
    sys.stdout.flush()


def _find_subject(settings: Settings, tenant: str | None, kind: Literal["session", "user"], name: str | None) -> Any:
    if name is None:
        return None
    from lukhas.ids import check_id

    if name.startswith("sub_"):
        return check_id("sub", name)
    from lukhas.cli.store import open_existing
    from lukhas.openai.wire import check_subject
    from lukhas.storage.writer import GroupCommitWriter
    from lukhas.vault.pepper import FILE_NAME
    from lukhas.vault.subjects import SubjectVault

    check_subject(name, f"--{kind}")
    with open_existing(settings, "vault") as database:
        unused = GroupCommitWriter(database, max_rows=1, name="unused")
        vault = SubjectVault(database, unused, key_path=settings.data_dir / FILE_NAME)
        found = vault.lookup(tenant or "default", kind, name)
    if found is None:
        raise InvalidRequest(
            f"No {kind} of that name is known for the tenant {tenant or 'default'}.",
            hint="Name its tenant with --tenant; one that was forgotten is found by its sub_ id only.",
            param=f"--{kind}",
        )
    return found


def _describe(row: Row) -> dict[str, Any]:
    import msgspec

    return msgspec.to_builtins(row)


def _list_line(row: Row) -> tuple[object, ...]:
    moment = row.time[:19].replace("T", " ")
    return (row.audit_id, row.index, moment, row.kind, row.tenant or "-", row.key_id, row.summary)
