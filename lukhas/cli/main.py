"""The `lukhas` command: one file per command group."""

from __future__ import annotations

import typer

from lukhas.cli import serving

app = typer.Typer(
    name="lukhas",
    help="Signals in; bounded, explained changes to the model call out; every decision on record.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serving.serve)


@app.callback()
def root() -> None:
    """LUKHAS PWM."""


def main() -> None:
    """Run the command line."""
    app()


if __name__ == "__main__":
    main()
