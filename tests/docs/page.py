"""A Markdown page as data: its fenced blocks with their marks, its links, its headings.

A mark is a comment on the line above a fence:

- `<!-- run -->`           run the block; Python blocks run even without it
- `<!-- run: gateway -->`  run it beside a gateway whose address and key are in the environment
- `<!-- output -->`        what the block above printed
- `<!-- not run: why -->`  leave a Python block out, and say why
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- (?P<kind>run|output|not run)(?:: (?P<detail>[^>]+?))? -->\s*$")
LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?(?P<target>[^()\s>]+)>?(?:\s+\"[^\"]*\")?\)")
HEADING = re.compile(r"^#{1,6} (.+?)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: where its text starts, its language, its mark."""

    path: Path
    line: int
    language: str
    text: str
    mark: str
    detail: str

    @property
    def runs(self) -> bool:
        """Whether the block is an example that must run as it stands."""
        return self.mark == "run" or (self.language == "python" and self.mark != "not run")


def pages() -> list[Path]:
    """Return every page that people read."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    text = path.read_text("utf-8")
    found: list[Block] = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip("\n").rpartition("\n")[2]
        mark = MARK.search(above)
        line = text[: match.start("text")].count("\n") + 1
        kind, detail = (mark["kind"], mark["detail"] or "") if mark else ("", "")
        found.append(Block(path, line, match["language"], match["text"], kind, detail))
    return found


def links(text: str) -> list[str]:
    """Return the targets of all links and images outside fences."""
    return [match["target"] for match in LINK.finditer(_prose(text))]


def anchors(text: str) -> set[str]:
    """Return the anchors of all headings, formed as GitHub forms them."""
    found: dict[str, int] = {}
    names: set[str] = set()
    for title in HEADING.findall(_prose(text)):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", title).lower()).replace(" ", "-")
        count = found.setdefault(plain, 0)
        found[plain] += 1
        names.add(f"{plain}-{count}" if count else plain)
    return names


def _prose(text: str) -> str:
    return FENCE.sub("", text)
