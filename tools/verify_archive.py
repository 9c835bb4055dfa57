"""Verify a JiVS archive without JiVS: python verify_archive.py ARCHIVE [--level files|count|full] [--expect SHA256]

Written from docs/archive-format.md and docs/verification.md alone, with pyarrow and the standard library, so that the
proof does not depend on the program that made the archive. Exit code 0: sound; 3: damaged; 2: not an archive.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

SPECIAL = {"infinity": "inf", "-infinity": "-inf"}
NAN = 0x7FF8000000000000


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_of(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield manifest["readme"]
    for table in manifest["tables"]:
        yield from (*table["segments"], *table["quarantine"], *([table["schema_file"]] if table["schema_file"] else []))


def check_files(root: Path, expect: str) -> tuple[dict[str, Any], list[str]]:
    """The newest manifest and what is wrong with the chain and the files."""
    problems: list[str] = []
    paths = sorted((root / "manifests").glob("*.json"))
    if not paths:
        sys.exit(print(f"{root} is not a JiVS archive: it has no manifests") or 2)
    chain = []
    for path in paths:
        try:
            chain.append((path, json.loads(path.read_bytes()), sha256(path)))
            list(files_of(chain[-1][1]))
        except (ValueError, KeyError, TypeError):
            problems.append(f"{path.name}: not a manifest")
            chain = [item for item in chain if item[0] != path]
    if not chain:
        sys.exit(print("\n".join(problems)) or 3)
    if chain[-1][1]["format_version"] != 1:
        sys.exit(print(f"{root} has a newer format") or 2)
    if expect and chain[-1][2] != expect.lower():
        problems.append(f"{chain[-1][0].name}: its SHA-256 is {chain[-1][2]}, not the expected one")
    if (json.dumps(chain[-1][1], sort_keys=True, ensure_ascii=False, separators=(",", ":")) + "\n").encode() != chain[-1][
        0
    ].read_bytes():
        problems.append(f"{chain[-1][0].name}: not canonical: edited")
    for index, (path, manifest, _) in enumerate(chain):
        previous = chain[index - 1][2] if index else ""
        if manifest["number"] != index + 1 or manifest["previous"] != previous or path.name != f"{index + 1:08d}.json":
            problems.append(f"{path.name}: the chain is broken here")
    listed: dict[str, dict[str, Any]] = {}
    for _, manifest, _ in chain:
        for file in files_of(manifest):
            if listed.setdefault(file["path"], file)["sha256"] != file["sha256"]:
                problems.append(f"{file['path']}: two manifests disagree")
    for name, file in listed.items():
        path = root / name
        if ".." in Path(name).parts or Path(name).is_absolute():
            problems.append(f"{name}: leaves the archive")
        elif not path.is_file():
            problems.append(f"{name}: missing")
        elif path.stat().st_size != file["bytes"] or sha256(path) != file["sha256"]:
            problems.append(f"{name}: changed")
    lines = {file["path"]: file["sha256"] for file in files_of(chain[-1][1])} | {
        f"manifests/{path.name}": digest for path, _, digest in chain
    }
    sums = root / "manifests" / f"{chain[-1][0].stem}.sha256"
    if sums.is_file() and sums.read_text() != "".join(f"{lines[name]}  {name}\n" for name in sorted(lines)):
        problems.append(f"{sums.name}: does not list what the manifest lists")
    claimed = {path.parent.name for path in (root / "runs").glob("*/open.json")} | {m["run_id"] for _, m, _ in chain}
    for folder in ("data", "quarantine", "schema"):
        for path in (root / folder).rglob("*"):
            name = path.relative_to(root).as_posix()
            if path.is_file() and name not in listed and run_of(path) not in claimed:
                problems.append(f"{name}: no manifest lists it")
    for table in chain[-1][1]["tables"]:
        totals, source = table["totals"], table["verification"]["source_rows"]
        rows = sum(segment["rows"] for segment in table["segments"]) + totals["zero_column_rows"]
        if rows != totals["rows"] or (source >= 0 and source != rows + totals["rows_quarantined"]):
            problems.append(f"{table['schema']}.{table['name']}: its totals do not add up")
    return chain[-1][1], problems


def run_of(path: Path) -> str:
    try:
        if path.suffix == ".json":
            return str(json.loads(path.read_bytes())["run"])
        return (pq.read_metadata(path).metadata or {}).get(b"jivs.run", b"").decode()
    except (ValueError, KeyError, TypeError, OSError, pa.ArrowException):
        return ""


def text_of(value: Any, kind: str) -> bytes:
    """Canonical text of one value in plain form (see ``plain``)."""
    if kind == "text":
        return str(value).encode()
    if kind in {"binary", "uuid"}:
        return bytes(value).hex().encode()
    if kind == "bool":
        return b"1" if value else b"0"
    if kind in {"float", "double"}:
        return str(NAN if value != value else struct.unpack("<q", struct.pack("<d", value))[0]).encode()
    if kind.startswith("decimal"):
        return format(value, "f").encode()
    if kind in {"interval", "timetz"}:
        return "/".join(str(part) for part in value.values()).encode()
    return str(value).encode()


def plain(array: pa.Array, kind: str) -> list[Any]:
    """Python values of a column; dates and times as their integers."""
    if kind == "date":
        array = array.view(pa.int32())
    elif kind == "time" or kind.startswith("timestamp"):
        array = array.view(pa.int64())
    elif kind == "uuid" and isinstance(array, pa.ExtensionArray):
        array = array.storage
    values: list[Any] = array.to_pylist()
    return values


def check_segment(root: Path, table: dict[str, Any], segment: dict[str, Any], cells: dict[Any, bytes]) -> int:
    """The fingerprint of a segment: the sum of its rows' hashes modulo 2^64."""
    total = row = 0
    for batch in pq.ParquetFile(root / segment["path"]).iter_batches(batch_size=8192):
        columns = []
        for column in table["columns"]:
            texts = [
                None if value is None else text_of(value, column["type"])
                for value in plain(batch.column(column["field"]), column["type"])
            ]
            if column.get("companion") in batch.schema.names:
                for index, value in enumerate(batch.column(column["companion"]).to_pylist()):
                    texts[index] = texts[index] if value is None else SPECIAL.get(value, value).encode()
            columns.append(texts)
        for index in range(batch.num_rows):
            text = b""
            for position, texts in enumerate(columns):
                value = cells.get((segment["sha256"], row, table["columns"][position]["name"]), texts[index])
                if value is None:
                    text += b"N"
                elif len(value) > 1024:
                    text += b"%d:md5:%s" % (len(value), hashlib.md5(value).hexdigest().encode())
                else:
                    text += b"%d:%s" % (len(value), value)
            total += int(hashlib.md5(text).hexdigest()[-15:], 16)
            row += 1
    return total % (1 << 64)


