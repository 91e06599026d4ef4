"""Limits of keys and tenants: what they are, and the store that keeps them.

Both a key's and its tenant's limits hold for a call; where none is set, nothing is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any, Final, Literal, NamedTuple, cast

import msgspec
from sqlalchemy import Connection, delete, insert, select

from lukhas.access.keys import Also
from lukhas.access.scope import check_tenant
from lukhas.access.usage import DayUsage, day_of, read_usage
from lukhas.clock import Clock
from lukhas.errors import IntegrityError, InvalidRequest, NotFound, PreconditionFailed
from lukhas.ids import check_id
from lukhas.storage.engine import Database
from lukhas.storage.metadata import API_KEY, LIMIT
from lukhas.storage.revision import bump_revision, read_revision
from lukhas.storage.writer import GroupCommitWriter, Sink

HolderKind = Literal["key", "tenant"]
LARGEST_LIMIT: Final = 10**12
_TOPIC: Final = "limits"
_TIMEOUT_S: Final = 30.0


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one key or tenant may use; None means without limit. Made of input by `parse_limits`.

    Attributes:
        requests_per_minute, tokens_per_minute: within any 60 seconds.
        concurrent_calls: calls at once; a stream counts until its end.
        requests_per_day, tokens_per_day: from midnight to midnight, UTC. `tokens_per_day` is the daily budget.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_calls: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None

    @property
    def has_daily(self) -> bool:
        """Whether the usage of whole days counts."""
        return self.tokens_per_day is not None or self.requests_per_day is not None

    @property
    def counts_tokens(self) -> bool:
        """Whether tokens count, so that a call's usage must be learnt."""
        return self.tokens_per_minute is not None or self.tokens_per_day is not None

    def to_dict(self) -> dict[str, int | None]:
        """Return every limit by its name; null for none."""
        return {name: getattr(self, name) for name in LIMIT_NAMES}

    @property
    def tag(self) -> str:
        """A name for this very content, as an ETag."""
        return "lim_" + sha256(msgspec.json.encode(self, order="sorted")).hexdigest()[:24]


NO_LIMITS: Final = Limits()
LIMIT_NAMES: Final = Limits.__struct_fields__


class Holder(NamedTuple):
    """Whom a limit holds for.

    Attributes:
        kind: 'key' or 'tenant'.
        id: `key_...`, or the tenant's name.
    """

    kind: HolderKind
    id: str

    @property
    def text(self) -> str:
        """How it is stored: `key:key_...` or `tenant:acme`."""
        return f"{self.kind}:{self.id}"


def make_holder(kind: str, name: str) -> Holder:
    """Return a holder whose name has the right form.

    Raises:
        InvalidId: not a key's id.
        InvalidRequest: not a tenant's name.
    """
    if kind == "key":
        return Holder("key", check_id("key", name))
    return Holder("tenant", check_tenant(name))


def parse_limits(value: object) -> Limits:
    """Read limits from plain JSON types: an object with some of `LIMIT_NAMES`, each a whole number or null.

    Raises:
        InvalidRequest: another name, or a value outside 1 to 1,000,000,000,000; `param` names it.
    """
    if not isinstance(value, dict):
        raise InvalidRequest("Limits are an object of names and numbers.", param="limits")
    given = cast("dict[object, object]", value)
    for name, number in given.items():
        if name not in LIMIT_NAMES:
            raise InvalidRequest(
                f"'{str(name)[:40]}' is not a limit.", hint=f"Known: {', '.join(LIMIT_NAMES)}.", param="limits"
            )
        if number is not None and (type(number) is not int or not 1 <= number <= LARGEST_LIMIT):
            raise InvalidRequest(
                f"{name} must be a whole number from 1 to {LARGEST_LIMIT:,}, or null for no limit.",
                hint="To stop a key altogether, revoke it.",
                param=str(name),
            )
    return Limits(**cast("dict[str, int | None]", given))


def describe_change(holder: Holder, before: Limits, after: Limits, reason: str) -> dict[str, Any]:
    """Return the body of the audit record of a change."""
    return {
        "event": "changed",
        "holder": holder.kind,
        holder.kind: holder.id,
        "before": before.to_dict(),
        "after": after.to_dict(),
        "reason": reason,
    }


class LimitRules(NamedTuple):
    """All limits at one moment, by key id and by tenant, and what was durably used of the daily ones.

    Attributes:
        usage: by holder (`Holder.text`) and day; today's, and any later one that a wrong clock has left.
    """

    keys: Mapping[str, Limits]
    tenants: Mapping[str, Limits]
    usage: Mapping[tuple[str, int], DayUsage]

    def find(self, holder: Holder) -> Limits:
        """Return a holder's limits; `NO_LIMITS` where none are set."""
        return (self.keys if holder.kind == "key" else self.tenants).get(holder.id, NO_LIMITS)

    def holders(self) -> list[Holder]:
        """Return everyone who has a limit: tenants first, each in order of their names."""
        return [
            *(Holder("tenant", name) for name in sorted(self.tenants)),
            *(Holder("key", key_id) for key_id in sorted(self.keys)),
        ]


