"""Revision numbers: how a server notices that another process changed keys or policy.

A topic's number grows in the transaction that changes what the topic stands for.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

REVISION_SUM: Final = "SELECT coalesce(sum(number), 0) FROM revision"
_BUMP: Final = (
    "INSERT INTO revision (topic, number) VALUES ('{topic}', 1) "
    "ON CONFLICT (topic) DO UPDATE SET number = revision.number + 1"
)


def bump_revision(connection: Connection, topic: str) -> None:
    """Raise the topic's number by one, inside the caller's transaction.

    Args:
        topic: lower-case letters; a fixed word of the code, never input.
    """
    if not (topic.isascii() and topic.isalpha()):
        raise ValueError("a topic is a plain word")
    connection.exec_driver_sql(_BUMP.format(topic=topic))


def read_revision(connection: Connection, topic: str) -> int:
    """Return the topic's number, 0 before its first change."""
    rows = connection.exec_driver_sql("SELECT topic, number FROM revision").all()
    return next((int(number) for name, number in rows if name == topic), 0)
