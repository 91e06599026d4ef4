"""`lukhas audit tiles`: the log's tree as static files, for any web server and any C2SP tlog-tiles client."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line
from lukhas.cli.store import open_existing, open_log
from lukhas.errors import NotFound
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.audit.checkpoint_store import CheckpointStore


def export_tiles(
    out: Annotated[Path, typer.Option("--out", help="Folder to write to; an earlier export there is continued.")],
    entries: Annotated[
        bool, typer.Option("--entries", help="Write the records too, those of every tenant, beside their hashes.")
    ] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the newest checkpoint and the tree under it as static files, in the layout of C2SP tlog-tiles."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.audit.static_tree import export_tree

        with open_log(settings) as log, open_checkpoints(settings) as checkpoints:
            newest = checkpoints.newest()
            if newest is None:
                raise NotFound(
                    "No checkpoint was signed yet.",
                    hint="A running gateway signs one every few seconds; or run: lukhas audit checkpoint",
                )
            with _progress() as report:
                done = export_tree(out, newest.note, log.tiles, log.source if entries else None, report)
        if as_json:
            found = {"folder": str(out), "size": done.size, "root": done.root.hex()}
            print_json(found | {"written": done.written, "kept": done.kept, "missing": done.missing})
            return
        print_line(f"{out}: the tree of {done.size} records, {done.written} files written, {done.kept} kept.")
        if done.missing:
            print_line(f"{done.missing} bundles of records were left out: their records are not in the database.")


@contextmanager
def open_checkpoints(settings: Settings) -> Generator[CheckpointStore]:
    """Open the log's checkpoints for reading.

    Raises:
        StorageUnavailable: there is no database yet, or it cannot be read.
    """
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.clock import SystemClock
    from lukhas.storage.writer import GroupCommitWriter

    with open_existing(settings) as database:
        unused = GroupCommitWriter(database, max_rows=1, name="unused")
        yield CheckpointStore(database, unused, SystemClock())


@contextmanager
def _progress() -> Generator[Callable[[int, int], None] | None]:
    """Show a bar on a terminal, on standard error so that a report can go elsewhere."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("files", total=None)
        yield lambda done, count: bar.update(task, completed=done, total=count)
