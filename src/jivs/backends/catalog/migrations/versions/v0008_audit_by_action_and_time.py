"""The audit trail is searched by what was done and by when."""

from __future__ import annotations

from alembic import op

from jivs.backends.catalog.migrating import patiently

revision = "0008"
down_revision = "0007"


INDEXES = {"audit_by_action": ["action", "seq"], "audit_by_time": ["at", "seq"]}


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for name, columns in INDEXES.items():
            op.create_index(name, "audit", columns)
        return
    with op.get_context().autocommit_block(), patiently(op):  # every change adds to the trail, and a long one takes its time
        for name, columns in INDEXES.items():
            op.drop_index(name, "audit", if_exists=True, postgresql_concurrently=True)  # of one that was broken off
            op.create_index(name, "audit", columns, postgresql_concurrently=True)


def downgrade() -> None:
    op.drop_index("audit_by_time", "audit")
    op.drop_index("audit_by_action", "audit")
