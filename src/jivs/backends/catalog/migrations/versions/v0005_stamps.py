"""Stamps: numbers that grow with every change of something, so that what was read before is known to be old."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    made = op.create_table(
        "stamps",
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(made, [{"name": "accounts", "value": 1}])


def downgrade() -> None:
    op.drop_table("stamps")
