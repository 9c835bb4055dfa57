"""Credentials under AES-256-GCM (NIST SP 800-38D)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from jivs.domain.source import Secret
from jivs.errors import DamagedError, SettingsError

_NONCE = 12
_FORM = "write it as 32 bytes in base64, for example from: openssl rand -base64 32"


class AesGcmVault:
    """A text ``v1.<key id>.<nonce, ciphertext and tag in base64>``; ``place`` is authenticated with it.

    ``keys``: in base64, comma-separated, the newest first: it seals, and all of them open. The id of a key is taken from
    its hash, so that a wrong key is told from changed bytes.
    """

    def __init__(self, keys: Secret) -> None:
        self._keys: dict[str, AESGCM] = {}
        for text in keys.reveal().split(","):
            try:
                raw = base64.b64decode(text.strip(), validate=True)
            except (binascii.Error, ValueError):
                raise SettingsError(f"ENCRYPTION_KEY is no base64: {_FORM}") from None
            if len(raw) != 32:
                raise SettingsError(f"ENCRYPTION_KEY has {len(raw)} bytes: {_FORM}")
            self._keys[hashlib.sha256(b"jivs.key\0" + raw).hexdigest()[:16]] = AESGCM(raw)
        self._newest = next(iter(self._keys))

    def seal(self, secret: Secret, place: str) -> str:
        nonce = os.urandom(_NONCE)
        sealed = self._keys[self._newest].encrypt(nonce, secret.reveal().encode(), place.encode())
        return f"v1.{self._newest}.{base64.b64encode(nonce + sealed).decode()}"

    def open(self, sealed: str, place: str) -> Secret:
        version, _, rest = sealed.partition(".")
        key_id, _, body = rest.partition(".")
        key = self._keys.get(key_id)
        if version != "v1" or not body:
            raise DamagedError(f"The credentials of {place} cannot be read: they are not in a form that this version knows.")
        if key is None:
            raise SettingsError(
                f"The credentials of {place} were encrypted with another key ({key_id}) than those in ENCRYPTION_KEY "
                f"({', '.join(self._keys)}). Add the old key behind the new one, separated by a comma."
            )
        try:
            raw = base64.b64decode(body, validate=True)
            return Secret(key.decrypt(raw[:_NONCE], raw[_NONCE:], place.encode()).decode())
        except (InvalidTag, binascii.Error, ValueError):
            raise DamagedError(f"The credentials of {place} were changed or moved: enter them again.") from None

    def current(self, sealed: str) -> bool:
        return sealed.startswith(f"v1.{self._newest}.")
