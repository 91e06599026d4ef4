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


def _read_stored(database: Database) -> list[tuple[str, str]]:
    table = MAIN.tables.get(_TABLE)
    if table is None:
        return []
    with database.reading() as connection:
        try:
            if not inspect(connection).has_table(_TABLE):
                return []
        except NoSuchTableError:
            return []
        rows = connection.execute(select(table.c.policy_id, table.c.text)).all()
    return [(str(stored_id), str(text)) for stored_id, text in rows]
