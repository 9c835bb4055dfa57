"""The keys of a service on one machine: made once, kept beside its catalog, readable by its user only."""

from __future__ import annotations

import base64
import json
import os
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from jivs.domain.source import Secret
from jivs.errors import SettingsError


@dataclass(frozen=True)
class Keys:
    """One signs tokens, one seals credentials."""

    signing: Secret
    sealing: Secret


class KeyFile:
    """Losing the file means: everybody logs in again, and credentials of sources have to be entered again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> Keys:
        """The keys; those of whoever was first, where several processes begin at once. Raises SettingsError."""
        try:
            if not self._path.exists():
                self._make()
            if stat.S_IMODE(self._path.stat().st_mode) & 0o077:
                raise SettingsError(
                    f"Others can read {self._path}, which has the keys of this service: chmod 600 {self._path}"
                )
            kept = json.loads(self._path.read_text(encoding="ascii"))
            return Keys(Secret(kept["signing"]), Secret(kept["sealing"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"The keys in {self._path} cannot be read ({type(error).__name__}): bring the file back from a backup, or "
                "set JWT_SECRET and ENCRYPTION_KEY."
            ) from None

    def _make(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        made = {
            "signing": secrets.token_urlsafe(48),
            "sealing": base64.b64encode(secrets.token_bytes(32)).decode(),
        }
        fresh = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                json.dump(made, file)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(fresh, self._path)
        finally:
            fresh.unlink()
