"""The tables, as the newest migrations leave them (`lukhas db check` compares the two)."""

from __future__ import annotations

from typing import Final

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text

MAIN: Final = MetaData()
VAULT: Final = MetaData()

for _metadata in (MAIN, VAULT):
    Table(
        "revision",
        _metadata,
        Column("topic", Text, primary_key=True),
        Column("number", BigInteger, nullable=False),
    )

# Only a column typed INTEGER is SQLite's own row key; anything else costs a second index on the hottest table.
_ROW_KEY: Final = BigInteger().with_variant(Integer, "sqlite")

AUDIT_RECORD: Final = Table(
    "audit_record",
    MAIN,
    Column("leaf_index", _ROW_KEY, primary_key=True, autoincrement=False),
    Column("audit_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("leaf_hash", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Index("audit_record_by_id", "audit_id"),
    Index("audit_record_by_time", "tenant", "time_ms"),
)

AUDIT_HEAD: Final = Table(
    "audit_head",
    MAIN,
    Column("log", Text, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("frontier", LargeBinary, nullable=False),
    Column("open_from", BigInteger, nullable=False),
)

AUDIT_SEQUENCE: Final = Table(
    "audit_sequence",
    MAIN,
    Column("key_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

AUDIT_TILE: Final = Table(
    "audit_tile",
    MAIN,
    Column("level", Integer, nullable=False),
    Column("tile_index", BigInteger, nullable=False),
    Column("hashes", LargeBinary, nullable=False),
    PrimaryKeyConstraint("level", "tile_index"),
)

AUDIT_CHECKPOINT: Final = Table(
    "audit_checkpoint",
    MAIN,
    Column("size", _ROW_KEY, primary_key=True, autoincrement=False),
    Column("epoch", Integer, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("note", LargeBinary, nullable=False),
)

AUDIT_KEY: Final = Table(
    "audit_key",
    MAIN,
    Column("verifier", Text, primary_key=True),
    Column("origin", Text, nullable=False),
    Column("sealed", LargeBinary, nullable=True),
    Column("created_ms", BigInteger, nullable=False),
)

AUDIT_CONTENT: Final = Table(
    "audit_content",
    MAIN,
    Column("audit_id", Text, nullable=False),
    Column("part", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("session", Text, nullable=True),
    Column("end_user", Text, nullable=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("nonce", LargeBinary, nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    PrimaryKeyConstraint("audit_id", "part"),
    Index("audit_content_by_session", "session"),
    Index("audit_content_by_user", "end_user"),
    Index("audit_content_by_time", "time_ms"),
)

AUDIT_SEGMENT: Final = Table(
    "audit_segment",
    MAIN,
    Column("name", Text, primary_key=True),
    Column("first_index", BigInteger, nullable=False),
    Column("end_index", BigInteger, nullable=False),
    Column("root", LargeBinary, nullable=False),
    Column("sealed_ms", BigInteger, nullable=False),
    Column("archive", Text, nullable=True),
    Column("archive_sha256", Text, nullable=True),
    Column("archive_bytes", BigInteger, nullable=True),
    Column("archived_ms", BigInteger, nullable=True),
    Column("pruned_ms", BigInteger, nullable=True),
)

API_KEY: Final = Table(
    "api_key",
    MAIN,
    Column("key_id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=True),
    Column("revoked_ms", BigInteger, nullable=True),
)

POLICY_REVISION: Final = Table(
    "policy_revision",
    MAIN,
    Column("policy_id", Text, primary_key=True),
    Column("sha256", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

POLICY_EVENT: Final = Table(
    "policy_event",
    MAIN,
    Column("seq", _ROW_KEY, primary_key=True, autoincrement=True),
    Column("policy_id", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("details", Text, nullable=False),
    Index("policy_event_by_policy", "policy_id", "seq"),
)

POLICY_CERTIFICATE: Final = Table(
    "policy_certificate",
    MAIN,
    Column("hash", Text, primary_key=True),
    Column("policy_id", Text, nullable=False),
    Column("result", Text, nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index("policy_certificate_by_policy", "policy_id", "created_ms"),
)

INCIDENT: Final = Table(
    "incident",
    MAIN,
    Column("incident_id", Text, primary_key=True),
    Column("audit_id", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("session", Text, nullable=True),
    Column("end_user", Text, nullable=True),
    Column("time_ms", BigInteger, nullable=False),
    Column("point", Text, nullable=False),
    Column("category", Text, nullable=False),
    Column("rule", Text, nullable=False),
    Column("severity", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("tool", Text, nullable=True),
    Column("details", Text, nullable=False),
    Column("raised", Text, nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("released_ms", BigInteger, nullable=True),
    Index("incident_by_time", "tenant", "time_ms"),
    Index("incident_by_end", "until_ms"),
)

UPSTREAM_OBJECT: Final = Table(
    "upstream_object",
    MAIN,
    Column("object_id", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("tenant", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("details", Text, nullable=False),
    Index("upstream_object_by_tenant", "tenant", "created_ms"),
)

LIMIT: Final = Table(
    "limit_rule",
    MAIN,
    Column("holder", Text, primary_key=True),
    Column("document", Text, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)

USAGE_DAY: Final = Table(
    "usage_day",
    MAIN,
    Column("holder", Text, nullable=False),
    Column("day", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    PrimaryKeyConstraint("holder", "day"),
)

SUBJECT: Final = Table(
    "subject",
    VAULT,
    Column("digest", LargeBinary, primary_key=True),
    Column("sub_id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

SUBJECT_KEY: Final = Table(
    "subject_key",
    VAULT,
    Column("sub_id", Text, primary_key=True),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
)

ERASURE: Final = Table(
    "erasure",
    VAULT,
    Column("seq", _ROW_KEY, primary_key=True, autoincrement=True),
    Column("sub_id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("audit_id", Text, nullable=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("why", Text, nullable=False),
)

VAULT_PEPPER: Final = Table(
    "vault_pepper",
    VAULT,
    Column("proof", LargeBinary, primary_key=True),
)
