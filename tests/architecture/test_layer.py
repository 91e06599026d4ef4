"""Who may import whom: docs/explanation/architecture.md, held over the import graph."""

from __future__ import annotations

import sys

import pytest
from codebase import PACKAGE, Import, imports_of, module_name, place, sources

LAYERS = (
    ("errors", "clock", "ids"),
    ("settings", "telemetry", "storage", "vault", "access"),
    ("modulation", "openai", "moderation", "audit", "flags", "feedback", "colony", "dna"),
    ("gateway", "tool", "replay", "backup"),
    ("api", "admin", "cli"),
    ("app", "testing"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS, start=1) for name in names}
DOMAINS = frozenset(LAYERS[2])
MEETINGS = ("lukhas.colony.adapters", "dna")
WEB = ("fastapi", "starlette")
FIRST_WEB_LEVEL = 5


def part_of(target: str) -> str:
    """Return the part of the house that a dotted name belongs to: `lukhas.audit.store` is `audit`."""
    return target.split(".")[1] if "." in target else ""


def wrongs(module: str, found: list[Import]) -> list[str]:
    """Return every import of one module that the layers forbid, with its line and the rule."""
    here = part_of(module)
    level = LEVEL[here]
    refused: list[str] = []
    for target, line in ((item.target, item.line) for item in found):
        top = target.split(".")[0]
        if top in WEB and level < FIRST_WEB_LEVEL:
            refused.append(f"{line}: {target}: only api, admin, cli and app know the web framework")
        if level == 1 and top != "lukhas" and top not in sys.stdlib_module_names:
            refused.append(f"{line}: {target}: errors, clock and ids import the standard library only")
        if top != "lukhas" or target == "lukhas.__version__":
            continue
        there = part_of(target)
        if there not in LEVEL:
            refused.append(f"{line}: {target}: import the name from its own module")
        elif LEVEL[there] > level:
            refused.append(f"{line}: {target}: layer {level} may not import layer {LEVEL[there]}")
        elif here in DOMAINS and there in DOMAINS and here != there:
            bridge, bridged = MEETINGS
            if not (there == bridged and (module == bridge or module.startswith(bridge + "."))):
                refused.append(f"{line}: {target}: a domain imports no other domain")
    return refused


def graph() -> dict[str, set[str]]:
    """Return which part imports which, from all files of the package."""
    edges: dict[str, set[str]] = {}
    for path, text in sources().items():
        module = module_name(path)
        if here := part_of(module):
            targets = {part_of(i.target) for i in imports_of(text, module, is_package=path.name == "__init__.py")}
            edges.setdefault(here, set()).update((targets & LEVEL.keys()) - {here})
    return edges


def test_package_parts_all_have_a_layer() -> None:
    """A new folder or file in lukhas/ is placed in a layer before anything else."""
    parts = {p.stem for p in PACKAGE.iterdir() if p.suffix == ".py" or (p.is_dir() and any(p.glob("*.py")))}
    assert parts - {"__init__"} <= LEVEL.keys()


@pytest.mark.parametrize("path", [pytest.param(p, id=place(p)) for p in sources() if p != PACKAGE / "__init__.py"])
def test_module_imports_stay_inside_their_layer(path) -> None:
    """No module imports upwards, no domain another domain, and the web framework stays at the edge."""
    module = module_name(path)
    assert wrongs(module, imports_of(sources()[path], module, is_package=path.name == "__init__.py")) == []


def test_root_package_imports_only_the_standard_library_at_run_time() -> None:
    """`lukhas/__init__` names its public homes under TYPE_CHECKING and imports none of them itself."""
    root = PACKAGE / "__init__.py"
    before_public, _, after = sources()[root].partition("if TYPE_CHECKING:")
    unindented = "\n".join(line for line in after.splitlines() if not line.startswith("    from lukhas."))
    tops = {i.target.split(".")[0] for i in imports_of(before_public + "if True:\n    pass\n" + unindented, "lukhas")}
    assert tops <= sys.stdlib_module_names


def test_parts_import_each_other_without_cycles() -> None:
    """Inside a layer, too, the parts form an order: no part reaches itself through others."""
    edges = graph()
    done: set[str] = set()

    def visit(part: str, trail: tuple[str, ...]) -> None:
        assert part not in trail, " -> ".join((*trail, part))
        if part not in done:
            for target in sorted(edges.get(part, ())):
                visit(target, (*trail, part))
            done.add(part)

    for part in sorted(edges):
        visit(part, ())
    assert done == edges.keys() | {target for targets in edges.values() for target in targets}


@pytest.mark.parametrize(
    ("module", "source", "refused"),
    [
        pytest.param("lukhas.ids", "import orjson", True, id="third-party-in-errors-clock-ids"),
        pytest.param("lukhas.ids", "from lukhas.errors import InvalidId", False, id="ids-may-raise-our-errors"),
        pytest.param("lukhas.settings", "from lukhas.audit import store", True, id="upwards"),
        pytest.param("lukhas.audit.store", "from lukhas.storage import engine", False, id="downwards"),
        pytest.param("lukhas.audit.store", "from ..flags import is_enabled", True, id="relative-to-other-domain"),
        pytest.param("lukhas.audit.store", "from .merkle import root", False, id="relative-inside-domain"),
        pytest.param("lukhas.audit.store", "def f():\n    import lukhas.dna.store", True, id="inside-a-function"),
        pytest.param(
            "lukhas.audit.store",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from lukhas.flags import x",
            True,
            id="under-type-checking",
        ),
        pytest.param(
            "lukhas.audit.store", "import importlib\nimportlib.import_module('lukhas.app')", True, id="by-name"
        ),
        pytest.param("lukhas.audit.store", "from lukhas import flags", True, id="from-the-root"),
        pytest.param("lukhas.audit.store", "from lukhas import Signal", True, id="public-name-from-the-root"),
        pytest.param("lukhas.api.docs", "from lukhas import __version__", False, id="version-from-the-root"),
        pytest.param("lukhas.colony.adapters.consensus_to_dna", "import lukhas.dna.store", False, id="the-exception"),
        pytest.param("lukhas.colony.consensus", "import lukhas.dna.store", True, id="colony-outside-its-adapters"),
        pytest.param("lukhas.dna.store", "import lukhas.colony.adapters", True, id="the-exception-backwards"),
        pytest.param("lukhas.gateway.pipeline", "from starlette.requests import Request", True, id="web-in-gateway"),
        pytest.param("lukhas.api.problems", "import fastapi", False, id="web-in-api"),
        pytest.param("lukhas.cli.serve", "from lukhas.app import build_app", True, id="app-from-below"),
        pytest.param("lukhas.app", "import lukhas.cli.main, lukhas.api.auth", False, id="app-imports-all"),
    ],
)
def test_layer_rule_source_is_judged(module: str, source: str, refused: bool) -> None:
    """The rules themselves refuse what they should and admit what they should."""
    assert bool(wrongs(module, imports_of(source, module))) is refused
