"""The pace of each source, kept by all of its runs together; and which older code may run on this schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.create_table(
        "paces",
        sa.Column("source_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("due", sa.Float, nullable=False),
    )
    op.create_table("compatibility", sa.Column("oldest", sa.String(32), primary_key=True))


def downgrade() -> None:
    op.drop_table("compatibility")
    op.drop_table("paces")
