"""`lukhas audit replay`: decide a recorded call again, and say whether the same comes out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lukhas.cli.output import (
    ConfigOption,
    Exit,
    JsonOption,
    failing_clearly,
    print_json,
    print_line,
    print_table,
    show_text,
)
from lukhas.cli.store import open_existing, open_log
from lukhas.errors import ConfigurationError
from lukhas.settings import load_settings


def replay_record(
    audit_id: Annotated[str, typer.Argument(metavar="ID", help="aud_..., from the header X-Lukhas-Audit-Id.")],
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Policy file that was in force, where it is not stored.")
    ] = None,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute a decision from its record and its policy revision; exit 1 where it comes out otherwise."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.ids import check_id
        from lukhas.replay.single import replay_decision

        check_id("aud", audit_id)
        also = [_read_text(policy)] if policy is not None else []
        if policy is None and settings.policy is not None and settings.policy.is_file():
            also.append(_read_text(settings.policy))
        with open_log(settings) as log, open_existing(settings) as database:
            found = replay_decision(log, database, audit_id, also)
        if as_json:
            import msgspec

            print_json(msgspec.to_builtins(found))
        elif found.same:
            print_line(f"same: {audit_id} comes out byte for byte as recorded, by {found.policy}")
        else:
            print_line(f"differs: {audit_id} does not come out as recorded, by {found.policy}")
            print_line()
            rows = [(one.part, _show(one.recorded), _show(one.recomputed)) for one in found.differences]
            print_table(("part", "recorded", "recomputed"), rows)
        if not as_json:
            for note in found.notes:
                print_line(show_text(note))
        if not found.same:
            raise typer.Exit(Exit.NEGATIVE)


def _show(value: object) -> str:
    import orjson

    return "-" if value is None else orjson.dumps(value).decode()


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as wrong:
        raise ConfigurationError(f"The policy {path} is not UTF-8 text.", param="--policy") from wrong
