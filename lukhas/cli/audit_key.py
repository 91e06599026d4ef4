"""`lukhas audit key`: the public key with which anybody verifies this log."""

from __future__ import annotations

from typing import Annotated

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line
from lukhas.settings import load_settings


def print_key(
    every: Annotated[bool, typer.Option("--all", help="Every key that the log ever had, newest first.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the log's verifier key; makes the log's key where it has none yet."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.cli.audit_signing import open_signing, read_verifiers

        found = read_verifiers(settings)
        if not found:
            with open_signing(settings) as signing:
                found = [signing.key.signer.verifier]
        rows = [
            {"verifier": str(one), "origin": one.name, "key_id": one.key_id.hex(), "public": one.public.hex()}
            for one in (found if every else found[:1])
        ]
        if as_json:
            print_json({"keys": rows} if every else rows[0])
            return
        for row in rows:
            print_line(row["verifier"])
