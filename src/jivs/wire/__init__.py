"""Between bytes and Arrow arrays: the row hash of the published format."""
