"""`lukhas audit checkpoint`: the newest signed state of the log."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, show_text
from lukhas.errors import IntegrityError, LukhasError
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.audit.checkpoint_store import StoredCheckpoint


def print_checkpoint(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print the newest signed checkpoint; where the log has grown since, signs a new one first."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.cli.audit_signing import read_verifiers

        read_verifiers(settings)  # says clearly where there is no log yet
        problem: LukhasError | None = None
        try:
            found = _sign(settings)
        except IntegrityError:
            raise
        except LukhasError as failure:
            older = None if _is_mistake(settings, failure) else _read_newest(settings)
            if older is None:
                raise
            problem, found = failure, older
        if as_json:
            _print_document(found, problem)
        else:
            sys.stdout.write(found.note.decode())
        if problem is not None:
            said = f"{problem.message} {problem.hint}".rstrip()
            sys.stderr.write(f"lukhas: this is the newest stored checkpoint; none was signed now: {show_text(said)}\n")


def _is_mistake(settings: Settings, failure: LukhasError) -> bool:
    """Tell a setting that is wrong from a key that only the gateway is given."""
    from lukhas.audit.signing_key import KEY_SETTING, ORIGIN_SETTING

    return failure.param == ORIGIN_SETTING or (failure.param == KEY_SETTING and settings.audit_key is not None)


def _sign(settings: Settings) -> StoredCheckpoint:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.cli.audit_signing import open_signing

    with open_signing(settings) as signing:
        stores = signing.stores
        return CheckpointStore(stores.database, stores.writer, stores.clock, signing.key.signer).sign()


def _read_newest(settings: Settings) -> StoredCheckpoint | None:
    from lukhas.cli.audit_tile import open_checkpoints

    with open_checkpoints(settings) as checkpoints:
        return checkpoints.newest()


def _print_document(found: StoredCheckpoint, problem: LukhasError | None) -> None:
    from lukhas.audit.checkpoint import read_checkpoint
    from lukhas.clock import format_utc

    document = {
        "origin": read_checkpoint(found.note).origin,
        "size": found.size,
        "root": found.root.hex(),
        "time": format_utc(found.time_ms),
        "note": found.note.decode(),
        "problem": None if problem is None else problem.message,
    }
    print_json(document)
