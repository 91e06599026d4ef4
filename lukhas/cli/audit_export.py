"""`lukhas audit export`: the log's records as a file that a stranger can verify."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line
from lukhas.errors import InvalidRequest, LukhasError
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.audit.export import Wanted


def export_records(
    out: Annotated[str, typer.Option(metavar="FILE", help="File to write (.gz compresses); -: standard output.")] = "-",
    since: Annotated[str | None, typer.Option(help="Begin at: an age such as 24h or 7d, or a time in UTC.")] = None,
    until: Annotated[str | None, typer.Option(help="End before: an age such as 1h, or a time in UTC.")] = None,
    first: Annotated[int | None, typer.Option("--from", min=0, help="Index of the first record.")] = None,
    to: Annotated[int | None, typer.Option("--to", min=0, help="Index after the last record.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Export records verbatim as JSON lines, with a proof file beside them that anchors them in the signed log."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.audit.export import Wanted
        from lukhas.audit.moment import parse_moment
        from lukhas.clock import SystemClock

        now_ms = SystemClock().now_ms()
        since_ms = None if since is None else parse_moment(since, now_ms, "since")
        until_ms = None if until is None else parse_moment(until, now_ms, "until")
        wanted = Wanted(first, to, since_ms, until_ms)
        if out == "-":
            if as_json:
                raise InvalidRequest("--json needs --out: standard output is where the records go.", param="json")
            _write_out(settings, wanted)
        else:
            document = _write_file(settings, wanted, Path(out), force)
            print_json(document) if as_json else _print(document)


def _write_out(settings: Settings, wanted: Wanted) -> None:
    from lukhas.audit.export import find_range, write_lines
    from lukhas.audit.source import RecordSource
    from lukhas.cli.audit_database import open_log_database

    with open_log_database(settings) as database:
        begin, end = find_range(database, wanted)
        write_lines(sys.stdout.buffer, RecordSource(database), begin, end)
        sys.stdout.buffer.flush()


def _write_file(settings: Settings, wanted: Wanted, path: Path, is_forced: bool) -> dict[str, Any]:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.audit.export import find_range, make_proof, write_file, write_lines, write_proof
    from lukhas.audit.signing_key import load_verifiers
    from lukhas.audit.source import RecordSource
    from lukhas.audit.tile_store import DatabaseTiles
    from lukhas.cli.audit_database import open_log_database
    from lukhas.cli.progress import showing_progress
    from lukhas.clock import SystemClock
    from lukhas.storage.writer import GroupCommitWriter

    with open_log_database(settings) as database:
        begin, end = find_range(database, wanted)
        source = RecordSource(database)
        with showing_progress("records") as progress:
            done = write_file(
                path,
                lambda file: write_lines(file, source, begin, end, progress),
                is_forced=is_forced,
                compress=path.suffix == ".gz",
            )
        problem = _sign(settings)
        unused = GroupCommitWriter(database, max_rows=1, name="unused")
        checkpoints = CheckpointStore(database, unused, SystemClock(), None)
        keys = load_verifiers(database)
        proof = make_proof(done, source.size(), DatabaseTiles(database), checkpoints, keys)
        beside = write_proof(path, proof, is_forced=True)
    return {
        "file": str(path),
        "proof": str(beside),
        "from": begin,
        "to": end,
        "records": end - begin,
        "bytes": done.file_bytes,
        "checkpoints": len(proof.checkpoints),
        "keys": proof.keys,
        "problem": problem,
    }


def _sign(settings: Settings) -> str | None:
    """Sign the log as it is now, so that a checkpoint covers the last record; say why not where that cannot be."""
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.cli.audit_signing import open_signing

    try:
        with open_signing(settings) as signing:
            stores = signing.stores
            CheckpointStore(stores.database, stores.writer, stores.clock, signing.key.signer).sign()
    except LukhasError as failure:
        return str(failure)
    return None


def _print(document: dict[str, Any]) -> None:
    count, begin, end = document["records"], document["from"], document["to"]
    span = f"{begin} to {end - 1}" if count else "none"
    print_line(f"file         {document['file']}  ({count} records: {span}; {document['bytes']} bytes)")
    print_line(f"proof        {document['proof']}")
    print_line(f"checkpoints  {document['checkpoints']}")
    if document["problem"]:
        print_line(f"No checkpoint could be signed now, so the last records may have none: {document['problem']}")
    key = document["keys"][0] if document["keys"] else "KEY"
    print_line("verify with  the log's key, which a verifier should get from somewhere else than this file:")
    print_line(f"  lukhas audit verify --export {shlex.quote(document['file'])} --key {shlex.quote(key)}")