class _Change(NamedTuple):
    holder: Holder
    limits: Limits
    expected: Limits
    now_ms: int
    also: Also | None


class LimitStore:
    """Limits in the database, and the newest snapshot of them. May be used from several threads."""

    def __init__(self, database: Database, writer: GroupCommitWriter, clock: Clock) -> None:
        """Read all limits.

        Raises:
            StorageUnavailable: the database cannot be read.
            IntegrityError: what is stored are no limits.
        """
        self._database = database
        self._writer = writer
        self._clock = clock
        self._sink: Sink[_Change, None] = _write_changes
        self._lock = threading.Lock()
        self._data_version = -1
        self._revision = -1
        self._rules = LimitRules({}, {}, {})
        self.refresh_if_changed()

    @property
    def rules(self) -> LimitRules:
        """The newest snapshot."""
        return self._rules

    def change(self, holder: Holder, limits: Limits, *, expected: Limits, also: Also | None = None) -> None:
        """Replace a holder's limits. Blocks until it is durable; the snapshot has it then.

        Args:
            holder: a stored key, or any tenant.
            limits: all that hold from now on; `NO_LIMITS` takes them away.
            expected: what the caller believes to hold now.
            also: a sink and its payload for the same transaction: the record of the change.

        Raises:
            NotFound: no stored key has this id.
            PreconditionFailed: other limits hold than expected.
            StorageUnavailable, Overloaded: it could not be written.
        """
        change = _Change(holder, limits, expected, self._clock.now_ms(), also)
        self._writer.submit_sync(self._sink, change, _TIMEOUT_S)
        with self._lock:
            self._reload()

    def refresh_if_changed(self) -> bool:
        """Take a new snapshot where any process changed a limit. Cheap; ask every 200 ms.

        Raises:
            StorageUnavailable, IntegrityError: it cannot be read; the last snapshot stays.
        """
        with self._lock:
            # Read before the limits, so that a change in between is seen next time, not never.
            version = self._database.data_version()
            if version == self._data_version:
                return False
            with self._database.reading() as connection:
                revision = read_revision(connection, _TOPIC)
            changed = revision != self._revision
            if changed:
                self._reload()
            self._data_version = version
            return changed

    def _reload(self) -> None:
        with self._database.reading() as connection, connection.begin():
            revision = read_revision(connection, _TOPIC)
            rows = connection.execute(select(LIMIT)).all()
            usage = read_usage(connection, day_of(self._clock.now_ms()))
        rules = LimitRules({}, {}, usage)
        for row in rows:
            holder = _read_holder(row.holder)
            limits = _read_document(row.document)
            cast("dict[str, Limits]", rules.keys if holder.kind == "key" else rules.tenants)[holder.id] = limits
        self._rules = rules
        self._revision = revision


def _read_holder(text: str) -> Holder:
    kind, _, name = text.partition(":")
    if kind not in ("key", "tenant") or not name:
        raise IntegrityError("The stored limits name nobody whom a limit can hold for.")
    return Holder(kind, name)


def _read_document(document: str) -> Limits:
    try:
        value: Any = msgspec.json.decode(document)
        return parse_limits(value)
    except (msgspec.DecodeError, InvalidRequest) as wrong:
        raise IntegrityError("The stored limits cannot be read.", hint="Set them again.") from wrong


def _write_changes(connection: Connection, changes: Sequence[_Change]) -> list[None]:
    for one in changes:
        _write_change(connection, one)
    return [None] * len(changes)


def _write_change(connection: Connection, one: _Change) -> None:
    # The lock comes first: what is compared must be what is replaced.
    bump_revision(connection, _TOPIC)
    holder = one.holder
    if holder.kind == "key":
        key = API_KEY.c
        if connection.execute(select(key.key_id).where(key.key_id == holder.id)).first() is None:
            raise NotFound("There is no such key.", hint="See: lukhas key list")
    where = LIMIT.c.holder == holder.text
    stored = connection.execute(select(LIMIT.c.document).where(where)).scalar()
    if (NO_LIMITS if stored is None else _read_document(stored)) != one.expected:
        raise PreconditionFailed("These limits were changed meanwhile.", hint="Read them again.", param="limits")
    connection.execute(delete(LIMIT).where(where))
    if one.limits != NO_LIMITS:
        document = msgspec.json.encode(one.limits).decode()
        connection.execute(insert(LIMIT).values(holder=holder.text, document=document, changed_ms=one.now_ms))
    if one.also is not None:
        sink, payload = one.also
        sink(connection, [payload])
