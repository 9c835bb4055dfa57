"""Sources that are files somebody prepared: links that lead out, and content that is much more than it seems."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs.connectors._file_place import Place
from jivs.errors import ForbiddenError, UsageError
from jivs.testing.service import ServiceProcess

CANARY = "c4n4ry-of-another-folder"
MEMORY = 192 << 20
SECONDS = 240
ENDED = {"COMPLETED", "INCOMPLETE", "FAILED"}


def compressed(path: Path, megabytes: int, line: bytes) -> None:
    """A file that unpacks to so many megabytes."""
    block = (line * ((1 << 20) // len(line) + 1))[: 1 << 20]
    if path.suffix == ".bz2":
        path.write_bytes(bz2.compress(block * 8) * (megabytes // 8))
    elif path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            for _ in range(megabytes):
                stream.write(block)
    else:
        path.write_bytes(gzip.compress(block * 16, 6) * (megabytes // 16))


def absurd_parquet(path: Path) -> None:
    """Its footer promises more rows than there are bytes in the world."""
    pq.write_table(pa.table({"a": [7] * 1000}), path)
    raw = bytearray(path.read_bytes())
    size = int.from_bytes(raw[-8:-4], "little")
    footer = raw[-8 - size : -8]
    raw[-8 - size : -8] = footer.replace(bytes([0xD0, 0x0F]), bytes([0xFE, 0x7F]))  # 1000 as a varint, zigzag
    path.write_bytes(raw)


def bombs(folder: Path) -> dict[str, str]:
    """Path of each below the folder, and what has to become of a run that reads it: a state, or '' for any end."""
    compressed(folder / "zeros.csv.gz", 1024, b"\0")
    compressed(folder / "line.csv.gz", 1024, b"a")
    compressed(folder / "line.csv.zst", 1024, b"a,")
    compressed(folder / "line.csv.bz2", 256, b"a")
    compressed(folder / "quote.csv.gz", 512, b'"a\n')
    compressed(folder / "line.jsonl.gz", 1024, b'{"a":')
    (folder / "layers.csv.gz").write_bytes(gzip.compress(gzip.compress(b"a\n" * (8 << 20))))
    (folder / "deep.jsonl").write_bytes(b"[" * 4_000_000 + b"\n" + b'{"a":' * 900_000 + b"\n" + b'{"a": 1}\n')
    (folder / "keys.jsonl").write_text(json.dumps({f"k{number}": 1 for number in range(200_000)}) + "\n")
    (folder / "new-keys.jsonl").write_text("".join(f'{{"k{number}": 1}}\n' for number in range(20_000)))
    pq.write_table(pa.table({f"c{number}": [1] for number in range(10_001)}), folder / "wide.parquet")
    (folder / "columns.csv").write_text(",".join(f"c{number}" for number in range(200_000)) + "\n1\n")
    (folder / "broken.csv.gz").write_bytes(gzip.compress(os.urandom(1 << 20))[: 1 << 19])
    (folder / "noparquet.parquet").write_bytes(b"PAR1" + b"\xff" * 2000 + b"\xff\xff\xff\x7fPAR1")
    absurd_parquet(folder / "absurd.parquet")
    with zipfile.ZipFile(folder / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("xl/workbook.xml", b"\0" * (64 << 20))
    return {
        "zeros.csv.gz": "FAILED", "line.csv.gz": "FAILED", "line.csv.zst": "FAILED", "line.csv.bz2": "FAILED", "quote.csv.gz": "", "line.jsonl.gz": "FAILED",
        "layers.csv.gz": "", "deep.jsonl": "", "keys.jsonl": "FAILED", "new-keys.jsonl": "FAILED", "columns.csv": "FAILED", "wide.parquet": "FAILED", "broken.csv.gz": "", "noparquet.parquet": "FAILED",
        "absurd.parquet": "", "bomb.xlsx": "FAILED",
    }  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """``data`` is allowed; links in it lead out."""
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    (data / "sub" / "a.csv").write_text("id\n1\n")
    (tmp_path / "secret.csv").write_text(f"id\n{CANARY}\n")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "a.csv").write_text(f"id\n{CANARY}\n")
    return data


def processes(number: int) -> Iterator[int]:
    """A process and all below it."""
    yield number
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{number}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))


def most_memory(service: ServiceProcess) -> int:
    """The peak of the largest process."""
    peaks = []
    for number in processes(service.process.pid):
        with suppress(FileNotFoundError, StopIteration, ProcessLookupError):
            status = Path(f"/proc/{number}/status").read_text().splitlines()
            peaks.append(int(next(line for line in status if line.startswith("VmHWM")).split()[1]) << 10)
    return max(peaks)


def run(client: httpx.Client, name: str, database: str) -> dict[str, str]:
    body = {
        "name": name,
        "sourceType": "FILE",
        "connectionConfig": {"database": database},
        "attempts": 1,
        "timeoutSeconds": SECONDS,
    }
    made = client.post("/api/v1/extractions", json=body)
    assert made.status_code == 201, made.text
    place = client.post(f"{made.headers['Location']}/start").headers["Location"]
    end = time.monotonic() + SECONDS
    while (found := client.get(place).json())["state"] not in ENDED:
        assert time.monotonic() < end, (name, found)
        time.sleep(0.1)
    return found


def test_bombs_end_their_run_and_nothing_else(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    expected = bombs(data)
    given = {"JIVS_FILE_ROOTS": str(data), "JIVS_EXTRACTION__MEMORY_LIMIT": str(MEMORY), "EXTRACTION_MAX_PARALLEL_JOBS": "2"}
    with ServiceProcess(tmp_path / "state", **given) as service, service.client() as client:
        for name, state in expected.items():
            found = run(client, name.replace(".", "-"), str(data / name))
            assert found["state"] in ({state} if state else ENDED), (name, found)
            assert found["state"] == "COMPLETED" or found["message"], name
            assert "defect" not in found["message"], (name, found["message"])
            assert most_memory(service) < MEMORY + (160 << 20), name
        assert client.get("/actuator/health").json()["status"] == "UP"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "state"]


def test_links_that_patterns_and_folders_find_lead_nowhere(tmp_path: Path, tree: Path) -> None:
    given = {"JIVS_FILE_ROOTS": str(tree), "EXTRACTION_MAX_PARALLEL_JOBS": "1"}
    with ServiceProcess(tmp_path / "state", **given) as service, service.client() as client:
        assert run(client, "sound", f"{tree}/*/*.csv")["state"] == "COMPLETED"
        (tree / "sub" / "inside.csv").symlink_to(tree / "sub" / "a.csv")
        assert run(client, "inside", f"{tree}/sub/i*.csv")["state"] == "COMPLETED"
        for number, (link, target, source) in enumerate([
            ("sub/out.csv", tmp_path / "secret.csv", "{}/*/*.csv"), ("sub/out.csv", tmp_path / "secret.csv", "{}"),
            ("sub/out.csv", Path("../../secret.csv"), "{}/sub/out.cs[v]"), ("way", tmp_path / "secrets", "{}/*/a.csv"),
            ("way", tmp_path / "secrets", "{}/**/*.csv"), ("sub/chain.csv", tree / "sub" / "first.csv", "{}/**/chain*"),
        ]):  # fmt: skip
            if "chain" in link:
                (tree / "sub" / "first.csv").symlink_to(tmp_path / "secret.csv")
            (tree / link).symlink_to(target)
            found = run(client, f"link {number}", source.format(tree))
            (tree / link).unlink()
            assert (found["state"], "JIVS_FILE_ROOTS" in found["message"]) == ("FAILED", True), (link, source, found)
    for path in (tmp_path / "state").rglob("*"):
        assert not path.is_file() or CANARY.encode() not in path.read_bytes(), path


def test_nobody_is_quick_enough_to_put_a_link_between_looking_and_opening(tmp_path: Path, tree: Path) -> None:
    """Somebody changes a file and a folder of it for links that lead out, and back, all the time."""
    ending = threading.Event()
    file, folder = tree / "swapped.csv", tree / "turned"
    aside = tree / "aside"
    file.write_text("mine")
    folder.mkdir()
    (folder / "a.csv").write_text("mine")

    def swap() -> None:
        while not ending.is_set():
            for place, target in ((file, tmp_path / "secret.csv"), (folder, tmp_path / "secrets")):
                place.rename(aside)
                place.symlink_to(target)
                place.unlink()
                aside.rename(place)

    thread = threading.Thread(target=swap)
    thread.start()
    seen, refused, end = 0, 0, time.monotonic() + 2
    try:
        while time.monotonic() < end:
            for path in (file, folder / "a.csv"):
                try:
                    with Place(path, (str(tree),)).held() as held:
                        assert held.read_text() == "mine"
                    seen += 1
                except (ForbiddenError, FileNotFoundError, NotADirectoryError, UsageError):
                    refused += 1
    finally:
        ending.set()
        thread.join()
    assert seen > 10
    assert refused > 10
