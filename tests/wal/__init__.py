"""SOURCE=wal on PostgreSQL servers of the tests' own."""
