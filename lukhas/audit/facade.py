"""`audit_log_write` and `audit_log_read`: the audit log for programs that use LUKHAS as a library.

The default store is opened on first use from the process's settings, one for each data directory.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from lukhas.audit.record import AuditRecord
from lukhas.clock import Clock, SystemClock
from lukhas.errors import InvalidId, InvalidRequest, LukhasError
from lukhas.ids import check_id, make_id

if TYPE_CHECKING:
    from lukhas.audit.jsonl import JsonlFile
    from lukhas.audit.redaction import Redactor
    from lukhas.audit.store import AuditStore
    from lukhas.settings import Settings
    from lukhas.storage.engine import Database
    from lukhas.storage.writer import GroupCommitWriter

log = logging.getLogger("lukhas.audit")

LIBRARY_KEY: Final = "library"
_LIBRARY_TENANT: Final = "default"
_CLOSE_TIMEOUT_S: Final = 10.0
# Whoever has the file at the moment appends this record too, or the next write does.
_FILE_PATIENCE_S: Final = 0.05
# A write does not wait until a long log is in a new file.
_MOST_LINES: Final = 1_000


def audit_log_write(bundle: Mapping[str, Any]) -> str:
    """Redact a bundle of facts at its whole depth and append it to the audit log. Durable when this returns.

    Args:
        bundle: anything that is worth keeping. Its `audit_id` is used where it is a valid one.

    Returns:
        The audit id, for `audit_log_read`.

    Raises:
        InvalidRequest: the bundle is not a mapping.
        StorageUnavailable, Overloaded: it could not be written.
        ConfigurationError: the settings or the database cannot serve.
    """
    if not isinstance(bundle, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidRequest("An audit bundle must be a mapping.")
    audit_id = _take_id(bundle)
    stores = _open_default()
    plain = stores.redactor.redact({name: value for name, value in bundle.items() if name != "audit_id"})
    body = cast(dict[str, Any], plain)
    stores.append(
        AuditRecord(
            kind="note",
            audit_id=audit_id,
            tenant=_LIBRARY_TENANT,
            key_id=LIBRARY_KEY,
            request_id=None,
            time_ms=stores.clock.now_ms(),
            session=None,
            user=None,
            body={"bundle": body},
        )
    )
    return audit_id


def audit_log_read(audit_id: str) -> dict[str, Any] | None:
    """Return what the audit log holds under an id, or None.

    For a bundle: its redacted fields with `audit_id` and `time` (the bundle's own, where it has one); the newest,
    where one id was written more than once. For a gateway's call: `AuditStore.read_document`.

    Raises:
        InvalidId: not an audit id.
        StorageUnavailable: the database cannot be read.
        IntegrityError: the stored bytes are not those that were hashed.
    """
    if not isinstance(audit_id, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may be untyped
        raise InvalidId("An audit id must be a text.", param="aud_id")
    check_id("aud", audit_id)
    document = _open_default().audit.read_document(audit_id)
    if document is None:
        return None
    records: list[dict[str, Any]] = document["records"]
    if any(_bundle_of(record) is None for record in records):
        return document
    newest = records[-1]
    return {"time": newest["time"], **(_bundle_of(newest) or {}), "audit_id": audit_id}


def close_default() -> None:
    """Write what waits and close the default stores; the next call opens them again."""
    with _lock:
        stores = list(_stores.values())
        _stores.clear()
    for store in stores:
        store.close()


def _take_id(bundle: Mapping[str, Any]) -> str:
    given = bundle.get("audit_id")
    if isinstance(given, str):
        try:
            return check_id("aud", given)
        except InvalidId:
            pass
    return make_id("aud")


def _bundle_of(record: dict[str, Any]) -> dict[str, Any] | None:
    body = record["body"]
    if record["key_id"] != LIBRARY_KEY or record["kind"] != "note" or not isinstance(body, dict):
        return None
    found = cast(dict[str, Any], body)
    # A bundle that was too large may have lost its own form to the cut.
    return cast(dict[str, Any], found.get("bundle", found))


class _Default:
    """An open store with what it stands on."""

    def __init__(
        self,
        database: Database,
        writer: GroupCommitWriter,
        audit: AuditStore,
        clock: Clock,
        jsonl: JsonlFile | None,
        is_required: bool,
        redactor: Redactor,
    ) -> None:
        self.redactor = redactor
        self.database = database
        self.writer = writer
        self.audit = audit
        self.clock = clock
        self._jsonl = jsonl
        self._is_required = is_required
        self._problem: str | None = None

    def append(self, record: AuditRecord) -> None:
        """Write a record, and see that it gets into the JSONL file, where there is one."""
        self.audit.append_sync(record)
        if not self._is_required:
            self._follow(_FILE_PATIENCE_S, _MOST_LINES)

    def close(self) -> None:
        """Write what waits, to the file too, and close everything."""
        self.writer.close(_CLOSE_TIMEOUT_S)
        self._follow(_CLOSE_TIMEOUT_S)
        if self._jsonl is not None:
            self._jsonl.close()
        self.database.close()

    def abandon(self) -> None:
        """Let go of everything without touching it: for a forked child, whose parent still uses it."""
        self.database.abandon()
        if self._jsonl is not None:
            self._jsonl.close()

    def _follow(self, patience_s: float, most: int | None = None) -> None:
        if self._jsonl is None:
            return
        try:
            self._jsonl.catch_up(patience_s, most)
        except LukhasError as failure:
            # The record is durable in the log; the next write, or whoever else follows the log, appends it.
            if self._problem != failure.message:
                log.warning("jsonl_not_appended", extra={"problem": failure.message})
            self._problem = failure.message
        else:
            self._problem = None


_stores: dict[str, _Default] = {}
_abandoned: list[_Default] = []
_lock = threading.Lock()
_hooked = False


def _open_default() -> _Default:
    from lukhas.settings import load_settings

    settings = load_settings().settings
    url = settings.sqlalchemy_url
    store = _stores.get(url)
    if store is not None:
        return store
    with _lock:
        if url not in _stores:
            _stores[url] = _open(settings)
        _hook_process()
        return _stores[url]


def _open(settings: Settings) -> _Default:
    from lukhas.audit.jsonl import open_jsonl
    from lukhas.audit.redaction_reader import load_redactor
    from lukhas.audit.source import RecordSource
    from lukhas.audit.store import AuditStore
    from lukhas.storage.engine import open_database
    from lukhas.storage.migrate import upgrade
    from lukhas.storage.writer import GroupCommitWriter

    redactor = load_redactor(settings.redaction)
    database = open_database(settings.sqlalchemy_url)
    upgrade(database)
    jsonl = open_jsonl(settings, RecordSource(database))
    is_required = settings.audit_jsonl == "required"
    writer = GroupCommitWriter(
        database,
        max_rows=settings.writer_queue_rows,
        name="audit-library",
        after_commit=jsonl.catch_up if jsonl is not None and is_required else None,
    )
    writer.start()
    clock = SystemClock()
    return _Default(database, writer, AuditStore(database, writer, clock), clock, jsonl, is_required, redactor)


def _hook_process() -> None:
    global _hooked
    if not _hooked:
        _hooked = True
        atexit.register(close_default)
        os.register_at_fork(after_in_child=_forget_parent)


def _forget_parent() -> None:
    # The child has no writer thread, and must neither use nor close connections that its parent uses.
    global _lock
    _lock = threading.Lock()
    _abandoned.extend(_stores.values())
    _stores.clear()
    for store in _abandoned:
        store.abandon()
