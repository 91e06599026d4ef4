"""The lock files: complete, hashed, without a place to download from, and true to pyproject.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import chain

import pytest
from codebase import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

LOCKS = {name: ROOT / "requirements" / f"{name}.txt" for name in ("build", "runtime", "dev")}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
OPTION = re.compile(r"--(?!hash=sha256:[0-9a-f]{64}(?:\s|$))")


def entries(lock: str) -> dict[str, list[str]]:
    """Return the logical lines of a lock file by package, each with its pin, marker and hashes."""
    text = re.sub(r"^\s*#.*\n", "", LOCKS[lock].read_text("utf-8"), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[str]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        found.setdefault(canonicalize_name(re.split(r"[=<>!~;\s\[@]", line, maxsplit=1)[0]), []).append(line)
    return found


def pins(lock: str) -> dict[str, set[Version]]:
    """Return the locked versions of each package; there are several where markers tell platforms apart."""
    return {
        name: {Version(match[1]) for line in lines if (match := re.search(r"==([^\s;]+)", line))}
        for name, lines in entries(lock).items()
    }


def group(name: str) -> Iterator[str]:
    """Yield the requirements of a dependency group, with those of the groups that it includes."""
    for item in PROJECT["dependency-groups"][name]:
        if isinstance(item, str):
            yield item
        else:
            yield from group(item["include-group"])


def declared(lock: str) -> list[Requirement]:
    """Return what pyproject.toml asks of a lock file."""
    runtime = PROJECT["project"]["dependencies"]
    extras = chain.from_iterable(PROJECT["project"]["optional-dependencies"].values())
    texts = {"build": group("build"), "runtime": runtime, "dev": chain(runtime, extras, group("dev"))}[lock]
    return [Requirement(text) for text in texts]


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_names_no_place_to_download_from(lock: str) -> None:
    """No URL, host, index or other option: the machine's own settings say where packages come from."""
    text = LOCKS[lock].read_text("utf-8")
    assert "://" not in text
    assert not re.search(r"\w@|\bfile:|\bgit\+", text)
    assert not OPTION.search(text.replace("\\\n", "\n"))
    assert not re.search(r"\b[\w-]+\.(?:com|org|net|io|dev|example|internal|local)\b", text)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_entry_has_one_pin_and_a_hash(lock: str) -> None:
    """Everything that is installed is pinned to a version and to its bytes."""
    locked = entries(lock)
    assert locked
    for line in chain.from_iterable(locked.values()):
        assert line.count("==") >= 1, line
        assert "--hash=sha256:" in line, line


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_satisfies_the_project(lock: str) -> None:
    """Each direct dependency is in the lock, at a version that pyproject.toml admits."""
    locked = pins(lock)
    wrong = [
        str(requirement)
        for requirement in declared(lock)
        if not locked.get(canonicalize_name(requirement.name))
        or not all(requirement.specifier.contains(v) for v in locked[canonicalize_name(requirement.name)])
    ]
    assert wrong == []


@pytest.mark.parametrize("smaller", ["build", "runtime"])
def test_lock_for_development_holds_the_others(smaller: str) -> None:
    """What is tested is what runs: the development lock has the same versions."""
    larger = pins("dev")
    assert {name: larger.get(name) for name in pins(smaller)} == pins(smaller)


def test_build_group_covers_the_build_backend() -> None:
    """The build backend is locked too, under the same bounds as [build-system] asks for."""
    built = {r.name: r.specifier for r in declared("build")}
    for text in PROJECT["build-system"]["requires"]:
        requirement = Requirement(text)
        assert built[requirement.name] == requirement.specifier
