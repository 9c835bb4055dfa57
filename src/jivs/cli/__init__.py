"""The command line: one file per verb, all over the same operations."""
