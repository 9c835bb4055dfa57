"""What Schemathesis is told beside schemathesis.toml: who asks, and what would end the test itself."""

from __future__ import annotations

import itertools
import json
import re
import time
import uuid
from pathlib import Path
from typing import Any

import schemathesis

from jivs.backends.secrets.jwt import JwtTokens
from jivs.domain.source import Secret
from jivs.ports.secrets import Claims

_TOLD: dict[str, Any] = json.loads(Path("told.json").read_text(encoding="utf-8"))
"""What the test says: the secret of the tokens, and the account that asks."""

_TOKENS = JwtTokens(Secret(_TOLD["secret"]))
_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")
_numbers = itertools.count(1)


@schemathesis.auth(refresh_interval=None)
class EachItsOwn:
    """A token of its own for each request, as after a login of its own: a logout ends no other request's."""

    def get(self, case: schemathesis.Case, ctx: schemathesis.AuthContext) -> str:
        claims = Claims(
            user_id=_TOLD["id"],
            username=_TOLD["username"],
            generation=_TOLD["generation"],
            session=uuid.uuid4().hex,
            expires_at=int(time.time()) + 900,
        )
        return _TOKENS.issue(claims)

    def set(self, case: schemathesis.Case, data: str, ctx: schemathesis.AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {data}"


@schemathesis.hook
def before_call(ctx: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Each request has an Idempotency-Key of its own, as docs/api.md asks; a key that is none stays as it is. The account
    that asks is spared: without its roles nothing more could be asked.
    """
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and _KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = f"key-{next(_numbers)}"
    parameters = case.path_parameters or {}
    if case.method != "GET" and str(parameters.get("user_id")) == str(_TOLD["id"]):
        parameters["user_id"] = _TOLD["other"]
