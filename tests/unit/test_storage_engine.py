"""Opening databases and bringing them up to date."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lukhas.errors import ConfigurationError
from lukhas.storage import migrate
from lukhas.storage.engine import Schema, open_database, vault_url
from lukhas.storage.revision import bump_revision, read_revision
from lukhas.storage.sqlite import judge_version, sqlite_safety


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        pytest.param((3, 40, 1), False, id="old"),
        pytest.param((3, 44, 6), True, id="fixed-3.44"),
        pytest.param((3, 45, 0), False, id="3.45"),
        pytest.param((3, 50, 6), False, id="3.50.6"),
        pytest.param((3, 50, 7), True, id="fixed-3.50"),
        pytest.param((3, 51, 2), False, id="3.51.2"),
        pytest.param((3, 51, 3), True, id="fixed-3.51"),
        pytest.param((3, 60, 0), True, id="newer"),
    ],
)
def test_sqlite_version_judged_by_the_wal_reset_bug(version: tuple[int, int, int], safe: bool) -> None:
    """A SQLite with the WAL-reset bug is never called safe."""
    assert judge_version(version).safe is safe


def test_database_file_created_is_private(tmp_path: Path) -> None:
    """Nobody else on the machine can read the database or its write-ahead log."""
    database = open_database(f"sqlite:///{tmp_path}/new/deep/lukhas.db")
    migrate.upgrade(database)
    with database.reading() as reader, database.writer.begin() as connection:
        bump_revision(connection, "test")
        read_revision(reader, "test")
        for file in (tmp_path / "new" / "deep").iterdir():
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE((tmp_path / "new" / "deep").stat().st_mode) == 0o700
    database.close()


def test_sqlite_connection_follows_the_recipe(tmp_path: Path) -> None:
    """Durability and integrity pragmas hold on every connection, and readers cannot write."""
    database = open_database(f"sqlite:///{tmp_path}/lukhas.db")
    for engine, query_only in ((database.writer, 0), (database.reader, 1)):
        with engine.connect() as connection:
            values = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete", "busy_timeout")
            }
            assert values == {
                "journal_mode": "wal",
                "synchronous": 2,
                "foreign_keys": 1,
                "secure_delete": 1,
                "busy_timeout": 5000,
            }
            if not database.shares_connection:
                assert connection.exec_driver_sql("PRAGMA query_only").scalar() == query_only
    assert database.shares_connection is not sqlite_safety().safe
    database.close()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("sqlite://", id="memory"),
        pytest.param("sqlite:///:memory:", id="memory-by-name"),
        pytest.param("mysql://user:hunter2@host/x", id="other-database"),
        pytest.param("hunter2 nonsense", id="no-url"),
        pytest.param("sqlite:////proc/nowhere/lukhas.db", id="not-creatable"),
    ],
)
def test_open_database_with_wrong_url_raises_without_the_password(url: str) -> None:
    """An URL that cannot serve is the operator's error, and the message keeps secrets."""
    with pytest.raises(ConfigurationError) as caught:
        open_database(url)
    assert "hunter2" not in str(caught.value)


def test_vault_url_of_sqlite_is_a_file_beside_it() -> None:
    """Subject keys live in a file of their own."""
    assert vault_url("sqlite:////data/lukhas.db") == "sqlite:////data/vault.db"
    assert vault_url("postgresql://u:p@h/x") == "postgresql://u:p@h/x"


@pytest.mark.parametrize("schema", ["main", "vault"])
def test_upgrade_new_database_makes_the_declared_tables(tmp_path: Path, schema: Schema) -> None:
    """The migrations and the tables that the code declares are the same, and a second upgrade does nothing."""
    database = open_database(f"sqlite:///{tmp_path}/x.db", schema=schema)
    assert migrate.current(database) is None
    assert migrate.check(database)[0].startswith("revision: at nothing")
    migrate.upgrade(database)
    migrate.upgrade(database)
    assert migrate.is_current(database)
    assert migrate.check(database) == []
    database.close()


@pytest.mark.parametrize("schema", ["main", "vault"])
def test_head_revision_constant_is_alembics_head(schema: Schema) -> None:
    """The written-down head, which spares a start the import of Alembic, is the newest script."""
    from alembic.script import ScriptDirectory

    from lukhas.storage.migrate import make_config

    assert ScriptDirectory.from_config(make_config(schema)).get_heads() == [migrate.head_revision(schema)]


def test_is_current_does_not_import_alembic(tmp_path: Path) -> None:
    """A start on a current database does not pay for Alembic."""
    database = open_database(f"sqlite:///{tmp_path}/x.db")
    migrate.upgrade(database)
    database.close()
    code = (
        "import sys; from lukhas.storage import migrate; from lukhas.storage.engine import open_database\n"
        f"d = open_database('sqlite:///{tmp_path}/x.db'); assert migrate.is_current(d); migrate.upgrade(d)\n"
        "assert not [m for m in sys.modules if m.startswith('alembic')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_check_after_drift_names_it(tmp_path: Path) -> None:
    """A table that differs from the code's is found."""
    database = open_database(f"sqlite:///{tmp_path}/x.db")
    migrate.upgrade(database)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("DROP INDEX audit_record_by_time")
    assert any("audit_record_by_time" in problem for problem in migrate.check(database))
    database.close()


def test_upgrade_of_a_newer_database_is_refused(tmp_path: Path) -> None:
    """An older program leaves a newer database alone."""
    database = open_database(f"sqlite:///{tmp_path}/x.db")
    migrate.upgrade(database)
    with database.writer.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'm9999'")
    with pytest.raises(ConfigurationError, match="newer version"):
        migrate.upgrade(database)
    database.close()


def test_upgrade_from_processes_at_once_all_succeed(tmp_path: Path) -> None:
    """Several processes may start on a new database together."""
    code = (
        "from lukhas.storage import migrate; from lukhas.storage.engine import open_database\n"
        f"d = open_database('sqlite:///{tmp_path}/x.db'); migrate.upgrade(d); assert migrate.check(d) == []"
    )
    children = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(4)]
    assert [child.wait(60) for child in children] == [0, 0, 0, 0]


def test_data_version_changes_with_a_commit_only(tmp_path: Path) -> None:
    """The change detector sees each commit, and nothing where there was none."""
    database = open_database(f"sqlite:///{tmp_path}/x.db")
    migrate.upgrade(database)
    before = database.data_version()
    assert database.data_version() == before
    with database.writer.begin() as connection:
        bump_revision(connection, "keys")
    assert database.data_version() != before
    with database.reading() as connection:
        assert read_revision(connection, "keys") == 1
        assert read_revision(connection, "policy") == 0
    database.close()


def test_integrity_check_of_a_damaged_file_finds_it(tmp_path: Path) -> None:
    """A file with overwritten pages is not called sound."""
    database = open_database(f"sqlite:///{tmp_path}/x.db")
    migrate.upgrade(database)
    database.close()
    path = tmp_path / "x.db"
    data = bytearray(path.read_bytes())
    data[4096 * 3 : 4096 * 6] = b"\xff" * 4096 * 3
    path.write_bytes(data)
    assert database.integrity_check() != []
    database.close()
