"""Data keys, their erasure, the ledger, and the seal that all of it rests on."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lukhas.errors import ConfigurationError, IntegrityError, InvalidId, InvalidRequest, KeyErased, NotFound
from lukhas.ids import make_id
from lukhas.storage import migrate
from lukhas.storage.engine import Database, open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.vault.erasure import EraseLedger, Erasure, parse_ledger
from lukhas.vault.seal import Seal
from lukhas.vault.subjects import SubjectVault

ALICE = ("t", "user", "alice")


class Opened:
    """A vault and its ledger with what they stand on."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.database: Database = open_database(f"sqlite:///{folder}/vault.db", schema="vault")
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=10_000)
        self.writer.start()
        try:
            self.vault = SubjectVault(self.database, self.writer, **options)
        except BaseException:
            self.close()
            raise
        self.ledger = EraseLedger(self.vault)

    def erase(self, subject: Any, **more: str) -> Any:
        return self.ledger.erase(subject, **{"audit_id": make_id("aud"), "who": "a test", **more})

    def column(self, table: str, column: str) -> list[bytes]:
        with self.database.reading() as connection:
            return [bytes(row[0]) for row in connection.exec_driver_sql(f"SELECT {column} FROM {table}")]

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


async def add(opened: Opened, *names: str) -> list[str]:
    """Make end users with a key each, and return their ids."""
    ids = [await opened.vault.resolve("t", "user", name) for name in names]
    for sub_id in ids:
        await opened.vault.keys.key(sub_id)
    return ids


async def test_key_is_random_kept_and_durable(opened: Opened, tmp_path: Path) -> None:
    """One key per subject, the same for ever and in any process; never stored as it is."""
    a, b = await add(opened, "alice", "bob")
    first = await opened.vault.keys.key(a)
    assert len(first) == 32 and first != await opened.vault.keys.key(b)
    other = Opened(tmp_path)
    assert other.vault.keys.read(a) == first == await other.vault.keys.key(a)
    other.close()
    assert first not in b"".join(file.read_bytes() for file in tmp_path.iterdir())


async def test_key_asked_for_at_once_is_one(opened: Opened, tmp_path: Path) -> None:
    """Two vaults on one file agree on the key, however the first calls fall together."""
    sub_id = await opened.vault.resolve(*ALICE)
    other = Opened(tmp_path)
    keys = await asyncio.gather(*(one.vault.keys.key(sub_id) for _ in range(50) for one in (opened, other)))
    assert len(set(keys)) == 1
    assert len(opened.column("subject_key", "wrapped")) == 1
    other.close()


async def test_key_of_nobody_is_not_made(opened: Opened) -> None:
    """A key is made for a subject that the vault knows, and for no other; reading makes none at all."""
    with pytest.raises(NotFound):
        await opened.vault.keys.key(make_id("sub"))
    with pytest.raises(InvalidId):
        await opened.vault.keys.key("alice")
    sub_id = await opened.vault.resolve(*ALICE)
    with pytest.raises(NotFound):
        opened.vault.keys.read(sub_id)
    assert opened.column("subject_key", "wrapped") == []


async def test_key_past_the_cache_is_the_same(opened: Opened) -> None:
    """The cache is bounded, and only a cache."""
    opened.vault.keys._cache_entries = 2
    ids = await add(opened, *(f"u{n}" for n in range(8)))
    first = [await opened.vault.keys.key(one) for one in ids]
    assert [await opened.vault.keys.key(one) for one in ids] == first
    assert len(opened.vault.keys._cache) == 2


async def test_key_swapped_between_subjects_does_not_open(opened: Opened) -> None:
    """A wrapped key is bound to its subject: moved to another row it is refused, not used."""
    a, b = await add(opened, "alice", "bob")
    with opened.database.writer.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE subject_key SET wrapped = (SELECT wrapped FROM subject_key WHERE sub_id = ?) WHERE sub_id = ?",
            (a, b),
        )
    opened.vault.forget()
    with pytest.raises(IntegrityError):
        opened.vault.keys.read(b)


