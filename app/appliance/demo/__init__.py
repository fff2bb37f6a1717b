"""The demo: a made-up match in the embedded PostgreSQL."""
