"""`lukhas version`: this program's version, and those of what it stands on."""

from __future__ import annotations

import platform

import typer

from lukhas import __version__
from lukhas.cli.output import JsonOption, print_json, print_line


def version(as_json: JsonOption = False) -> None:
    """Print the versions of this program, of Python and of SQLite."""
    from lukhas.storage.sqlite import sqlite_safety

    found = {"lukhas": __version__, "python": platform.python_version(), "sqlite": sqlite_safety().version}
    if as_json:
        print_json(found)
    else:
        print_line(f"lukhas {found['lukhas']} (Python {found['python']}, SQLite {found['sqlite']})")


def print_version(asked: bool) -> None:
    """Print this program's version and end, where `--version` was given."""
    if asked:
        print_line(f"lukhas {__version__}")
        raise typer.Exit
