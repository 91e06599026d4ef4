"""`lukhas audit proof`: the receipt of one record, as a file that is checked without this log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line
from lukhas.cli.store import open_log
from lukhas.errors import Conflict, NotFound
from lukhas.settings import Settings, load_settings


def write_receipt(
    audit_id: Annotated[str, typer.Argument(metavar="ID", help="aud_..., from the header X-Lukhas-Audit-Id.")],
    record: Annotated[
        str | None, typer.Option("--record", help="decision, outcome, or a number from 0; else the decision.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write, such as ID.tlog-proof; else standard output.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a record's receipt: its bytes, its place, the proof that it is in the log, and a signed checkpoint."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.audit.checkpoint import read_checkpoint
        from lukhas.audit.issuing import choose_record, issue_receipt
        from lukhas.cli.audit_tile import open_checkpoints
        from lukhas.ids import check_id

        check_id("aud", audit_id)
        if out is not None and out.exists():
            raise Conflict(f"{out} is there already.", hint="Name another file, or remove it.")
        with open_log(settings) as log, open_checkpoints(settings) as checkpoints:
            records = log.read(audit_id)
            if not records:
                raise NotFound(f"There is no record {audit_id}.", hint=f"Looked in: {settings.data_dir}")
            chosen = choose_record(records, record)
            if checkpoints.first_covering(chosen.index) is None:
                _sign(settings)
            receipt = issue_receipt(chosen, log.tiles, checkpoints, sign=False)
        text = receipt.format()
        if out is not None:
            with out.open("xb") as file:
                file.write(text)
        checkpoint = read_checkpoint(receipt.note)
        if as_json:
            found = {"audit_id": audit_id, "kind": chosen.kind, "index": receipt.index, "size": checkpoint.size}
            found |= {"origin": checkpoint.origin, "root": checkpoint.root.hex()}
            print_json(found | ({"receipt": text.decode()} if out is None else {"file": str(out)}))
        elif out is None:
            sys.stdout.write(text.decode())
        else:
            print_line(f"{out}: record {receipt.index} ({chosen.kind}), in the log of {checkpoint.size} records.")
            print_line(f"To check it without this log: lukhas audit verify --proof {out} --key KEY")


def _sign(settings: Settings) -> None:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.cli.audit_signing import open_signing

    with open_signing(settings) as signing:
        stores = signing.stores
        CheckpointStore(stores.database, stores.writer, stores.clock, signing.key.signer).sign()
