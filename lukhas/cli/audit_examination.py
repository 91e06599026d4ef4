"""The checks of `lukhas doctor` on what lets a stranger verify the log: its key, checkpoints, the place outside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from lukhas.cli.finding import Finding
from lukhas.cli.store import find_file, open_existing
from lukhas.errors import ConfigurationError, IntegrityError, LukhasError, StorageUnavailable
from lukhas.settings import Settings

if TYPE_CHECKING:
    from lukhas.audit.ship_target import ShipTarget
    from lukhas.storage.engine import Database

_NOT_YET: Final = "not made yet (made at first start)"
# Signed every few seconds while a gateway runs: this old, something keeps it from being signed.
_OLD_MS: Final = 600_000


def check_audit(settings: Settings) -> Iterator[Finding]:
    """Look at key, newest checkpoint and shipping target."""
    from lukhas.storage import migrate

    try:
        with open_existing(settings) as database:
            if not migrate.is_current(database):
                return
            yield _check_key(settings, database)
            yield _check_checkpoint(database)
            yield _check_target(settings, database)
    except StorageUnavailable as failure:
        if failure.message.startswith("There is no database"):
            yield Finding("audit key", "ok", _NOT_YET)
            yield _check_target(settings, None)
        # else the check of the database says it


def _check_key(settings: Settings, database: Database) -> Finding:
    from lukhas.audit.note import NoteSigner
    from lukhas.audit.signing_key import load_verifiers, needs_configured_key, parse_seed

    try:
        verifiers = load_verifiers(database)
        is_missing = settings.audit_key is None and needs_configured_key(database)
        seed = None if settings.audit_key is None else parse_seed(settings.audit_key)
    except LukhasError as failure:
        return Finding("audit key", "fail", failure.message, failure.hint)
    if not verifiers:
        return Finding("audit key", "ok", _NOT_YET)
    newest = verifiers[0]
    found = f"{newest.name}+{newest.key_id.hex()}"
    if is_missing:
        advice = "Set LUKHAS_AUDIT_KEY_FILE to it again, or to a new key, which then takes its place."
        return Finding("audit key", "fail", f"{found} was configured, and is not any more", advice)
    if settings.audit_origin and settings.audit_origin != newest.name:
        return Finding(
            "audit key",
            "fail",
            f"{found}: LUKHAS_AUDIT_ORIGIN is another name",
            f"Unset it, or set it to {newest.name}.",
        )
    if seed is not None and NoteSigner(newest.name, seed).verifier != newest:
        advice = "Wanted: publish its verifier key (lukhas audit key) then. Not wanted: correct LUKHAS_AUDIT_KEY_FILE."
        return Finding("audit key", "warn", f"{found}: another is configured, and takes over at the next start", advice)
    return Finding("audit key", "ok", found)


def _check_checkpoint(database: Database) -> Finding:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.audit.source import RecordSource
    from lukhas.clock import SystemClock, format_utc
    from lukhas.storage.writer import GroupCommitWriter

    clock = SystemClock()
    try:
        newest = CheckpointStore(database, GroupCommitWriter(database, max_rows=1, name="unused"), clock).newest()
        size = RecordSource(database).size()
    except LukhasError as failure:
        return Finding("audit checkpoint", "fail", failure.message, failure.hint)
    if newest is None:
        return Finding("audit checkpoint", "ok", "none signed yet")
    found = f"{newest.size} of {size} records, signed {format_utc(newest.time_ms)}"
    if newest.size > size:
        return Finding("audit checkpoint", "fail", f"{found}: the log was cut", "Keep the files; lukhas audit verify")
    if newest.size < size and newest.time_ms < clock.now_ms() - _OLD_MS:
        return Finding("audit checkpoint", "warn", found, "Start the gateway, or sign now: lukhas audit checkpoint")
    return Finding("audit checkpoint", "ok", found)


def _check_target(settings: Settings, database: Database | None) -> Finding:
    name = "audit shipping"
    if not settings.audit_ship:
        return Finding(name, "ok", "none: set LUKHAS_AUDIT_SHIP to keep checkpoints outside this machine")
    from lukhas.audit.ship_target import open_target

    try:
        target = open_target(settings.audit_ship)
        if database is None:
            return Finding(name, "ok", f"{target}: nothing shipped yet")
        found = _ask_target(target, database)
    except StorageUnavailable as failure:
        advice = "Check the place and its permissions; what is signed meanwhile is shipped later."
        return Finding(name, "fail", f"{failure.message} {failure.hint}".strip(), advice, True)
    except (ConfigurationError, IntegrityError) as failure:
        return Finding(name, "fail", failure.message, failure.hint)
    if _is_same_disk(settings):
        return Finding(name, "warn", f"{found}; on the same disk as the database", "Ship to another disk or machine.")
    return Finding(name, "ok", found)


def _ask_target(target: ShipTarget, database: Database) -> str:
    from lukhas.audit.checkpoint_store import CheckpointStore
    from lukhas.audit.ship import Shipper
    from lukhas.audit.signing_key import load_verifiers
    from lukhas.clock import SystemClock
    from lukhas.storage.writer import GroupCommitWriter

    unused = GroupCommitWriter(database, max_rows=1, name="unused")
    checkpoints = CheckpointStore(database, unused, SystemClock())
    shipper = Shipper(target, database, checkpoints, load_verifiers(database))
    there = shipper.read_target()
    return f"{target}: nothing shipped yet" if there is None else f"{target}: {there.size} records"


def _is_same_disk(settings: Settings) -> bool:
    from pathlib import Path
    from urllib.parse import unquote, urlsplit

    parts = urlsplit(settings.audit_ship)
    database = find_file(settings.sqlalchemy_url)
    if parts.scheme != "file" or database is None:
        return False
    folder = Path(unquote(parts.path))
    nearest = next(one for one in (folder, *folder.parents) if one.exists())
    return bool(database.parent.exists()) and nearest.stat().st_dev == database.parent.stat().st_dev
