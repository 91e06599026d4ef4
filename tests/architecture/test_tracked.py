"""Rules about every tracked file: nothing of one machine in it, and no page that loads from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from codebase import ROOT, place, tracked_files, tracked_texts

# Written in pieces, since this file is tracked too.
REGISTRY_HOSTS = ("python" + "hosted.org", "registry." + "npmjs.org", "proxy." + "golang.org", "pypi" + ".org/simple")
HOME = re.compile(r"(?<![\w.])/(?:(?:home|Users)/(?!<)[a-z][\w.-]*|root/)")
# What a browser fetches by itself: everything but the target of an ordinary link.
LOADED = re.compile(
    r"""<(?!a\b)[a-z][^>]*\s(?:src|srcset|href|action|data|poster)\s*=\s*["']?(?:https?:)?//"""
    r"""|url\(\s*["']?(?:https?:)?//|@import\s+["'](?:https?:)?//"""
    r"""|(?:fetch|EventSource|WebSocket|importScripts|import)\(\s*["'`](?:https?:|wss?:)?//"""
    r"""|\bfrom\s+["']https?://""",
    re.IGNORECASE,
)
# Namespaces of SVG and the like are names, never fetched.
PAGES = (".html", ".jinja", ".j2", ".css", ".js", ".mjs", ".svg", ".py")


def test_tracked_files_are_found() -> None:
    """The search sees this file and the package, so that an empty result means something."""
    assert {Path(__file__).resolve(), ROOT / "lukhas" / "errors.py"} <= set(tracked_files())


def test_tracked_text_names_no_path_of_a_machine() -> None:
    """No home directory, nor the folder of this very checkout, stands in a tracked file."""
    here = str(ROOT) if len(ROOT.parts) > 2 else None
    found = [
        place(path, number)
        for path, text in tracked_texts()
        for number, line in enumerate(text.splitlines(), start=1)
        if HOME.search(line) or (here and here in line)
    ]
    assert found == []


def test_tracked_text_names_no_registry_host() -> None:
    """Where packages come from is the machine's own affair."""
    found = [place(path) for path, text in tracked_texts() if any(host in text for host in REGISTRY_HOSTS)]
    assert found == []


def test_pages_load_nothing_from_elsewhere() -> None:
    """Pages work on a machine without a network, and tell nobody that they were opened."""
    found = [
        place(path, text[: match.start()].count("\n") + 1)
        for path, text in tracked_texts(*PAGES)
        if path.parts[len(ROOT.parts)] != "tests"
        for match in LOADED.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("line", "loads"),
    [
        pytest.param('<script src="https://cdn.example/x.js"></script>', True, id="script"),
        pytest.param('<link rel="stylesheet" href="//fonts.example/css">', True, id="protocol-relative"),
        pytest.param("<img alt=x src=http://a.example/x.png>", True, id="unquoted"),
        pytest.param("body { background: url('https://a.example/x.png') }", True, id="css-url"),
        pytest.param('@import "https://a.example/x.css";', True, id="css-import"),
        pytest.param('await fetch("https://a.example/")', True, id="fetch"),
        pytest.param('import x from "https://a.example/x.js"', True, id="module"),
        pytest.param('<a class="x" href="https://a.example/">out</a>', False, id="ordinary-link"),
        pytest.param('<script src="/admin/static/x.js"></script>', False, id="own-script"),
        pytest.param('<svg xmlns="http://www.w3.org/2000/svg">', False, id="namespace"),
    ],
)
def test_loaded_pattern_line_is_judged(line: str, loads: bool) -> None:
    """The pattern itself tells loading from linking."""
    assert bool(LOADED.search(line)) is loads


@pytest.mark.parametrize(
    ("line", "names_home"),
    [
        pytest.param("cd /home/" + "ann/lukhas", True, id="home"),
        pytest.param("open('/Users/" + "ann/x')", True, id="users"),
        pytest.param("HOME=/root" + "/", True, id="root"),
        pytest.param("see /home/<you>/lukhas", False, id="placeholder"),
        pytest.param("GET /api/v1/root/x and https://a.example/home/page", False, id="url"),
    ],
)
def test_home_pattern_line_is_judged(line: str, names_home: bool) -> None:
    """The pattern itself tells a home directory from a route."""
    assert bool(HOME.search(line)) is names_home
