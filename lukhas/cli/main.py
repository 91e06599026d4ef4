"""The `lukhas` command: one file per command group.

Every command imports what it needs when it runs, so that asking for help, or serving, loads nothing else.
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import Annotated

import typer

from lukhas.cli import (
    database,
    demo,
    doctor,
    incident,
    key,
    moderation,
    modulate,
    object,
    policy,
    record,
    serving,
    setting,
    tenant,
    tool,
    version,
)

app = typer.Typer(
    name="lukhas",
    help="Signals in; bounded, explained changes to the model call out; every decision on record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serving.serve)
app.command("modulate")(modulate.modulate)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.add_typer(policy.app, name="policy")
app.add_typer(key.app, name="key")
app.add_typer(moderation.app, name="moderation")
app.add_typer(tool.app, name="tools")
app.add_typer(tenant.app, name="tenant")
app.add_typer(record.app, name="audit")
app.add_typer(incident.app, name="incident")
app.add_typer(object.app, name="object")
app.add_typer(database.app, name="db")
app.add_typer(setting.app, name="config")
app.command("version")(version.version)


@app.callback()
def root(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", callback=version.print_version, is_eager=True),
    ] = False,
) -> None:
    """Signals in; bounded, explained changes to the model call out; every decision on record."""


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(ValueError):
                # A terminal that cannot show a character gets its code instead of a traceback.
                stream.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
