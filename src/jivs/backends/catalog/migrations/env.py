"""Alembic's entry: migrations run on the connection that the catalog hands over."""

from __future__ import annotations

from alembic import context

from jivs.backends.catalog.migrating import note
from jivs.backends.catalog.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=True,
    on_version_apply=lambda ctx, step, **_: note(ctx.connection, step.up_revision_id) if step.is_upgrade else None,
)
with context.begin_transaction():
    context.run_migrations()
