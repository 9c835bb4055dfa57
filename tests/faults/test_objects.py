"""What a network and an object store do to an archive: nothing is half-written, nothing is called damaged that is not."""

from __future__ import annotations

import http.server
import random
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs import bootstrap
from jivs.archive.reader import batches
from jivs.archive.runs import run_of_file
from jivs.backends.store.s3 import S3Place, S3Store
from jivs.backends.store.s3_access import S3Access
from jivs.domain.archive import Segment, TableState
from jivs.domain.source import Secret
from jivs.errors import DriverMissingError, FatalError, SettingsError, StoreError, UsageError
from jivs.settings import Settings, load
from jivs.testing.relay import Relay
from jivs.testing.servers import S3Server, free_port


@pytest.fixture
def relay(objects: S3Server) -> Iterator[Relay]:
    with Relay(objects.port) as made:
        yield made


def access(objects: S3Server, endpoint: str, *, secret: str = "", key: str = "") -> S3Access:
    return S3Access(
        endpoint=endpoint, region=objects.region, key=key or objects.key, secret=Secret(secret or objects.secret), attempts=3
    )


@pytest.fixture
def store(objects: S3Server, relay: Relay, bucket: str, tmp_path: Path) -> S3Store:
    """A store behind the relay, whose client sends a request three times."""
    return S3Store(S3Place(access(objects, relay.url), bucket, "archive"), tmp_path / "spools")


def spooled(store: S3Store, size: int) -> tuple[Path, bytes]:
    data = random.Random(size).randbytes(size)
    local = store.spool / f"{size}"
    local.write_bytes(data)
    return local, data


@pytest.mark.parametrize(("size", "after"), [(300_000, 150_000), (3_000_000, 1_500_000), (40 << 20, 5 << 20)])
def test_an_upload_that_is_cut_off_is_sent_again(store: S3Store, relay: Relay, size: int, after: int) -> None:
    local, data = spooled(store, size)
    relay.after, relay.cut_requests = after, 1
    store.put(local, "data/x.parquet")
    assert relay.cut_requests == 0
    assert store.read("data/x.parquet") == data
    assert not local.exists()


@pytest.mark.parametrize("size", [300_000, 3_000_000, 40 << 20])
def test_an_upload_that_fails_leaves_no_file_and_keeps_its_source(store: S3Store, relay: Relay, size: int) -> None:
    local, data = spooled(store, size)
    relay.after, relay.cut_requests = 150_000, 1000
    with pytest.raises(StoreError, match="breaks off"):
        store.put(local, "data/x.parquet")
    relay.cut_requests = 0
    assert not store.exists("data/x.parquet")
    assert list(store.list()) == []
    store.put(local, "data/x.parquet")
    assert store.read("data/x.parquet") == data


def test_an_answer_that_is_cut_off_is_asked_for_again(store: S3Store, relay: Relay) -> None:
    local, data = spooled(store, 3_000_000)
    store.put(local, "data/x.parquet")
    relay.after, relay.cut_answers = 1_000_000, 2
    assert store.read("data/x.parquet") == data
    assert relay.cut_answers == 0
    relay.cut_answers = 1000
    with pytest.raises(StoreError, match="breaks off"):
        store.read("data/x.parquet")


def test_of_a_created_file_whose_answer_was_lost_the_creator_knows(store: S3Store, relay: Relay) -> None:
    """The client sends it again, and hears that the file exists: it is the creator's own."""
    store.create("warm", b"up")
    relay.after, relay.cut_answers = 0, 1
    store.create("manifests/1", b"mine")
    assert relay.cut_answers == 0
    assert store.read("manifests/1") == b"mine"


def test_a_network_that_fails_is_no_damage(store: S3Store, relay: Relay) -> None:
    """A reader of Parquet passes the store's error on as it is."""
    draw = random.Random(3)
    table = pa.table({"id": [draw.randbytes(8) for _ in range(100_000)]})
    local = store.spool / "t"
    pq.write_table(table, local, compression="none")
    size = local.stat().st_size
    store.put(local, "data/t.parquet")
    segment = Segment(path="data/t.parquet", bytes=size, sha256="", rows=100_000, partition="p", fingerprint="")
    relay.after, relay.cut_answers = 100_000, 1000  # the footer comes through, the rows do not
    with store.open("data/t.parquet") as file, pytest.raises(StoreError):
        pq.read_table(file)
    with pytest.raises(StoreError):
        next(batches(store, TableState.__new__(TableState), segment, {}))
    relay.after = 0
    with pytest.raises(StoreError):
        run_of_file(store, "data/t.parquet")


def test_uploads_in_parts_that_nobody_ended_are_given_up(store: S3Store, objects: S3Server, bucket: str) -> None:
    """moto says of every upload that it began in 2010."""
    client = objects.client()
    for key in ("archive/data/x", "other/data/x"):
        client.create_multipart_upload(Bucket=bucket, Key=key)
    assert store.clean_spool(lambda _: False) == 1
    left = client.list_multipart_uploads(Bucket=bucket)["Uploads"]
    assert [item["Key"] for item in left] == ["other/data/x"]


