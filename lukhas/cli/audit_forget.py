"""`lukhas audit forget`: forget a person or a session, on record, whether or not the gateway runs."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lukhas.cli.output import ConfigOption, JsonOption, failing_clearly, print_json, print_line
from lukhas.cli.policy_revision import name_actor
from lukhas.cli.store import ACTOR, Stores, open_existing, open_stores
from lukhas.clock import format_utc
from lukhas.errors import InvalidRequest
from lukhas.settings import Settings, load_settings

if TYPE_CHECKING:
    from lukhas.vault.subjects import SubjectVault

_CLOSE_TIMEOUT_S = 10.0


def forget_subject(
    subject: Annotated[
        str, typer.Argument(metavar="SUBJECT", help="The name that calls send for the user or session, or sub_...")
    ],
    tenant: Annotated[str | None, typer.Option(help="Whose subject; 'default' where a name is given.")] = None,
    kind: Annotated[
        Literal["user", "session", "key"] | None, typer.Option(help="What the name names, where that is not clear.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why; goes on record, without the name.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: ConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Forget a subject for good: destroy its key and mapping, delete its captured texts. Every proof stays valid."""
    with failing_clearly(as_json):
        settings = load_settings(config_path=config).settings
        from lukhas.access.scope import check_tenant
        from lukhas.audit.forgetting import Actor, Forgetter, check_reason, unknown
        from lukhas.ids import check_id
        from lukhas.openai.wire import check_subject

        is_id = subject.startswith("sub_")
        name = check_id("sub", subject) if is_id else check_subject(subject, "SUBJECT")
        if is_id and kind is not None:
            raise InvalidRequest("A sub_ id needs no --kind.", param="--kind")
        check_reason(reason, None)
        whose = "" if is_id and tenant is None else check_tenant(tenant or "default")
        with open_vault(settings) as (stores, vault):
            forgetter = Forgetter(vault, stores.audit, stores.database, stores.writer, stores.clock)
            forgetter.complete()
            if is_id:
                if whose and not forgetter.belongs_to(name, whose):
                    raise unknown()
                target = name
            else:
                target = (whose, kind or forgetter.find_kind(whose, name), name)
                if not forgetter.ledger.knows(target):
                    raise unknown()
            _confirm(yes, as_json)
            receipt = forgetter.forget(target, Actor(whose, ACTOR, name_actor()), reason)
        if as_json:
            import msgspec

            print_json({**msgspec.to_builtins(receipt), "erased_at": format_utc(receipt.erased_ms)})
            return
        print_line(f"{'Forgotten' if receipt.is_new else 'Was forgotten before'}: {receipt.sub_id} ({receipt.kind})")
        print_line(f"when      {format_utc(receipt.erased_ms)}")
        print_line(f"key       {'destroyed' if receipt.keys_destroyed else 'none is left'}")
        print_line("mapping   destroyed: nothing leads from the name to this id any more")
        print_line(f"texts     {receipt.content_deleted} deleted")
        print_line(f"record    {receipt.audit_id}")
        if not receipt.is_purged:
            print_line("The vault's files still hold traces: a reader was in the way. Run this again with the sub_ id.")
        print_line(receipt.backups)


def _confirm(yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json or not sys.stdin.isatty():
        raise InvalidRequest("This cannot be undone, and nobody is here to be asked.", hint="Add --yes.", param="--yes")
    if not typer.confirm("This cannot be undone. Go on?", err=True):
        raise typer.Exit(1)


@contextmanager
def open_vault(settings: Settings) -> Generator[tuple[Stores, SubjectVault]]:
    """Open the log for a change, and the vault beside it. Makes neither.

    Raises:
        StorageUnavailable: there is none yet, or it cannot be used.
        ConfigurationError: the vault's key file is missing, or not its own.
    """
    from lukhas.storage import migrate
    from lukhas.storage.writer import GroupCommitWriter
    from lukhas.vault.pepper import FILE_NAME
    from lukhas.vault.subjects import SubjectVault

    with ExitStack() as stack:
        with open_existing(settings):
            pass  # only to see that it is there: what follows would make it
        stores = stack.enter_context(open_stores(settings))
        database = stack.enter_context(open_existing(settings, "vault"))
        migrate.upgrade(database)
        writer = GroupCommitWriter(database, max_rows=settings.writer_queue_rows, name="vault-writer")
        writer.start()
        stack.callback(writer.close, _CLOSE_TIMEOUT_S)
        yield stores, SubjectVault(database, writer, key_path=settings.data_dir / FILE_NAME, clock=stores.clock)
