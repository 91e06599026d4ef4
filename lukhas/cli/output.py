"""How commands print: a table for people, JSON for programs, one line of error with what to do."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from lukhas.errors import (
    ConfigurationError,
    IntegrityError,
    LukhasError,
    NotFound,
    PolicyDenied,
    PolicyError,
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


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
ConfigOption = Annotated[Path | None, typer.Option("--config", help="Settings file (TOML or YAML).")]

# A pipe or a file has no width: wide enough that no line of ours needs to be broken.
_UNBOUNDED_WIDTH: Final = 200


def print_json(value: Any) -> None:
    """Print a value as JSON, indented for people."""
    import orjson

    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode() + "\n")


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], title: str | None = None) -> None:
    """Print rows as a table, folded to the terminal's width; values are never read as markup."""
    from os import environ

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=None)
    for number, column in enumerate(columns):
        # The first column names the thing: folded, a name can no longer be searched or copied.
        table.add_column(Text(column), header_style="bold", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(show(cell)) for cell in row))
    width = None if sys.stdout.isatty() or "COLUMNS" in environ else _UNBOUNDED_WIDTH
    console = Console(highlight=False, width=width)
    with console.capture() as captured:
        console.print(table)
    # A cell is filled up to its column's width; at the end of a line nobody needs that.
    for line in captured.get().splitlines():
        print_line(line.rstrip())


def print_line(text: str = "") -> None:
    """Print one plain line."""
    sys.stdout.write(f"{text}\n")


def show(value: object) -> str:
    """Return a value as people see it; what could steer a terminal is shown by its code."""
    if value is None:
        return "-"
    if value is True or value is False:
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(show(part) for part in cast("Sequence[object]", value)) or "(none)"
    return show_text(str(value))


def show_text(text: str) -> str:
    """Return a text with every character that is not printable shown by its code; line ends stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def failing_clearly(as_json: bool = False) -> Generator[None]:
    """Turn an expected failure into a message on standard error and an exit code; with JSON, an `error` object too."""
    try:
        yield
    except LukhasError as failure:
        _report(failure, as_json)
        raise typer.Exit(exit_code(failure)) from None
    except BrokenPipeError:
        raise  # whoever read our output has gone; there is nobody to tell
    except OSError as failure:
        where = f"{failure.filename}: " if failure.filename else ""
        reason = f"{where}{failure.strerror or type(failure).__name__}."
        _report(ConfigurationError(reason, hint="Check the path and its permissions."), as_json)
        raise typer.Exit(Exit.USAGE) from None


def exit_code(failure: LukhasError) -> Exit:
    """Return the exit code of an error."""
    if isinstance(failure, IntegrityError):
        return Exit.INTEGRITY
    if isinstance(failure, (UnavailableError, UpstreamError)):
        return Exit.UNAVAILABLE
    if isinstance(failure, (NotFound, PolicyDenied)):
        return Exit.NEGATIVE
    return Exit.USAGE


def _report(failure: LukhasError, as_json: bool) -> None:
    if as_json:
        error: dict[str, Any] = {"code": failure.code, "message": failure.message}
        error |= {"hint": failure.hint, "param": failure.param}
        if isinstance(failure, PolicyError):
            error["mistakes"] = list_mistakes(failure)
        print_json({"error": error})
    sys.stderr.write(f"lukhas: {show_text(failure.message)}\n")
    if failure.hint:
        sys.stderr.write(f"  {show_text(failure.hint)}\n")


def list_mistakes(failure: PolicyError) -> list[dict[str, Any]]:
    """Return the mistakes of a policy as plain JSON types, each with its place."""
    from lukhas.modulation.yaml_source import Mistake

    return [
        {"line": m.place.line, "column": m.place.column, "path": m.path, "message": m.message}
        for m in cast("tuple[Mistake, ...]", failure.mistakes)
    ]
