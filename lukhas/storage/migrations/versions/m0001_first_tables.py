"""The first tables: audit log, API keys, revisions."""

import sqlalchemy as sa
from alembic import op

revision = "m0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "revision",
        sa.Column("topic", sa.Text(), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "audit_record",
        sa.Column("leaf_index", row_key, primary_key=True, autoincrement=False),
        sa.Column("audit_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("leaf_hash", sa.LargeBinary(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
    )
    op.create_index("audit_record_by_id", "audit_record", ["audit_id"])
    op.create_index("audit_record_by_time", "audit_record", ["tenant", "time_ms"])
    head = op.create_table(
        "audit_head",
        sa.Column("log", sa.Text(), primary_key=True),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.Column("open_from", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(head, [{"log": "main", "epoch": 0, "size": 0, "frontier": b"", "open_from": 0}])
    op.create_table(
        "audit_sequence",
        sa.Column("key_id", sa.Text(), primary_key=True),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "audit_tile",
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("tile_index", sa.BigInteger(), nullable=False),
        sa.Column("hashes", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "tile_index"),
    )
    op.create_table(
        "audit_checkpoint",
        sa.Column("size", row_key, primary_key=True, autoincrement=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("note", sa.LargeBinary(), nullable=False),
    )
    op.create_table(
        "api_key",
        sa.Column("key_id", sa.Text(), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("scopes", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=True),
        sa.Column("revoked_ms", sa.BigInteger(), nullable=True),
    )


def downgrade() -> None:
    for table in (
        "api_key",
        "audit_checkpoint",
        "audit_tile",
        "audit_sequence",
        "audit_head",
        "audit_record",
        "revision",
    ):
        op.drop_table(table)
