"""The first tables of the vault: subjects, the proof of the pepper, revisions."""

import sqlalchemy as sa
from alembic import op

revision = "v0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Where both sets share one PostgreSQL database, the main set has made this table already.
    op.create_table(
        "revision",
        sa.Column("topic", sa.Text(), primary_key=True),
        sa.Column("number", sa.BigInteger(), nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "subject",
        sa.Column("digest", sa.LargeBinary(), primary_key=True),
        sa.Column("sub_id", sa.Text(), nullable=False, unique=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table("vault_pepper", sa.Column("proof", sa.LargeBinary(), primary_key=True))


def downgrade() -> None:
    op.drop_table("vault_pepper")
    op.drop_table("subject")
