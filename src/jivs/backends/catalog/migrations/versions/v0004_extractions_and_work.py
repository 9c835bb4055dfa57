"""Extractions, the service's runs, their logs and events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_UNENDED = sa.text("state IN ('PENDING', 'RUNNING', 'PAUSED')")
_PENDING = sa.text("state = 'PENDING' AND extraction_id > 0")
_LEASED = sa.text("lease_until IS NOT NULL")


def upgrade() -> None:
    for name in ("extraction_id", "source_id", "rows", "bytes", "quarantined_rows", "quarantined_values"):
        op.add_column("runs", sa.Column(name, sa.BigInteger, nullable=False, server_default="0"))
    for name in ("priority", "failures", "connections", "partitions", "partitions_done"):
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    for name, kind in (("job", sa.Text()), ("actor", sa.String(100)), ("order", sa.String(10)), ("phase", sa.String(20))):
        op.add_column("runs", sa.Column(name, kind, nullable=False, server_default=""))
    op.add_column("runs", sa.Column("not_before", sa.Float, nullable=False, server_default="0"))
    for name in ("started_at", "ended_at"):
        op.add_column("runs", sa.Column(name, sa.Float, nullable=True))
    op.create_index("runs_by_extraction", "runs", ["extraction_id", "seq"])
    op.create_index("runs_by_state", "runs", ["state", "seq"])
    _partial_index("runs_unended", "extraction_id", "state", where=_UNENDED)
    _partial_index("runs_pending", sa.text("priority DESC"), "seq", where=_PENDING)
    _partial_index("runs_leased", "source_id", "lease_until", where=_LEASED)
    _extractions()
    op.create_table(
        "run_logs",
        sa.Column("seq", _BIG, primary_key=True, autoincrement=True),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("extraction_id", sa.BigInteger, nullable=False),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("level", sa.String(10), nullable=False),
        sa.Column("message", sa.Text, nullable=False),
    )
    op.create_index("run_logs_by_run", "run_logs", ["run_id", "seq"])
    op.create_index("run_logs_by_extraction", "run_logs", ["extraction_id", "seq"])
    op.create_table(
        "events",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("extraction_id", sa.BigInteger, nullable=False),
        sa.Column("data", sa.Text, nullable=False),
    )
    op.create_index("events_by_age", "events", ["at"])


def _partial_index(name: str, *columns: str | sa.TextClause, where: sa.TextClause) -> None:
    op.create_index(name, "runs", columns, sqlite_where=where, postgresql_where=where)


def _extractions() -> None:
    op.create_table(
        "extractions",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("folded", sa.String(200), nullable=False, unique=True),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("source_id", _BIG, sa.ForeignKey("sources.id"), nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("when_busy", sa.String(10), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_by", sa.String(100), nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("updated_at", sa.Float, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("extractions_by_source", "extractions", ["source_id", "id"])
    op.create_index("extractions_by_creation", "extractions", ["created_at", "id"])
    op.create_index("extractions_by_change", "extractions", ["updated_at", "id"])


def downgrade() -> None:
    for table in ("events", "run_logs", "extractions"):
        op.drop_table(table)
    for name in ("runs_leased", "runs_pending", "runs_unended", "runs_by_state", "runs_by_extraction"):
        op.drop_index(name, "runs")
    for name in (
        "extraction_id", "source_id", "rows", "bytes", "quarantined_rows", "quarantined_values", "priority", "failures",
        "connections", "partitions", "partitions_done", "job", "actor", "order", "phase", "not_before", "started_at",
        "ended_at",
    ):  # fmt: skip
        op.drop_column("runs", name)
