"""`lukhas audit`: the group of commands that read the audit log; each has a file of its own."""

from __future__ import annotations

import typer

from lukhas.cli.audit_archive import archive_segments
from lukhas.cli.audit_checkpoint import print_checkpoint
from lukhas.cli.audit_content import show_content
from lukhas.cli.audit_export import export_records
from lukhas.cli.audit_forget import forget_subject
from lukhas.cli.audit_key import print_key
from lukhas.cli.audit_list import list_records
from lukhas.cli.audit_proof import write_receipt
from lukhas.cli.audit_prune import prune_segments
from lukhas.cli.audit_reindex import rebuild_index
from lukhas.cli.audit_replay import replay_record
from lukhas.cli.audit_seal import seal_segments
from lukhas.cli.audit_segment import list_segments
from lukhas.cli.audit_show import show_record
from lukhas.cli.audit_tile import export_tiles
from lukhas.cli.audit_verify import verify_log

app = typer.Typer(help="Read the audit log.", no_args_is_help=True)

app.command("show")(show_record)
app.command("proof")(write_receipt)
app.command("tiles")(export_tiles)
app.command("checkpoint")(print_checkpoint)
app.command("key")(print_key)
app.command("forget")(forget_subject)
app.command("content")(show_content)
app.command("export")(export_records)
app.command("verify")(verify_log)
app.command("replay")(replay_record)
app.command("segments")(list_segments)
app.command("seal")(seal_segments)
app.command("archive")(archive_segments)
app.command("prune")(prune_segments)
app.command("list")(list_records)
app.command("reindex")(rebuild_index)
