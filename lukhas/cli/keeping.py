"""Opening what keeps the log's months, for the commands that seal, archive and prune."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from lukhas.cli.progress import showing_progress
from lukhas.cli.store import ACTOR, open_stores
from lukhas.settings import Settings

if TYPE_CHECKING:
    from lukhas.audit.retention import Retention
    from lukhas.audit.segment import Segment

COLUMNS: Final = ("month", "records", "first", "sealed", "archive", "pruned")


@contextmanager
def open_keeping(settings: Settings) -> Generator[Retention]:
    """Open the log's months for a change, beside a running gateway or without one.

    Raises:
        ConfigurationError: settings that contradict each other, or a database or archive that cannot be used.
        StorageUnavailable: the database cannot be read or written.
    """
    from lukhas.audit.retention import open_retention
    from lukhas.cli.audit_reindex import find_index

    with open_stores(settings) as stores:
        index = find_index(settings, stores.audit.source)
        yield open_retention(
            settings,
            stores.database,
            stores.writer,
            stores.audit,
            stores.clock,
            actor=ACTOR,
            forget=() if index is None else (index.forget_before,),
        )


@contextmanager
def counting_records(total: int) -> Generator[Callable[[int], None]]:
    """Show a bar while the block runs, where a terminal is; the yielded function is told how many more are done."""
    done = 0
    with showing_progress("records") as update:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            update(done, total)

        yield advance


def describe_row(segment: Segment) -> tuple[object, ...]:
    """Return a segment as a row of the table."""
    from lukhas.clock import format_utc

    return (
        segment.name,
        segment.end_index - segment.first_index,
        segment.first_index,
        format_utc(segment.sealed_ms),
        segment.archive,
        None if segment.pruned_ms is None else format_utc(segment.pruned_ms),
    )
