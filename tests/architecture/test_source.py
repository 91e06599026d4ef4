"""Rules about the source text: size, names, broad excepts, marks of unfinished work."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from codebase import PACKAGE, ROOT, place, sources, tracked_texts

MAX_LINES = 500
BROAD = {"Exception", "BaseException"}
VAGUE = {"helper", "helpers", "util", "utils", "common", "manager", "managers", "misc", "base"}
SINGULAR_WITH_S = ("ss", "us", "is")
# Plural, because the thing itself is a set: the error tree, the identifier forms, the capability table.
SETS = {
    *("errors", "ids", "settings", "flags"),
    *("signals", "capabilities", "rules", "contracts", "adapters", "interfaces", "executors", "sensors", "problems"),
    *("docs", "pages", "headers", "keys", "subjects", "policies", "operations"),
}

# Edges that turn any failure into an answer: file and function, and what the failure becomes.
EDGES: dict[str, str] = {
    "lukhas/api/openai_compat.py::OpenAISurface.__call__": "whatever broke becomes an answer, and is logged whole",
    "lukhas/gateway/admission.py::run_aside.run": "the thread's failure becomes its waiter's answer",
    "lukhas/gateway/relay.py::Relay.events": "half an answer is out, and its caller is told that it ends here",
    "lukhas/gateway/sensors.py::SensorArray._run": "a sensor's failure costs its reading, and is counted",
    "lukhas/gateway/sensors.py::_load_plugin": "a plug-in's failure becomes a configuration error",
    "lukhas/gateway/shadow.py::ShadowPolicy.compare": "a candidate's failure becomes a word in the record, and a count",
    "lukhas/storage/engine.py::Database.data_version": "any driver's failure becomes StorageUnavailable, others go on",
    "lukhas/storage/writer.py::GroupCommitWriter._finish": "the failure becomes the answer of all who wait",
    "lukhas/storage/writer.py::GroupCommitWriter._probe": "the failure becomes what readiness reports",
    "lukhas/storage/writer.py::GroupCommitWriter._write": "the thread's failure becomes its callers' answers",
}


def broad_handlers(source: str) -> list[tuple[str, int]]:
    """Return (function, line) of each except that catches everything, contextlib.suppress included.

    What cleans up and then raises the same failure on, on every path, catches nothing.
    """
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST, trail: tuple[str, ...]) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            trail = (*trail, node.name)
        caught: list[ast.expr | None] = []
        if isinstance(node, ast.ExceptHandler):
            if not _goes_on(node):
                caught = list(node.type.elts) if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and _name(node.func) == "suppress":
            caught = list(node.args)
        if any(kind is None or _name(kind) in BROAD for kind in caught):
            found.append((".".join(trail), getattr(node, "lineno", 0)))
        for child in ast.iter_child_nodes(node):
            visit(child, trail)

    visit(ast.parse(source), ())
    return found


def _goes_on(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    leaves = (ast.Return, ast.Break, ast.Continue)
    return (
        isinstance(last, ast.Raise) and last.exc is None and not any(isinstance(n, leaves) for n in ast.walk(handler))
    )


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def is_plural(word: str) -> bool:
    """Say whether a module's name reads as a plural noun."""
    return word.endswith("s") and not word.endswith(SINGULAR_WITH_S)


def test_file_length_is_one_idea() -> None:
    """Past 500 lines a file holds two ideas."""
    long = {
        place(path): text.count("\n")
        for path, text in tracked_texts(".py", ".ts", ".js")
        if text.count("\n") > MAX_LINES and "static/vendor" not in path.as_posix()
    }
    assert long == {}


def test_broad_except_stands_only_at_a_named_edge() -> None:
    """Whoever catches everything is an edge that turns it into an answer, and is listed with its reason."""
    found = {f"{place(path)}::{function}" for path, text in sources().items() for function, _ in broad_handlers(text)}
    assert found - EDGES.keys() == set(), "not listed in EDGES"
    assert EDGES.keys() - found == set(), "listed, and no longer there"
    assert all(len(reason.split()) >= 3 for reason in EDGES.values())


@pytest.mark.parametrize(
    ("source", "count"),
    [
        pytest.param("try:\n    f()\nexcept:\n    pass", 1, id="bare"),
        pytest.param("try:\n    f()\nexcept Exception:\n    pass", 1, id="exception"),
        pytest.param("try:\n    f()\nexcept (KeyError, BaseException):\n    pass", 1, id="in-a-tuple"),
        pytest.param("try:\n    f()\nexcept* Exception:\n    pass", 1, id="group"),
        pytest.param("import contextlib\nwith contextlib.suppress(Exception):\n    f()", 1, id="suppress"),
        pytest.param("try:\n    f()\nexcept Exception:\n    g()\n    raise Other from None", 1, id="becomes-another"),
        pytest.param(
            "for x in y:\n    try:\n        f\n    except Exception:\n        if x:\n            break\n        raise",
            1,
            id="raises-on-some-paths",
        ),
        pytest.param("try:\n    f()\nexcept BaseException:\n    g()\n    raise", 0, id="cleans-up-and-raises"),
        pytest.param("try:\n    f()\nexcept (KeyError, OSError):\n    pass", 0, id="narrow"),
    ],
)
def test_broad_handlers_source_is_counted(source: str, count: int) -> None:
    """The search itself sees each way to catch everything."""
    assert len(broad_handlers(source)) == count


def test_text_carries_no_mark_of_unfinished_work() -> None:
    """What is unfinished is in an issue, not in the text."""
    marks = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "HA" + "CK")) + r")\b")
    found = [
        place(path, number)
        for path, text in tracked_texts()
        if path.parts[len(ROOT.parts)] != "requirements" and "static/vendor" not in path.as_posix()
        for number, line in enumerate(text.splitlines(), start=1)
        if marks.search(line)
    ]
    assert found == []


def _names() -> list[Path]:
    paths = [p for p in sources() if p.name not in ("__init__.py", "__main__.py")]
    return paths + sorted({p.parent for p in sources()} - {PACKAGE})


@pytest.mark.parametrize("path", [pytest.param(p, id=place(p)) for p in _names() if "migrations" not in p.parts])
def test_module_name_is_a_singular_noun(path: Path) -> None:
    """A name says what the thing is; helper, util, common, manager, misc and base say nothing."""
    words = path.stem.strip("_").split("_")
    assert not VAGUE & set(words)
    assert path.stem in SETS or not is_plural(words[-1]), "a plural; if the thing itself is a set, list it in SETS"


def test_fastapi_docs_are_never_loaded_from_elsewhere() -> None:
    """FastAPI's own /docs and /redoc load scripts from a CDN, so every app turns them off."""
    found: list[str] = []
    for path, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and _name(node.func) == "FastAPI":
                off = {k.arg for k in node.keywords if isinstance(k.value, ast.Constant) and k.value.value is None}
                if not {"docs_url", "redoc_url"} <= off:
                    found.append(place(path, node.lineno))
    assert found == []
