"""Policy revisions in the database: what was in force, who put it there, and its certificates."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lukhas.errors import (
    IntegrityError,
    InvalidId,
    InvalidRequest,
    NotFound,
    PreconditionFailed,
)
from lukhas.modulation.certificate import Certificate
from lukhas.modulation.policy import Policy
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text
from lukhas.modulation.revision import PolicyEvent, RevisionStore, check_reason
from lukhas.storage import migrate
from lukhas.storage.engine import open_database
from lukhas.storage.writer import GroupCommitWriter
from lukhas.testing import FrozenClock


def make_policy(number: int) -> Policy:
    return parse_policy(read_packaged_text().replace("0.7 - 0.6 * x", f"0.{number} - 0.1 * x"), f"file-{number}")


def certify(policy: Policy, result: Any = "proved", *, solver: str = "z3", schema: int = 1) -> Certificate:
    return Certificate(schema, policy.id, policy.sha256, result, (), (), solver, "1", "2026-01-01T00:00:00Z")


class Opened:
    """A revision store with what it stands on."""

    def __init__(self, folder: Path) -> None:
        self.database = open_database(f"sqlite:///{folder}/lukhas.db")
        migrate.upgrade(self.database)
        self.writer = GroupCommitWriter(self.database, max_rows=1000)
        self.writer.start()
        self.clock = FrozenClock()
        self.store = RevisionStore(self.database, self.writer, self.clock)

    def run(self, sql: str) -> None:
        with self.database.writer.begin() as connection:
            connection.exec_driver_sql(sql)

    def close(self) -> None:
        self.writer.close(5)
        self.database.close()


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    made = Opened(tmp_path)
    yield made
    made.close()


def test_revision_saved_is_read_back_whole(opened: Opened) -> None:
    """Text, hash, name, source and moment are those of the first time it was stored."""
    policy = make_policy(5)
    opened.store.save(policy, None, "key_1", "why", "in_force")
    opened.clock.advance(1000)
    opened.store.save(policy, None, "key_2", "again", "rolled_back")
    found = opened.store.read(policy.id)
    assert (found.text, found.sha256, found.name, found.source) == (
        policy.text,
        policy.sha256,
        policy.name,
        "file-5",
    )
    assert found.created_ms == opened.clock.now_ms() - 1000
    assert len(opened.store.list()) == 1


def test_revision_events_are_in_order_with_who_and_why(opened: Opened) -> None:
    """The newest comes first; pages follow each other without a gap."""
    first, second = make_policy(1), make_policy(2)
    for number in range(5):
        opened.store.save(first if number % 2 else second, None, f"who-{number}", f"why-{number}", "in_force")
    events = opened.store.events(limit=2)
    rest = opened.store.events(before=events[-1].seq)
    assert [event.who for event in [*events, *rest]] == ["who-4", "who-3", "who-2", "who-1", "who-0"]
    assert {event.policy_id for event in opened.store.events(revision_id=first.id)} == {first.id}


def test_revision_standing_is_the_newest_that_took_effect(opened: Opened) -> None:
    """Refusals and shadow candidates never stand."""
    assert opened.store.standing() is None
    kept = opened.store.save(make_policy(1), None, "a", "b", "in_force")
    opened.store.refuse("pol_X", "no", "a", "b")
    opened.store.save(make_policy(2), None, "a", "b", "shadow")
    assert opened.store.standing() == kept
    rolled = opened.store.save(make_policy(3), None, "a", "b", "rolled_back")
    assert opened.store.standing() == rolled


def test_revision_last_of_file_ignores_texts_that_look_like_it(opened: Opened) -> None:
    """Only what came from a file counts, whatever a problem's text says."""
    filed = opened.store.save(make_policy(1), None, "a", "b", "in_force", details={"file": "p.yaml", "sha256": "s"})
    opened.store.refuse("", 'it says "file": "x"', "a", "b")
    assert opened.store.last_of_file() == filed


def test_revision_expected_event_is_gone_changes_nothing(opened: Opened) -> None:
    """What was decided on an older state is refused, together with what goes with it."""
    first = opened.store.save(make_policy(1), None, "a", "b", "in_force", expected=0)
    opened.store.save(make_policy(2), None, "a", "b", "in_force", expected=first.seq)
    with pytest.raises(PreconditionFailed):
        opened.store.save(make_policy(3), certify(make_policy(3)), "a", "b", "in_force", expected=first.seq)
    assert len(opened.store.list()) == 2
    assert opened.store.find_certificate(make_policy(3).id) is None