async def test_digest_is_equal_within_a_subject_only(opened: Opened) -> None:
    """Equal texts of one person can be told, of two persons not; nothing is a plain hash."""
    a, b = await add(opened, "alice", "bob")
    digest = opened.vault.keys.digest
    assert await digest(a, "x") == await digest(a, "x") != await digest(b, "x")
    assert await digest(a, "x") != await digest(a, "y") and len(await digest(a, "\ud800")) == 32


async def test_erase_destroys_key_and_mapping(opened: Opened) -> None:
    """The key is gone at once, also from memory; the name gets a new id when it is seen again."""
    (sub_id,) = await add(opened, "alice")
    erased = opened.erase(ALICE, why="asked for it")
    assert (erased.entry.sub_id, erased.entry.kind, erased.keys, erased.is_new) == (sub_id, "user", 1, True)
    with pytest.raises(KeyErased):
        await opened.vault.keys.key(sub_id)
    with pytest.raises(KeyErased):
        opened.vault.keys.read(sub_id)
    with pytest.raises(KeyErased):
        await opened.vault.keys.digest(sub_id, "x")
    assert opened.vault.lookup(*ALICE) is None and opened.vault.recall(*ALICE) is None
    again = await opened.vault.resolve(*ALICE)
    assert again != sub_id and await opened.vault.keys.key(again)
    assert await opened.vault.resolve("t", "user", "wisher", wish=sub_id) != sub_id


async def test_erase_again_is_the_first_times_line(opened: Opened) -> None:
    """By its id it is found again and nothing changes; by its name it is not found, since no name is kept."""
    (sub_id,) = await add(opened, "alice")
    first = opened.erase(sub_id, who="first")
    again = opened.erase(sub_id, who="second")
    assert again.entry == first.entry and not again.is_new and again.keys == 0
    with pytest.raises(NotFound):
        opened.erase(ALICE)
    assert len(list(opened.ledger.entries())) == 1


@pytest.mark.parametrize(
    ("subject", "error"),
    [
        pytest.param("sub_1", InvalidId, id="no-id"),
        pytest.param(("t", "group", "alice"), InvalidRequest, id="no-kind"),
        pytest.param(("t", "user", ""), InvalidRequest, id="empty"),
        pytest.param(("other", "user", "alice"), NotFound, id="other-tenant"),
        pytest.param(("t", "session", "alice"), NotFound, id="other-kind"),
        pytest.param(make_id("sub"), NotFound, id="unknown-id"),
    ],
)
async def test_erase_of_what_is_nobody_changes_nothing(opened: Opened, subject: Any, error: type[Exception]) -> None:
    """A wrong name, kind or tenant erases nobody, and leaves no line."""
    await add(opened, "alice")
    with pytest.raises(error):
        opened.erase(subject)
    assert list(opened.ledger.entries()) == []
    assert opened.vault.lookup(*ALICE) is not None


async def test_erase_concurrently_happens_once(opened: Opened, tmp_path: Path) -> None:
    """Of many who erase one subject from two processes' vaults, one does; all get the same line."""
    (sub_id,) = await add(opened, "alice")
    other = Opened(tmp_path)
    jobs = [asyncio.to_thread(one.erase, sub_id) for _ in range(8) for one in (opened, other)]
    done = await asyncio.gather(*jobs)
    assert sum(one.is_new for one in done) == 1
    assert len({one.entry.audit_id for one in done}) == 1
    other.close()


async def test_erase_during_key_making_never_leaves_a_key(opened: Opened, tmp_path: Path) -> None:
    """However key and erasure fall together, an erased subject has no key afterwards."""
    other = Opened(tmp_path)
    ids = [await opened.vault.resolve("t", "user", f"u{n}") for n in range(20)]
    keys = [opened.vault.keys.key(one) for one in ids]
    erasures = [asyncio.to_thread(other.erase, one) for one in ids]
    await asyncio.gather(*keys, *erasures, return_exceptions=True)
    assert opened.column("subject_key", "wrapped") == []
    opened.vault.refresh_if_changed()
    for one in ids:
        with pytest.raises(KeyErased):
            await opened.vault.keys.key(one)
    other.close()


