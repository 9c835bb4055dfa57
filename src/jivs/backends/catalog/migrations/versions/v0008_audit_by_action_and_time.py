"""The audit trail is searched by what was done and by when."""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_index("audit_by_action", "audit", ["action", "seq"])
    op.create_index("audit_by_time", "audit", ["at", "seq"])


def downgrade() -> None:
    op.drop_index("audit_by_time", "audit")
    op.drop_index("audit_by_action", "audit")
