"""The way to an object store: one client for all threads, and its errors as sentences."""

from __future__ import annotations

import errno
import io
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import SystemRandom
from typing import Any, TypeVar

from jivs import __version__
from jivs.domain.source import Secret
from jivs.errors import DriverMissingError, JivsError, SettingsError, StoreError

_T = TypeVar("_T")
_CONNECTIONS = 64
_CONNECT_SECONDS = 10
_READ_SECONDS = 60
_LONGEST_PAUSE = 10.0
_TALKATIVE = ("botocore", "boto3", "s3transfer", "urllib3")

_RIGHTS = "access is denied: the key needs s3:ListBucket on the bucket, s3:GetObject, s3:PutObject and s3:DeleteObject in it"
_REGION = "the bucket is in another region: set AWS_REGION"
_REFUSALS = {
    "NoSuchBucket": "there is no such bucket: make it, or choose another one (AWS_S3_BUCKET, or the address)",
    "InvalidAccessKeyId": "it does not know the access key: check AWS_ACCESS_KEY, or the profile of the AWS tools",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: check AWS_SECRET_KEY",
    "ExpiredToken": "the credentials have expired: renew them",
    "RequestTimeTooSkewed": "its clock and that of this machine differ: set this machine's clock",
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
}


class S3Access:
    """Keys, region and endpoint of an object store. The client is made when it is first needed.

    Without a key, credentials come from where the AWS tools look for them. An empty ``endpoint`` is AWS; any other is
    addressed with the bucket in the path. ``attempts``: how often a request is sent before it has failed.
    """

    def __init__(
        self, *, endpoint: str = "", region: str = "", key: str = "", secret: Secret | None = None, attempts: int = 6
    ) -> None:
        self.endpoint = endpoint
        self.attempts = attempts
        self.conditional = False
        """Whether conditional writes were seen to work."""
        self._region = region
        self._key = key
        self._secret = secret or Secret("")
        self._making = threading.Lock()
        self._client: Any = None

    @property
    def client(self) -> Any:
        """The client, shared by all threads. Raises DriverMissingError, and SettingsError for settings it cannot use."""
        with self._making:
            if self._client is None:
                self._client = self._make()
            return self._client

    def _make(self) -> Any:
        try:
            from boto3.session import Session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError as error:
            raise DriverMissingError(
                f"An archive at s3:// needs a package that is not installed ({error.name}): pip install 'jivs[s3]'"
            ) from None
        for name in _TALKATIVE:  # at the level DEBUG they log what they sign with
            logging.getLogger(name).setLevel(logging.INFO)
        config = Config(
            connect_timeout=_CONNECT_SECONDS,
            read_timeout=_READ_SECONDS,
            max_pool_connections=_CONNECTIONS,
            retries={"mode": "standard", "total_max_attempts": self.attempts},
            s3={"addressing_style": "path" if self.endpoint else "auto"},
            tcp_keepalive=True,
            user_agent_extra=f"jivs/{__version__}",
        )
        try:
            client = Session().client(
                "s3",
                region_name=self._region or None,
                endpoint_url=self.endpoint or None,
                aws_access_key_id=self._key or None,
                aws_secret_access_key=self._secret.reveal() or None,
                config=config,
            )
        except (BotoCoreError, ValueError) as error:
            raise SettingsError(
                f"The object store cannot be used: {error} Check AWS_REGION, JIVS_S3_ENDPOINT and AWS_PROFILE."
            ) from None
        client.meta.events.register_last("before-call.s3", _send_at_once)
        return client

    @contextmanager
    def clear_errors(self, address: str, path: str = "") -> Iterator[None]:
        """Errors of the client as FileNotFoundError and StoreError, those of missing credentials as SettingsError."""
        try:
            yield
        except (JivsError, FileNotFoundError):
            raise
        except Exception as error:
            clear = self._clear(error, address, path)
            if clear is None:
                raise
            raise clear from error

    def _clear(self, error: Exception, address: str, path: str) -> Exception | None:
        from botocore import exceptions as known

        if isinstance(error, known.ClientError):
            code, status = refusal(error)
            if status == 404 and code != "NoSuchBucket":
                return FileNotFoundError(errno.ENOENT, "no such file in the store", path)
            what = _REFUSALS.get(code) or (_RIGHTS if status == 403 else f"it answers {code} ({status})")
            return StoreError(f"Cannot use {address}: {what}, then try again.", detail=str(error))
        if isinstance(error, (known.NoCredentialsError, known.PartialCredentialsError)):
            return SettingsError(
                f"There are no credentials for {address}: set AWS_ACCESS_KEY and AWS_SECRET_KEY, or those of the AWS tools."
            )
        if broke_off(error) or isinstance(error, (known.HTTPClientError, known.ConnectionError)):
            return StoreError(
                f"Cannot use {address}: {self.endpoint or 'AWS'} does not answer, or breaks off ({type(error).__name__}). "
                "Check the network and JIVS_S3_ENDPOINT, then try again.",
                detail=str(error),
            )
        if isinstance(error, known.BotoCoreError):
            return StoreError(
                f"Cannot use {address}: {type(error).__name__}. Check the credentials of the AWS tools, then try again.",
                detail=str(error),
            )
        if isinstance(error, OSError):
            return StoreError(f"Cannot send {path} to {address}: {error.strerror}. Check the disk, then try again.")
        return None

    def again(self, act: Callable[[], _T], passing: Callable[[Exception], bool]) -> _T:
        """Do what may break off, again with growing pauses where the error is a ``passing`` one."""
        for attempt in range(1, self.attempts):
            try:
                return act()
            except Exception as error:
                if not passing(error):
                    raise
                time.sleep(SystemRandom().random() * min(_LONGEST_PAUSE, 0.5 * 2**attempt))  # spreads callers
        return act()


def _send_at_once(params: dict[str, Any], **_: Any) -> None:
    """Send a body that is in memory without asking first whether it may be sent: one round trip less."""
    if isinstance(params.get("body"), io.BytesIO):
        params["headers"].pop("Expect", None)


def refusal(error: Any) -> tuple[str, int]:
    """Code and HTTP status of what an object store refused."""
    return str(error.response.get("Error", {}).get("Code", "")), int(
        error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    )


def broke_off(error: Exception) -> bool:
    """Whether an answer ended before its time: the client does not try again by itself once it has begun."""
    from botocore import exceptions as known
    from urllib3.exceptions import HTTPError

    return isinstance(
        error,
        (
            known.ResponseStreamingError,
            known.IncompleteReadError,
            known.ReadTimeoutError,
            known.FlexibleChecksumError,
            HTTPError,
        ),
    )