async def test_purge_leaves_no_trace_in_the_files(opened: Opened, tmp_path: Path) -> None:
    """Neither digest nor wrapped key of an erased subject is in any of the vault's files; the others' are."""
    ids = await add(opened, *(f"user {n}" for n in range(60)))
    with opened.database.reading() as connection:
        query = "SELECT subject.sub_id, digest, wrapped FROM subject JOIN subject_key USING (sub_id)"
        bytes_of = {row[0]: (bytes(row[1]), bytes(row[2])) for row in connection.exec_driver_sql(query)}
    for sub_id in ids[::2]:
        opened.erase(sub_id)

    def seen() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.iterdir())

    assert any(part in seen() for sub_id in ids[::2] for part in bytes_of[sub_id]), "the test sees what is to go"
    assert opened.ledger.purge()
    raw = seen()
    assert not [sub_id for sub_id in ids[::2] for part in bytes_of[sub_id] if part in raw]
    assert all(part in raw for sub_id in ids[1::2] for part in bytes_of[sub_id])


async def test_purge_behind_a_reader_says_so_and_works_later(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that stands in the way is not waited for without end, and the next time it is done."""
    monkeypatch.setattr("lukhas.vault.erasure._PURGE_PATIENCE_S", 0.0)
    (sub_id,) = await add(opened, "alice")
    with opened.database.reading() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM subject").scalar()
        opened.erase(sub_id)
        pooled = opened.database.writer.raw_connection()
        pooled.driver_connection.execute("PRAGMA busy_timeout=50")  # type: ignore[union-attr]
        pooled.close()
        assert not opened.ledger.purge()
    assert opened.ledger.purge()


async def test_refresh_after_another_process_erased_forgets(opened: Opened, tmp_path: Path) -> None:
    """A serving process notices what a command has erased: names and keys leave its memory."""
    opened.vault.refresh_if_changed()
    (sub_id,) = await add(opened, "alice")
    assert not opened.vault.refresh_if_changed(), "a new subject is no reason to forget any"
    code = f"""
        from pathlib import Path
        from test_vault_erasure import Opened
        other = Opened(Path({str(tmp_path)!r})); other.erase({sub_id!r}); other.close()
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True, timeout=60, cwd=Path(__file__).parent)
    assert opened.vault.recall(*ALICE) == sub_id, "not asked yet"
    assert opened.vault.refresh_if_changed()
    assert opened.vault.recall(*ALICE) is None
    with pytest.raises(KeyErased):
        await opened.vault.keys.key(sub_id)
    assert await opened.vault.resolve(*ALICE) != sub_id
    assert not opened.vault.refresh_if_changed()


async def test_resolve_that_was_under_way_does_not_bring_an_id_back(opened: Opened) -> None:
    """What was read before an erasure is not kept in memory after it."""
    (sub_id,) = await add(opened, "alice")
    opened.vault.forget()
    generation = opened.vault._generation
    opened.erase(sub_id)
    opened.vault._keep(opened.vault.digest(*ALICE), sub_id, generation, ALICE)
    opened.vault.keys._keep(sub_id, b"k" * 32, 0)
    assert opened.vault.recall(*ALICE) is None and opened.vault.lookup(*ALICE) is None
    with pytest.raises(KeyErased):
        opened.vault.keys.read(sub_id)


async def test_replay_over_a_restored_vault_erases_again(opened: Opened, tmp_path: Path) -> None:
    """A backup brings key and mapping back; the exported ledger takes them away again, in any order, twice too."""
    ids = await add(opened, "alice", "bob", "carol")
    backup = tmp_path / "backup"
    backup.mkdir()
    opened.ledger.purge()
    for name in ("vault.db", "vault.key"):
        (backup / name).write_bytes((tmp_path / name).read_bytes())
    for sub_id in ids[:2]:
        opened.erase(sub_id, why="größe")
    lines = list(opened.ledger.export())
    assert [line.count(b"\n") for line in lines] == [1, 1]
    restored = Opened(backup)
    assert await restored.vault.keys.key(ids[0]), "the backup has it"
    entries = list(parse_ledger([*reversed(lines), b"\n"]))
    assert restored.ledger.replay(entries) == 2
    assert restored.ledger.replay(entries) == 0
    assert [(e.sub_id, e.audit_id, e.why) for e in restored.ledger.entries()] == [
        (e.sub_id, e.audit_id, e.why) for e in entries
    ]
    for sub_id in ids[:2]:
        with pytest.raises(KeyErased):
            await restored.vault.keys.key(sub_id)
    assert await restored.vault.keys.key(ids[2]) and restored.vault.lookup(*ALICE) is None
    restored.close()


