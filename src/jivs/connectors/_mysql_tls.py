"""How connections to MySQL and MariaDB are encrypted, and what is checked of the server.

The driver would load all authorities that the machine trusts for each connection, also where none is asked, and check no
name where no file of authorities is given.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

from jivs.errors import UsageError

_VERIFIED = frozenset({"verify_ca", "verify_identity"})


class _SecretKeyError(Exception):
    """A key has a pass phrase, and nobody is there to be asked."""


def context(mode: str, authorities: str, certificate: str, key: str) -> ssl.SSLContext:
    """As MySQL's client does with these values of ``--ssl-mode``, ``--ssl-ca``, ``--ssl-cert`` and ``--ssl-key``; those whom
    the machine trusts are the authorities where no file is given. Raises UsageError for a file that cannot be used.
    """
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
