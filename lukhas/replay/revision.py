"""The policies that recorded decisions name: texts by id, from the store of revisions and from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import inspect, select
from sqlalchemy.exc import NoSuchTableError

from lukhas.errors import PolicyError
from lukhas.modulation.policy import Policy, policy_id
from lukhas.modulation.policy_reader import parse_policy, read_packaged_text
from lukhas.storage.engine import Database
from lukhas.storage.metadata import MAIN

_TABLE = "policy_revision"


@dataclass(frozen=True)
class Revisions:
    """Policies by id.

    Attributes:
        policies: those that can be replayed.
        unreadable: why a stored text cannot be, by the id that it is stored under.
    """

    policies: dict[str, Policy] = field(default_factory=dict[str, Policy])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])

    def add(self, text: str, stored_id: str | None = None) -> None:
        """Add a text; one that is not the text of its id, or that does not parse, is noted as unreadable."""
        found = policy_id(text)
        if stored_id is not None and stored_id != found:
            self.unreadable[stored_id] = f"its stored text is that of {found}"
            return
        if found in self.policies:
            return
        try:
            self.policies[found] = parse_policy(text, "a stored revision")
        except PolicyError as wrong:
            self.unreadable[found] = wrong.message.splitlines()[0]


def load_revisions(database: Database, also: Iterable[str] = ()) -> Revisions:
    """Load every stored revision, the packaged policy, and further texts.

    Raises:
        StorageUnavailable: the database cannot be read.
    """
    revisions = Revisions()
    for stored_id, text in _read_stored(database):
        revisions.add(text, stored_id)
    for text in (read_packaged_text(), *also):
        revisions.add(text)
    return revisions


def load_revision(database: Database, wanted: str, also: Iterable[str] = ()) -> Policy | None:
    """Return the policy of one id, from the store, the packaged text or further texts; None where none has it.

    Raises:
        PolicyError: its stored text is not one of its id, or cannot be read as a policy any more.
        StorageUnavailable: the database cannot be read.
    """
    for text in (read_packaged_text(), *also):
        if policy_id(text) == wanted:
            return parse_policy(text, "a revision")
    for stored_id, text in _read_stored(database, wanted):
        if policy_id(text) != stored_id:
            raise PolicyError(f"The text that is stored as {stored_id} is that of {policy_id(text)}.")
        return parse_policy(text, "a stored revision")
    return None


def _read_stored(database: Database, wanted: str | None = None) -> list[tuple[str, str]]:
    table = MAIN.tables.get(_TABLE)
    if table is None:
        return []
    with database.reading() as connection:
        try:
            if not inspect(connection).has_table(_TABLE):
                return []
        except NoSuchTableError:
            return []
        query = select(table.c.policy_id, table.c.text)
        rows = connection.execute(query if wanted is None else query.where(table.c.policy_id == wanted)).all()
    return [(str(stored_id), str(text)) for stored_id, text in rows]