def check_rows(root: Path, manifest: dict[str, Any], level: str) -> list[str]:
    problems = []
    for table in manifest["tables"]:
        cells: dict[Any, bytes] = {}
        for file in table["quarantine"]:
            for entry in pq.read_table(root / file["path"]).to_pylist():
                if entry["column"] is not None:
                    cells[entry["segment"], entry["row"], entry["column"]] = entry["canonical"]
        for segment in table["segments"]:
            if pq.read_metadata(root / segment["path"]).num_rows != segment["rows"]:
                problems.append(f"{segment['path']}: another number of rows")
            elif level == "full" and "fingerprint" not in segment:
                print(f"not checked: {segment['path']} has no fingerprint")
            elif level == "full" and table["columns"]:
                found = check_segment(root, table, segment, cells)
                if f"{found:016x}" != segment["fingerprint"]:
                    problems.append(f"{segment['path']}: fingerprint {found:016x}, not {segment['fingerprint']}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="Verify a JiVS archive without JiVS.")
    parser.add_argument("archive", type=Path)
    parser.add_argument("--level", choices=("files", "count", "full"), default="files")
    parser.add_argument("--expect", default="", help="SHA-256 of the newest manifest, noted when it was published")
    given = parser.parse_args()
    manifest, problems = check_files(given.archive, given.expect)
    if given.level != "files" and not problems:
        problems = check_rows(given.archive, manifest, given.level)
    print("\n".join(problems) or f"sound at level {given.level}: manifest {manifest['number']}")
    return 3 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
