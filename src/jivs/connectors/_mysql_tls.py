"""How connections to MySQL and MariaDB are encrypted, and what is checked of the server.

The driver would load all authorities that the machine trusts for each connection, also where none is asked, and check no
name where no file of authorities is given.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from jivs.errors import UsageError

_VERIFIED = frozenset({"verify_ca", "verify_identity"})


class _SecretKeyError(Exception):
    """A key has a pass phrase, and nobody is there to be asked."""


class Options(BaseModel):
    """As those of MySQL's client: ``--ssl-mode``, ``--ssl-ca``, ``--ssl-cert`` and ``--ssl-key``.

    Source: MySQL's manual, "Command Options for Encrypted Connections".
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ssl_mode: str = Field(
        "",
        pattern="^(|disabled|preferred|required|verify_ca|verify_identity)$",
        description="TLS; left out: `verify_ca` where there is an `ssl_ca`, else `preferred`.",
    )
    ssl_ca: str = Field("", description="File with the authorities to trust; none: those of the machine.")
    ssl_cert: str = Field("", description="File with the client's certificate.")
    ssl_key: str = Field("", description="File with the client's key, which has no pass phrase.")

    @model_validator(mode="after")
    def _looked_at(self) -> Self:
        if self.ssl_ca and self.encryption not in _VERIFIED:
            raise ValueError(
                "ssl_ca is looked at with ssl_mode=verify_ca or verify_identity: set one of them, or leave it out"
            )
        return self

    @property
    def encryption(self) -> str:
        """The mode that counts."""
        return self.ssl_mode or ("verify_ca" if self.ssl_ca else "preferred")


def context(options: Options) -> ssl.SSLContext:
    """Those whom the machine trusts are the authorities where no file is given. Raises UsageError for a file that cannot be
    used.
    """
    mode, authorities, certificate, key = options.encryption, options.ssl_ca, options.ssl_cert, options.ssl_key
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = mode == "verify_identity"
    made.verify_mode = ssl.CERT_REQUIRED if mode in _VERIFIED else ssl.CERT_NONE
    if authorities:
        made.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # whoever is in the file is trusted, also below another authority
        with _named("ssl_ca", authorities):
            made.load_verify_locations(authorities)
    elif mode in _VERIFIED:
        made.load_default_certs()
    if certificate:
        _load(made, certificate, key)
    elif key:
        raise UsageError("ssl_key is the key of a certificate: give that, too, with ssl_cert.")
    return made


def _load(made: ssl.SSLContext, certificate: str, key: str) -> None:
    def ask() -> str:
        raise _SecretKeyError

    for option, file in (("ssl_cert", certificate), ("ssl_key", key)):
        if file:
            with _named(option, file):
                os.close(os.open(file, os.O_RDONLY | os.O_NONBLOCK))
    try:
        made.load_cert_chain(certificate, key or None, password=ask)
    except _SecretKeyError:
        raise UsageError(
            f"The key in {key or certificate} has a pass phrase, for which nobody can be asked: give one without, in a file "
            "that only this user reads."
        ) from None
    except (OSError, ValueError):
        raise UsageError(
            f"The files of ssl_cert, {certificate}, and ssl_key, {key or certificate}, cannot be used: give a certificate "
            "and the key that belongs to it, both in the form PEM."
        ) from None


@contextmanager
def _named(option: str, file: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = "there is nothing in it that could be used" if isinstance(error, ssl.SSLError) else None
        reason = reason or getattr(error, "strerror", None) or str(error)
        raise UsageError(f"The file of {option}, {file}, cannot be used: {reason}. Give one in the form PEM.") from None
