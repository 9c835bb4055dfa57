"""The catalog's tables. ``migrations/`` makes them; a test holds the two against each other."""

from __future__ import annotations

import sqlalchemy as sa

HEAD = "0009"
"""The newest migration: what this version of JiVS works on."""

OLDEST = "0007"
"""Code that knows the migrations up to this one runs on HEAD too: whoever changes the schema sees to it."""

metadata = sa.MetaData()

BigId = sa.BigInteger().with_variant(sa.Integer, "sqlite")
"""SQLite numbers rows by itself in columns declared INTEGER only."""

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("seq", BigId, primary_key=True, autoincrement=True),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("archive", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("state", sa.String(12), nullable=False),
    sa.Column("message", sa.Text, nullable=False, default=""),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    sa.Column("owner", sa.Text, nullable=False, default=""),
    sa.Column("lease_until", sa.Float, nullable=True),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sa.Column("extraction_id", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("source_id", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("job", sa.Text, nullable=False, server_default=""),
    sa.Column("actor", sa.String(100), nullable=False, server_default=""),
    sa.Column("priority", sa.Integer, nullable=False, server_default="0"),
    sa.Column("order", sa.String(10), nullable=False, server_default=""),
    sa.Column("phase", sa.String(20), nullable=False, server_default=""),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
    sa.Column("done_before", sa.Integer, nullable=False, server_default="0"),
    sa.Column("not_before", sa.Float, nullable=False, server_default="0"),
    sa.Column("connections", sa.Integer, nullable=False, server_default="0"),
    sa.Column("started_at", sa.Float, nullable=True),
    sa.Column("ended_at", sa.Float, nullable=True),
    sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("bytes", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("quarantined_rows", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("quarantined_values", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("partitions", sa.Integer, nullable=False, server_default="0"),
    sa.Column("partitions_done", sa.Integer, nullable=False, server_default="0"),
)
sa.Index("runs_by_archive", runs.c.archive, runs.c.digest)
sa.Index("runs_by_extraction", runs.c.extraction_id, runs.c.seq)
sa.Index("runs_by_state", runs.c.state, runs.c.seq)
_UNENDED = sa.text("state IN ('PENDING', 'RUNNING', 'PAUSED')")
sa.Index("runs_unended", runs.c.extraction_id, runs.c.state, sqlite_where=_UNENDED, postgresql_where=_UNENDED)
_PENDING = sa.text("state = 'PENDING' AND extraction_id > 0")
sa.Index("runs_pending", runs.c.priority.desc(), runs.c.seq, sqlite_where=_PENDING, postgresql_where=_PENDING)
_LEASED = sa.text("lease_until IS NOT NULL")
sa.Index("runs_leased", runs.c.source_id, runs.c.lease_until, sqlite_where=_LEASED, postgresql_where=_LEASED)

steps = sa.Table(
    "steps",
    metadata,
    sa.Column("seq", BigId, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String(40), sa.ForeignKey("runs.id", ondelete="CASCADE"), nullable=False),
    sa.Column("partition", sa.String(40), nullable=False),
    sa.Column("state", sa.String(10), nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False, default=0),
    sa.Column("owner", sa.Text, nullable=False, default=""),
    sa.Column("lease_until", sa.Float, nullable=True),
    sa.Column("rows", sa.BigInteger, nullable=False, default=0),
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.UniqueConstraint("run_id", "partition"),
)
_OPEN = sa.text("state IN ('READY', 'CLAIMED')")
sa.Index("steps_open", steps.c.run_id, steps.c.seq, sqlite_where=_OPEN, postgresql_where=_OPEN)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("username", sa.String(100), nullable=False),
    sa.Column("folded", sa.String(200), nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("roles", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

refresh_tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("family", sa.String(40), nullable=False),
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("expires_at", sa.Float, nullable=False),
    sa.Column("used_at", sa.Float, nullable=True),
    sa.Column("revoked", sa.Boolean, nullable=False),
)
sa.Index("refresh_tokens_by_family", refresh_tokens.c.family)
sa.Index("refresh_tokens_by_user", refresh_tokens.c.user_id)
sa.Index("refresh_tokens_by_expiry", refresh_tokens.c.expires_at)

revoked_tokens = sa.Table(
    "revoked_tokens",
    metadata,
    sa.Column("token_id", sa.String(40), primary_key=True),
    sa.Column("expires_at", sa.Float, nullable=False),
)
sa.Index("revoked_tokens_by_expiry", revoked_tokens.c.expires_at)

login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("key", sa.String(300), primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("seq", BigId, primary_key=True, autoincrement=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("actor", sa.String(100), nullable=False),
    sa.Column("action", sa.String(60), nullable=False),
    sa.Column("object", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
)
sa.Index("audit_by_actor", audit.c.actor, audit.c.seq)
sa.Index("audit_by_object", audit.c.object, audit.c.seq)
sa.Index("audit_by_action", audit.c.action, audit.c.seq)
sa.Index("audit_by_time", audit.c.at, audit.c.seq)

sources = sa.Table(
    "sources",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("folded", sa.String(200), nullable=False, unique=True),
    sa.Column("scheme", sa.String(40), nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("port", sa.Integer, nullable=True),
    sa.Column("database", sa.Text, nullable=False),
    sa.Column("username", sa.Text, nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("sealed", sa.Text, nullable=False),
    sa.Column("max_connections", sa.Integer, nullable=False),
    sa.Column("max_rows_per_second", sa.Integer, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("scope", sa.String(64), primary_key=True),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("headers", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
)
sa.Index("idempotency_keys_by_age", idempotency_keys.c.at)

extractions = sa.Table(
    "extractions",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("folded", sa.String(200), nullable=False, unique=True),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("source_id", BigId, sa.ForeignKey("sources.id"), nullable=False),
    sa.Column("job", sa.Text, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("when_busy", sa.String(10), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_by", sa.String(100), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("extractions_by_source", extractions.c.source_id, extractions.c.id)
sa.Index("extractions_by_creation", extractions.c.created_at, extractions.c.id)
sa.Index("extractions_by_change", extractions.c.updated_at, extractions.c.id)

run_logs = sa.Table(
    "run_logs",
    metadata,
    sa.Column("seq", BigId, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String(40), nullable=False),
    sa.Column("extraction_id", sa.BigInteger, nullable=False),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("level", sa.String(10), nullable=False),
    sa.Column("message", sa.Text, nullable=False),
)
sa.Index("run_logs_by_run", run_logs.c.run_id, run_logs.c.seq)
sa.Index("run_logs_by_extraction", run_logs.c.extraction_id, run_logs.c.seq)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("at", sa.Float, nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("run_id", sa.String(40), nullable=False),
    sa.Column("extraction_id", sa.BigInteger, nullable=False),
    sa.Column("data", sa.Text, nullable=False),
)
sa.Index("events_by_age", events.c.at)

stamps = sa.Table(
    "stamps",
    metadata,
    sa.Column("name", sa.String(20), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("id", BigId, primary_key=True, autoincrement=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("folded", sa.String(200), nullable=False, unique=True),
    sa.Column("extraction_id", BigId, sa.ForeignKey("extractions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("cron", sa.Text, nullable=False),
    sa.Column("time_zone", sa.String(60), nullable=False),
    sa.Column("missed_runs", sa.String(10), nullable=False),
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("not_before", sa.Float, nullable=True),
    sa.Column("not_after", sa.Float, nullable=True),
    sa.Column("next_run_at", sa.Float, nullable=True),
    sa.Column("last_run_at", sa.Float, nullable=True),
    sa.Column("last_run_id", sa.String(40), nullable=False),
    sa.Column("last_message", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("created_by", sa.String(100), nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("updated_at", sa.Float, nullable=False),
    sqlite_autoincrement=True,
)
sa.Index("schedules_by_extraction", schedules.c.extraction_id, schedules.c.id)
sa.Index("schedules_by_time", schedules.c.next_run_at)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("beat", sa.BigInteger, nullable=False),
)

preferences = sa.Table(
    "preferences",
    metadata,
    sa.Column("user_id", BigId, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("document", sa.Text, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
)

paces = sa.Table(
    "paces",
    metadata,
    sa.Column("source_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("due", sa.Float, nullable=False),
)
"""Until when the rows that were asked for take, at the pace of their source."""

compatibility = sa.Table("compatibility", metadata, sa.Column("oldest", sa.String(32), primary_key=True))
"""One row: the OLDEST of the code that migrated last."""
