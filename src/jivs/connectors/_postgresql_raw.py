"""Tables of PostgreSQL with bytes that the server cannot convert to UTF-8: read as bytes, decoded here.

A database in WIN1252 may hold 0x81, one in EUC_JP characters that Unicode maps have no place for. One such value makes the
server refuse the whole statement, so the text of such a table is fetched as the bytes that are stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from jivs.connectors._postgresql_types import Rule, unhex
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import Kind
from jivs.ports.connector import Chunk

CODECS = {
    "WIN1250": "cp1250", "WIN1251": "cp1251", "WIN1252": "cp1252", "WIN1253": "cp1253", "WIN1254": "cp1254",
    "WIN1255": "cp1255", "WIN1256": "cp1256", "WIN1257": "cp1257", "WIN1258": "cp1258", "WIN866": "cp866", "WIN874": "cp874",
    "LATIN1": "iso8859-1", "LATIN2": "iso8859-2", "LATIN3": "iso8859-3", "LATIN4": "iso8859-4", "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10", "LATIN7": "iso8859-13", "LATIN8": "iso8859-14", "LATIN9": "iso8859-15", "LATIN10": "iso8859-16",
    "ISO_8859_5": "iso8859-5", "ISO_8859_6": "iso8859-6", "ISO_8859_7": "iso8859-7", "ISO_8859_8": "iso8859-8",
    "KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_JP": "euc_jp", "EUC_JIS_2004": "euc_jis_2004", "EUC_KR": "euc_kr",
    "EUC_CN": "gb2312",
}  # fmt: skip
"""Encodings of PostgreSQL (manual, table "PostgreSQL Character Sets") and Python's codecs for them."""

NOTE = (
    "holds text that the server cannot convert from {} to UTF-8: decoded and hashed by this process, from the stored bytes"
)


def rules(known: Sequence[Rule], encoding: str) -> list[Rule]:
    """The same rules, with text fetched as its stored bytes."""
    stored = f"encode(convert_to(concat({{c}}),'{encoding}'),'hex')"
    select = f"case when {{c}} is not distinct from null then null else {stored} end"
    return [
        replace(rule, select=select, read=pa.binary(), decode=unhex) if rule.archive.kind is Kind.TEXT else rule
        for rule in known
    ]


def decoded(chunk: Chunk, known: Sequence[Rule], encoding: str) -> Chunk:
    """Text from bytes. What does not decode, or not to the same bytes again, goes to quarantine."""
    codec = CODECS[encoding]
    arrays = list(chunk.batch.columns)
    poison = list(chunk.values)
    for index, rule in enumerate(known):
        if rule.archive.kind is not Kind.TEXT:
            continue
        texts: list[str | None] = []
        for row, raw in enumerate(arrays[index].to_pylist()):
            text = None if raw is None else _text(raw, codec)
            texts.append(text)
            if raw is not None and text is None:
                reason = f"not valid in {encoding}"
                poison.append(QuarantinedValue(row=row, column=index, original=raw, canonical=raw, reason=reason))
        arrays[index] = pa.array(texts, pa.string())
    return Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=chunk.batch.schema.names), values=tuple(poison))


def _text(raw: bytes, codec: str) -> str | None:
    try:
        text = raw.decode(codec)
        return text if text.encode(codec) == raw else None
    except UnicodeError:
        return None
