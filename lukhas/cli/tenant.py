"""`lukhas tenant`: what holds for all keys of a tenant."""

from __future__ import annotations

import typer

from lukhas.cli import limit

app = typer.Typer(help="Limit tenants.", no_args_is_help=True)


@app.callback()
def tenant() -> None:
    """Limit tenants."""


app.command("limit")(limit.limit_tenant)
