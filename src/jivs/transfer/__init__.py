"""On the way from source to archive: types made to conform, pace kept, both sides compared."""
