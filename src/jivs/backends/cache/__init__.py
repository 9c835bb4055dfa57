"""Caches: one file per technology."""
