"""The use cases, one per file. They know ports, the archive and the transfer; never an adapter."""
