"""The reference documents what is there: each setting, error, metric and dependency, and nothing else."""

from __future__ import annotations

import ast
import re
import tomllib

import pytest
import reference
from codebase import PACKAGE, ROOT, place, sources
from packaging.requirements import Requirement

from lukhas import errors
from lukhas.settings import describe_settings

DEPENDENCIES = ROOT / "docs" / "reference" / "dependencies.md"


@pytest.mark.parametrize("path", [pytest.param(p, id=place(p)) for p in reference.pages()])
def test_reference_page_is_what_the_code_says(path) -> None:
    """A page that lags behind the code is renewed by `make docs`."""
    assert path.exists(), "run `make docs`"
    assert path.read_text("utf-8") == reference.pages()[path], "run `make docs`"


def test_settings_page_names_every_setting_and_no_home() -> None:
    """Each variable is there with its sentence, and defaults are those of any machine."""
    page = reference.settings_page()
    for item in describe_settings():
        assert f"`{item.variable}`" in page
        assert item.doc.endswith(".")
    assert "`~/.local/share/lukhas`" in page


def test_errors_codes_are_distinct_and_have_a_remedy() -> None:
    """One code, one class, one thing to do."""
    codes = [kind.code for kind in reference.tree()]
    assert len(codes) == len(set(codes))
    assert set(codes) == reference.REMEDIES.keys()


def test_errors_tree_reaches_every_class_of_the_file() -> None:
    """No class of errors.py stands outside the tree."""
    defined = {node.name for node in ast.parse(sources()[PACKAGE / "errors.py"]).body if isinstance(node, ast.ClassDef)}
    assert {kind.__name__ for kind in reference.tree()} == defined


def test_errors_drawing_shows_every_class_under_its_parent() -> None:
    """The drawing at the top of errors.py is the tree."""
    drawn: dict[str, str | None] = {}
    trail: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := re.match(r"([│├└─ ]*)([A-Z]\w+)(?:\s{2,}|$)", line):
            depth, name = len(match[1]), match[2]
            trail = [step for step in trail if step[0] < depth]
            drawn[name] = trail[-1][1] if trail else None
            trail.append((depth, name))
    actual = {k.__name__: None if k is errors.LukhasError else k.__base__.__name__ for k in reference.tree()}
    assert drawn == actual


def test_errors_are_defined_in_one_file() -> None:
    """The whole tree is in errors.py; elsewhere it is only raised."""
    known = {kind.__name__ for kind in reference.tree()}
    found = [
        place(path, node.lineno)
        for path, text in sources().items()
        if path != PACKAGE / "errors.py"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ClassDef)
        and known & {getattr(base, "id", getattr(base, "attr", "")) for base in node.bases}
    ]
    assert found == []


def test_metrics_are_declared_in_telemetry_alone() -> None:
    """Every metric stands in one file, which the reference is made from."""
    found = [
        place(path) for path, text in sources().items() if path.name != "telemetry.py" and "prometheus_client" in text
    ]
    assert found == []


def test_metrics_source_is_read_with_labels() -> None:
    """The reader finds every kind, and refuses what nobody could search for."""
    source = "Counter('a', 'A.', 'x', 'y')\nGauge('b', 'B.')\nHistogram('c', 'C.', (1, 2))"
    found = [(m.name, m.kind, m.labels, m.doc) for m in reference.metrics(source)]
    assert found == [("a", "counter", ("x", "y"), "A."), ("b", "gauge", (), "B."), ("c", "histogram", (), "C.")]
    with pytest.raises(ValueError, match="line 1: name, text and labels"):
        reference.metrics("Counter(NAME, 'A.')")


def test_metrics_page_names_are_those_that_are_served() -> None:
    """Whoever copies a name from the page finds it in Prometheus."""
    page = reference.metrics_page("Counter('a_calls', 'A.')\nCounter('b_total', 'B.')\nGauge('c', 'C.')")
    assert re.findall(r"^\| `(\w+)`", page, re.MULTILINE) == ["a_calls_total", "b_total", "c"]


def test_dependencies_page_has_a_line_for_each_and_no_other() -> None:
    """Each dependency has its licence, its reason, and the locked version with its year as a sign of life."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    texts = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for extra in project["project"]["optional-dependencies"].values():
        texts += extra
    for group in project["dependency-groups"].values():
        texts += [item for item in group if isinstance(item, str)]
    asked = {Requirement(text).name for text in texts}
    rows = re.findall(
        r"^\| ([\w.-]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", DEPENDENCIES.read_text("utf-8"), re.MULTILINE
    )
    listed = {name: (licence, alive, why) for name, licence, alive, why in rows if name not in ("name", "---")}
    assert listed.keys() == asked
    locked = (ROOT / "requirements" / "dev.txt").read_text("utf-8")
    for name, (licence, alive, why) in listed.items():
        assert licence.strip(), name
        match = re.fullmatch(r"(\d[\w.]*) \(20\d\d\)", alive)
        assert match, name
        assert re.search(rf"^{name.lower()}(\[\w+\])?=={re.escape(match[1])}\s", locked, re.MULTILINE), name
        assert len(why.split()) >= 3, name
