"""A store in a bucket of S3, or of an object store that speaks its protocol."""

from __future__ import annotations

import hashlib
import logging
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

from jivs.backends.store import _marking
from jivs.backends.store._paths import is_path, require_path
from jivs.backends.store._probing import probe
from jivs.backends.store._s3_reader import TAIL, RangeReader
from jivs.backends.store._spool import clean, drop_dead, own, size
from jivs.backends.store.s3_access import S3Access, broke_off, refusal
from jivs.domain.registry import is_archive_name, require_archive_name
from jivs.errors import AlreadyExistsError, FatalError, StoreError, UsageError
from jivs.ports.store import Entry

_LOG = logging.getLogger(__name__)
_SMALL = 1 << 20
_LARGE = 32 << 20
_PART = 16 << 20
_PARTS_AT_ONCE = 4
_AT_ONCE = 16
_MEMORY = 64 << 20
"""The client, and what readers read ahead (measured)."""

_ROOM_SECONDS = 30.0
"""How long a file waits for those of other processes to go."""

_STALE = timedelta(days=1)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]", re.ASCII)
_WRITER = "jivs-writer"


class S3Place:
    """A bucket and what begins with ``prefix`` in it."""

    def __init__(self, access: S3Access, bucket: str, prefix: str = "") -> None:
        self.access = access
        self.bucket = bucket
        self.base = f"{prefix}/" if prefix else ""

    @classmethod
    def parse(cls, access: S3Access, address: str) -> Self:
        """The place that ``s3://bucket/prefix`` names. Raises UsageError; the message repeats nothing of the address."""
        bucket, _, prefix = address.removeprefix("s3://").partition("/")
        prefix = prefix.removesuffix("/")
        if _BUCKET.fullmatch(bucket) is None or not (prefix == "" or is_path(prefix)) or set("?#\\") & set(prefix):
            raise UsageError(
                "Write the address of an archive in an object store as s3://bucket/prefix. Keys and endpoint are settings: "
                "AWS_ACCESS_KEY, AWS_SECRET_KEY, JIVS_S3_ENDPOINT."
            )
        return cls(access, bucket, prefix)

    @property
    def address(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self.bucket}/{self.base}".removesuffix("/")

    def clear_errors(self, path: str = "") -> AbstractContextManager[None]:
        """Errors of the client as those of a store."""
        return self.access.clear_errors(self.address, path)

    def pages(self, prefix: str, **more: Any) -> Iterator[dict[str, Any]]:
        """The pages of a listing below the place."""
        asked = {"Bucket": self.bucket, "Prefix": self.base + prefix, **more}
        while True:
            with self.clear_errors():
                page: dict[str, Any] = self.access.client.list_objects_v2(**asked)
            yield page
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]


