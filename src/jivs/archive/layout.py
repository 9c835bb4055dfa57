"""Where things lie in an archive."""

from __future__ import annotations

import hashlib

from jivs.domain.schema import TableName

README = "README.txt"
SUMS = "SHA256SUMS"
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST = 120


def part(name: str) -> str:
    """A name of a source as one part of a path: no name from a source is ever a path.

    Lower-case letters, digits, ``_`` and ``-`` stay, every other byte becomes ``%XX``. Capitals are written in lower
    case; a name with capitals, or of more than 120 bytes, ends in 8 hex digits of its SHA-256 so that it stays distinct
    where case does not count.
    """
    raw = name.encode(errors="surrogateescape")
    lower = name.lower().encode(errors="surrogateescape")
    text = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in lower)
    if lower != raw or len(text) > _LONGEST or not text:
        digest = hashlib.sha256(raw).hexdigest()[:8]
        kept = text[: _LONGEST - 9]
        kept = kept[: kept.rfind("%")] if "%" in kept[-2:] else kept
        text = f"{kept}-{digest}"
    return text


def table_folder(source: str, name: TableName) -> str:
    """``<source>/<schema>.<table>``, each part escaped; the dot between schema and table is the only one."""
    return f"{part(source)}/{part(name.schema) + '.' if name.schema else ''}{part(name.name)}"


def manifest(number: int) -> str:
    """Path of a manifest."""
    return f"manifests/{number:08d}.json"


def sums(number: int) -> str:
    """Path of the checksums of a manifest's state."""
    return f"manifests/{number:08d}.sha256"


def segment(source: str, name: TableName, sha256: str) -> str:
    """Path of a segment."""
    return f"data/{table_folder(source, name)}/{sha256}.parquet"


def quarantine(source: str, name: TableName, sha256: str) -> str:
    """Path of a quarantine file."""
    return f"quarantine/{table_folder(source, name)}/{sha256}.parquet"


def schema(source: str, name: TableName, sha256: str) -> str:
    """Path of a source's own description of a table."""
    return f"schema/{table_folder(source, name)}/{sha256}.json"


def run_folder(run_id: str) -> str:
    """Folder of a run in progress."""
    return f"runs/{run_id}/"


def run_open(run_id: str) -> str:
    """Path of a run's plan."""
    return f"runs/{run_id}/open.json"


def run_heartbeat(run_id: str) -> str:
    """Path of the sign of life of a run's owner."""
    return f"runs/{run_id}/heartbeat.json"


def run_takeover(run_id: str, number: str) -> str:
    """Path of the record of a takeover (with an empty number: what all their paths begin with)."""
    return f"runs/{run_id}/owner-{number}"


def run_part(run_id: str, partition: str, epoch: int) -> str:
    """Path of the record of a finished partition."""
    return f"runs/{run_id}/{partition}-{epoch}.json"


def run_small(run_id: str, name: str) -> str:
    """Path of the record of several small tables read to their end."""
    return f"runs/{run_id}/small-{name}.json"


def run_table(run_id: str, ordinal: int) -> str:
    """Path of the record of a table read to its end."""
    return f"runs/{run_id}/table-{ordinal:06d}.json"


README_TEXT = """\
This folder is a JiVS archive, format 1: data of one or more source systems as Parquet files, with the proof that it is
complete. Neither JiVS nor any other particular program is needed to read or to verify it.

Is it intact?       sha256sum --check SHA256SUMS
What is in it?      manifests/NNNNNNNN.json, the highest number is the current state: every table with its columns, its
                    files with row counts and SHA-256, and the verification against the source.
Read the data       data/<source>/<schema>.<table>/*.parquet with any reader of Parquet (DuckDB, Spark, pandas, ...).
                    Take the files that the manifest lists: files of earlier states lie beside them.
Not representable   quarantine/... holds values and rows that have no exact form in Parquet, with their original bytes.
The source's words  schema/... holds the tables' definitions as the source gave them.

The manifests form a chain: each holds the SHA-256 of the one before ("previous"). A chain has no anchor of its own: to
prove that the newest manifest is the one once published, compare its SHA-256 with the one that was noted then.

A column named x__text holds, as text, values of column x that exist in the source but exceed the type of x (infinity,
the year 294276, 0000-00-00). Its fingerprints: each row is written as a text (NULL as N, any other value as
<byte length>:<text>, values over 1024 bytes as <byte length>:md5:<MD5>), hashed with MD5, and the last 15 hex digits are
summed modulo 2^64. The full specification: docs/archive-format.md and docs/verification.md of the JiVS project.
"""
