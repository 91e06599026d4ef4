"""The public surface of `lukhas`, and what importing it costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from codebase import PACKAGE

import lukhas

PUBLIC = {
    "Decision",
    "Modulator",
    "Secret",
    "Signal",
    "__version__",
    "audit_log_read",
    "audit_log_write",
    "is_enabled",
}


def run_python(source: str) -> str:
    """Run source in a fresh interpreter and return what it prints."""
    ran = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_surface_all_is_exactly_the_public_names() -> None:
    """A public name comes or goes on purpose, here and in the changelog."""
    assert set(lukhas.__all__) == PUBLIC
    assert list(lukhas.__all__) == sorted(lukhas.__all__)
    assert set(dir(lukhas)) == PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_surface_name_resolves(name: str) -> None:
    """Every public name can be had from the root package."""
    assert getattr(lukhas, name) is not None


def test_surface_unknown_name_raises_attribute_error() -> None:
    """A name that does not exist fails as on any module."""
    with pytest.raises(AttributeError, match="'lukhas' has no attribute 'Nothing'"):
        _ = lukhas.Nothing


def test_import_lukhas_loads_no_third_party_module() -> None:
    """`import lukhas` costs next to nothing: only the standard library comes with it."""
    source = (
        "import sys, json; before = set(sys.modules); import lukhas; "
        "print(json.dumps(sorted({m.split('.')[0] for m in set(sys.modules) - before})))"
    )
    loaded = set(json.loads(run_python(source)))
    assert "lukhas" in loaded
    assert loaded - {"lukhas"} <= sys.stdlib_module_names


def test_sys_path_never_holds_the_package_folder() -> None:
    """`lukhas/openai` must not shadow the `openai` package, so lukhas/ itself is never on the path."""
    source = "import sys, json, lukhas, openai; print(json.dumps([sys.path, openai.__file__]))"
    path, official = json.loads(run_python(source))
    assert PACKAGE not in [Path(entry or ".").resolve() for entry in [*path, *sys.path]]
    assert PACKAGE not in Path(official).resolve().parents
