"""`lukhas object`: which tenant an upstream object belongs to."""

from __future__ import annotations

from typing import Annotated

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, print_table, show
from lukhas.cli.store import ACTOR, open_existing, open_stores
from lukhas.clock import SystemClock, format_utc
from lukhas.errors import StorageUnavailable
from lukhas.settings import load_settings

app = typer.Typer(help="Bind upstream objects (files, conversations, ...) to tenants.", no_args_is_help=True)


@app.command("add")
def add(
    object_id: Annotated[str, typer.Argument(metavar="ID", help="The upstream's id, such as file-abc123.")],
    tenant: Annotated[str, typer.Option(help="Whose it is.")],
    kind: Annotated[
        str, typer.Option(help="What it is: response, conversation, file, vector_store, container or prompt.")
    ],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bind an object that was made outside the gateway to a tenant. A running gateway admits it at once."""
    with failing_clearly(as_json), open_stores(load_settings(config_path=config).settings) as stores:
        from lukhas.access.scope import check_tenant
        from lukhas.gateway.object import ObjectOwners

        owner = check_tenant(tenant)
        body = {"event": "object_bound", "object": object_id[:256], "object_kind": kind[:64]}
        audit_id, also = stores.record("note", owner, body)
        owners = ObjectOwners(stores.database, stores.writer, stores.clock)
        found, is_new = owners.add(object_id, kind, owner, ACTOR, also)
        shown = {"object": found.object_id, "kind": found.kind, "tenant": found.tenant, "added": is_new}
        if as_json:
            print_json({**shown, "audit_id": audit_id if is_new else None})
        elif not is_new:
            print_line(f"{show(object_id)} was bound to {found.tenant} before.")
        else:
            print_line(f"Bound the {show(kind)} {show(object_id)} to {found.tenant}, on record as {audit_id}.")


@app.command("list")
def list_objects(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as file.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most that are listed.")] = 50,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """List known objects, newest first."""
    with failing_clearly(as_json):
        from lukhas.gateway.object import ObjectOwners
        from lukhas.storage import migrate
        from lukhas.storage.writer import GroupCommitWriter

        with open_existing(load_settings(config_path=config).settings) as database:
            if not migrate.is_current(database):
                raise StorageUnavailable(
                    "The database is not at this program's revision.", hint="Bring it there with: lukhas db upgrade"
                )
            writer = GroupCommitWriter(database, max_rows=1, name="unused")
            found = ObjectOwners(database, writer, SystemClock()).list(tenant=tenant, kind=kind, limit=limit)
        rows = [
            {
                "object": one.object_id,
                "kind": one.kind,
                "tenant": one.tenant,
                "key": one.key_id,
                "made": format_utc(one.created_ms),
            }
            for one in found
        ]
        if as_json:
            print_json({"objects": rows})
        elif not rows:
            print_line("There are no such objects.")
        else:
            print_table(tuple(rows[0]), [tuple(row.values()) for row in rows])
