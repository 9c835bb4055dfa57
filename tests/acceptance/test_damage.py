"""Golden archives: every kind of damage is found, by ``jivs verify`` and by the verifier that shares no code with it."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jivs.domain.finding import Severity
from jivs.errors import ArchiveFormatError
from jivs.ports.app import App
from tests import archives
from tests.conftest import Run

GOLDEN = Path(__file__).parent.parent / "golden"
FOUND = {
    "bit-in-page": {"changed"},
    "bit-in-footer": {"changed"},
    "bit-in-quarantine": {"changed"},
    "truncated": {"truncated"},
    "missing": {"missing"},
    "missing-history": {"missing"},
    "extra": {"extra"},
    "swapped": {"changed"},
    "forged-rows": {"checksums-differ"},
    "edited-manifest": {"manifest-forged"},
    "broken-chain": {"chain-broken"},
    "missing-manifest": {"chain-broken"},
    "sums-differ": {"checksums-differ"},
}


def copy(name: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / name, tmp_path / name))


def test_every_kind_has_its_archive() -> None:
    assert {path.name for path in GOLDEN.iterdir() if path.is_dir()} - {"__pycache__"} == {
        *FOUND,
        "sound",
        "forged-manifest",
    }


@pytest.mark.parametrize("level", ["files", "count", "full"])
def test_the_sound_one_is_sound(level: str) -> None:
    found = archives.verdict(GOLDEN / "sound", level)
    assert found.sound
    assert found.findings == ()
    assert archives.independent(GOLDEN / "sound", level) == 0


@pytest.mark.parametrize("level", ["files", "full"])
@pytest.mark.parametrize("name", sorted(FOUND))
def test_damage_is_found_and_named(name: str, level: str) -> None:
    found = archives.verdict(GOLDEN / name, level)
    codes = {finding.code for finding in found.findings if finding.severity is Severity.ERROR}
    assert not found.sound
    assert FOUND[name] <= codes
    assert archives.independent(GOLDEN / name, level) == 3


def test_a_forged_manifest_needs_the_noted_checksum() -> None:
    """Made to fit by somebody who knows the format: a chain has no anchor of its own, and the verdict says so."""
    noted = hashlib.sha256(max((GOLDEN / "sound/manifests").glob("*.json")).read_bytes()).hexdigest()
    without = archives.verdict(GOLDEN / "forged-manifest")
    assert without.sound
    assert any("no anchor" in note for note in without.notes)
    assert not archives.verdict(GOLDEN / "forged-manifest", expect=noted).sound
    assert archives.independent(GOLDEN / "forged-manifest", expect=noted) == 3
    assert archives.verdict(GOLDEN / "sound", expect=noted).sound
    assert archives.independent(GOLDEN / "sound", expect=noted) == 0


def test_sha256sum_verifies_it_and_a_moved_archive_too(tmp_path: Path) -> None:
    moved = copy("sound", tmp_path)
    assert subprocess.run(["sha256sum", "--quiet", "--check", "SHA256SUMS"], cwd=moved, check=False).returncode == 0
    assert archives.verdict(moved).sound


@pytest.mark.parametrize("position", range(0, 100, 4))
def test_one_flipped_bit_anywhere(tmp_path: Path, position: int) -> None:
    """In any listed file, at any depth: found without a traceback."""
    archive = copy("sound", tmp_path)
    listed = sorted(path for path in archive.rglob("*") if path.is_file() and path.name != "SHA256SUMS")
    path = listed[position % len(listed)]
    data = bytearray(path.read_bytes())
    place = (position * 7919) % len(data)
    data[place] ^= 1 << (position % 8)
    path.write_bytes(data)
    try:
        sound = archives.verdict(archive).sound
    except Exception as error:
        assert type(error).__module__ == "jivs.errors", (path, place)
        sound = False
    assert not sound or path.name == "00000001.sha256", (path, place)


def test_a_newer_format_and_no_archive_are_refused(tmp_path: Path) -> None:
    archive = copy("sound", tmp_path)
    path = max((archive / "manifests").glob("*.json"))
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"format_version": 2}))
    with pytest.raises(ArchiveFormatError, match="upgrade JiVS"):
        archives.verdict(archive)
    with pytest.raises(ArchiveFormatError, match="is not a JiVS archive"):
        archives.verdict(tmp_path / "nothing")
    assert archives.independent(tmp_path / "nothing") == 2


def test_a_manifest_cannot_reach_outside(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    archive = copy("sound", tmp_path)
    path = max((archive / "manifests").glob("*.json"))
    manifest = json.loads(path.read_bytes())
    manifest["readme"] = {"path": "../secret", "bytes": 1, "sha256": hashlib.sha256(b"x").hexdigest()}
    path.write_bytes(json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    assert not archives.verdict(archive, "files").sound


INJECTIONS = {
    "swapped values": "select id, case id when 5 then (select v from t where id = 6) when 6 then (select v from t where id = 5)"
                      " else v end v, n, ts from t",
    "time-zone shift": "select id, v, n, ts + interval 1 hour ts from t",
    "truncated text": "select id, v[:5] v, n, ts from t",
    "another scale": "select id, v, (n * 10)::decimal(12,2) n, ts from t",
    "another encoding": "select id, replace(v, 'ä', 'Ã¤') v, n, ts from t",
    "a doubled pair": "select * from t union all select * from t where id in (3, 4)",
    "a lost row": "select * from t where id <> 7",
    "a lost null": "select id, coalesce(v, '') v, n, ts from t",
    "one for another": "select case id when 7 then 8 else id end id, v, n, ts from t",
}  # fmt: skip
COUNTED = {"a doubled pair", "a lost row"}


@pytest.mark.parametrize("name", sorted(INJECTIONS))
def test_whatever_is_bent_on_the_archives_side_is_found(
    pg: str, run: Run, app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """The rows are bent between the reader and the file: level full finds all of it, level count lost and doubled rows."""
    import duckdb
    import psycopg

    from jivs.archive import writer
    from jivs.domain.plan import Level

    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t (id int primary key, v text, n numeric(12,2), ts timestamp)")
        connection.execute(
            "insert into t select g, case when g % 5 > 0 then 'value ä ' || g end, g * 1.25, '2020-01-01'::timestamp"
            " + g * interval '1 hour' from generate_series(1, 40) g"
        )
    flush = writer.SegmentWriter._flush

    def bend(self: writer.SegmentWriter) -> None:
        if self._pending:
            schema = self._open.schema if self._open else None
            assert schema is not None
            t = pa.Table.from_batches(self._pending, schema=schema)
            engine = duckdb.connect()
            engine.register("t", t)
            bent = engine.sql(INJECTIONS[name]).to_arrow_table().cast(schema)
            engine.close()
            self._pending = bent.combine_chunks().to_batches()
            if self._open is not None:
                self._open.rows += bent.num_rows - t.num_rows
        flush(self)

    monkeypatch.setattr(writer.SegmentWriter, "_flush", bend)
    full = run(pg, level=Level.FULL, archive=tmp_path / "full")
    assert not full.complete, "level full did not find it"
    counted = run(pg, level=Level.COUNT, archive=tmp_path / "count")
    assert counted.complete is (name not in COUNTED)


def test_full_names_table_and_segment_when_the_files_were_rewritten_with_their_checksums(tmp_path: Path) -> None:
    """Somebody changed a value and made every checksum fit: the fingerprint still tells."""
    archive = copy("sound", tmp_path)
    path = max((archive / "manifests").glob("*.json"))
    manifest = json.loads(path.read_bytes())
    segment = manifest["tables"][0]["segments"][0]
    rows = pq.read_table(archive / segment["path"])
    bent = rows.set_column(0, rows.schema.field(0), pa.array([value + 1 for value in rows.column(0).to_pylist()]))
    other = archive / "bent.parquet"
    pq.write_table(bent, other)
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    old = segment["path"]
    (archive / old).unlink()
    segment |= {"path": f"{old.rpartition('/')[0]}/{digest}.parquet", "sha256": digest, "bytes": other.stat().st_size}
    other.rename(archive / segment["path"])
    path.write_bytes(json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    path.with_suffix(".sha256").unlink()
    (archive / "SHA256SUMS").unlink()
    found = [finding for finding in archives.verdict(archive).findings if finding.code == "values-differ"]
    assert [finding.object for finding in found] == [segment["path"]]
    assert "golden:a" in found[0].message