async def test_replay_of_a_subject_that_the_backup_lacks_is_remembered(opened: Opened) -> None:
    """An older backup may not know the subject at all: that it was erased is known afterwards."""
    entry = Erasure(7, make_id("sub"), "user", make_id("aud"), 1, "t/cli/", "")
    assert opened.ledger.replay([entry]) == 1
    with pytest.raises(KeyErased):
        await opened.vault.keys.key(entry.sub_id)


@pytest.mark.parametrize(
    "line", [pytest.param(b"{}", id="empty"), pytest.param(b"nonsense", id="no-json"), pytest.param(b"[1]", id="list")]
)
def test_parse_ledger_of_something_else_names_the_line(line: bytes) -> None:
    """A damaged ledger is not taken for a short one."""
    with pytest.raises(IntegrityError, match="Line 2"):
        list(parse_ledger([b"\n", line]))


async def test_unrecorded_ends_with_the_mark(opened: Opened) -> None:
    """Erasures count as unrecorded until they are marked; a mark never goes back."""
    ids = await add(opened, "alice", "bob")
    seqs = [opened.erase(one).entry.seq for one in ids]
    assert [one.seq for one in opened.ledger.unrecorded()] == seqs
    opened.ledger.mark_recorded(seqs[1])
    opened.ledger.mark_recorded(seqs[0])
    assert opened.ledger.unrecorded() == []


@pytest.mark.parametrize("where", ["beside", "fallback"])
async def test_key_file_is_found_where_it_is(tmp_path: Path, where: str) -> None:
    """A vault's key lies beside it; one that was moved to the given path is taken from there, and none is made."""
    data = tmp_path / "data"
    data.mkdir()
    opened = Opened(tmp_path, key_path=data / "vault.key")
    sub_id = await opened.vault.resolve(*ALICE)
    opened.close()
    assert (tmp_path / "vault.key").exists() and not (data / "vault.key").exists()
    if where == "fallback":
        (tmp_path / "vault.key").rename(data / "vault.key")
    again = Opened(tmp_path, key_path=data / "vault.key")
    assert again.vault.lookup(*ALICE) == sub_id
    again.close()


async def test_vault_with_another_key_file_does_not_open(opened: Opened, tmp_path: Path) -> None:
    """With a wrong pepper nothing could be opened, so the vault does not open at all."""
    await add(opened, "alice")
    (tmp_path / "vault.key").write_text("00" * 32)
    with pytest.raises(ConfigurationError):
        Opened(tmp_path)


def test_seal_opens_what_it_sealed_only_for_the_same_thing() -> None:
    """Root, purpose and what it is about must all be the same; sealing twice gives different bytes."""
    seal = Seal(b"r" * 32)
    sealed = seal.seal("p", b"secret", b"about")
    assert seal.open("p", sealed, b"about") == b"secret" and sealed != seal.seal("p", b"secret", b"about")
    wrong = [(Seal(b"s" * 32), "p", b"about"), (seal, "q", b"about"), (seal, "p", b"other"), (seal, "p", b"")]
    for opener, purpose, about in wrong:
        with pytest.raises(IntegrityError):
            opener.open(purpose, sealed, about)


@pytest.mark.parametrize("size", [0, 5, 12, 27])
def test_seal_of_cut_bytes_is_an_error(size: int) -> None:
    """Too few bytes are refused like changed ones, whatever their number."""
    seal = Seal(b"r" * 32)
    with pytest.raises(IntegrityError):
        seal.open("p", seal.seal("p", b"secret")[:size])


def test_seal_with_any_changed_bit_does_not_open() -> None:
    """Each bit of nonce, ciphertext and tag counts."""
    seal = Seal(b"r" * 32)
    sealed = seal.seal("p", b"ab")
    for place in range(len(sealed) * 8):
        changed = bytearray(sealed)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(IntegrityError):
            seal.open("p", bytes(changed))


def test_seal_cannot_be_printed() -> None:
    """A log line or an error message that holds it says nothing."""
    assert "rrr" not in f"{Seal(b'r' * 32)!r} {Seal(b'r' * 32)}"
