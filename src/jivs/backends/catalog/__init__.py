"""The catalog over SQLAlchemy Core: SQLite embedded, other databases by URL later."""
