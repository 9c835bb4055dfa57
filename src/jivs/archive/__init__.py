"""The archive: an open folder of Parquet, JSON and checksums (``docs/archive-format.md``)."""
