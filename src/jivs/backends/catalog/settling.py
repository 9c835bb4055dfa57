"""What a restored catalog must forget, in SQL that SQLite and PostgreSQL both know.

It is older than the world around it. Tokens that were revoked since then would be good again, so all sessions end. A worker
may still be at one of its runs, under an epoch that the catalog would give out again, so epochs go on far behind. A run that
it has as RUNNING may be published long since: as PENDING, or silent where it was told to stop or to pause, whoever claims it
looks into the archive first.
"""

from __future__ import annotations

_FAR = 100_000
"""More than a user changes, or a run is claimed, between a backup and its restore."""

STATEMENTS = (
    ("0002", "DELETE FROM refresh_tokens"),
    ("0002", f"UPDATE users SET generation = generation + {_FAR}"),
    (
        "0004",
        f"""\
UPDATE runs SET epoch = epoch + {_FAR}, owner = '', connections = 0, phase = '',
  lease_until = CASE WHEN "order" <> '' AND extraction_id > 0 THEN 0.0 END,
  "order" = CASE WHEN extraction_id > 0 THEN "order" ELSE '' END,
  state = CASE WHEN state <> 'RUNNING' OR extraction_id = 0 OR "order" <> '' THEN state ELSE 'PENDING' END
WHERE state IN ('PENDING', 'RUNNING', 'PAUSED')""",
    ),
    ("0005", f"UPDATE stamps SET value = value + {_FAR}"),
    ("0007", "DELETE FROM paces"),
)
"""Each with the schema since which it can be said."""


def statements(schema: str) -> list[str]:
    """Those for a catalog of this schema."""
    return [statement for since, statement in STATEMENTS if since <= schema]
