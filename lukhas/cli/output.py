"""How commands print: a table for people, JSON for programs, one line of error with what to do."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated, Any

import orjson
import typer

from lukhas.errors import (
    IntegrityError,
    LukhasError,
    NotFound,
    PolicyDenied,
    UnavailableError,
    UpstreamError,
)


class Exit(IntEnum):
    """Exit codes, the same for every command."""

    OK = 0
    NEGATIVE = 1
    USAGE = 2
    UNAVAILABLE = 3
    INTEGRITY = 4


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def print_json(value: Any) -> None:
    """Print a value as JSON, indented for people."""
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows as a table; values are never read as markup."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)
    for column in columns:
        table.add_column(column, header_style="bold", overflow="fold")
    for row in rows:
        table.add_row(*(Text(show(cell)) for cell in row))
    Console(highlight=False, soft_wrap=False).print(table)


def print_line(text: str) -> None:
    """Print one plain line."""
    sys.stdout.write(f"{text}\n")


def show(value: object) -> str:
    """Return a value as a table shows it."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(show(part) for part in value) or "(none)"  # pyright: ignore[reportUnknownVariableType] - any sequence
    return str(value)


@contextmanager
def failing_clearly(as_json: bool = False) -> Generator[None]:
    """Turn an error of ours into a message on standard error and an exit code."""
    try:
        yield
    except LukhasError as failure:
        if as_json:
            error = {"code": failure.code, "message": failure.message, "hint": failure.hint, "param": failure.param}
            print_json({"error": error})
        sys.stderr.write(f"lukhas: {failure.message}\n")
        if failure.hint:
            sys.stderr.write(f"  {failure.hint}\n")
        raise typer.Exit(exit_code(failure)) from None


def exit_code(failure: LukhasError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(failure, IntegrityError):
        return Exit.INTEGRITY
    if isinstance(failure, (UnavailableError, UpstreamError)):
        return Exit.UNAVAILABLE
    if isinstance(failure, (NotFound, PolicyDenied)):
        return Exit.NEGATIVE
    return Exit.USAGE
