"""docs/reference/failure-modes.md: each row of its tables names tests, and each of them exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from page import ROOT

PAGE = ROOT / "docs" / "reference" / "failure-modes.md"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


def rows(text: str) -> list[str]:
    """Return the rows of a page's tables, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith(("| failure |", "| --- |"))]


@cache
def find_tests(name: str) -> frozenset[str]:
    """Return the names of the tests of a file, wherever it lies; file names are unique over all folders."""
    found: set[str] = set()
    for path in Path(ROOT, "tests").glob(f"*/{name}"):
        tree = ast.parse(path.read_text("utf-8"))
        found |= {node.name for node in tree.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return frozenset(found)


@pytest.mark.parametrize("row", rows(PAGE.read_text("utf-8")), ids=lambda row: row.split(" | ")[0][2:42])
def test_failure_page_row_names_tests_that_exist(row: str) -> None:
    """A promise without a test is a wish."""
    named = NAMED.findall(row)
    assert named
    assert [f"{file}::{test}" for file, test in named if test not in find_tests(file)] == []


def test_failure_page_tells_of_every_dependency() -> None:
    """What the gateway depends on has a section each, and no table is empty."""
    sections = re.split(r"^## ", PAGE.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert [section.splitlines()[0] for section in sections] == [
        *("Upstream", "Moderation API", "Databases and disk", "Clock", "Configuration"),
    ]
    assert all(rows(section) for section in sections)
