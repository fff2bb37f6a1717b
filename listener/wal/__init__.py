"""The WAL as the source of events: a session that reads a replication slot (SOURCE=wal; docs/wal.md)."""
