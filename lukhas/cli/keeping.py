"""Opening what keeps the log's months, for the commands that seal, archive and prune."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lukhas.cli.store import ACTOR, open_stores
from lukhas.settings import Settings

if TYPE_CHECKING:
    from lukhas.audit.retention import Retention
    from lukhas.audit.segment import Segment

COLUMNS = ("month", "records", "first", "sealed", "archive", "pruned")


@contextmanager
def open_keeping(settings: Settings) -> Generator[Retention]:
    """Open the log's months for a change, beside a running gateway or without one.

    Raises:
        ConfigurationError: settings that contradict each other, or a database or archive that cannot be used.
        StorageUnavailable: the database cannot be read or written.
    """
    from lukhas.audit.retention import open_retention

    with open_stores(settings) as stores:
        yield open_retention(settings, stores.database, stores.writer, stores.audit, stores.clock, actor=ACTOR)


@contextmanager
def showing_progress(title: str, total: int) -> Generator[Callable[[int], None]]:
    """Show a bar of records on standard error while the block runs; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as progress:
        task = progress.add_task(title, total=total or None)
        yield lambda count: progress.advance(task, count)


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
