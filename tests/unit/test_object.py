"""Upstream objects belong to the tenant that made them; blocked calls are kept until they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lukhas.access.ring import ApiKey
from lukhas.errors import Conflict, InvalidRequest, NotFound, StorageUnavailable
from lukhas.gateway.object import LONGEST_ID, ObjectOwners
from lukhas.openai.call import ObjectRef
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import FrozenClock


class Opened:
    """Owners with the database they stand on."""

    def __init__(self, folder: Path, **options: int) -> None:
        self.database = open_database(f"sqlite:///{folder}/lukhas.db")
        if not migrate.is_current(self.database):
            migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=1000)
        self.writer.start()
        self.owners = ObjectOwners(self.database, self.writer, FrozenClock(), **options)

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


def key(tenant: str = "acme") -> ApiKey:
    return ApiKey(key_id=f"key_{tenant}", name="k", tenant=tenant, scopes=frozenset(), created_ms=0)


def ref(object_id: str, kind: str = "response") -> ObjectRef:
    return ObjectRef(kind, object_id, ("previous_response_id",))


async def test_claimed_object_is_its_tenants_alone(opened: Opened) -> None:
    """Its tenant may name it; to another it does not exist."""
    assert await opened.owners.claim([ref("resp_1"), ref("conv_1", "conversation")], key())
    await opened.owners.check([ref("resp_1"), ref("conv_1", "conversation")], "acme")
    with pytest.raises(NotFound, match=r"There is no such conversation\.") as caught:
        await opened.owners.check([ref("conv_1", "conversation")], "zeta")
    assert caught.value.param == "previous_response_id"


async def test_unknown_object_is_refused_as_anothers_is(opened: Opened) -> None:
    """Whoever guesses an id learns nothing: both answers are the same."""
    await opened.owners.claim([ref("vs_1", "vector_store")], key())
    said: list[str] = []
    for object_id in ("vs_1", "vs_2", "", "x" * 10_000, "' OR 1=1 --", "vs_1\x00"):
        with pytest.raises(NotFound) as caught:
            await opened.owners.check([ref(object_id, "vector_store")], "zeta")
        said.append(str(caught.value))
    assert len(set(said)) == 1 and "vector store" in said[0]


async def test_check_finds_one_foreign_object_among_many(opened: Opened) -> None:
    """Each object that a request names is checked, however many there are."""
    mine = [ref(f"file-{n}", "file") for n in range(1200)]
    await opened.owners.claim(mine, key())
    await opened.owners.claim([ref("file-theirs", "file")], key("zeta"))
    fresh = ObjectOwners(opened.database, opened.writer, FrozenClock())
    await fresh.check(mine, "acme")
    with pytest.raises(NotFound):
        await fresh.check([*mine, ref("file-theirs", "file")], "acme")


async def test_first_owner_keeps_an_object(opened: Opened) -> None:
    """A second claim by another tenant changes nothing, and says so; also where both come at once."""
    answers = await asyncio.gather(
        opened.owners.claim([ref("resp_1")], key("acme")), opened.owners.claim([ref("resp_1")], key("zeta"))
    )
    assert answers == [True, False]
    await opened.owners.check([ref("resp_1")], "acme")
    with pytest.raises(NotFound):
        await opened.owners.check([ref("resp_1")], "zeta")
    assert [one.tenant for one in opened.owners.list()] == ["acme"]


async def test_object_is_known_after_a_restart_and_past_the_memory(tmp_path: Path) -> None:
    """What is no longer in memory is looked up."""
    first = Opened(tmp_path)
    await first.owners.claim([ref(f"resp_{n}") for n in range(10)], key())
    first.close()
    second = Opened(tmp_path, most_known=3)
    refs = [ref(f"resp_{n}") for n in range(10)]
    for _ in range(2):
        await second.owners.check(refs, "acme")
        assert len(second.owners._known) == 3
    assert await second.owners.blocked_calls(refs) == ()
    second.close()


async def test_known_object_is_not_asked_for_again(opened: Opened) -> None:
    """The database answers once for each object."""
    await opened.owners.claim([ref("resp_1")], key())
    with opened.database.writer.begin() as connection:
        connection.exec_driver_sql("DELETE FROM upstream_object")
    await opened.owners.check([ref("resp_1")], "acme")


async def test_object_bound_elsewhere_is_admitted_at_once(opened: Opened, tmp_path: Path) -> None:
    """That it was unknown is not remembered."""
    with pytest.raises(NotFound):
        await opened.owners.check([ref("file-1", "file")], "acme")
    other = Opened(tmp_path)
    found, is_new = await asyncio.to_thread(other.owners.add, "file-1", "file", "acme", "cli")
    assert is_new and found.tenant == "acme"
    again = await asyncio.to_thread(other.owners.add, "file-1", "file", "acme", "cli")
    other.close()
    assert again[0].created_ms == found.created_ms
    await opened.owners.check([ref("file-1", "file")], "acme")


def test_add_of_anothers_object_is_a_conflict(opened: Opened) -> None:
    """Binding does not take away."""
    opened.owners.add("file-1", "file", "acme", "cli")
    with pytest.raises(Conflict):
        opened.owners.add("file-1", "file", "zeta", "cli")


@pytest.mark.parametrize(
    ("object_id", "kind"),
    [
        pytest.param("", "file", id="empty-id"),
        pytest.param("x" * (LONGEST_ID + 1), "file", id="long-id"),
        pytest.param("a\nb", "file", id="control"),
        pytest.param("file-1", "", id="empty-kind"),
        pytest.param("file-1", "fi le", id="kind-with-space"),
        pytest.param("file-1", "x" * 65, id="long-kind"),
    ],
)
def test_add_of_what_is_no_object_is_refused(opened: Opened, object_id: str, kind: str) -> None:
    """Nothing is stored."""
    with pytest.raises(InvalidRequest):
        opened.owners.add(object_id, kind, "acme", "cli")
    assert opened.owners.list() == []


async def test_blocked_calls_of_a_response_are_kept(opened: Opened) -> None:
    """Who goes on from a response finds which of its calls were blocked, also after a restart."""
    await opened.owners.claim([ref("resp_1")], key(), {"blocked_calls": ["call_1", "call_2"]})
    assert await opened.owners.blocked_calls([ref("resp_1")]) == ("call_1", "call_2")
    fresh = ObjectOwners(opened.database, opened.writer, FrozenClock())
    await fresh.check([ref("resp_1")], "acme")
    assert await fresh.blocked_calls([ref("resp_1"), ref("resp_unknown")]) == ("call_1", "call_2")


async def test_blocked_calls_of_a_conversation_add_up_until_they_are_answered(opened: Opened) -> None:
    """Each further response adds its own; what a call has answered goes."""
    conversation = ref("conv_1", "conversation")
    for call_id in ("call_1", "call_2", "call_2"):
        await opened.owners.claim([conversation], key(), {"blocked_calls": [call_id]})
    assert await opened.owners.blocked_calls([conversation]) == ("call_1", "call_2")
    await opened.owners.claim([conversation], key(), {"blocked_calls": ["call_3"]}, answered=["call_1", "call_2"])
    fresh = ObjectOwners(opened.database, opened.writer, FrozenClock())
    await fresh.check([conversation], "acme")
    assert await fresh.blocked_calls([conversation]) == ("call_3",)


async def test_claim_by_another_tenant_adds_no_blocked_calls(opened: Opened) -> None:
    """A conversation grows by its own tenant's calls only."""
    conversation = ref("conv_1", "conversation")
    await opened.owners.claim([conversation], key("acme"))
    assert not await opened.owners.claim([conversation], key("zeta"), {"blocked_calls": ["call_evil"]})
    assert await opened.owners.blocked_calls([conversation]) == ()