def test_revision_concurrent_changes_of_one_state_have_one_winner(opened: Opened) -> None:
    """Of many that expect the same, one is stored."""
    first = opened.store.save(make_policy(1), None, "a", "b", "in_force")
    won: list[PolicyEvent] = []
    lost: list[PreconditionFailed] = []

    def change(number: int) -> None:
        try:
            won.append(opened.store.save(make_policy(number), None, str(number), "b", "in_force", expected=first.seq))
        except PreconditionFailed as failure:
            lost.append(failure)

    threads = [threading.Thread(target=change, args=(number,)) for number in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 1 and len(lost) == 7
    assert opened.store.standing() == won[0]


def test_revision_also_shares_the_transaction(opened: Opened) -> None:
    """A change whose record cannot be written did not happen."""

    def fail(connection: Any, payloads: Any) -> list[None]:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        opened.store.save(make_policy(1), None, "a", "b", "in_force", (fail, 1))
    assert opened.store.standing() is None and opened.store.list() == []


def test_revision_prefix_finds_the_only_one(opened: Opened) -> None:
    """An id, its beginning, without pol_ and in lower case all name it."""
    policy = make_policy(1)
    opened.store.save(policy, None, "a", "b", "in_force")
    for name in (policy.id, policy.id[:10], policy.id[4:9], policy.id[4:9].lower(), f" {policy.id} "):
        assert opened.store.read(name).policy_id == policy.id


def test_revision_prefix_of_several_names_them(opened: Opened) -> None:
    """The answer says which ones it could be."""
    policies = [make_policy(number) for number in range(1, 10)]
    for policy in policies:
        opened.store.save(policy, None, "a", "b", "in_force")
    by_first: dict[str, list[str]] = {}
    for policy in policies:
        by_first.setdefault(policy.id[:5], []).append(policy.id)
    prefix, several = next((prefix, ids) for prefix, ids in by_first.items() if len(ids) > 1)
    with pytest.raises(InvalidRequest, match=prefix) as refused:
        opened.store.read(prefix)
    assert all(one in refused.value.hint for one in several[:5])


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param("pol_", id="prefix-alone"),
        pytest.param("pol_%", id="wildcard"),
        pytest.param("pol__", id="other-wildcard"),
        pytest.param("' OR 1=1 --", id="sql"),
        pytest.param("pol_" + "0" * 27, id="too-long"),
        pytest.param("pol_ÄÖ", id="not-ascii"),
        pytest.param("\x00", id="null"),
    ],
)
def test_revision_name_that_is_none_is_refused(opened: Opened, name: str) -> None:
    """Nothing but the beginning of an id is looked for."""
    opened.store.save(make_policy(1), None, "a", "b", "in_force")
    with pytest.raises(InvalidId):
        opened.store.read(name)


def test_revision_unknown_is_not_found(opened: Opened) -> None:
    """A well-formed id that nobody has."""
    with pytest.raises(NotFound):
        opened.store.read("pol_0000")


def test_revision_text_that_was_changed_is_an_integrity_error(opened: Opened) -> None:
    """A text that does not have its hash is never taken for the policy."""
    policy = make_policy(1)
    opened.store.save(policy, None, "a", "b", "in_force")
    opened.run("UPDATE policy_revision SET text = text || ' '")
    with pytest.raises(IntegrityError):
        opened.store.read(policy.id)


def test_revision_refused_without_text_has_an_event_alone(opened: Opened) -> None:
    """What could not be read is on record, and is no revision."""
    opened.store.refuse("", "unreadable " * 2000, "file", "why")
    (event,) = opened.store.events()
    assert event.event == "refused" and event.policy_id == "" and len(event.details["problem"]) == 8000
    assert opened.store.list() == []


def test_revision_was_in_force_is_false_for_what_was_refused(opened: Opened) -> None:
    """Nothing can be rolled back to that never was."""
    refused, good = make_policy(1), make_policy(2)
    opened.store.refuse(refused.id, "no", "a", "b", policy=refused)
    opened.store.save(good, None, "a", "b", "in_force")
    assert not opened.store.was_in_force(refused.id)
    assert opened.store.was_in_force(good.id)
    assert opened.store.read(refused.id).text == refused.text


def test_revision_certificate_that_decides_comes_first(opened: Opened) -> None:
    """A later timeout does not hide a proof."""
    policy = make_policy(1)
    proved = certify(policy)
    opened.store.save(policy, proved, "a", "b", "in_force")
    opened.clock.advance(1000)
    opened.store.save_certificate(certify(policy, "not proved"))
    opened.store.save_certificate(proved)
    assert opened.store.find_certificate(policy.id) == proved
    assert opened.store.list()[0].proof == "proved"
    assert opened.store.find_certificate("pol_other") is None


def test_revision_certificate_of_another_form_is_passed_over(opened: Opened) -> None:
    """A damaged or foreign certificate proves nothing and stops nobody."""
    policy = make_policy(1)
    opened.store.save_certificate(certify(policy, schema=99))
    assert opened.store.find_certificate(policy.id) is None
    opened.store.save_certificate(certify(policy, "not proved"))
    opened.run("UPDATE policy_certificate SET document = x'00' WHERE result = 'proved'")
    found = opened.store.find_certificate(policy.id)
    assert found is not None and found.result == "not proved"


def test_revision_list_pages_follow_each_other(opened: Opened) -> None:
    """Pages of a list whose revisions came in the same millisecond lose none and repeat none."""
    policies = [make_policy(number) for number in range(1, 8)]
    for policy in policies:
        opened.store.save(policy, None, "a", "b", "in_force")
    seen: list[str] = []
    before: tuple[int, str] | None = None
    while page := opened.store.list(limit=3, before=before):
        seen += [entry.policy_id for entry in page]
        before = (page[-1].created_ms, page[-1].policy_id)
    assert sorted(seen) == sorted(policy.id for policy in policies)


def test_revision_change_is_seen_by_another_process(opened: Opened, tmp_path: Path) -> None:
    """A second opening of the same database notices the first one's event."""
    other = Opened(tmp_path)
    version, _ = other.store.standing_if_changed(-1)
    assert other.store.standing_if_changed(version) == (version, None)
    event = opened.store.save(make_policy(1), None, "a", "b", "in_force")
    later, standing = other.store.standing_if_changed(version)
    assert later != version and standing == event
    other.close()


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" \n ", id="blank"),
        pytest.param("x" * 1001, id="too-long"),
        pytest.param("a\x1b[31m", id="escape"),
        pytest.param("a\ud800", id="surrogate"),
        pytest.param("a\x00", id="null"),
    ],
)
def test_reason_that_says_nothing_is_refused(text: str) -> None:
    """A reason is a text that people can read."""
    with pytest.raises(InvalidRequest):
        check_reason(text)


def test_reason_is_kept_in_any_script() -> None:
    """Spaces at the ends go, lines and letters stay."""
    assert check_reason("  Störung\n解決 ") == "Störung\n解決"