class S3Store:
    """Objects below a place. Everything below it belongs to the archive.

    An object is whole or absent by the nature of the store. ``create`` rests on conditional writes: a store that does not
    know them is refused with FatalError at the first one.
    """

    def __init__(self, place: S3Place, spools: Path, most: int = 0) -> None:
        """``spools``: the folder in which this store's spool is made, of all archives and processes of this machine; while
        it has ``most`` bytes, no file is begun there. 0: no limit.
        """
        self._place = place
        self._spools, self._most = spools, most
        self._cleaned = False
        digest = hashlib.sha256(f"{place.access.endpoint} {place.address}".encode()).hexdigest()
        self._spool = spools / f"{place.bucket}-{digest[:12]}"

    @property
    def address(self) -> str:
        return self._place.address

    @property
    def spool(self) -> Path:
        if not self._cleaned:
            drop_dead(self._spools)
            self._cleaned = True
        try:
            mine = own(self._spool)
        except OSError as error:
            raise StoreError(
                f"Cannot make a folder in {self._spool}: {error.strerror}. Choose another one with JIVS_TEMP_DIR."
            ) from error
        self._wait_for_room()
        return mine

    def _wait_for_room(self) -> None:
        """Until the files of all processes of the machine take less than they may. Raises StoreError if that takes long."""
        end = time.monotonic() + _ROOM_SECONDS
        while self._most and (taken := size(self._spools)) >= self._most:
            if time.monotonic() < end:
                if not drop_dead(self._spools):
                    time.sleep(_ROOM_SECONDS / 100)
                continue
            raise StoreError(
                f"Files on their way to object stores take {taken:,} bytes in {self._spools}, of {self._most:,} that they "
                "may: they go when the store takes them. Set JIVS_TEMP_MAX_BYTES if there is room for more."
            )

    @property
    def parallel(self) -> int:
        return _AT_ONCE

    @property
    def memory(self) -> int:
        return _MEMORY

    def put(self, local: Path, path: str) -> None:
        key = self._key(path)
        with self._place.clear_errors(path):
            size = local.stat().st_size
            if size > _LARGE:
                self._send_parts(local, key)
            elif size > _SMALL:
                with local.open("rb") as file:
                    self._client.put_object(Bucket=self._place.bucket, Key=key, Body=file)
            else:
                self._client.put_object(Bucket=self._place.bucket, Key=key, Body=local.read_bytes())
        local.unlink()

    def put_all(self, files: Sequence[tuple[Path, str]]) -> None:
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="put") as pool:
            for _ in pool.map(lambda file: self.put(*file), files):
                pass

    def create(self, path: str, data: bytes) -> None:
        if not self._created(path, data):
            raise AlreadyExistsError(f"{path} exists already in {self.address}.")
        if not self._place.access.conditional:
            if self._created(path, data):
                raise FatalError(
                    f"The object store of {self.address} ignores conditional writes (If-None-Match), so two runs could "
                    "publish over each other. Choose one that has them: docs/stores.md names some."
                )
            self._place.access.conditional = True

    def replace(self, path: str, data: bytes) -> None:
        key = self._key(path)
        with self._place.clear_errors(path):
            self._client.put_object(Bucket=self._place.bucket, Key=key, Body=data)

    def read(self, path: str, start: int = 0, count: int | None = None) -> bytes:
        if start == 0 and count is None:
            return self._get(path)[0]
        if count == 0:
            return b""
        return self._get(path, f"bytes={start}-{'' if count is None else start + count - 1}")[0]

    def open(self, path: str) -> BinaryIO:
        tail, size = self._get(path, f"bytes=-{TAIL}")
        return cast(BinaryIO, RangeReader(lambda start, count: self.read(path, start, count), size, tail))

    def size(self, path: str) -> int:
        return int(self._head(path)["ContentLength"])

    def exists(self, path: str) -> bool:
        try:
            self._head(path)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[Entry]:
        for page in self._place.pages(prefix):
            for item in page.get("Contents", ()):
                path = str(item["Key"]).removeprefix(self._place.base)
                if is_path(path):
                    yield Entry(path=path, bytes=int(item["Size"]))

    def delete(self, path: str) -> None:
        key = self._key(path)
        with self._place.clear_errors(path):
            self._client.delete_object(Bucket=self._place.bucket, Key=key)

    def clean_spool(self, gone: Callable[[str], bool]) -> int:
        try:
            return clean(own(self._spool), gone) + drop_dead(self._spools) + self._drop_parts()
        except OSError as error:
            raise StoreError(f"Cannot clean {self._spool}: {error.strerror}. Check its permissions.") from error

    def local(self, path: str) -> Path | None:
        require_path(path)
        return None

    @property
    def _client(self) -> Any:
        return self._place.access.client

    def _key(self, path: str) -> str:
        return self._place.base + require_path(path)

    def _head(self, path: str) -> dict[str, Any]:
        key = self._key(path)
        with self._place.clear_errors(path):
            answer: dict[str, Any] = self._client.head_object(Bucket=self._place.bucket, Key=key)
        return answer

    def _get(self, path: str, wanted: str = "") -> tuple[bytes, int]:
        """The bytes of a file or a range of it, and the size of the file."""
        asked = {"Bucket": self._place.bucket, "Key": self._key(path), **({"Range": wanted} if wanted else {})}

        def once() -> tuple[bytes, int]:
            answer = self._client.get_object(**asked)
            whole = str(answer.get("ContentRange", "")).rpartition("/")[2]
            with answer["Body"] as body:
                return body.read(), int(whole or answer["ContentLength"])

        with self._place.clear_errors(path):
            try:
                return self._place.access.again(once, broke_off)
            except self._client.exceptions.ClientError as error:
                if refusal(error)[0] == "InvalidRange":  # nothing is there: the file is empty, or ends before
                    return b"", 0
                raise

    def _created(self, path: str, data: bytes) -> bool:
        """Write a file that does not exist; whether it did not.

        An answer may get lost: then the client sends the request again and hears that the file exists. So each write
        carries a mark, and the file's tells whose it is.
        """
        key, mark = self._key(path), uuid.uuid4().hex
        asked = {"Bucket": self._place.bucket, "Key": key, "Body": data, "Metadata": {_WRITER: mark}}

        def write() -> bool:
            try:
                self._client.put_object(**asked, IfNoneMatch="*")
            except self._client.exceptions.ClientError as error:
                if refusal(error)[1] != 412:
                    raise
                return bool(self._head(path).get("Metadata", {}).get(_WRITER) == mark)
            return True

        with self._place.clear_errors(path):
            return self._place.access.again(write, _in_conflict)

    def _send_parts(self, local: Path, key: str) -> None:
        from s3transfer.manager import TransferConfig, TransferManager

        config = TransferConfig(
            multipart_threshold=_LARGE, multipart_chunksize=_PART, max_request_concurrency=_PARTS_AT_ONCE
        )
        with TransferManager(self._client, config) as manager:
            manager.upload(str(local), self._place.bucket, key).result()

    def _drop_parts(self) -> int:
        """Give up uploads in parts that nobody has ended within a day: the store keeps, and charges for, their parts."""
        try:
            with self._place.clear_errors():
                asked = {"Bucket": self._place.bucket, "Prefix": self._place.base}
                found = self._client.list_multipart_uploads(**asked).get("Uploads", ())
                stale = [item for item in found if datetime.now(UTC) - item["Initiated"] > _STALE]
                for item in stale:
                    self._client.abort_multipart_upload(
                        Bucket=self._place.bucket, Key=item["Key"], UploadId=item["UploadId"]
                    )
        except (StoreError, FileNotFoundError) as error:  # a right that archiving does not need
            _LOG.info("Unfinished uploads below %s stay: %s", self.address, error)
            return 0
        return len(stale)


