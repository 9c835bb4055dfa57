"""What may be set in the URL of a PostgreSQL source."""

from __future__ import annotations

import os
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

_LONGEST_NAME = 63
_CERTIFICATES_ARE_CHOSEN = 160_000
"""The libpq that knows ``sslcertmode``."""


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

    def given(self, run: str, *, theirs: bool) -> dict[str, Any]:
        """Parameters of a connection. ``theirs``: whoever named the server is not who runs this program, whose own
        passwords, certificates and options (``PG*`` variables, ``~/.pgpass``, ``~/.postgresql``) the server must not get.
        """
        out = {key: value for key, value in self.model_dump().items() if value != "" and not key.endswith("_timeout")}
        out["application_name"] = self.name(run)
        if theirs:
            out |= {"passfile": f"{os.devnull}/none", "options": ""}
            from psycopg import pq

            if not self.sslcert and pq.version() >= _CERTIFICATES_ARE_CHOSEN:
                out["sslcertmode"] = "disable"
        return out

    def name(self, run: str) -> str:
        """The application's name with a run's id behind it, which is whole in the 63 bytes that PostgreSQL keeps."""
        if not run:
            return self.application_name
        kept = self.application_name.encode()[: _LONGEST_NAME - len(run) - 1].decode(errors="ignore")
        return f"{kept} {run}"