async def test_conversation_is_read_anew_since_another_process_may_write_it(opened: Opened, tmp_path: Path) -> None:
    """A conversation's blocked calls are those in the database, not those once seen."""
    conversation = ref("conv_1", "conversation")
    await opened.owners.claim([conversation], key())
    other = Opened(tmp_path)
    await other.owners.claim([conversation], key(), {"blocked_calls": ["call_1"]})
    other.close()
    await opened.owners.check([conversation], "acme")
    assert await opened.owners.blocked_calls([conversation]) == ("call_1",)


async def test_claim_of_nothing_is_done_at_once(opened: Opened) -> None:
    """An answer that made no object costs no write."""
    assert await opened.owners.claim([], key()) and await opened.owners.claim([ref("")], key())
    assert opened.owners.list() == []


async def test_claim_with_a_stopped_writer_fails(opened: Opened) -> None:
    """An object that could not be bound must not leave unbound."""
    opened.writer.close(5)
    with pytest.raises(StorageUnavailable):
        opened.owners.claim([ref("resp_1")], key())


async def test_list_pages_and_filters(opened: Opened) -> None:
    """By tenant and kind; a page goes on after the last one's last."""
    await opened.owners.claim([ref(f"resp_{n}") for n in range(3)], key())
    await opened.owners.claim([ref("file-1", "file")], key("zeta"))
    owners = opened.owners
    assert [one.object_id for one in owners.list(tenant="acme")] == ["resp_2", "resp_1", "resp_0"]
    assert [one.object_id for one in owners.list(kind="file")] == ["file-1"]
    first = owners.list(limit=2)
    rest = owners.list(before=(first[-1].created_ms, first[-1].object_id))
    assert len({one.object_id for one in [*first, *rest]}) == 4
