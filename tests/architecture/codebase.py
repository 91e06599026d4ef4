"""The source tree as data: its files, modules, imports. Read with `ast`; nothing is imported or run."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from shutil import which

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "lukhas"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module, as a full dotted name, with the line that imports it."""

    target: str
    line: int


def module_name(path: Path) -> str:
    """Return the dotted name of a file below the root; a package's `__init__` is the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def sources() -> dict[Path, str]:
    """Return every Python file of the package with its text."""
    return {path: path.read_text("utf-8") for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return what git tracks; in an unpacked archive, every file outside hidden folders."""
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z"]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, check=False).stdout if which("git") else b""
    if listing:
        found = [ROOT / name for name in listing.decode().split("\0") if name]
    else:
        found = [p for p in ROOT.rglob("*") if not any(part.startswith(".") for part in p.relative_to(ROOT).parts)]
    return tuple(sorted(path for path in found if path.is_file() and not path.is_symlink()))


def tracked_texts(*suffixes: str) -> Iterator[tuple[Path, str]]:
    """Yield the tracked text files, those with one of the suffixes where any is given."""
    for path in tracked_files():
        if suffixes and path.suffix not in suffixes:
            continue
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def imports_of(text: str, module: str, *, is_package: bool = False) -> list[Import]:
    """Return all imports of a module, wherever they stand: in functions, under TYPE_CHECKING, by import_module.

    `from lukhas import errors` counts as `lukhas.errors`, and `from lukhas.errors import X` as `lukhas.errors.X`:
    a target may therefore be one name longer than the module it reaches, which rules by prefix do not notice.
    """
    package = module.split(".") if is_package else module.split(".")[:-1]
    found: list[Import] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [Import(name.name, node.lineno) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found += [Import(f"{base}.{name.name}", node.lineno) for name in node.names]
        elif isinstance(node, ast.Call) and _is_dynamic_import(node.func):
            found += [
                Import(argument.value, node.lineno)
                for argument in node.args[:1]
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str)
            ]
    return found


def _is_dynamic_import(function: ast.expr) -> bool:
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in ("import_module", "__import__")


def place(path: Path, line: int | None = None) -> str:
    """Return a place as people name it: `lukhas/ids.py:7`."""
    shown = path.relative_to(ROOT).as_posix()
    return f"{shown}:{line}" if line else shown
