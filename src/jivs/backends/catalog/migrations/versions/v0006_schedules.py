"""Schedules, leases of duties that one process has at a time, and preferences of users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("folded", sa.String(200), nullable=False, unique=True),
        sa.Column("extraction_id", _BIG, sa.ForeignKey("extractions.id", ondelete="CASCADE"), nullable=False),
        sa.Column("cron", sa.Text, nullable=False),
        sa.Column("time_zone", sa.String(60), nullable=False),
        sa.Column("missed_runs", sa.String(10), nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Float, nullable=True) for name in ("not_before", "not_after", "next_run_at", "last_run_at")),
        sa.Column("last_run_id", sa.String(40), nullable=False),
        sa.Column("last_message", sa.Text, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_by", sa.String(100), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("schedules_by_extraction", "schedules", ["extraction_id", "id"])
    op.create_index("schedules_by_time", "schedules", ["next_run_at"])
    op.create_table(
        "leases",
        sa.Column("name", sa.String(40), primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("beat", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "preferences",
        sa.Column("user_id", _BIG, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("preferences", "leases", "schedules"):
        op.drop_table(table)
