"""`lukhas audit content`: what was captured of one call; reading it goes on record."""

from __future__ import annotations

from typing import Annotated

import typer

from lukhas.cli.audit_forget import open_vault
from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line, show_text
from lukhas.cli.policy_revision import name_actor
from lukhas.cli.store import ACTOR
from lukhas.clock import format_utc
from lukhas.settings import load_settings


def show_content(
    audit_id: Annotated[str, typer.Argument(metavar="ID", help="aud_..., from the header X-Lukhas-Audit-Id.")],
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a call's captured texts, redacted. That they were read is recorded first."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.audit.content import ContentStore
        from lukhas.audit.reading import describe_content, make_access_record, read_content
        from lukhas.audit.redaction import redact_text
        from lukhas.ids import check_id
        from lukhas.vault.erasure import EraseLedger

        check_id("aud", audit_id)
        with open_vault(settings) as (stores, vault):
            document = stores.audit.read_document(audit_id)
            contents = ContentStore(stores.database, vault.keys)
            captured = read_content(contents, EraseLedger(vault, stores.clock), audit_id, document)
            record = make_access_record(captured, stores.clock, ACTOR, who=redact_text(name_actor()))
            stores.audit.append_sync(record)
        if as_json:
            print_json({**describe_content(captured), "access": record.audit_id})
            return
        for one in captured.parts:
            print_line(f"{one.part}, {format_utc(one.time_ms)}{', cut' if one.is_cut else ''}")
            print_line(show_text(one.text))
            print_line()
        print_line(f"That this was read is on record as {record.audit_id}.")
