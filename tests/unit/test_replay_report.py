"""What a simulation is shown as: plain data, a page that loads nothing, a picture."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from test_replay_player import change, play, row

from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import load_policy
from lukhas.replay.page import AFTER, BEFORE, render_page
from lukhas.replay.picture import draw_report
from lukhas.replay.recorded import Row, Window
from lukhas.replay.report import describe
from lukhas.replay.revision import Revisions
from lukhas.replay.simulate import Simulation

VOID = {"meta", "line"}


def report(rows: list[Row], candidate: Policy | None = None) -> dict[str, Any]:
    """Return the report of a simulation over rows."""
    candidate = candidate or load_policy()
    packaged = load_policy()
    tally = play(rows, candidate)
    simulation = Simulation(candidate, Revisions({packaged.id: packaged}), Window(0, len(rows)), tally, ["a <note>"])
    return describe(simulation)


def busy_report() -> dict[str, Any]:
    """Return a report in which every section has something to show."""
    candidate = change("strict if x > 0.3", "strict if x > 0.2")
    tools = ["open_url", "<script>alert(1)</script>"]
    rows = [row({"alignment_risk": n / 40, "stress": 0.3}, index=n, tools=tools) for n in range(40)]
    rows.append(row({"stress": 0.5}, index=90, caller={"temperature": -3.0}))
    rows.append(Row(91, "aud_91", False, None))
    return report(rows, candidate)


class Balance(HTMLParser):
    """Checks that every element is closed in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        assert tag not in self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_describe_is_plain_json() -> None:
    """The report can be written as JSON and read again unchanged; counts add up."""
    found = busy_report()
    assert json.loads(json.dumps(found)) == found
    histogram = found["parameters"]["temperature"]["histogram"]
    outside = histogram["below"]["before"] + histogram["above"]["before"]
    assert outside == 1
    assert sum(histogram["before"]) + outside == found["simulated"] == 41
    assert len(histogram["edges"]) == len(histogram["before"]) + 1
    assert found["check"]["mismatches"] == 1
    assert found["safety_modes"][0]["before"] == "balanced"


def test_page_loads_nothing_from_elsewhere() -> None:
    """No URL, no script, no stylesheet, no image: the page is itself, on a plane too."""
    page = render_page(busy_report())
    assert "//" not in page
    assert not re.search(r"<(script|link|img|iframe|object)|\b(src|href)=|url\(|@import", page, re.IGNORECASE)


def test_page_is_whole_html_with_every_section() -> None:
    """Elements are balanced, drawings are inline, and what was recorded is never read as markup."""
    page = render_page(busy_report())
    checker = Balance()
    checker.feed(page)
    assert checker.open == []
    assert page.startswith("<!doctype html>")
    assert page.count("<svg") == 12
    assert "<note>" not in page
    assert "a &lt;note&gt;" in page
    for part in ("1 records are not what", "Distributions", "Prompt styles", "Safety modes", "Some of these calls"):
        assert part in page


@pytest.mark.parametrize("rows", [pytest.param([], id="nothing"), pytest.param([row({})], id="one-call")])
def test_page_and_picture_of_little_are_whole(rows: list[Row], tmp_path: Path) -> None:
    """A log without decisions, or with one, still gives a page and a picture."""
    found = report(rows)
    checker = Balance()
    checker.feed(render_page(found))
    assert checker.open == []
    draw_report(found, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_picture_has_something_in_it(tmp_path: Path) -> None:
    """The picture is large and has both colours of the key."""
    from matplotlib.image import imread

    path = tmp_path / "report.png"
    draw_report(busy_report(), path)
    pixels = imread(path)
    assert pixels.shape[0] > 900
    assert pixels.shape[1] > 1200
    for colour, opacity in ((AFTER, 1.0), (BEFORE, 0.35)):
        rgb = [1 - opacity * (1 - int(colour[at : at + 2], 16) / 255) for at in (1, 3, 5)]
        near = abs(pixels[:, :, :3] - rgb).sum(axis=2) < 0.03
        assert near.sum() > 100
