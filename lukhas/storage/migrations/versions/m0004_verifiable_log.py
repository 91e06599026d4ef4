"""The log that a stranger can verify: its key, its tiles, captured text, segments."""

from hashlib import sha256

import sqlalchemy as sa
from alembic import op

revision = "m0004"
down_revision = "m0003"
branch_labels = None
depends_on = None

_WIDTH = 256


def upgrade() -> None:
    op.create_table(
        "audit_key",
        sa.Column("verifier", sa.Text(), primary_key=True),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "audit_content",
        sa.Column("audit_id", sa.Text(), nullable=False),
        sa.Column("part", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("session", sa.Text(), nullable=True),
        sa.Column("end_user", sa.Text(), nullable=True),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("nonce", sa.LargeBinary(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", "part"),
    )
    op.create_index("audit_content_by_session", "audit_content", ["session"])
    op.create_index("audit_content_by_user", "audit_content", ["end_user"])
    op.create_index("audit_content_by_time", "audit_content", ["time_ms"])
    op.create_table(
        "audit_segment",
        sa.Column("name", sa.Text(), primary_key=True),
        sa.Column("first_index", sa.BigInteger(), nullable=False),
        sa.Column("end_index", sa.BigInteger(), nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("sealed_ms", sa.BigInteger(), nullable=False),
        sa.Column("archive", sa.Text(), nullable=True),
        sa.Column("archive_sha256", sa.Text(), nullable=True),
        sa.Column("archive_bytes", sa.BigInteger(), nullable=True),
        sa.Column("archived_ms", sa.BigInteger(), nullable=True),
        sa.Column("pruned_ms", sa.BigInteger(), nullable=True),
    )
    _fill_tiles(op.get_bind())


def _fill_tiles(connection: sa.Connection) -> None:
    """Make the tiles of a log that an earlier version wrote."""
    size = connection.execute(sa.text("SELECT size FROM audit_head WHERE log = 'main'")).scalar() or 0
    read = sa.text("SELECT leaf_hash FROM audit_record WHERE leaf_index >= :a AND leaf_index < :b ORDER BY leaf_index")
    write = sa.text("INSERT INTO audit_tile (level, tile_index, hashes) VALUES (:level, :place, :hashes)")
    above: list[bytes] = []
    for place in range(size // _WIDTH):
        found = connection.execute(read, {"a": place * _WIDTH, "b": (place + 1) * _WIDTH}).scalars()
        hashes = [bytes(one) for one in found]
        if len(hashes) != _WIDTH:
            raise RuntimeError(f"the audit log has no record at one of the indexes from {place * _WIDTH} on")
        connection.execute(write, {"level": 0, "place": place, "hashes": b"".join(hashes)})
        above.append(_fold(hashes))
    level = 1
    while above:
        for start in range(0, len(above), _WIDTH):
            hashes = b"".join(above[start : start + _WIDTH])
            connection.execute(write, {"level": level, "place": start // _WIDTH, "hashes": hashes})
        whole = len(above) // _WIDTH * _WIDTH
        above = [_fold(above[start : start + _WIDTH]) for start in range(0, whole, _WIDTH)]
        level += 1


def _fold(hashes: list[bytes]) -> bytes:
    while len(hashes) > 1:
        pairs = zip(hashes[::2], hashes[1::2], strict=True)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in pairs]
    return hashes[0]


def downgrade() -> None:
    connection = op.get_bind()
    connection.execute(sa.text("DELETE FROM audit_tile"))
    for table in ("audit_segment", "audit_content", "audit_key"):
        op.drop_table(table)