def test_each_archive_has_a_spool_of_its_own(objects: S3Server, bucket: str, tmp_path: Path) -> None:
    """A sweep asks its own archive for signs of life: runs of another one have none there."""
    one, other = (S3Store(S3Place(access(objects, objects.url), bucket, name), tmp_path) for name in ("a", "b"))
    (one.spool / "run").mkdir()
    other.clean_spool(lambda _: True)
    assert (one.spool / "run").exists()
    assert one.spool.stat().st_mode & 0o077 == 0
    one.clean_spool(lambda _: True)
    assert not (one.spool / "run").exists()


def test_no_file_is_begun_while_those_of_the_machine_take_too_much(objects: S3Server, bucket: str, tmp_path: Path) -> None:
    one, other = (S3Store(S3Place(access(objects, objects.url), bucket, name), tmp_path, 1000) for name in ("a", "b"))
    (one.spool / "run").mkdir()
    local = one.spool / "run" / "segment"
    local.write_bytes(b"x" * 999)
    assert other.spool.is_dir()
    local.write_bytes(b"x" * 1000)
    with pytest.raises(StoreError, match="JIVS_TEMP_MAX_BYTES"):
        other.spool  # noqa: B018 - where the next file would be begun
    one.put(local, "data/x.parquet")
    assert other.spool.is_dir()


def test_wrong_keys_and_buckets_are_named(objects: S3Server, bucket: str, tmp_path: Path) -> None:
    def first_error(access: S3Access, bucket: str) -> str:
        store = S3Store(S3Place(access, bucket, "a"), tmp_path)
        with pytest.raises(StoreError) as caught:
            list(store.list())
        assert "wrong-secret" not in f"{caught.value} {caught.value.detail} {access!r} {vars(access)!r}"
        return caught.value.message

    assert "AWS_S3_BUCKET" in first_error(access(objects, objects.url), "there-is-none")
    assert "AWS_SECRET_KEY" in first_error(access(objects, objects.url, secret="wrong-secret"), bucket)
    assert "AWS_ACCESS_KEY" in first_error(access(objects, objects.url, key="AKIANOBODY", secret="wrong-secret"), bucket)
    assert "JIVS_S3_ENDPOINT" in first_error(access(objects, f"http://127.0.0.1:{free_port()}"), bucket)


def test_a_head_that_is_refused_is_not_absence(objects: S3Server, bucket: str, tmp_path: Path) -> None:
    store = S3Store(S3Place(access(objects, objects.url, secret="wrong-secret"), bucket), tmp_path)
    for act in (store.exists, store.size, store.open, store.read, store.delete):
        with pytest.raises(StoreError, match=r"denied|AWS_SECRET_KEY"):
            act("manifests/1")


class _Careless(http.server.BaseHTTPRequestHandler):
    """An object store that takes everything."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def test_a_store_without_conditional_writes_is_refused(objects: S3Server, tmp_path: Path) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Careless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        store = S3Store(S3Place(access(objects, f"http://127.0.0.1:{server.server_port}"), "bucket"), tmp_path)
        with pytest.raises(FatalError, match="conditional"):
            store.create("runs/r/open.json", b"{}")
        server.shutdown()


def test_without_the_client_the_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "boto3.session", None)
    with pytest.raises(DriverMissingError, match=r"jivs\[s3\]"):
        S3Store(S3Place(S3Access(), "bucket"), tmp_path).exists("x")


def test_without_credentials_it_says_which_settings_give_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY"):
        S3Store(S3Place(S3Access(), "bucket"), tmp_path).exists("x")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"STORAGE_PROVIDER": "s3"}, "AWS_S3_BUCKET"),
        ({"STORAGE_PROVIDER": "s3", "AWS_S3_BUCKET": "a/b"}, "AWS_S3_BUCKET"),
        ({"STORAGE_PROVIDER": "s3", "AWS_S3_BUCKET": "bucket", "JIVS_S3_PREFIX": "a/../b"}, "JIVS_S3_PREFIX"),
        ({"STORAGE_PROVIDER": "s3", "AWS_S3_BUCKET": "bucket", "AWS_ACCESS_KEY": "k"}, "AWS_SECRET_KEY"),
        ({"STORAGE_PROVIDER": "s3", "AWS_S3_BUCKET": "bucket", "AWS_SECRET_KEY": "secret"}, "AWS_ACCESS_KEY"),
    ],
)
def test_settings_that_cannot_work_together_are_named(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], named: str
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=named) as caught:
        bootstrap.build_service(Settings())
    assert "secret" not in caught.value.message


@pytest.mark.parametrize("endpoint", ["https://key:hidden@host", "host:9000", "https://host/path", "ftp://host"])
def test_an_endpoint_is_a_host_without_keys(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("JIVS_S3_ENDPOINT", endpoint)
    with pytest.raises(SettingsError, match="JIVS_S3_ENDPOINT") as caught:
        load()
    assert "hidden" not in caught.value.message


@pytest.mark.parametrize(
    "address",
    ["s3://", "s3://b", "s3://key:pass@bucket/x", "s3://bucket//x", "s3://bucket/../x", "s3://bucket/x?a=b", "s3:///x"],
)
def test_addresses_that_are_none_are_refused_without_repeating_them(address: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix") as caught:
        bootstrap.build(Settings()).store(address)
    assert "pass" not in caught.value.message


def test_half_a_pair_of_keys_harms_no_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY", "k")
    app = bootstrap.build(Settings())
    assert list(app.store(str(tmp_path)).list()) == []
    with pytest.raises(SettingsError, match="AWS_SECRET_KEY"):
        app.store("s3://bucket/x")
