"""The subject vault."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lukhas.errors import ConfigurationError, InvalidRequest
from lukhas.ids import check_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.vault.subjects import SubjectVault


class Opened:
    """A vault with what it stands on."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.database: Database = open_database(f"sqlite:///{folder}/vault.db", schema="vault")
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=10_000)
        self.writer.start()
        try:
            self.vault = SubjectVault(self.database, self.writer, **options)
        except ConfigurationError:
            self.close()
            raise

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


async def test_resolve_same_subject_gives_one_id_for_ever(opened: Opened, tmp_path: Path) -> None:
    """The id is random, kept, and the same after a restart."""
    first = await opened.vault.resolve("t", "user", "alice")
    check_id("sub", first)
    assert await opened.vault.resolve("t", "user", "alice") == first
    again = Opened(tmp_path)
    assert again.vault.lookup("t", "user", "alice") == first
    assert await again.vault.resolve("t", "user", "alice") == first
    again.close()


async def test_resolve_different_subjects_never_share_an_id(opened: Opened) -> None:
    """Tenant, kind and id all count, and where one ends and the next begins."""
    names: list[tuple[str, Any, str]] = [
        ("t", "user", "a"), ("t", "session", "a"), ("u", "user", "a"), ("t", "user", "ab"), ("ta", "user", "b"),
        ("t", "user", "A"), ("t", "user", "a "), ("t", "user", "a\x00"), ("t", "user", "\ud800"),
        ("t", "user", "\u00e9"), ("t", "user", "e\u0301"), ("t", "user", "x" * 1_000_000),
    ]  # fmt: skip
    found = [await opened.vault.resolve(*name) for name in names]
    assert len(set(found)) == len(names)


async def test_resolve_concurrently_gives_one_id(opened: Opened, tmp_path: Path) -> None:
    """Many first calls for one subject, from two vaults on one file, agree."""
    other = Opened(tmp_path)
    calls = [one.vault.resolve("t", "session", f"s{n % 5}") for n in range(200) for one in (opened, other)]
    found = await asyncio.gather(*calls)
    assert len(set(found)) == 5
    other.close()


def test_resolve_from_processes_at_once_gives_one_id(tmp_path: Path) -> None:
    """Processes that start together on a new vault share its pepper and its ids."""
    code = (
        "import asyncio\n"
        "from lukhas.storage import migrate; from lukhas.storage.engine import open_database\n"
        "from lukhas.storage.writer import GroupCommitWriter; from lukhas.vault.subjects import SubjectVault\n"
        f"d = open_database('sqlite:///{tmp_path}/vault.db', schema='vault'); migrate.upgrade(d)\n"
        "w = GroupCommitWriter(d, max_rows=100); w.start()\n"
        "v = SubjectVault(d, w)\n"
        "print(asyncio.run(v.resolve('t', 'user', 'alice')))\n"
    )
    children = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({child.communicate(timeout=60)[0] for child in children}) == 1
    assert all(child.returncode == 0 for child in children)


async def test_resolve_never_stores_the_external_id(opened: Opened, tmp_path: Path) -> None:
    """Neither the database nor the key file tells who a subject is."""
    await opened.vault.resolve("t", "user", "alice-in-wonderland")
    opened.close()
    for file in tmp_path.iterdir():
        assert b"alice" not in file.read_bytes(), file.name
    assert stat.S_IMODE((tmp_path / "vault.key").stat().st_mode) == 0o600


def test_lookup_of_an_unknown_subject_makes_none(opened: Opened) -> None:
    """Asking leaves no trace."""
    assert opened.vault.lookup("t", "user", "nobody") is None
    with opened.database.reading() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM subject").scalar() == 0


@pytest.mark.parametrize(("kind", "external_id"), [("group", "a"), ("user", "")])
async def test_resolve_of_what_is_no_subject_is_refused(opened: Opened, kind: Any, external_id: str) -> None:
    """Empty names would make strangers one subject."""
    with pytest.raises(InvalidRequest):
        await opened.vault.resolve("t", kind, external_id)


async def test_resolve_past_the_cache_still_gives_the_same_ids(tmp_path: Path) -> None:
    """The cache is bounded and only a cache."""
    opened = Opened(tmp_path, cache_entries=3)
    names = [f"user{number}" for number in range(10)]
    first = [await opened.vault.resolve("t", "user", name) for name in names]
    assert [await opened.vault.resolve("t", "user", name) for name in names] == first
    opened.close()


@pytest.mark.parametrize("content", [None, "00" * 32, "nonsense", "ab"], ids=["missing", "other", "no-hex", "short"])
async def test_open_with_a_wrong_key_file_is_refused(tmp_path: Path, content: str | None) -> None:
    """Without its own pepper a vault would give everybody a second id, so it does not open."""
    opened = Opened(tmp_path)
    await opened.vault.resolve("t", "user", "alice")
    opened.close()
    key = tmp_path / "vault.key"
    key.unlink()
    if content is not None:
        key.write_text(content)
    with pytest.raises(ConfigurationError, match="key file"):
        Opened(tmp_path)
    assert key.exists() is (content is not None)
