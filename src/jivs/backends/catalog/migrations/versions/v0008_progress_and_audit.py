"""Attempts of runs are counted from their last progress; the audit trail is searched by what was done and by when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_COUNTS = ("stalled", "done_before")


def upgrade() -> None:
    for name in _COUNTS:
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))
    op.execute("UPDATE runs SET stalled = failures, done_before = partitions_done")
    op.create_index("audit_by_action", "audit", ["action", "seq"])
    op.create_index("audit_by_time", "audit", ["at", "seq"])


def downgrade() -> None:
    op.drop_index("audit_by_time", "audit")
    op.drop_index("audit_by_action", "audit")
    for name in _COUNTS:
        op.drop_column("runs", name)
