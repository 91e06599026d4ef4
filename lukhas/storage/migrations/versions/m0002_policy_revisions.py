"""Policy revisions: every text that was in force, who put it there, and its certificates."""

import sqlalchemy as sa
from alembic import op

revision = "m0002"
down_revision = "m0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    row_key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "policy_revision",
        sa.Column("policy_id", sa.Text(), primary_key=True),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "policy_event",
        sa.Column("seq", row_key, primary_key=True, autoincrement=True),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
    )
    op.create_index("policy_event_by_policy", "policy_event", ["policy_id", "seq"])
    op.create_table(
        "policy_certificate",
        sa.Column("hash", sa.Text(), primary_key=True),
        sa.Column("policy_id", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.create_index("policy_certificate_by_policy", "policy_certificate", ["policy_id", "created_ms"])


def downgrade() -> None:
    for table in ("policy_certificate", "policy_event", "policy_revision"):
        op.drop_table(table)