def _in_conflict(error: Exception) -> bool:
    """Whether a conditional write met another one, or a removal: it may have won or lost, so it has to be tried again."""
    if isinstance(error, FileNotFoundError):
        return True
    return hasattr(error, "response") and refusal(error)[0] in {"ConditionalRequestConflict", "OperationAborted"}


class S3Shelf:
    """Archives below one place, each with its name as the next part of the prefix."""

    def __init__(self, place: S3Place) -> None:
        self._place = place

    def address(self, name: str) -> str:
        return f"{self._place.address}/{require_archive_name(name)}"

    @property
    def shown(self) -> str:
        return self._place.address

    def mark(self, proposed: str) -> str:
        with tempfile.TemporaryDirectory() as spools:
            store = S3Store(self._place, Path(spools))
            return _marking.write(store, proposed) if proposed else _marking.read(store)

    def probe(self) -> None:
        with tempfile.TemporaryDirectory() as spools:
            probe(S3Store(self._place, Path(spools)))

    def names(self) -> list[str]:
        base = self._place.base
        found = [
            str(item["Prefix"]).removeprefix(base).removesuffix("/")
            for page in self._place.pages("", Delimiter="/")
            for item in page.get("CommonPrefixes", ())
        ]
        known = [name for name in found if is_archive_name(name)]
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="names") as pool:
            published = list(pool.map(self._published, known))
        return sorted(name for name, there in zip(known, published, strict=True) if there)

    def _published(self, name: str) -> bool:
        return bool(next(self._place.pages(f"{name}/manifests/", MaxKeys=1)).get("Contents"))
