"""`lukhas incident`: what violated the policy, and letting go of what it tightened."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.cli.policy_revision import name_actor
from lukhas.cli.store import ACTOR, open_existing, open_stores
from lukhas.clock import SystemClock, format_utc
from lukhas.errors import StorageUnavailable
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.gateway.incident import IncidentRow, IncidentStore

app = typer.Typer(help="List incidents, and release what they tightened.", no_args_is_help=True)
IncidentArgument = Annotated[
    str, typer.Argument(metavar="INCIDENT_ID", help="inc_..., as `lukhas incident list` shows it.")
]


@app.command("list")
def list_incidents(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    category: Annotated[str | None, typer.Option(help="Only this category, such as tool or secret.")] = None,
    point: Annotated[str | None, typer.Option(help="Only at this point, such as input, output or call.")] = None,
    tool: Annotated[str | None, typer.Option(help="Only of this tool.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most that are listed.")] = 20,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List incidents, newest first."""
    with failing_clearly(as_json):
        with _open_incidents(load_settings(config_path=config).settings) as incidents:
            rows = incidents.list(tenant=tenant, category=category, point=point, tool=tool, limit=limit)
        if as_json:
            print_json({"incidents": [_describe(row) for row in rows]})
        elif not rows:
            print_line("There are no such incidents.")
        else:
            columns = ("incident", "time", "tenant", "point", "category", "rule", "severity", "action", "tool")
            print_table(columns, [_list_line(row) for row in rows])


@app.command("show")
def show_incident(incident_id: IncidentArgument, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show one incident, and what it raised."""
    with failing_clearly(as_json):
        with _open_incidents(load_settings(config_path=config).settings) as incidents:
            row = incidents.read(incident_id)
        if as_json:
            print_json(_describe(row))
            return
        facts: dict[str, Any] = {**_describe(row), "time": format_utc(row.time_ms)}
        details: dict[str, Any] = facts.pop("details")
        del facts["raised"]
        for name, value in facts.items():
            if not name.endswith("_ms"):
                print_line(f"{name:12} {show(value)}")
        for name, value in details.items():
            print_line(f"details.{name} {show(value)}")
        if row.raised:
            columns = ("scope", "id", "signal", "level", "ends", "released")
            print_table(
                columns,
                [
                    (r.scope, r.id, r.signal, r.level, format_utc(r.at_ms + r.ttl_ms), _moment(r.released_ms))
                    for r in row.raised
                ],
            )


@app.command("release")
def release(
    incident_id: IncidentArgument,
    reason: Annotated[str, typer.Option(help="Why; goes on record. 1 to 500 characters.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Release every subject that an incident tightened. A running gateway follows within a second."""
    with failing_clearly(as_json), open_stores(load_settings(config_path=config).settings) as stores:
        from lukhas.audit.redaction import redact_text
        from lukhas.audit.store import AuditRecord
        from lukhas.gateway.incident import IncidentStore, Target, check_reason
        from lukhas.ids import make_id

        why = check_reason(reason)
        incidents = IncidentStore(stores.database, stores.writer, stores.clock, stores.audit)
        row = incidents.read(incident_id)
        now_ms = stores.clock.now_ms()
        open_now = [r for r in row.raised if r.released_ms is None and r.at_ms + r.ttl_ms > now_ms]
        audit_id: str | None = None
        if open_now:
            audit_id = make_id("aud")
            targets = [Target(r.subject, r.signal) for r in open_now]
            body: dict[str, Any] = {
                "event": "released",
                "reason": redact_text(why),
                "incident": incident_id,
                "who": redact_text(name_actor()),
                "targets": [
                    {"scope": r.scope, "id": r.id, "signal": r.signal, "emitted_level": r.level} for r in open_now
                ],
            }
            record = AuditRecord(
                kind="signal",
                audit_id=audit_id,
                tenant=row.tenant,
                key_id=ACTOR,
                request_id=None,
                time_ms=now_ms,
                session=next((r.id for r in open_now if r.scope == "session"), None),
                user=next((r.id for r in open_now if r.scope == "user"), None),
                body=body,
            )
            incidents.release_sync(record, targets, max(now_ms, *(r.at_ms for r in open_now)))
        released = [{"scope": r.scope, "id": r.id, "signal": r.signal, "level": r.level} for r in open_now]
        if as_json:
            print_json({"incident": incident_id, "audit_id": audit_id, "released": released})
        elif not open_now:
            print_line(f"Nothing that {incident_id} raised is left to release.")
        else:
            for one in open_now:
                print_line(f"Released {one.signal} of the {one.scope} {show(one.id)}.")
            print_line(f"On record as {audit_id}.")


@contextmanager
def _open_incidents(settings: Settings) -> Generator[IncidentStore]:
    from lukhas.audit.store import AuditStore
    from lukhas.gateway.incident import IncidentStore
    from lukhas.storage import migrate
    from lukhas.storage.writer import GroupCommitWriter

    with open_existing(settings) as database:
        if not migrate.is_current(database):
            raise StorageUnavailable(
                "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
            )
        writer, clock = GroupCommitWriter(database, max_rows=1, name="unused"), SystemClock()
        yield IncidentStore(database, writer, clock, AuditStore(database, writer, clock))


def _describe(row: IncidentRow) -> dict[str, Any]:
    from lukhas.gateway.incident import describe_incident

    return describe_incident(row)


def _list_line(row: IncidentRow) -> tuple[object, ...]:
    time = format_utc(row.time_ms)[:19].replace("T", " ")
    return (row.incident_id, time, row.tenant, row.point, row.category, row.rule, row.severity, row.action, row.tool)


def _moment(ms: int | None) -> str:
    return "-" if ms is None else format_utc(ms)
