"""What may be set in the URL of a PostgreSQL source."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Options(BaseModel):
    """What may stand behind the ``?`` of a PostgreSQL URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sslmode: str = Field("prefer", pattern="^(disable|allow|prefer|require|verify-ca|verify-full)$", description="TLS.")
    sslrootcert: str = Field("", description="File with the certificate authorities to trust.")
    sslcert: str = Field("", description="File with the client's certificate.")
    sslkey: str = Field("", description="File with the client's key.")
    connect_timeout: int = Field(10, ge=1, description="Seconds to wait for a connection.")
    application_name: str = Field("jivs", description="Name shown in pg_stat_activity.")
    statement_timeout: int = Field(0, ge=0, description="Longest statement in ms; 0: no limit. A COPY is a statement.")
    lock_timeout: int = Field(10_000, ge=1, description="Longest wait for a table's lock in ms.")
