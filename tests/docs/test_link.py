"""Links inside the documentation lead somewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from page import ROOT, anchors, links, pages


def broken(path: Path, text: str) -> list[str]:
    """Return the links of a page whose file or heading does not exist."""
    found: list[str] = []
    for target in links(text):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        goal = (path.parent / name).resolve() if name else path
        if not goal.exists() or not goal.is_relative_to(ROOT):
            found.append(target)
        elif anchor and goal.suffix == ".md":
            page = text if goal == path else goal.read_text("utf-8")
            if anchor not in anchors(page):
                found.append(target)
    return found


@pytest.mark.parametrize("path", [pytest.param(p, id=p.relative_to(ROOT).as_posix()) for p in pages()])
def test_page_links_resolve(path: Path) -> None:
    """No page of ours sends its reader nowhere."""
    assert broken(path, path.read_text("utf-8")) == []


def test_every_page_of_the_documentation_is_in_its_table_of_contents() -> None:
    """docs/README.md leads to every page."""
    contents = ROOT / "docs" / "README.md"
    reached = {(contents.parent / target.partition("#")[0]).resolve() for target in links(contents.read_text("utf-8"))}
    missing = {p for p in pages() if p.is_relative_to(contents.parent) and p != contents} - reached
    assert sorted(p.relative_to(ROOT).as_posix() for p in missing) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        pytest.param("[a](absent.md)", ["absent.md"], id="absent-file"),
        pytest.param("[a](README.md)", [], id="file"),
        pytest.param("# A `b` thing\n[a](#a-b-thing)", [], id="own-heading"),
        pytest.param("# A\n[a](#b)", ["#b"], id="absent-heading"),
        pytest.param("# A\n# A\n[a](#a-1)", [], id="second-heading-of-a-name"),
        pytest.param("```text\n[a](absent.md)\n```", [], id="inside-a-fence"),
        pytest.param("[`a`](../outside.md)", ["../outside.md"], id="outside-the-repository"),
        pytest.param("[a](https://example.org/x)", [], id="elsewhere"),
    ],
)
def test_broken_text_is_judged(text: str, wrong: list[str]) -> None:
    """The check itself tells a live link from a dead one."""
    assert broken(ROOT / "README.md", text) == wrong
