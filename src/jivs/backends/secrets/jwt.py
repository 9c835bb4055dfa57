"""Access tokens as JSON Web Tokens (RFC 7519), signed with HMAC-SHA-256 (RFC 7515, RFC 7518)."""

from __future__ import annotations

import hashlib
import hmac
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from jivs.domain.source import Secret
from jivs.errors import SettingsError
from jivs.ports.secrets import Claims

SHORTEST_SECRET = 32
"""Bytes of the signing secret: as many as the hash has (RFC 7518, section 3.2)."""

_ISSUER = "jivs"
_LONGEST = 4096
_LARGEST_ID = 2**63 - 1


class JwtTokens:
    """Only tokens of this issuer, of type access and signed with HS256 are read; no other algorithm is known."""

    def __init__(self, secret: Secret) -> None:
        raw = secret.reveal().encode()
        if len(raw) < SHORTEST_SECRET:
            raise SettingsError(
                f"JWT_SECRET is too short: take at least {SHORTEST_SECRET} characters, for example: openssl rand -base64 48"
            )
        self._key = OctKey.import_key(raw)
        self._pepper = hashlib.sha256(b"jivs.digest\0" + raw).digest()

    def issue(self, claims: Claims) -> str:
        said = {
            "iss": _ISSUER,
            "typ": "access",
            "sub": str(claims.user_id),
            "name": claims.username,
            "gen": claims.generation,
            "sid": claims.session,
            "exp": claims.expires_at,
        }
        return jwt.encode({"alg": "HS256"}, said, self._key)

    def read(self, token: str, now: int) -> Claims | None:
        if len(token) > _LONGEST:
            return None
        try:
            said: dict[str, Any] = jwt.decode(token, self._key, algorithms=["HS256"]).claims
            if said["iss"] != _ISSUER or said["typ"] != "access" or int(said["exp"]) <= now:
                return None
            if not 0 < int(said["sub"]) <= _LARGEST_ID:
                return None
            return Claims(
                user_id=int(said["sub"]),
                username=str(said["name"]),
                generation=int(said["gen"]),
                session=str(said["sid"]),
                expires_at=int(said["exp"]),
            )
        except (JoseError, KeyError, TypeError, ValueError, OverflowError):
            return None

    def digest(self, secret: str) -> str:
        return hmac.new(self._pepper, secret.encode(), hashlib.sha256).hexdigest()
