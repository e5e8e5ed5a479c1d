"""Work on what is stored: audit, and later compaction and expiry."""
