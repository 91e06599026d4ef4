"""docs/reference/cli.md has every command with its options, and nothing that is not there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer.main
from page import ROOT

from lukhas.cli.main import app
from lukhas.cli.output import Exit

PAGE = ROOT / "docs" / "reference" / "cli.md"
SECTION = re.compile(r"^### `lukhas ([a-z ]+)`\n(.*?)(?=^##|\Z)", re.MULTILINE | re.DOTALL)


def commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command of the program with its full name."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def rows(command: Any) -> list[str]:
    """Return the rows that the page must have for a command's arguments and options."""
    found: list[str] = []
    for part in command.params:
        if part.name == "help":
            continue
        if part.param_type_name == "argument":
            names = f"`{(part.metavar or part.name).upper()}`"
        else:
            names = ", ".join(f"`{name}`" for name in part.opts)
        found.append(f"| {names} | {part.help} |")
    return found


def sections() -> dict[str, str]:
    return {match[1]: match[2] for match in SECTION.finditer(PAGE.read_text("utf-8"))}


def test_cli_page_has_every_command() -> None:
    """A command without a section, or a section without a command, misleads."""
    assert sorted(sections()) == sorted(name for name, _ in commands(typer.main.get_command(app)))


def test_cli_page_describes_each_command_as_it_describes_itself() -> None:
    """Summary, arguments and options are those of the program."""
    found = sections()
    for name, command in commands(typer.main.get_command(app)):
        lines = found[name].splitlines()
        assert command.help in found[name].replace("\n", " "), name
        shown = [line for line in lines if line.startswith("| ") and not line.startswith(("| option", "| ---"))]
        assert shown == rows(command), name


def test_cli_page_has_every_exit_code() -> None:
    """The table of exit codes is that of the program."""
    text = PAGE.read_text("utf-8")
    assert re.findall(r"^\| `(\d)` \|", text, re.MULTILINE) == [str(int(code)) for code in Exit]
