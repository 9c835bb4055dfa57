"""Doorbells: one file per technology."""
