"""Attempts of runs are counted from their last progress: ``failures``, by which code of schema 0007 gives up as well;
``failed`` counts them all.

No row is rewritten: workers beside this migration renew the leases of their runs.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    for name in ("failed", "done_before"):
        op.add_column("runs", sa.Column(name, sa.Integer, nullable=False, server_default="0"))


def downgrade() -> None:
    for name in ("failed", "done_before"):
        op.drop_column("runs", name)
